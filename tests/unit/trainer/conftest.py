import dataclasses

import numpy as np
import pytest

from trainer.architecture import EncoderConfig
from trainer.byol.config import HeadConfig, OptimizerConfig, PretrainingConfig, ViewConfig
from trainer.byol.pretraining import PretrainingImages, build_model

TINY = EncoderConfig(widths=(8, 16), blocks=(1, 1), stem_stride=2)
# Nothing random in either: view 1 is the image, view 2 its mirrored, grey negative.
AS_IS = ViewConfig(minimum_area=1.0, maximum_ratio=1.0, flip=0.0, jitter=0.0, grey=0.0)
MIRRORED = dataclasses.replace(AS_IS, flip=1.0, grey=1.0, solarize=1.0)
SETTINGS = PretrainingConfig(
    epochs=2,
    batch_size=16,
    base_tau=0.9,
    head=HeadConfig(hidden_dim=16, output_dim=8),
    optimizer=OptimizerConfig(base_learning_rate=0.8, warmup_steps=2),
    checkpoint_minutes=0.0,
    monitor_images=0,
)


def coloured_images(count, seed=0):
    """[count, 32, 32, 3] uint8: a smooth colour field each, with some noise."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 255, (count, 2, 2, 3))
    t = np.linspace(0, 1, 32)
    weights = np.stack([1 - t, t])  # [2, 32]
    field = np.einsum("nabc,ah,bw->nhwc", corners, weights, weights)
    return np.clip(field + rng.normal(0, 10, field.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def images():
    """Four batches of 16."""
    return coloured_images(64)


@pytest.fixture(scope="session")
def data(images):
    pixels = images / 255.0
    return PretrainingImages(images, pixels.mean((0, 1, 2)), pixels.std((0, 1, 2)))


@pytest.fixture
def settings():
    """Two epochs of four steps."""
    return SETTINGS


@pytest.fixture
def tiny():
    return TINY


@pytest.fixture
def make_model(data):
    """Builds a fresh compiled BYOL model of the tiny settings with the changes given."""

    def make(**changes):
        return build_model(dataclasses.replace(SETTINGS, **changes), TINY, data)

    return make


@pytest.fixture(scope="module")
def shared_model(data):
    """One untrained model for a module's tests that leave it as it is."""
    return build_model(SETTINGS, TINY, data)


@pytest.fixture
def views(images):
    """Two different views of 8 images: [8, 32, 32, 3] float32."""
    view = images[:8].astype(np.float32) / 255.0
    return view, 1.0 - view[:, :, ::-1]


@pytest.fixture(scope="session")
def gradient():
    """Gradient of a scalar function of one array, by the present backend."""
    import keras

    def by_tensorflow(function, x):
        import tensorflow as tf

        x = tf.convert_to_tensor(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        found = tape.gradient(value, x)
        return np.zeros(x.shape, np.float32) if found is None else found.numpy()

    def by_jax(function, x):
        import jax

        return np.asarray(jax.grad(function)(x))

    return {"tensorflow": by_tensorflow, "jax": by_jax}[keras.backend.backend()]
