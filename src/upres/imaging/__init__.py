"""Pixels as numpy arrays: files, colour, resizing, metrics. Knows no torch."""
