"""The fused batch norm gives Keras' numbers: outputs, gradients, moments; and it is what a training on a CPU runs."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tests.unit.trainer import reference
from trainer import networks, representations
from trainer.architecture import LayerConfig
from trainer.batch_norm import BatchNorm

if keras.backend.backend() != "tensorflow":
    pytest.skip("Only TensorFlow has the fused operation", allow_module_level=True)

SETTINGS = {"momentum": LayerConfig().norm_momentum, "epsilon": LayerConfig().norm_epsilon}


def layer(kind, channels=5, **changes):
    """Two layers of one `channels` are equal whatever their kind."""
    made = kind(**SETTINGS, **changes)
    made.build((None, None, None, channels))
    rng = np.random.default_rng(3)
    made.set_weights([rng.uniform(0.5, 2, channels) for _ in made.weights])
    return made


def trained(made, x, upstream):
    """Output in training, gradients of sum(output * upstream) by input, scale and offset, and the moments after."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        output = made(x, training=True)
        loss = tf.reduce_sum(tf.cast(output, "float32") * upstream)
    gradients = tape.gradient(loss, [x, made.gamma.value, made.beta.value])
    moments = [ops.convert_to_numpy(v) for v in (made.moving_mean, made.moving_variance)]
    return [np.asarray(v) for v in (output, *gradients)] + moments


@pytest.mark.parametrize("shape", [(8, 6, 6, 5), (2, 1, 1, 5), (3, 7, 2, 5)])
def test_outputs_gradients_and_moments_are_those_of_keras_layer(shape, monkeypatch):
    rng = np.random.default_rng(0)
    x, upstream = (rng.normal(2, 3, shape).astype(np.float32) for _ in range(2))
    expected = trained(layer(keras.layers.BatchNormalization), x, upstream)
    monkeypatch.setattr(keras.layers.BatchNormalization, "call", None)
    found = trained(layer(BatchNorm), x, upstream)
    names = ("output", "gradient by x", "gradient by gamma", "gradient by beta", "mean", "variance")
    for name, one, other in zip(names, found, expected, strict=True):
        # Of two numbers alone the gradient by x is nothing but rounding.
        tolerance = 1e-5 * max(np.abs(other).max(), 1.0 if shape[0] > 2 else 10.0)
        np.testing.assert_allclose(one, other, atol=tolerance, err_msg=name)
        assert np.abs(other).max() > 0.1 or shape[0] == 2, name


def test_the_moments_are_of_the_biased_variance():
    """Against NumPy: with eight numbers a channel the unbiased one would be a seventh larger."""
    x = np.random.default_rng(1).normal(1, 4, (2, 2, 2, 5)).astype(np.float32)
    made = layer(BatchNorm)
    before = made.get_weights()
    output = made(x, training=True)
    y, mean, variance = reference.batch_norm(x.reshape(8, 5).astype(np.float64), before[0], before[1])
    np.testing.assert_allclose(ops.convert_to_numpy(output).reshape(8, 5), y, atol=1e-5)
    after = made.get_weights()
    np.testing.assert_allclose(after[2], 0.9 * before[2] + 0.1 * mean, atol=1e-5)
    np.testing.assert_allclose(after[3], 0.9 * before[3] + 0.1 * variance, rtol=1e-5)


def test_a_large_mean_does_not_drown_the_variance():
    x = np.tile(np.array([1000.0, 1008.0], np.float32).reshape(2, 1, 1, 1), (32, 3, 3, 5))
    made = layer(BatchNorm)
    before = made.get_weights()
    made(x, training=True)
    np.testing.assert_allclose(made.get_weights()[3], 0.9 * before[3] + 0.1 * 16, rtol=1e-4)


def test_bfloat16_is_normalised_in_float32():
    x = np.random.default_rng(2).normal(1000, 4, (4, 4, 4, 5)).astype(np.float32)
    low = ops.cast(x, "bfloat16")
    rounded = ops.convert_to_numpy(ops.cast(low, "float32"))
    made, plain = layer(BatchNorm, dtype="mixed_bfloat16"), layer(BatchNorm)
    output, expected = made(low, training=True), plain(rounded, training=True)
    assert keras.backend.standardize_dtype(output.dtype) == "bfloat16"
    assert {v.dtype for v in made.variables} == {"float32"}
    np.testing.assert_allclose(made.get_weights()[3], plain.get_weights()[3], rtol=1e-6)
    np.testing.assert_allclose(ops.cast(output, "float32"), expected, rtol=1e-2, atol=1e-2)


def operations(function, *specs):
    """The kinds of operation in the graph of `function`, those of its inner functions included."""
    graph = tf.function(function).get_concrete_function(*specs).graph.as_graph_def()
    nodes = [*graph.node, *(node for inner in graph.library.function for node in inner.node_def)]
    return [node.op for node in nodes]


def test_a_training_step_on_a_cpu_runs_one_operation_for_each_norm_of_images(shared_model):
    if representations.compiles_with_xla():
        pytest.skip("XLA compiles the step here")
    view = tf.TensorSpec((8, 32, 32, 3), tf.float32)
    found = operations(lambda a, b: shared_model.predict_views(a, b, training=True), view, view)
    norms = [n for n in shared_model.online_encoder.layers if isinstance(n, BatchNorm)]
    assert found.count("FusedBatchNormV3") == 4 * len(norms) == 4 * 6  # two networks, two views


@pytest.mark.parametrize("why", ["inference", "vectors", "replicas", "frozen", "xla"])
def test_everything_else_is_left_to_keras(why, monkeypatch):
    made = layer(BatchNorm, synchronized=why == "replicas")
    made.trainable = why != "frozen"
    if why == "xla":
        monkeypatch.setattr(representations, "compiles_with_xla", lambda: True)
    shape = (None, 5) if why == "vectors" else (None, 2, 2, 5)
    if why == "vectors":
        made = BatchNorm(**SETTINGS)
    found = operations(lambda x: made(x, training=why != "inference"), tf.TensorSpec(shape, tf.float32))
    assert "FusedBatchNormV3" not in found
    assert "Rsqrt" in found


def test_the_product_has_keras_own_layers(shared_model):
    product = networks.as_float32(shared_model.online_encoder)
    kinds = {type(n) for n in product.layers if "norm" in n.name and n.weights}
    assert kinds == {keras.layers.BatchNormalization}
