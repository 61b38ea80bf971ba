"""From a model and pixels to larger pixels: devices, tiles, execution."""
