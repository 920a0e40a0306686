import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

from tests.unit.trainer import reference
from tests.unit.trainer.conftest import SETTINGS
from trainer.byol.config import OptimizerConfig
from trainer.byol.lars import LARS
from trainer.byol.optimizer import build_optimizer, decayed_variables

KERNELS = [
    "stem/kernel",
    "stage1_block1_conv1/kernel",
    "stage1_block1_conv2/kernel",
    "stage2_block1_shortcut/kernel",
    "stage2_block1_conv1/kernel",
    "stage2_block1_conv2/kernel",
    "hidden/kernel",  # projector
    "output/kernel",
    "hidden/kernel",  # predictor
    "output/kernel",
]


def ending(variables):
    return sorted("/".join(v.path.split("/")[-2:]) for v in variables)


def optimizer_of(model, **settings):
    config = dataclasses.replace(SETTINGS, optimizer=OptimizerConfig(warmup_steps=0, **settings))
    return build_optimizer(config, model, total_steps=10)


@pytest.fixture
def kept(shared_model):
    """The shared model, whose weights are put back afterwards."""
    before = [ops.convert_to_numpy(v).copy() for v in shared_model.variables]
    yield shared_model
    for v, value in zip(shared_model.variables, before, strict=True):
        v.assign(value)


def test_weight_decay_is_meant_for_kernels_only(shared_model):
    decayed = decayed_variables(shared_model)
    assert ending(decayed) == sorted(KERNELS)
    excluded = [v for v in shared_model.trainable_variables if id(v) not in {id(d) for d in decayed}]
    assert {v.name for v in excluded} == {"gamma", "beta", "bias"}
    assert len(excluded) == len(shared_model.trainable_variables) - len(KERNELS)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_weight_decay_reaches_just_those_variables(kept, name, decay):
    """What moves under gradients of zero is what decays: no list is believed."""
    for v in kept.trainable_variables:
        v.assign(ops.ones_like(v))
    optimizer = optimizer_of(kept, name=name, weight_decay=decay)
    optimizer.apply([ops.zeros_like(v) for v in kept.trainable_variables])
    moved = [v for v in kept.trainable_variables if np.abs(ops.convert_to_numpy(v) - 1).max() > 0]
    shrunk = [v for v in kept.trainable_variables if ops.convert_to_numpy(v).max() < 1]
    assert ending(moved) == (sorted(KERNELS) if decay else [])
    assert ending(shrunk) == ending(moved)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_decoupled_decay_shrinks_by_rate_times_decay(kept, name):
    optimizer = optimizer_of(kept, name=name, weight_decay=0.1, base_learning_rate=0.8)
    kernel = kept.online_encoder.get_layer("stem").kernel
    before = ops.convert_to_numpy(kernel).copy()
    optimizer.apply([ops.zeros_like(v) for v in kept.trainable_variables])
    rate = 0.8 * 16 / 256
    np.testing.assert_allclose(ops.convert_to_numpy(kernel), before * (1 - 0.1 * rate), rtol=1e-6)


def test_the_first_sgd_step_is_the_gradient_times_the_scaled_rate_and_momentum_follows(kept):
    optimizer = optimizer_of(kept, name="sgd", weight_decay=0.0, base_learning_rate=0.8)
    kernel = kept.online_encoder.get_layer("stem").kernel
    before = ops.convert_to_numpy(kernel).copy()
    ones = [ops.ones_like(v) for v in kept.trainable_variables]
    optimizer.apply(ones)
    first = 0.8 * 16 / 256
    np.testing.assert_allclose(ops.convert_to_numpy(kernel), before - first, rtol=1e-5, atol=1e-6)
    second = reference.learning_rate(1, first, 0, 10)
    optimizer.apply(ones)
    # Keras keeps the rate inside the momentum: v = 0.9 v - rate * g.
    expected = before - first - (0.9 * first + second)
    np.testing.assert_allclose(ops.convert_to_numpy(kernel), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 3, 2, 4), (5, 6), (7,), (1,)])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_lars_equals_the_reference_over_several_steps(shape, clip, momentum):
    rng = np.random.default_rng(0)
    start = rng.normal(size=shape).astype(np.float32)
    gradients = [rng.normal(size=shape).astype(np.float32) * 10.0**-k for k in range(4)]
    schedule = keras.optimizers.schedules.CosineDecay(0.3, 5)
    variable = keras.Variable(start, name="w")
    optimizer = LARS(schedule, momentum=momentum, decay=1e-2, eta=0.02, clip_trust=clip)
    optimizer.build([variable])
    for gradient in gradients:
        optimizer.apply([ops.convert_to_tensor(gradient)])
    rates = [reference.learning_rate(step, 0.3, 0, 5) for step in range(4)]
    expected = reference.lars(start, gradients, rates, momentum, 1e-2, 0.02, clip)
    np.testing.assert_allclose(ops.convert_to_numpy(variable), expected, rtol=1e-6, atol=1e-6)
    assert int(optimizer.iterations) == 4


