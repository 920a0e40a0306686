"""A real export of an untrained tiny encoder, for tests of what uses a pushed model."""

import pathlib

import keras
import numpy as np

from trainer import networks
from trainer.architecture import EncoderConfig
from trainer.probe import serving
from trainer.probe.probe import LinearClassifier

DIMENSION = 4


def write(serving_dir: pathlib.Path, version: int, seed: int) -> keras.Model:
    """Exports a version; another seed gives another encoder. Returns the Keras encoder it is of."""
    encoder = networks.build_encoder(
        EncoderConfig(widths=(DIMENSION,), blocks=(1,), stem_stride=2),
        np.full(3, 0.5, np.float32),
        np.full(3, 0.25, np.float32),
        seed,
    )
    kernel = np.random.default_rng(seed).normal(size=(DIMENSION, 10)).astype(np.float32)
    staging = serving_dir / f".staging-{version}"
    serving.export(encoder, LinearClassifier(kernel, np.zeros(10, np.float32)), str(staging))
    staging.rename(serving_dir / str(version))
    return encoder


def keras_embedding(encoder: keras.Model, images: np.ndarray) -> np.ndarray:
    """What Keras itself says of uint8 [n, 32, 32, 3]: the reference."""
    return np.asarray(encoder(images.astype(np.float32) / 255.0, training=False))
