"""Transformed Examples from disk to arrays: what both Trainers read, by tf.data."""

import dataclasses
import hashlib

import numpy as np
import tensorflow as tf

from components import features
from components.preprocessing import decode_pixels

PARSE_BATCH = 1024


@dataclasses.dataclass(frozen=True)
class LabelledImages:
    """A split held in memory once: 3 KB an image.

    Attributes:
        images: [n, 32, 32, 3] uint8.
        labels: [n] int64 in 0..9.
        holdout: [n] bool, the fixed-hash tenth on which hyper-parameters and monitors are measured.
        channel_mean, channel_std: [3] float32, from Transform's full pass over the training pixels in [0, 1].
        digest: hex digest of the images' content hashes; names the data in records.
    """

    images: np.ndarray
    labels: np.ndarray
    holdout: np.ndarray
    channel_mean: np.ndarray
    channel_std: np.ndarray
    digest: str


def read_images(file_patterns: list[str]) -> LabelledImages:
    """Reads a split of transformed Examples, sorted by content hash so that the order never depends on the shards.

    Args:
        file_patterns: of gzipped TFRecord files, as `FnArgs.train_files` has them.

    Raises:
        ValueError: when no file matches or the files hold no Example.
    """
    files = sorted(name for pattern in file_patterns for name in tf.io.gfile.glob(pattern))
    if not files:
        raise ValueError(
            f"No transformed Examples at {file_patterns}; expected gzipped TFRecord files there."
        )
    records = tf.data.TFRecordDataset(files, compression_type="GZIP", num_parallel_reads=tf.data.AUTOTUNE)
    parsed = records.batch(PARSE_BATCH).map(_parse, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)
    batches = list(parsed.as_numpy_iterator())
    if not batches:
        raise ValueError(
            f"The transformed Examples at {file_patterns} are empty; expected at least one image."
        )
    hashes = np.concatenate([batch[features.CONTENT_HASH] for batch in batches])
    labels = np.concatenate([batch[features.LABEL] for batch in batches])
    images = np.concatenate([batch[features.IMAGE] for batch in batches])
    order = np.lexsort((labels, hashes))
    return LabelledImages(
        images=images[order],
        labels=labels[order],
        holdout=features.holdout_mask(hashes[order]),
        channel_mean=batches[0][features.CHANNEL_MEAN][0],
        channel_std=batches[0][features.CHANNEL_STD][0],
        digest=hashlib.sha256(b"".join(hashes[order].tolist())).hexdigest(),
    )


def _parse(serialized):
    """[batch] string -> uint8 images [batch, 32, 32, 3] and the other columns; one decode for the whole batch."""
    row = tf.io.parse_example(
        serialized,
        {
            features.IMAGE: tf.io.FixedLenFeature([], tf.string),
            features.LABEL: tf.io.FixedLenFeature([], tf.int64),
            features.CONTENT_HASH: tf.io.FixedLenFeature([], tf.string),
            features.CHANNEL_MEAN: tf.io.FixedLenFeature([3], tf.float32),
            features.CHANNEL_STD: tf.io.FixedLenFeature([3], tf.float32),
        },
    )
    row[features.IMAGE] = decode_pixels(row[features.IMAGE])
    return row