def test_lars_adapts_kernels_to_their_norm_and_leaves_vectors_alone():
    kernel, bias = keras.Variable(np.full((2, 2), 3.0, np.float32)), keras.Variable(np.ones(2, np.float32))
    optimizer = LARS(1.0, momentum=0.0, decay=0.0, eta=0.1)
    optimizer.build([kernel, bias])
    optimizer.apply([ops.full((2, 2), 50.0), ops.full((2,), 0.25)])
    np.testing.assert_allclose(ops.convert_to_numpy(kernel), 2.7, rtol=1e-6)  # |update| = 0.1 * |w|
    np.testing.assert_allclose(ops.convert_to_numpy(bias), 0.75, rtol=1e-6)


@pytest.mark.parametrize("clip", [False, True])
def test_lars_is_finite_where_a_norm_or_the_rate_is_zero(clip):
    zero, one = keras.Variable(np.zeros((2, 2), np.float32)), keras.Variable(np.ones((2, 2), np.float32))
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 4, warmup_target=1.0, warmup_steps=2)
    optimizer = LARS(schedule, decay=0.0, clip_trust=clip)
    optimizer.build([zero, one])
    for _ in range(2):
        optimizer.apply([ops.ones((2, 2)), ops.zeros((2, 2))])
    assert np.isfinite(ops.convert_to_numpy(zero)).all()
    assert ops.convert_to_numpy(zero).max() < 0  # unadapted, so that a zero kernel can leave zero
    np.testing.assert_array_equal(ops.convert_to_numpy(one), np.ones((2, 2)))


def test_lars_survives_serialisation():
    optimizer = LARS(0.5, momentum=0.8, decay=1e-4, eta=0.02, clip_trust=True)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(again, LARS)
    assert (again.momentum, again.decay, again.eta, again.clip_trust) == (0.8, 1e-4, 0.02, True)
    assert float(again.learning_rate) == 0.5
    assert again.weight_decay is None  # Keras' own, decoupled one stays off


@pytest.mark.parametrize("wrong", [{"momentum": 1.0}, {"decay": -1e-4}, {"eta": 0.0}])
def test_lars_refuses_impossible_settings(wrong):
    with pytest.raises(ValueError, match="LARS needs momentum"):
        LARS(0.1, **wrong)


def test_the_settings_reach_lars(shared_model):
    optimizer = optimizer_of(
        shared_model, name="lars", weight_decay=1e-5, eta=0.02, clip_trust=True, base_learning_rate=1.0
    )
    assert (optimizer.momentum, optimizer.decay, optimizer.eta, optimizer.clip_trust) == (
        0.9,
        1e-5,
        0.02,
        True,
    )
    assert float(optimizer.learning_rate) == pytest.approx(16 / 256)


@pytest.mark.parametrize("name", ["adamw", "lars"])
def test_every_optimizer_trains_a_step(make_model, images, name):
    model = make_model(optimizer=OptimizerConfig(name=name, base_learning_rate=0.1, warmup_steps=0, eta=0.01))
    before = [ops.convert_to_numpy(v).copy() for v in model.trainable_variables]
    loss = float(model.train_on_batch(images[:16]))
    assert 0 < loss < 8
    for v, old in zip(model.trainable_variables, before, strict=True):
        now = ops.convert_to_numpy(v)
        assert np.isfinite(now).all()
        assert np.abs(now - old).max() > 0, v.path
