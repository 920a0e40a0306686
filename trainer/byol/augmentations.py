"""BYOL's view augmentations (paper, appendix B) as batched tensor ops, made for the inside of a compiled step.

Everything before the solarisation is linear: crop, resize, flip and blur act on pixel positions, colour jitter and
grey act on channels. So a view is one small matrix product along each axis and one across the channels, whatever
the number of augmentations. `docs/decisions/0003-augmentations.md` lists where this differs from torchvision.
"""

import math

import keras
import numpy as np
from keras import ops

from trainer.byol import garder14_views
from trainer.byol.config import ViewConfig

# ITU-R 601 luma, as in torchvision and PIL.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_RGB_TO_YIQ = np.array(
    [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]], np.float64
)
_YIQ_TO_RGB = np.linalg.inv(_RGB_TO_YIQ)
# Column of each random number in `draws`; uniform in [0, 1).
_AREA, _RATIO, _TOP, _LEFT, _FLIP, _JITTER, _BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(10)
_ORDER = slice(10, 14)
_GREY, _BLUR, _SIGMA, _SOLARIZE = range(14, 18)
DRAWS = 18


def draw(batch_size, seed) -> keras.KerasTensor:
    """Returns the random numbers of one view: [batch, DRAWS] float32 uniform in [0, 1)."""
    return keras.random.uniform((batch_size, DRAWS), seed=seed)


def make_view(images, draws, config: ViewConfig):
    """Returns one augmented view of each image, a pure function of its two tensors.

    Args:
        images: [batch, height, width, 3] uint8, or float32 in [0, 1].
        draws: [batch, DRAWS] float32 in [0, 1), from `draw`.
        config: the recipe.

    Returns:
        [batch, config.size, config.size, 3] float32 in [0, 1].
    """
    if "int" in keras.backend.standardize_dtype(images.dtype):
        images = ops.cast(images, "float32") / 255.0
    if config.kind == "garder14":
        return garder14_views.make_view(images, draws, config)
    view = _resample(images, draws, config)
    view = _recolor(view, draws, config)
    view = ops.clip(view, 0.0, 1.0)
    if config.solarize > 0:
        solarized = ops.logical_and(view >= 0.5, draws[:, _SOLARIZE, None, None, None] < config.solarize)
        view = ops.where(solarized, 1.0 - view, view)
    return view


def crop_boxes(draws, height: int, width: int, config: ViewConfig):
    """Returns top, left, height, width of the random crops, each [batch] float32 in pixels of the image.

    Area uniform in [minimum_area, 1] of the image, ratio log-uniform; a side longer than the image is cut to it
    (torchvision draws again instead).
    """
    area = (config.minimum_area + (1.0 - config.minimum_area) * draws[:, _AREA]) * height * width
    ratio = ops.exp((2.0 * draws[:, _RATIO] - 1.0) * math.log(config.maximum_ratio))
    crop_height = ops.minimum(ops.sqrt(area / ratio), float(height))
    crop_width = ops.minimum(ops.sqrt(area * ratio), float(width))
    top = draws[:, _TOP] * (height - crop_height)
    left = draws[:, _LEFT] * (width - crop_width)
    return top, left, crop_height, crop_width


def _resample(images, draws, config: ViewConfig):
    """Crop, resize, flip and blur as one matrix along each axis: [b, h, w, 3] -> [b, size, size, 3] float32."""
    height, width = images.shape[1:3]
    top, left, crop_height, crop_width = crop_boxes(draws, height, width, config)
    rows = _resize_matrix(top, crop_height, height, config.size)
    columns = _resize_matrix(left, crop_width, width, config.size)
    flipped = draws[:, _FLIP, None, None] < config.flip
    columns = ops.where(flipped, ops.flip(columns, axis=1), columns)
    if config.blur > 0:
        blur = _blur_matrix(draws, config)
        rows, columns = ops.matmul(blur, rows), ops.matmul(blur, columns)
    batch = ops.shape(images)[0]
    x = ops.matmul(rows, ops.reshape(images, (batch, height, width * 3)))  # [b, size, w * 3]
    x = ops.reshape(x, (batch, config.size, width, 3))
    return ops.matmul(columns[:, None], x)  # [b, size, size, 3]


def _resize_matrix(start, length, in_size: int, out_size: int):
    """Returns [batch, out_size, in_size] float32: row o holds the weights of output pixel o; each row sums to 1.

    Keys' cubic convolution (a = -0.5) with half-pixel centres, widened when it shrinks (antialias), cut at the
    image's edge: the kernel and conventions of PIL's and JAX's bicubic resize.
    """
    scale = length[:, None] / out_size  # [b, 1] input pixels for each output pixel
    centers = start[:, None] + (ops.arange(out_size, dtype="float32") + 0.5) * scale - 0.5  # [b, out]
    distance = centers[:, :, None] - ops.arange(in_size, dtype="float32")
    weights = _keys_cubic(ops.abs(distance) / ops.maximum(scale, 1.0)[:, :, None])
    return weights / ops.sum(weights, axis=-1, keepdims=True)


