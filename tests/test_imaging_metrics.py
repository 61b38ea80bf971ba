"""PSNR and SSIM against scikit-image on the same arrays."""

import numpy as np
import pytest
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from upres.errors import InputError
from upres.imaging.color import rgb_to_y
from upres.imaging.metrics import Protocol, mod_crop, psnr, ssim


@pytest.fixture
def pair(photo):
    noise = np.random.default_rng(0).normal(0, 6, photo.shape)
    return photo, np.clip(photo + noise, 0, 255).round().astype(np.uint8)


def test_luma_is_matlabs(photo):
    np.testing.assert_allclose(rgb_to_y(photo), rgb2ycbcr(photo)[..., 0], atol=1e-9)


@pytest.mark.parametrize("shave", [0, 4])
def test_psnr_on_y(pair, shave):
    a, b = (rgb2ycbcr(p)[shave : p.shape[0] - shave, shave : p.shape[1] - shave, 0] for p in pair)
    expected = peak_signal_noise_ratio(a, b, data_range=255)
    assert psnr(*pair, Protocol("y", shave)) == pytest.approx(expected, abs=1e-6)


def test_psnr_on_rgb(pair):
    expected = peak_signal_noise_ratio(*pair, data_range=255)
    assert psnr(*pair, Protocol("rgb", 0)) == pytest.approx(expected, abs=1e-6)


def test_ssim_on_y_is_the_mean_over_the_valid_region(pair):
    a, b = (rgb2ycbcr(p)[..., 0] for p in pair)
    _, full = structural_similarity(
        a, b, data_range=255, gaussian_weights=True, sigma=1.5, truncate=3.4,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    assert ssim(*pair, Protocol("y", 0)) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-6)


def test_equal_pictures_are_infinitely_alike(photo):
    protocol = Protocol("y", 4)
    assert psnr(photo, photo, protocol) == float("inf")
    assert ssim(photo, photo, protocol) == pytest.approx(1)


def test_mod_crop_keeps_the_top_left(photo):
    assert mod_crop(photo, 4).shape == (300, 448, 3)
    np.testing.assert_array_equal(mod_crop(photo, 4), photo[:300, :448])


def test_pictures_that_do_not_fit_are_refused(photo):
    with pytest.raises(InputError, match="cannot be compared"):
        psnr(photo, photo[1:], Protocol("y", 0))
    with pytest.raises(InputError, match="gone after shaving"):
        psnr(photo[:8, :8], photo[:8, :8], Protocol("y", 4))
    with pytest.raises(InputError, match="11 x 11"):
        ssim(photo[:18, :18], photo[:18, :18], Protocol("y", 4))
