import hashlib

import numpy as np
import pytest

from components.data import features


def _constant(red, green, blue):
    return np.broadcast_to(np.array([red, green, blue], np.uint8), (1, 32, 32, 3)).copy()


def test_figures_agree_with_float64_arithmetic_on_each_pixel():
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    figures = features.image_figures(images)
    for row, image in enumerate(images.astype(np.float64) / 255):
        luma = 0.299 * image[..., 0] + 0.587 * image[..., 1] + 0.114 * image[..., 2]
        expected = {
            features.BRIGHTNESS: luma.mean(),
            features.CONTRAST: luma.std(),
            features.MEAN_RED: image[..., 0].mean(),
            features.MEAN_GREEN: image[..., 1].mean(),
            features.MEAN_BLUE: image[..., 2].mean(),
            features.SATURATED_SHARE: np.isin(images[row], [0, 255]).mean(),
        }
        for key, value in expected.items():
            assert figures[key].dtype == np.float32
            assert figures[key][row] == pytest.approx(value, abs=2e-6), key


@pytest.mark.parametrize(
    ("colour", "brightness", "saturated"),
    [((255, 255, 255), 1.0, 1.0), ((0, 0, 0), 0.0, 1.0), ((255, 10, 0), 0.299 + 0.587 * 10 / 255, 2 / 3)],
)
def test_figures_of_one_colour(colour, brightness, saturated):
    figures = features.image_figures(_constant(*colour))
    assert figures[features.BRIGHTNESS][0] == pytest.approx(brightness, abs=1e-6)
    assert figures[features.CONTRAST][0] == pytest.approx(0, abs=1e-6)
    assert figures[features.SATURATED_SHARE][0] == pytest.approx(saturated)


def test_figures_stay_in_their_domain_at_the_extremes():
    half = _constant(255, 255, 255)
    half[:, :16] = 0
    for images in (_constant(255, 255, 255), _constant(0, 0, 0), half):
        figures = features.image_figures(images)
        assert 0 <= figures[features.BRIGHTNESS][0] <= 1
        assert 0 <= figures[features.CONTRAST][0] <= 0.5
    assert features.image_figures(half)[features.CONTRAST][0] == pytest.approx(0.5, abs=1e-6)


def test_content_hash_is_blake2b_of_the_pixels():
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    assert features.content_hashes(images) == [
        hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest().encode() for image in images
    ]


def test_content_hash_of_a_view_is_that_of_its_pixels():
    planes = np.random.default_rng(1).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    view = planes.transpose(0, 2, 3, 1)
    assert features.content_hashes(view) == features.content_hashes(np.ascontiguousarray(view))


def test_holdout_is_a_tenth_and_both_forms_agree():
    hashes = [
        hashlib.blake2b(bytes([i % 256, i // 256]), digest_size=16).hexdigest().encode() for i in range(5000)
    ]
    mask = features.holdout_mask(hashes)
    assert mask.tolist() == [features.is_holdout(name) for name in hashes]
    assert mask.tolist() == features.holdout_mask(np.array(hashes, dtype=object)).tolist()
    assert 0.08 < mask.mean() < 0.12
    assert features.holdout_mask([]).shape == (0,)


def test_holdout_follows_its_formula():
    assert features.is_holdout(b"0000000a" + b"f" * 24)
    assert not features.is_holdout("0000000b" + "0" * 24)
    assert features.is_holdout(b"fffffffa" + b"0" * 24) == (0xFFFFFFFA % 10 == 0)


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"received b'abc'"):
        features.is_holdout(b"abc")
    with pytest.raises(ValueError, match="3 characters"):
        features.holdout_mask([b"abc"])
    with pytest.raises(ValueError, match=r"received float32 \[1, 32, 32, 3\]"):
        features.image_figures(np.zeros((1, 32, 32, 3), np.float32))
    with pytest.raises(ValueError, match=r"received uint8 \[1, 3, 32, 32\]"):
        features.content_hashes(np.zeros((1, 3, 32, 32), np.uint8))