def _keys_cubic(x):
    """Keys' cubic convolution kernel (1981, a = -0.5) at distances x >= 0."""
    near = ((1.5 * x - 2.5) * x) * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return ops.where(x < 1.0, near, ops.where(x < 2.0, far, 0.0))


def _blur_matrix(draws, config: ViewConfig):
    """Returns [batch, size, size] float32: the Gaussian blur along one axis, the identity where it is not drawn."""
    low, high = config.blur_sigma
    sigma = low + (high - low) * draws[:, _SIGMA, None, None]
    position = ops.arange(config.size, dtype="float32")
    distance = position[:, None] - position[None, :]
    kernel = ops.exp(-0.5 * ops.square(distance / sigma))
    kernel = kernel / ops.sum(kernel, axis=-1, keepdims=True)
    return ops.where(draws[:, _BLUR, None, None] < config.blur, kernel, ops.eye(config.size))


def _recolor(view, draws, config: ViewConfig):
    """Colour jitter in random order, then grey, as one affine map of the channels of each image."""
    batch = ops.shape(view)[0]
    matrix, offset = _color_map(ops.mean(view, axis=(1, 2)), draws, config)
    pixels = ops.reshape(view, (batch, config.size * config.size, 3))
    pixels = ops.matmul(pixels, ops.transpose(matrix, (0, 2, 1))) + offset[:, None, :]
    return ops.reshape(pixels, (batch, config.size, config.size, 3))


def _color_map(mean, draws, config: ViewConfig):
    """Returns matrix [batch, 3, 3] and offset [batch, 3] of the composed colour map.

    Args:
        mean: [batch, 3] float32, mean colour of each view: contrast pulls towards its luma.
        draws: [batch, DRAWS].
        config: the recipe.
    """
    jitter = ops.cast(draws[:, _JITTER] < config.jitter, "float32")
    strength = [
        (_BRIGHTNESS, config.brightness),
        (_CONTRAST, config.contrast),
        (_SATURATION, config.saturation),
        (_HUE, config.hue),
    ]
    change = [jitter * magnitude * (2.0 * draws[:, column] - 1.0) for column, magnitude in strength]
    identity = ops.eye(3)
    to_grey = ops.convert_to_tensor(np.tile(_LUMA, (3, 1)))  # every row is the luma
    brightness, contrast, saturation = (1.0 + c[:, None, None] for c in change[:3])
    maps = ops.stack(
        [
            brightness * identity,
            contrast * identity,
            saturation * identity + (1.0 - saturation) * to_grey,
            _hue_rotation(change[3]),
        ],
        axis=1,
    )  # [b, 4 kinds, 3, 3]
    order = ops.argsort(draws[:, _ORDER], axis=-1)  # [b, 4]: the kind in each place
    place = ops.one_hot(order, 4, dtype="float32")  # [b, 4 places, 4 kinds]
    matrix = ops.tile(identity[None], (ops.shape(draws)[0], 1, 1))
    offset = ops.zeros_like(mean)
    for k in range(4):
        step = ops.sum(place[:, k, :, None, None] * maps, axis=1)  # [b, 3, 3]
        luma = ops.sum((_apply(matrix, mean) + offset) * _LUMA, axis=-1, keepdims=True)  # [b, 1]
        pull = place[:, k, 1:2] * (1.0 - contrast[:, :, 0]) * luma
        matrix, offset = ops.matmul(step, matrix), _apply(step, offset) + pull
    grey = draws[:, _GREY, None, None] < config.grey
    drop = ops.where(grey, to_grey[None], identity[None])
    return ops.matmul(drop, matrix), _apply(drop, offset)


def _apply(matrix, vector):
    """[b, 3, 3] times [b, 3] -> [b, 3]."""
    return ops.sum(matrix * vector[:, None, :], axis=-1)


def _hue_rotation(turn):
    """[batch] float32 in turns -> [batch, 3, 3]: rotation of the colours about the grey axis in YIQ."""
    angle = 2.0 * math.pi * turn[:, None, None]
    luma = ops.convert_to_tensor((_YIQ_TO_RGB[:, :1] @ _RGB_TO_YIQ[:1]).astype(np.float32))
    chroma = ops.convert_to_tensor((_YIQ_TO_RGB[:, 1:] @ _RGB_TO_YIQ[1:]).astype(np.float32))
    quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
    turned = ops.convert_to_tensor((_YIQ_TO_RGB[:, 1:] @ quarter @ _RGB_TO_YIQ[1:]).astype(np.float32))
    return luma + ops.cos(angle) * chroma + ops.sin(angle) * turned
