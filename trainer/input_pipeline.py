"""Transformed Examples from disk to batches of images: what both Trainers read, by tf.data."""

import dataclasses
import hashlib
import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from components.data import features
from components.data.preprocessing import decode_pixels

# Rows parsed at once: as many bytes, whatever the pictures' size, as 1024 of CIFAR-10's.
PARSE_BYTES = 1024 * features.IMAGE_BYTES
# Files read side by side, and what is mixed with each other when a split streams: so many rows, or as many as fit.
OPEN_FILES = 8
SHUFFLE_ROWS = 20_000
SHUFFLE_BYTES = 256_000_000

_COLUMNS = {
    features.LABEL: tf.io.FixedLenFeature([], tf.int64),
    features.CONTENT_HASH: tf.io.FixedLenFeature([], tf.string),
    features.CHANNEL_MEAN: tf.io.FixedLenFeature([3], tf.float32),
    features.CHANNEL_STD: tf.io.FixedLenFeature([3], tf.float32),
}
_IMAGE = {features.IMAGE: tf.io.FixedLenFeature([], tf.string)}


@dataclasses.dataclass(frozen=True)
class Rows:
    """Everything of a split but its pixels.

    Attributes:
        labels: [n] int64, -1 for none.
        holdout: [n] bool, the fixed-hash tenth on which hyper-parameters and monitors are measured.
        channel_mean, channel_std: [3] float32, from Transform's full pass over the training pixels in [0, 1].
        digest: hex digest of the images' content hashes; names the data in records.
    """

    labels: np.ndarray
    holdout: np.ndarray
    channel_mean: np.ndarray
    channel_std: np.ndarray
    digest: str


class Split(Protocol):
    """A training split, held in memory or streamed from its files."""

    @property
    def rows(self) -> Rows:
        """Everything but the pixels."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image: height, width, channels."""

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Yields every image once, in the order of `rows`: [size or less, height, width, 3] uint8."""

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Returns the images at `indices`, ascending row numbers: [len(indices), height, width, 3] uint8."""


