"""The downscaler is MATLAB's, bit for bit; everything measured here rests on it."""

import hashlib
import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage import data

from upres.imaging.metrics import mod_crop
from upres.imaging.resize import Resampler, imresize

# Made by an independent implementation that reproduces the official Set5 x2 files bit for bit.
GOLDEN = {
    ("astronaut", 2): "86e24d8e2e582de831fd6d67f238586d6ee8b6fcea4b52df99cac23131f3a606",
    ("astronaut", 3): "779d988f4eb5bb0e06b312ce96ddc81a4458cb7e2dade586968f6c5cf410a6dd",
    ("astronaut", 4): "53ca505a86fd24fa38e922ad4427a2106d12646194c306f0b379f234e78e1763",
    ("chelsea", 2): "32c3dc5866375fcc9785942e3420c5dc6ea9e93598e7e5c9c4c0dcc9b9cf5435",
    ("chelsea", 3): "2ed826137e6071ecf9ddfc9ad0970bc6787f994ebdd18f8e5347d9cc71387d70",
    ("chelsea", 4): "6b81de91ea08eef27340b874b3537ea66034a3b7a13944fcc92553e674477769",
    ("coffee", 2): "2356f976210326d9da0084e51ae5eef686960868631bf2ff18b0d4e8e7d4a8d0",
    ("coffee", 3): "53ca2f76eb81d545963e4dda49710c2bfebfbf0d620b47a83f2ed79811f92af3",
    ("coffee", 4): "5c42e9762536e70034d6aac632d789664d63b4d080db53ac6a3a8913dee849ae",
}


@pytest.mark.parametrize(("name", "scale"), GOLDEN)
def test_shrinks_photographs_bit_for_bit_like_matlab(name, scale):
    picture = mod_crop(getattr(data, name)()[..., :3], scale)
    small = np.ascontiguousarray(imresize(picture, 1 / scale))
    assert hashlib.sha256(small.tobytes()).hexdigest() == GOLDEN[name, scale]


def _keys(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0


def _lanczos(x: float) -> float:
    if x == 0:
        return 1.0
    a = math.pi * x
    return 3 * math.sin(a) * math.sin(a / 3) / a**2 if abs(x) < 3 else 0.0


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(("kernel", "function"), [("bicubic", _keys), ("lanczos", _lanczos)])
def test_enlarging_follows_the_kernels_formula(scale, kernel, function):
    """One dimension, sample by sample, borders mirrored."""
    line = np.random.default_rng(scale).random(17)
    mirrored = np.concatenate([line[::-1], line, line[::-1]])
    expected = []
    for i in range(17 * scale):
        centre = (i + 0.5) / scale - 0.5
        weights = [function(centre - k) for k in range(-17, 34)]
        expected.append(np.dot(weights, mirrored) / sum(weights))
    got = imresize(np.tile(line, (3, 1)), scale, kernel)[0]
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_shrinking_agrees_with_opencvs_area_mean_on_smooth_pictures():
    y, x = np.mgrid[0:96, 0:120] / 40
    smooth = (np.sin(x) * np.cos(y)).astype(np.float64)
    expected = cv2.resize(smooth, (30, 24), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(imresize(smooth, 0.25)[2:-2, 2:-2], expected[2:-2, 2:-2], atol=2e-3)


@given(st.integers(1, 40), st.integers(1, 90), st.data())
def test_any_range_of_outputs_comes_from_the_inputs_it_asks_for(length, target, draw):
    sampler = Resampler(length, target)
    start = draw.draw(st.integers(0, target - 1))
    stop = draw.draw(st.integers(start + 1, target))
    values = np.random.default_rng(length).random(length)
    low, high = sampler.needs(start, stop)
    part = sampler.apply(values[low:high], 0, start, stop, offset=low)
    np.testing.assert_array_equal(part, sampler.apply(values, 0)[start:stop])


@given(st.integers(1, 30), st.integers(1, 60), st.sampled_from(["bicubic", "lanczos"]))
def test_a_constant_stays_that_constant(length, target, kernel):
    got = Resampler(length, target, kernel).apply(np.full(length, 0.25), 0)
    np.testing.assert_allclose(got, 0.25, atol=1e-12)
