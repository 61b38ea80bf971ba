"""Tiles cover a picture exactly once, whatever its size."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from upres.inference.tiling import Grid

SIZES = st.integers(1, 300)


@given(SIZES, SIZES, st.integers(0, 130), st.integers(0, 40))
def test_every_pixel_is_in_one_core_and_every_halo_is_there(height, width, core, halo):
    grid = Grid(height, width, core, halo)
    covered = np.zeros((height, width), int)
    count = 0
    for top, bottom in grid.rows:
        for tile in grid.band(top, bottom):
            count += 1
            covered[tile.top : tile.bottom, tile.left : tile.right] += 1
            y0, x0, y1, x1 = tile.padded
            # The halo is whole, or the picture ends there.
            assert y0 == max(0, tile.top - halo)
            assert x0 == max(0, tile.left - halo)
            assert y1 == min(height, tile.bottom + halo)
            assert x1 == min(width, tile.right + halo)
            if core:
                assert max(tile.bottom - tile.top, tile.right - tile.left) <= core
    assert (covered == 1).all()
    assert count == len(grid)
    if core == 0:
        assert count == 1


@given(SIZES, SIZES, st.integers(1, 130))
def test_tiles_are_few_and_equal_but_for_the_last(height, width, core):
    grid = Grid(height, width, core, 0)
    for length, spans in ((height, grid.rows), (width, grid.columns)):
        *most, last = [b - a for a, b in spans]
        assert len(set(most)) <= 1
        assert all(last <= size for size in most)
        assert len(spans) == -(-length // core)


def test_overhead_counts_the_halos():
    assert Grid(100, 100, 0, 36).overhead == 1
    assert Grid(100, 100, 50, 10).overhead == (60 * 60 * 4) / 100**2
