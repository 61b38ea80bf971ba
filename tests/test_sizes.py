"""Sizes of results, and the steps that lead there: arithmetic alone."""

from itertools import product
from math import prod

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from upres.errors import UsageError
from upres.inference.sizes import LARGEST, Goal, steps_to

SIDES = st.integers(1, 5000)


@given(SIDES, SIDES, st.sampled_from(["width", "height", "long_side"]), st.floats(1.01, LARGEST))
def test_the_side_that_is_asked_for_is_met_and_the_other_follows(width, height, name, factor):
    side = {"width": width, "height": height, "long_side": max(width, height)}[name]
    wanted = int(side * factor)
    assume(side < wanted <= LARGEST * side)
    wide, high = Goal(**{name: wanted}).size(width, height)
    assert {"width": wide, "height": high, "long_side": max(wide, high)}[name] == wanted
    scale = wanted / side
    assert abs(wide - max(1, width * scale)) <= 0.5
    assert abs(high - max(1, height * scale)) <= 0.5


@given(SIDES, SIDES, st.floats(1.01, LARGEST))
def test_megapixels_are_the_area_and_keep_the_shape(width, height, factor):
    goal = Goal(megapixels=width * height * factor**2 / 1e6)
    wide, high = goal.size(width, height)
    assert abs(wide - width * factor) <= 0.5 + 1e-6 * width
    assert abs(high - height * factor) <= 0.5 + 1e-6 * height


@pytest.mark.parametrize(
    ("goal", "why"),
    [
        (Goal(width=10), "--width 10 is 1 times a picture of 10 x 5"),
        (Goal(width=81), "--width 81 is 8.1 times"),
        (Goal(scale=1), "--scale 1 is not a factor over 1"),
        (Goal(width=20, height=20), "--width and --height exclude each other"),
    ],
)
def test_what_would_not_become_larger_or_too_large_is_refused(goal, why):
    with pytest.raises(UsageError, match=why):
        goal.size(10, 5)


@given(st.floats(1.001, LARGEST), st.sets(st.sampled_from([2, 3, 4]), min_size=1))
def test_the_smallest_product_in_the_fewest_steps(factor, available):
    chosen = steps_to(factor, available)
    assert set(chosen) <= available
    assert list(chosen) == sorted(chosen)
    assert prod(chosen) >= factor - 1e-6
    every = [c for n in (1, 2, 3) for c in product(sorted(available), repeat=n)]
    for other in every:
        if prod(other) >= factor - 1e-6:
            assert (prod(chosen), len(chosen)) <= (prod(other), len(other))


def test_without_networks_there_is_no_way():
    with pytest.raises(UsageError, match="no model reaches a factor of 2"):
        steps_to(2, [])