@dataclasses.dataclass(frozen=True)
class ImagesInMemory:
    """A split held in memory once. Sorted by content hash, so its order never depends on the shards.

    Attributes:
        images: [n, height, width, 3] uint8.
        rows: the rest.
    """

    images: np.ndarray
    rows: Rows

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image: height, width, channels."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Yields views of the array."""
        for start in range(0, len(self.images), size):
            yield self.images[start : start + size]

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Returns the images at `indices`."""
        return self.images[indices]


@dataclasses.dataclass(frozen=True)
class ImagesOnDisk:
    """A split whose images are read again each time: memory does not grow with it.

    Attributes:
        files: gzipped TFRecord files, sorted; the rows lie in the order in which they are read side by side.
        rows: everything but the pixels.
        shape: of an image: height, width, channels.
    """

    files: tuple[str, ...]
    rows: Rows
    shape: tuple[int, int, int] = features.IMAGE_SHAPE

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Reads the files in order."""
        records = _records(self.files).batch(size).map(self._pixels, num_parallel_calls=tf.data.AUTOTUNE)
        return records.prefetch(2).as_numpy_iterator()

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Reads the files once and keeps what was asked for."""
        chosen, first, found = np.asarray(indices), 0, []
        for batch in self.batches(rows_in(PARSE_BYTES, self.shape)):
            inside = chosen[(chosen >= first) & (chosen < first + len(batch))] - first
            found.append(batch[inside])
            first += len(batch)
        return np.concatenate(found)

    def shuffled(self, batch_size: int, seed: int, epoch: int, first_step: int) -> tf.data.Dataset:
        """Whole batches of one epoch in random order, from update `first_step` on: uint8 [batch, height, width, 3].

        The files' order is drawn for each epoch; several are read at once and their rows mixed in a buffer. The
        order depends on `seed` and `epoch` alone, so a training resumed anywhere sees what the uninterrupted one
        would have seen. Labels are not parsed.
        """
        draws = np.random.default_rng((seed, epoch))
        files = [self.files[i] for i in draws.permutation(len(self.files))]
        mixed = tf.data.Dataset.from_tensor_slices(files).interleave(
            lambda file: tf.data.TFRecordDataset(file, compression_type="GZIP"),
            cycle_length=OPEN_FILES,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        rows = min(SHUFFLE_ROWS, rows_in(SHUFFLE_BYTES, self.shape))
        mixed = mixed.shuffle(rows, seed=int(draws.integers(2**31)), reshuffle_each_iteration=False)
        whole = mixed.batch(batch_size, drop_remainder=True).skip(first_step)
        return whole.map(self._pixels, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    def _pixels(self, serialized):
        """[batch] string -> uint8 images [batch, *shape]; one decode for the whole batch, nothing else parsed."""
        return decode_pixels(tf.io.parse_example(serialized, _IMAGE)[features.IMAGE], self.shape)


def open_split(
    file_patterns: list[str], memory_bytes: int, shape: tuple[int, int, int] = features.IMAGE_SHAPE
) -> ImagesInMemory | ImagesOnDisk:
    """Opens a split of transformed Examples; one whose pixels take more than `memory_bytes` streams from its files.

    While a split that fits is sorted, it is there twice.

    Args:
        file_patterns: of gzipped TFRecord files, as `FnArgs.train_files` has them.
        memory_bytes: the largest size of a split, in bytes of its pixels, that is held in memory.
        shape: of an image: height, width, channels.

    Raises:
        ValueError: when no file matches or the files hold no Example.
    """
    files = tuple(sorted(name for pattern in file_patterns for name in tf.io.gfile.glob(pattern)))
    if not files:
        raise ValueError(
            f"No transformed Examples at {file_patterns}; expected gzipped TFRecord files there."
        )
    kept: list[dict[str, np.ndarray]] = []
    images: list[np.ndarray] = []
    count, most = 0, memory_bytes // math.prod(shape)
    for batch in _parsed(files, _COLUMNS | _IMAGE, shape).as_numpy_iterator():
        count += len(batch[features.LABEL])
        if count <= most:
            images.append(batch[features.IMAGE])
        else:
            images.clear()
        kept.append({key: batch[key] for key in _COLUMNS})
    if not kept:
        raise ValueError(
            f"The transformed Examples at {file_patterns} are empty; expected at least one image."
        )
    hashes = np.concatenate([batch[features.CONTENT_HASH] for batch in kept])
    labels = np.concatenate([batch[features.LABEL] for batch in kept])
    in_memory = count <= most
    order = np.lexsort((labels, hashes)) if in_memory else np.arange(count)
    rows = Rows(
        labels=labels[order],
        holdout=features.holdout_mask(hashes[order]),
        channel_mean=kept[0][features.CHANNEL_MEAN][0],
        channel_std=kept[0][features.CHANNEL_STD][0],
        digest=hashlib.sha256(b"".join(sorted(hashes.tolist()))).hexdigest(),
    )
    return ImagesInMemory(_sorted(images, order), rows) if in_memory else ImagesOnDisk(files, rows, shape)


def _sorted(batches: list[np.ndarray], order: np.ndarray) -> np.ndarray:
    """The images of all batches, number `order[i]` at place i: `[n, *shape]` uint8. Takes each batch out of the list as
    it is copied, so that nothing is there a third time.
    """
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    images = np.empty((len(order), *batches[0].shape[1:]), np.uint8)
    end = len(order)
    while batches:
        batch = batches.pop()
        images[place[end - len(batch) : end]] = batch
        end -= len(batch)
    return images


def rows_in(size: int, shape: tuple[int, int, int]) -> int:
    """How many images of a shape so many bytes hold; one at the least."""
    return max(1, size // math.prod(shape))


def _records(files: tuple[str, ...]) -> tf.data.Dataset:
    """The serialized Examples of all files, read side by side: a fixed order, since tf.data is deterministic."""
    return tf.data.TFRecordDataset(list(files), compression_type="GZIP", num_parallel_reads=OPEN_FILES)


def _parsed(files: tuple[str, ...], columns: dict[str, Any], shape: tuple[int, int, int]) -> tf.data.Dataset:
    """Batches of parsed rows, in the order of `_records`."""

    def parse(serialized):
        row = tf.io.parse_example(serialized, columns)
        row[features.IMAGE] = decode_pixels(row[features.IMAGE], shape)
        return row

    rows = rows_in(PARSE_BYTES, shape)
    return _records(files).batch(rows).map(parse, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)
