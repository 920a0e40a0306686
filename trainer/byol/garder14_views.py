"""The views of garder14/byol-tensorflow2 (augmentation.py) as batched tensor ops, for its recipe to run as published.

Nothing else uses them; BYOL's own are `trainer/byol/augmentations.py`.
"""

import numpy as np
from keras import ops

from trainer.byol.config import ViewConfig

# Its crop: the longer side is 13 to 32 pixels, the shorter one 0.67 to 1 of it.
SMALLEST_SIDE, LARGEST_SIDE, SMALLEST_SHARE = 13, 32, 0.67
# Of tf.image.rgb_to_grayscale.
_LUMA = np.array([0.2989, 0.587, 0.114], np.float32)
# Column of each random number in `draws`; uniform in [0, 1).
_SIDE, _SHARE, _UPRIGHT, _TOP, _LEFT, _FLIP, _JITTER, _BRIGHTNESS, _CONTRAST, _SATURATION, _HUE, _GREY = (
    range(12)
)


def make_view(images, draws, config: ViewConfig):
    """Returns one augmented view of each image: crop, flip, resize, then colours.

    Args:
        images: [batch, 32, 32, 3] float32 in [0, 1].
        draws: [batch, 12 or more] float32 in [0, 1).
        config: probabilities and largest changes.

    Returns:
        [batch, config.size, config.size, 3] float32 in [0, 1].

    Raises:
        ValueError: for images of another size.
    """
    view = _resample(images, draws, config)
    jittered = ops.clip(_jitter(view, draws, config), 0.0, 1.0)
    view = ops.where(draws[:, _JITTER, None, None, None] < config.jitter, jittered, view)
    grey = ops.sum(view * _LUMA, axis=-1, keepdims=True)
    return ops.where(draws[:, _GREY, None, None, None] < config.grey, grey, view)


def crop_boxes(draws):
    """Returns top, left, height, width of the crops, each [batch] float32 of whole pixels of a 32x32 image."""
    longer = ops.floor(SMALLEST_SIDE + (LARGEST_SIDE + 1 - SMALLEST_SIDE) * draws[:, _SIDE])
    shorter = ops.floor(longer * (SMALLEST_SHARE + (1.0 - SMALLEST_SHARE) * draws[:, _SHARE]))
    lying = draws[:, _UPRIGHT] < 0.5
    height, width = ops.where(lying, shorter, longer), ops.where(lying, longer, shorter)
    top = ops.floor(draws[:, _TOP] * (LARGEST_SIDE + 1 - height))
    left = ops.floor(draws[:, _LEFT] * (LARGEST_SIDE + 1 - width))
    return top, left, height, width


def _resample(images, draws, config: ViewConfig):
    """[b, 32, 32, 3] -> [b, size, size, 3]."""
    if tuple(images.shape[1:3]) != (LARGEST_SIDE, LARGEST_SIDE):
        raise ValueError(
            f"Views of the kind garder14 are crops of 32x32 images; received {images.shape[1]}x{images.shape[2]}. "
            "Give pretraining.view_1.kind=byol and pretraining.view_2.kind=byol."
        )
    top, left, height, width = crop_boxes(draws)
    rows = _bilinear_matrix(top, height, config.size)
    columns = _bilinear_matrix(left, width, config.size)
    flipped = draws[:, _FLIP, None, None] < config.flip
    columns = ops.where(flipped, ops.flip(columns, axis=1), columns)
    return ops.einsum("bij,bjkc,blk->bilc", rows, images, columns)


def _bilinear_matrix(start, length, out_size: int):
    """[batch, out_size, 32]: tf.image.resize of a crop without antialias; its edge pixels go on outside of it."""
    centers = (ops.arange(out_size, dtype="float32") + 0.5) * (length[:, None] / out_size) - 0.5
    centers = start[:, None] + ops.clip(centers, 0.0, length[:, None] - 1.0)
    distance = ops.abs(centers[:, :, None] - ops.arange(LARGEST_SIDE, dtype="float32"))
    return ops.maximum(1.0 - distance, 0.0)


def _jitter(view, draws, config: ViewConfig):
    """tf.image's random_brightness, _contrast, _saturation and _hue, one after the other and without clipping."""

    def change(column, most):
        return most * (2.0 * draws[:, column, None, None, None] - 1.0)

    view = view + change(_BRIGHTNESS, config.brightness)
    mean = ops.mean(view, axis=(1, 2), keepdims=True)
    view = (view - mean) * (1.0 + change(_CONTRAST, config.contrast)) + mean
    view = _saturated(view, 1.0 + change(_SATURATION, config.saturation))
    return _turned(view, change(_HUE, config.hue))


def _saturated(view, factor):
    """HSV's saturation times `factor`, at most 1. Hue and value stay, so the distance of each channel from the largest
    one changes as the saturation does.
    """
    value = ops.max(view, axis=-1, keepdims=True)
    spread = value - ops.min(view, axis=-1, keepdims=True)
    before = spread / ops.where(value > 0, value, 1.0)
    after = ops.where(value > 0, ops.clip(before * factor, 0.0, 1.0), 0.0)
    return value - (value - view) * after / ops.where(before == 0, 1.0, before)


def _turned(view, turn):
    """HSV's hue moved by `turn`, in turns; the largest and the smallest of the three channels stay as they are."""
    red, green, blue = view[..., 0:1], view[..., 1:2], view[..., 2:3]
    value, least = ops.max(view, axis=-1, keepdims=True), ops.min(view, axis=-1, keepdims=True)
    spread = value - least
    by = ops.where(spread > 0, spread, 1.0)
    sixth = ops.where(
        red == value,
        (green - blue) / by,
        ops.where(green == value, 2.0 + (blue - red) / by, 4.0 + (red - green) / by),
    )
    sixth = ops.mod(sixth + 6.0 * turn, 6.0)
    red = ops.abs(sixth - 3.0) - 1.0
    green, blue = 2.0 - ops.abs(sixth - 2.0), 2.0 - ops.abs(sixth - 4.0)
    return least + spread * ops.clip(ops.concatenate([red, green, blue], axis=-1), 0.0, 1.0)
