"""Corruptions against SciPy, colorsys and Pillow; the same for an image wherever it stands."""

import colorsys
import hashlib
import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from components.data import synthetic
from components.gate import corruptions


@pytest.fixture(scope="module")
def images():
    """Eight textures, one of them black."""
    pixels, _ = synthetic.make_images(8, np.random.default_rng(3))
    pixels[0] = 0
    return pixels


@pytest.mark.parametrize("severity", [1, 5])
def test_blur_is_scipys(images, severity):
    sigma = corruptions._BLUR_SIGMA[severity - 1]
    expected = ndimage.gaussian_filter(images / 255, (0, sigma, sigma, 0), mode="nearest", truncate=4)
    np.testing.assert_array_equal(corruptions.corrupt("blur", images, severity), np.rint(expected * 255))


@pytest.mark.parametrize("severity", [1, 5])
def test_brightness_raises_the_value_in_hsv(images, severity):
    corrupted = corruptions.corrupt("brightness", images, severity)
    added = corruptions._BRIGHTER_BY[severity - 1]
    for row, column in ((0, 0), (5, 17), (31, 31)):
        for before, after in zip(images[:, row, column], corrupted[:, row, column], strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*(before / 255))
            expected = colorsys.hsv_to_rgb(hue, saturation, min(value + added, 1))
            np.testing.assert_allclose(after, np.array(expected) * 255, atol=0.5 + 1e-6)


def test_contrast_keeps_the_mean_and_a_share_of_the_spread(images):
    corrupted = corruptions.corrupt("contrast", images, 3)
    np.testing.assert_allclose(corrupted.mean((1, 2)), images.mean((1, 2)), atol=0.5)
    np.testing.assert_allclose(corrupted.std((1, 2)), 0.4 * images.std((1, 2)), atol=0.5)


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_noise_has_its_standard_deviation(severity):
    grey = np.full((20, 32, 32, 3), 128, np.uint8)
    grey[:, 0, 0, 0] = np.arange(20)  # other images, other noise
    difference = corruptions.corrupt("noise", grey, severity)[:, 1:].astype(float) - 128
    assert difference.std() / 255 == pytest.approx(corruptions._NOISE_STD[severity - 1], rel=0.02)
    assert abs(difference.mean()) < 0.5
    assert not np.array_equal(difference[0], difference[1])


def test_jpeg_is_what_another_library_makes_of_it(images):
    corrupted = corruptions.corrupt("jpeg", images, 3).astype(float)
    for before, after in zip(images, corrupted, strict=True):
        file = io.BytesIO()
        Image.fromarray(before).save(file, "JPEG", quality=58)
        expected = np.asarray(Image.open(file), dtype=float)
        assert np.abs(after - expected).mean() < 2  # two builds of one codec


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_an_image_is_corrupted_alike_whatever_stands_beside_it(images, name):
    together = corruptions.corrupt(name, images, 3)
    order = np.random.default_rng(4).permutation(len(images))
    np.testing.assert_array_equal(corruptions.corrupt(name, images[order], 3), together[order])
    np.testing.assert_array_equal(corruptions.corrupt(name, images[2:3], 3), together[2:3])
    assert together.dtype == np.uint8
    assert not np.array_equal(together[1:], images[1:])


def test_the_noise_is_the_same_on_every_machine():
    """Philox is specified bit by bit: this digest was written down once."""
    image = np.arange(3072, dtype=np.uint32).astype(np.uint8).reshape(1, 32, 32, 3)
    digest = hashlib.sha256(corruptions.corrupt("noise", image, 3).tobytes()).hexdigest()
    assert digest == "4542767f46a3b8fc0b70c5c155bfa3cd637429273d2e34453cb7790342b2697f"


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_a_higher_severity_takes_more_away(images, name):
    distances = [
        np.abs(corruptions.corrupt(name, images, severity).astype(float) - images).mean()
        for severity in corruptions.SEVERITIES
    ]
    assert distances == sorted(distances)


@pytest.mark.parametrize(("name", "severity"), [("fog", 3), ("noise", 0), ("noise", 6)])
def test_what_is_unknown_is_named(images, name, severity):
    with pytest.raises(ValueError, match=f"received '{name}' and {severity}"):
        corruptions.corrupt(name, images, severity)
