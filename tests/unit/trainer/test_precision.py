import keras
import numpy as np
import pytest
from keras import ops

from tests.unit.trainer.conftest import SETTINGS, TINY
from trainer import networks, representations
from trainer.architecture import LayerConfig
from trainer.byol.config import OptimizerConfig

NO_WARMUP = OptimizerConfig(base_learning_rate=0.8, warmup_steps=0)


@pytest.fixture
def mixed(make_model):
    return make_model(precision="mixed_bfloat16", base_tau=0.5, optimizer=NO_WARMUP)


def layers_of(model):
    return [
        layer
        for network in (
            model.online_encoder,
            model.online_projector,
            model.predictor,
            model.target_encoder,
            model.target_projector,
        )
        for layer in network.layers
        if layer.weights
    ]


def test_products_are_bfloat16_and_every_variable_float32(mixed):
    low = {layer.name for layer in layers_of(mixed) if layer.compute_dtype == "bfloat16"}
    full = {layer.name for layer in layers_of(mixed) if layer.compute_dtype == "float32"}
    assert full == {"output"}  # what the loss sees
    assert {"stem", "stage2_block1_conv2", "stage2_block1_norm2", "hidden", "norm"} <= low
    for variable in [*mixed.trainable_variables, *mixed.non_trainable_variables]:
        if "seed" not in variable.path:
            assert variable.dtype == "float32", variable.path
    assert {v.dtype for v in mixed.optimizer.variables if "iteration" not in v.path} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"  # the process' own policy is untouched


def test_the_loss_and_what_it_sees_are_float32_and_close_to_full_precision(mixed, make_model, views):
    full = make_model(base_tau=0.5, optimizer=NO_WARMUP)
    for a, b in zip(full.variables, mixed.variables, strict=True):
        b.assign(a)
    low_outputs = mixed.predict_views(*views, training=True)
    full_outputs = full.predict_views(*views, training=True)
    for name, output in low_outputs.items():
        assert keras.backend.standardize_dtype(output.dtype) == "float32", name
        error = np.abs(np.asarray(output) - np.asarray(full_outputs[name])).max()
        assert 1e-5 < error < 0.15 * np.abs(full_outputs[name]).max(), name  # bfloat16 is really in use
    loss = mixed.compute_loss(y_pred=low_outputs)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    assert float(loss) == pytest.approx(float(full.compute_loss(y_pred=full_outputs)), abs=0.05)


def test_the_ema_and_the_moments_have_more_digits_than_bfloat16(mixed, images):
    before = [ops.convert_to_numpy(target).copy() for _, target in mixed.target_pairs()]
    mixed.train_on_batch(images[:16])
    for (online, target), old in zip(mixed.target_pairs(), before, strict=True):
        expected = np.float32(0.5) * old + np.float32(0.5) * ops.convert_to_numpy(online)
        np.testing.assert_array_equal(ops.convert_to_numpy(target), expected)
    for variable in (
        mixed.target_encoder.get_layer("stem").kernel,
        mixed.online_encoder.get_layer("stem_norm").moving_variance,
        mixed.online_encoder.get_layer("stage2_block1_norm2").moving_mean,
    ):
        value = ops.convert_to_numpy(variable)
        rounded = ops.convert_to_numpy(ops.cast(ops.cast(value, "bfloat16"), "float32"))
        assert np.mean(value != rounded) > 0.5, variable.path


def test_batch_norm_takes_its_statistics_in_float32():
    """1000 and 1002 are one number in bfloat16's eight bits when summed there; their variance is 1."""
    norm = networks._Layers(0, "mixed_bfloat16", LayerConfig()).batch_norm("norm")
    norm.build((None, 1))
    x = np.array([[1000.0], [1008.0]] * 512, np.float32)  # both are bfloat16 numbers
    norm(x, training=True)
    assert float(ops.convert_to_numpy(norm.moving_mean)[0]) == pytest.approx(100.4, rel=1e-5)
    assert float(ops.convert_to_numpy(norm.moving_variance)[0]) == pytest.approx(0.9 + 0.1 * 16, rel=1e-3)


def test_the_product_of_a_mixed_training_is_a_float32_network(data, images, mixed):
    product = networks.as_float32(mixed.online_encoder)
    assert {layer.compute_dtype for layer in product.layers} == {"float32"}
    for a, b in zip(product.get_weights(), mixed.online_encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    together = representations.embed(product, images)
    alone = np.concatenate([representations.embed(product, images[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(alone, together[:4], atol=1e-5)
    plain = networks.build_encoder(TINY, data.channel_mean, data.channel_std, SETTINGS.seed)
    np.testing.assert_allclose(together, representations.embed(plain, images), atol=1e-6)
