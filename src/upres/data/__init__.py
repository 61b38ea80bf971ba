"""Sets of pictures: where they come from, and pairs of patches to learn from. Knows no torch."""
