"""Convolution of small maps as a product gives Keras' numbers, and is what a training on a CPU runs there alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tests.unit.trainer.test_batch_norm import operations
from trainer import networks, representations
from trainer.convolution import Convolution, taps_between

if keras.backend.backend() != "tensorflow":
    pytest.skip("Only TensorFlow's convolution is replaced", allow_module_level=True)


def layer(kind, shape, filters=7, size=3, stride=1, **changes):
    """Two layers of one shape are equal whatever their kind."""
    made = kind(filters, size, strides=stride, padding="same", use_bias=False, **changes)
    made.build(shape)
    made.set_weights([np.random.default_rng(3).normal(size=made.kernel.shape)])
    return made


def differentiated(made, x, upstream):
    """Output and the gradients of sum(output * upstream) by input and kernel."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        output = made(x)
        loss = tf.reduce_sum(tf.cast(output, "float32") * upstream)
    return [
        np.asarray(ops.cast(v, "float32")) for v in (output, *tape.gradient(loss, [x, made.kernel.value]))
    ]


@pytest.mark.parametrize(
    ("side", "size", "stride", "small"),
    [
        ((2, 2), 3, 1, True),
        ((3, 3), 3, 2, True),
        ((3, 3), 3, 1, True),
        ((1, 1), 3, 1, True),
        ((2, 4), 3, 1, True),
        ((4, 2), 3, 2, True),
        ((1, 9), 3, 2, True),
        ((3, 5), 5, 2, True),
        ((4, 4), 3, 1, False),
        ((2, 5), 3, 2, False),
        ((1, 1), 1, 1, False),
        ((2, 2), 1, 2, False),
    ],
)
def test_output_and_gradients_are_those_of_keras_layer(side, size, stride, small):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, *side, 5)).astype(np.float32)
    plain, made = (
        layer(kind, x.shape, size=size, stride=stride) for kind in (keras.layers.Conv2D, Convolution)
    )
    upstream = rng.normal(size=plain(x).shape).astype(np.float32)
    for one, other in zip(differentiated(made, x, upstream), differentiated(plain, x, upstream), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())
    kinds = operations(made, tf.TensorSpec(x.shape, tf.float32))
    assert ("Conv2D" in kinds, "MatMul" in kinds) == (not small, small)


def test_the_taps_of_a_map_of_two_are_counted_by_hand():
    """From the upper left pixel to itself goes the middle tap; to the lower right one the first tap of all."""
    taps, outputs = taps_between((2, 2), (3, 3), (1, 1))
    assert outputs == (2, 2)
    assert taps.tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    # Under stride 2 an even side is padded below and right alone: the output's first tap is on the first pixel.
    taps, outputs = taps_between((2, 2), (3, 3), (2, 2))
    assert outputs == (1, 1)
    assert taps.tolist() == [[0], [1], [3], [4]]


def test_bfloat16_stays_bfloat16_and_the_kernel_float32():
    x = np.random.default_rng(1).normal(size=(8, 2, 2, 5)).astype(np.float32)
    made = layer(Convolution, x.shape, dtype="mixed_bfloat16")
    output = made(x)
    assert keras.backend.standardize_dtype(output.dtype) == "bfloat16"
    assert made.kernel.dtype == "float32"
    exact = ops.convert_to_numpy(layer(keras.layers.Conv2D, x.shape)(x))
    error = np.abs(ops.convert_to_numpy(ops.cast(output, "float32")) - exact).max()
    assert 1e-5 < error < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize("why", ["unknown side", "xla"])
def test_everything_else_is_left_to_keras(why, monkeypatch):
    if why == "xla":
        monkeypatch.setattr(representations, "compiles_with_xla", lambda: True)
    side = (None, None) if why == "unknown side" else (2, 2)
    made = layer(Convolution, (None, 2, 2, 5))
    assert "Conv2D" in operations(made, tf.TensorSpec((None, *side, 5), tf.float32))


def test_the_product_has_keras_own_layers(shared_model):
    assert any(isinstance(each, Convolution) for each in shared_model.online_encoder.layers)
    product = networks.as_float32(shared_model.online_encoder)
    kinds = {type(each) for each in product.layers if "conv" in each.name or each.name == "stem"}
    assert kinds == {keras.layers.Conv2D}
