"""How long work tells whoever watches."""

from collections.abc import Callable

# The name of what arrives or is made, how much of it is done, and how much there is in all: bytes
# of downloads (0 where the total is not known), or pictures.
Progress = Callable[[str, int, int], None]
# The same of one download, whose name the caller knows.
BytesProgress = Callable[[int, int], None]
# How many of all tiles are done; a part of one counts.
TileProgress = Callable[[float, int], None]
# A line for people.
Note = Callable[[str], None]
