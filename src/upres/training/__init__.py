"""From a folder of pictures to a file of weights."""
