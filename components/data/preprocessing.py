"""preprocessing_fn: what the model needs from a full pass over the data, computed once and stored with the
graph.

Images stay bytes until the trainer batches them, and a batch is decoded by one op: a decode for each image
takes fifteen times as long.
"""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from components.data import dataset, features

# Beam adds in an order of its own, so the last bits of a sum differ from run to run, and with them every weight that is
# trained on it. Five decimals are the same each time, and more than a normalisation needs.
_DECIMALS = 1e5


def preprocessing_fn(
    inputs: dict[str, tf.Tensor], custom_config: Mapping[str, Any] | None = None
) -> dict[str, tf.Tensor]:
    """Passes the row on and adds the data set's per-channel mean and standard deviation.

    Args:
        inputs: `[batch, 1]` each: IMAGE string (pixels), LABEL int64, CONTENT_HASH string; figures are
            ignored.
        custom_config: `data_set`, a DataSet as JSON; CIFAR-10 without it.

    Returns:
        IMAGE, CONTENT_HASH string `[batch, 1]` and LABEL int64 `[batch, 1]`, unchanged; CHANNEL_MEAN and
        CHANNEL_STD float32 `[batch, 3]`, over all pixels scaled to [0, 1], the same on each row.
    """
    described = dataset.from_json((custom_config or {}).get("data_set", ""))
    mean, std = channel_moments(decode_pixels(inputs[features.IMAGE], described.shape))
    batch = tf.shape(inputs[features.LABEL])[0]
    return {
        features.IMAGE: inputs[features.IMAGE],
        features.LABEL: inputs[features.LABEL],
        features.CONTENT_HASH: inputs[features.CONTENT_HASH],
        features.CHANNEL_MEAN: tf.tile(mean[tf.newaxis], [batch, 1]),
        features.CHANNEL_STD: tf.tile(std[tf.newaxis], [batch, 1]),
    }


def decode_pixels(images: tf.Tensor, shape: tuple[int, int, int] = features.IMAGE_SHAPE) -> tf.Tensor:
    """Decodes a batch of IMAGE features in one op: string `[batch]` or `[batch, 1]` -> uint8 `[batch, *shape]`.

    Raises:
        tf.errors.InvalidArgumentError: an image has not as many bytes as `shape`.
    """
    flat = tf.io.decode_raw(tf.reshape(images, [-1]), tf.uint8)
    return tf.reshape(flat, [tf.size(images), *shape])


def channel_moments(pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and standard deviation of each channel over the whole data set, by TFT analyzers.

    Each image is reduced to six numbers before the analyzers see it, so their accumulators stay tiny; the
    mean of image means is the mean of pixels because all images have one size.

    Args:
        pixels: `[batch, height, width, 3]` uint8.

    Returns:
        mean, std: float32 `[3]`, for pixels scaled to [0, 1], rounded to five decimals.
    """
    scaled = tf.cast(pixels, tf.float32) / 255.0
    first = tf.reduce_mean(scaled, axis=[1, 2])  # [batch, 3]
    second = tf.reduce_mean(tf.square(scaled), axis=[1, 2])  # [batch, 3]
    moments = tft.mean(tf.concat([first, second], axis=1), reduce_instance_dims=False)  # [6]
    mean, square = moments[:3], moments[3:]
    std = tf.sqrt(tf.maximum(square - tf.square(mean), 0.0))
    return _rounded(mean), _rounded(std)


def _rounded(values: tf.Tensor) -> tf.Tensor:
    """[3] float32, to five decimals."""
    return tf.round(values * _DECIMALS) / _DECIMALS
