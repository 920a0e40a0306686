"""Frozen networks applied to many images, and the kNN classifier on what they give. NumPy in, NumPy out."""

import weakref

import keras
import numpy as np


def embed(encoder: keras.Model, images: np.ndarray, batch_size: int = 500) -> np.ndarray:
    """Returns the representations [n, d] float32 of uint8 [n, height, width, 3], batch norm in inference mode."""
    forward = _forward(encoder)
    return np.concatenate(
        [
            keras.ops.convert_to_numpy(
                forward.predict_on_batch(images[i : i + batch_size].astype(np.float32) / 255.0)
            )
            for i in range(0, len(images), batch_size)
        ]
    ).astype(np.float32)


def apply(network: keras.Model, inputs: np.ndarray) -> np.ndarray:
    """Returns the head's outputs [n, e] float32 of [n, d] float32, batch norm in inference mode."""
    return np.asarray(_forward(network).predict_on_batch(inputs), np.float32)


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Scales the rows of [n, d] to unit length; a zero row stays zero."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


# Of the weighted kNN classifier of Wu et al. (2018).
KNN_NEIGHBORS, KNN_TEMPERATURE = 200, 0.1


def knn_neighbors(bank: int, classes: int, most: int = KNN_NEIGHBORS) -> int:
    """How many of a bank's images vote: no more than a class has there on average, since those beyond are of other
    classes whatever the features are; at least one.
    """
    return max(1, min(most, bank // max(classes, 1)))


def knn_predict(
    bank: np.ndarray,
    bank_labels: np.ndarray,
    queries: np.ndarray,
    neighbors: int = KNN_NEIGHBORS,
    temperature: float = KNN_TEMPERATURE,
    classes: int = 10,
) -> np.ndarray:
    """Weighted kNN by cosine (Wu et al. 2018, section 3.4): votes of exp(cosine / temperature).

    Args:
        bank: [n, d] float32 with its labels [n] int64.
        queries: [m, d] float32.
        neighbors: votes of each query at the most; `knn_neighbors` says how many.
        temperature: of the votes.
        classes: number of labels.

    Returns:
        [m] int64, the predicted labels.
    """
    bank, neighbors = unit_rows(bank), knn_neighbors(len(bank), classes, neighbors)
    predicted = []
    for start in range(0, len(queries), 1000):
        cosine = unit_rows(queries[start : start + 1000]) @ bank.T  # [chunk, n]
        nearest = np.argpartition(-cosine, neighbors - 1, axis=1)[:, :neighbors]
        weights = np.exp(np.take_along_axis(cosine, nearest, axis=1) / temperature)
        votes = np.stack([(weights * (bank_labels[nearest] == c)).sum(1) for c in range(classes)], axis=1)
        predicted.append(votes.argmax(1))
    return np.concatenate(predicted).astype(np.int64)


# A compiled forward pass of each network: `predict` on the shared one would tie it to BYOL's own step.
_FORWARD: weakref.WeakKeyDictionary[keras.Model, keras.Model] = weakref.WeakKeyDictionary()


def _forward(network: keras.Model) -> keras.Model:
    if network not in _FORWARD:
        _FORWARD[network] = keras.Model(network.input, network.output)
        _FORWARD[network].compile(jit_compile=compiles_with_xla())
    return _FORWARD[network]


def compiles_with_xla() -> bool:
    """Whether steps are compiled by XLA: always on JAX; on TensorFlow only where there is an accelerator.

    On a CPU, TensorFlow's XLA convolutions are several times slower than its oneDNN ones
    (docs/results/cpu-training.md).
    """
    if keras.backend.backend() != "tensorflow":
        return True
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("TPU"))
