"""How long work tells whoever watches."""

from collections.abc import Callable

# What is done, such as "decoding", how many pictures are, and how many there are in all.
Progress = Callable[[str, int, int], None]
# What is done, such as "downloading DIV2K_train_HR.zip", how many bytes are, and how many there are
# in all; 0 where that is not known.
Transfer = Callable[[str, int, int], None]
# The same of one download, whose name the caller knows.
BytesProgress = Callable[[int, int], None]
# How many of all tiles are done; a part of one counts.
TileProgress = Callable[[float, int], None]
# A line for people.
Note = Callable[[str], None]


def downloading(transfer: Transfer) -> Transfer:
    """The same, told the name of what arrives."""
    return lambda name, done, total: transfer(f"downloading {name}", done, total)
