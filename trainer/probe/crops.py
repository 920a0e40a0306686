"""Crop-and-flip for the probe: the training images' features once more, each time cut and mirrored at random."""

from collections.abc import Callable, Iterable

import keras
import numpy as np

from trainer import representations
from trainer.probe.config import ProbeConfig

# Zeros on each side before the crop, the custom for CIFAR (He et al. 2015, section 4.2).
PADDING = 4


def crop_and_flip(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns each image shifted by up to PADDING pixels along both axes and mirrored with probability 1/2.

    Args:
        images: [n, height, width, channels] uint8.
        rng: decides every shift and flip.

    Returns:
        As `images`; what lies outside of them is 0.
    """
    count, height, width = images.shape[:3]
    padded = np.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))
    top, left = rng.integers(0, 2 * PADDING + 1, (2, count, 1))
    rows, columns = top + np.arange(height), left + np.arange(width)  # [n, height], [n, width]
    columns = np.where(rng.random((count, 1)) < 0.5, columns[:, ::-1], columns)
    return padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def cropped_features(
    encoder: keras.Model, batches: Callable[[], Iterable[np.ndarray]], config: ProbeConfig
) -> tuple[np.ndarray, ...]:
    """Returns `config.crops` times the features [n, d] float32 of images cropped anew, decided by `config.seed`.

    Args:
        encoder: the frozen encoder.
        batches: gives all training images in order, [size, height, width, 3] uint8 each; called once a crop.
        config: the settings.
    """
    return tuple(_features(encoder, batches(), (config.seed, crop)) for crop in range(config.crops))


def _features(encoder: keras.Model, batches: Iterable[np.ndarray], seed: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([representations.embed(encoder, crop_and_flip(b, rng)) for b in batches])
