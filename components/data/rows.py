"""Reading columns of Examples back into NumPy, for the checks that look at rows themselves."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tfx.dsl.io import fileio

_BATCH = 1024


def read_columns(folder: str, spec: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Reads the TFRecords of one split.

    Args:
        folder: of one split of an Examples artifact.
        spec: the features to read, as `tf.io.parse_example` takes them.

    Returns:
        for each key of `spec` an array `[rows, ...]`, in the order of the files' names.

    Raises:
        ValueError: there is no row.
    """
    files = sorted(fileio.glob(os.path.join(folder, "*")))
    compression = "GZIP" if files and files[0].endswith(".gz") else ""
    dataset = tf.data.TFRecordDataset(files, compression).batch(_BATCH)
    parsed = dataset.map(lambda rows: tf.io.parse_example(rows, spec), num_parallel_calls=tf.data.AUTOTUNE)
    batches = list(parsed.as_numpy_iterator())
    if not batches:
        raise ValueError(f"No rows in {folder}. Expected Examples that Cifar10ExampleGen wrote.")
    return {key: np.concatenate([batch[key] for batch in batches]) for key in spec}
