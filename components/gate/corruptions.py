"""Five corruptions of images in five severities, in the spirit of CIFAR-10-C, the same for an image in every run.

Kinds and strengths are those of Hendrycks and Dietterich's set for CIFAR-10 (arXiv 1903.12261), computed here from the
test split itself, so that no other data set is needed. The noise of an image is drawn from its content hash: it
depends on neither the order nor the number of images.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from components.data import features

_NOISE_STD = (0.04, 0.06, 0.08, 0.09, 0.10)  # of pixels in [0, 1]
_BLUR_SIGMA = (0.4, 0.6, 0.7, 0.8, 1.0)  # pixels
_BRIGHTER_BY = (0.05, 0.1, 0.15, 0.2, 0.3)  # added to HSV's value
_CONTRAST_KEPT = (0.75, 0.5, 0.4, 0.3, 0.15)  # share of the distance to the channel's mean
_JPEG_QUALITY = (80, 65, 58, 50, 40)
SEVERITIES = (1, 2, 3, 4, 5)
_BLUR_REACH = 4  # a kernel ends at four sigmas, as in scikit-image


def noise(images: np.ndarray, severity: int, hashes: Sequence[bytes]) -> np.ndarray:
    """Gaussian noise on every pixel value; uint8 `[batch, height, width, 3]` -> the same."""
    std = _NOISE_STD[severity - 1]
    drawn = [
        np.random.Generator(np.random.Philox(int(name[:16], 16))).standard_normal(images.shape[1:])
        for name in hashes
    ]
    return _pixels(images / 255 + std * np.array(drawn).reshape(images.shape))


def blur(images: np.ndarray, severity: int, hashes: Sequence[bytes]) -> np.ndarray:
    """A Gaussian blur, borders repeated; uint8 `[batch, height, width, 3]` -> the same."""
    del hashes
    sigma = _BLUR_SIGMA[severity - 1]
    reach = int(_BLUR_REACH * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    blurred = images / 255
    for axis in (1, 2):
        padding = [(0, 0)] * 4
        padding[axis] = (reach, reach)
        padded = np.pad(blurred, padding, mode="edge")
        size = blurred.shape[axis]
        blurred = sum(
            weight * np.take(padded, range(start, start + size), axis) for start, weight in enumerate(weights)
        )
    return _pixels(blurred)


def brightness(images: np.ndarray, severity: int, hashes: Sequence[bytes]) -> np.ndarray:
    """A higher value in HSV, hue and saturation kept; uint8 `[batch, height, width, 3]` -> the same."""
    del hashes
    scaled = images / 255
    value = scaled.max(axis=3, keepdims=True)
    brighter = np.minimum(value + _BRIGHTER_BY[severity - 1], 1)
    # Black has no hue, and becomes grey.
    return _pixels(np.where(value > 0, scaled * brighter / np.where(value > 0, value, 1), brighter))


def contrast(images: np.ndarray, severity: int, hashes: Sequence[bytes]) -> np.ndarray:
    """Less distance from each channel's mean; uint8 `[batch, height, width, 3]` -> the same."""
    del hashes
    scaled = images / 255
    means = scaled.mean(axis=(1, 2), keepdims=True)
    return _pixels((scaled - means) * _CONTRAST_KEPT[severity - 1] + means)


def jpeg(images: np.ndarray, severity: int, hashes: Sequence[bytes]) -> np.ndarray:
    """Compressed and decompressed again; uint8 `[batch, height, width, 3]` -> the same."""
    del hashes
    quality = _JPEG_QUALITY[severity - 1]
    return np.array(
        [tf.io.decode_jpeg(tf.io.encode_jpeg(image, quality=quality)).numpy() for image in images],
        dtype=np.uint8,
    ).reshape(images.shape)


CORRUPTIONS = {"noise": noise, "blur": blur, "brightness": brightness, "contrast": contrast, "jpeg": jpeg}


def corrupt(name: str, images: np.ndarray, severity: int) -> np.ndarray:
    """Applies one corruption.

    Args:
        name: a key of `CORRUPTIONS`.
        images: `[batch, height, width, 3]` uint8.
        severity: 1 to 5.

    Returns:
        `[batch, height, width, 3]` uint8, equal for equal arguments.

    Raises:
        ValueError: an unknown name or severity.
    """
    if name not in CORRUPTIONS or severity not in SEVERITIES:
        raise ValueError(
            f"Expected one of {', '.join(CORRUPTIONS)} and a severity of 1 to 5, received {name!r} and {severity}."
        )
    return CORRUPTIONS[name](images, severity, features.content_hashes(images))


def _pixels(scaled: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
