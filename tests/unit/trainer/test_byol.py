import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

from tests.unit.trainer import reference
from tests.unit.trainer.conftest import AS_IS, MIRRORED, SETTINGS, TINY
from trainer import networks, representations
from trainer.byol import augmentations, losses
from trainer.byol.byol import BYOL


def values_of(variables):
    return {v.path: ops.convert_to_numpy(v).copy() for v in variables}


def targets(model):
    return [target for _, target in model.target_pairs()]


def onlines(model):
    return [online for online, _ in model.target_pairs()]


def train_once(model, images):
    return float(model.train_on_batch(images[:16]))


def uses_batch_statistics(network, inputs):
    """Whether a training-mode forward pass ignores the moments: shifted moments must not change its output."""
    before = np.asarray(network(inputs, training=True))
    moments = [v for v in network.variables if v.name == "moving_mean"]
    kept = [ops.convert_to_numpy(v).copy() for v in moments]
    for v in moments:
        v.assign(v + 3.0)
    after = np.asarray(network(inputs, training=True))
    for v, value in zip(moments, kept, strict=True):
        v.assign(value)
    return bool(np.allclose(before, after, atol=1e-5))


def test_the_target_starts_as_the_online_network(shared_model):
    for online, target in shared_model.target_pairs():
        np.testing.assert_array_equal(ops.convert_to_numpy(online), ops.convert_to_numpy(target))
        assert online is not target


def test_each_target_weight_belongs_to_the_online_weight_of_the_same_name(shared_model):
    pairs = shared_model.target_pairs()
    online_names = ["/".join(online.path.split("/")[-2:]) for online, _ in pairs]
    target_names = ["/".join(target.path.split("/")[-2:]) for _, target in pairs]
    assert online_names == target_names
    trained = (
        shared_model.online_encoder.trainable_variables + shared_model.online_projector.trainable_variables
    )
    assert sorted(online_names) == sorted("/".join(v.path.split("/")[-2:]) for v in trained)
    assert {id(online) for online, _ in pairs} == {id(v) for v in trained}
    assert len({id(target) for _, target in pairs}) == len(trained)
    assert not any("moving" in name for name in online_names)


def test_networks_that_are_no_copies_cannot_be_paired(shared_model, data):
    wider = networks.build_encoder(
        dataclasses.replace(TINY, widths=(8, 20)), data.channel_mean, data.channel_std, 0
    )
    model = BYOL(wider, SETTINGS.head, (AS_IS, AS_IS), 0.9, 10, 0)
    model.target_encoder = shared_model.target_encoder
    with pytest.raises(ValueError, match="must be a copy"):
        model.target_pairs()


def test_the_optimizer_sees_the_online_network_and_nothing_of_the_target(shared_model):
    trained = {id(v) for v in shared_model.trainable_variables}
    expected = {
        id(v)
        for network in (
            shared_model.online_encoder,
            shared_model.online_projector,
            shared_model.predictor,
        )
        for v in network.trainable_variables
    }
    assert trained == expected
    assert not trained & {id(v) for v in shared_model.target_encoder.variables}
    assert not trained & {id(v) for v in shared_model.target_projector.variables}
    assert len(shared_model.optimizer.variables) == 1 + len(trained)  # the count and a momentum each


def test_no_gradient_goes_through_the_target(shared_model, views, gradient):
    def through_target(view):
        return ops.sum(ops.square(shared_model.target_projection(view, training=False)))

    def through_online(view):
        return ops.sum(ops.square(shared_model.predict_projection(view, training=False)))

    assert np.abs(gradient(through_target, views[0])).max() == 0.0
    assert np.abs(gradient(through_online, views[0])).max() > 0.0


def test_swapping_the_views_leaves_the_loss_unchanged(shared_model, views):
    one, two = views
    straight = losses.byol_loss(**shared_model.predict_views(one, two))
    swapped = losses.byol_loss(**shared_model.predict_views(two, one))
    np.testing.assert_allclose(straight, swapped, rtol=1e-5)


def test_predictions_and_targets_are_named_by_their_view(shared_model, views):
    one, two = views
    outputs = shared_model.predict_views(one, two)
    np.testing.assert_allclose(
        outputs["prediction_1"], shared_model.predict_projection(one, training=False), atol=1e-6
    )
    np.testing.assert_allclose(
        outputs["target_2"], shared_model.target_projection(two, training=False), atol=1e-6
    )
    assert np.abs(outputs["target_1"] - outputs["target_2"]).max() > 1e-3
    assert np.abs(outputs["prediction_1"] - outputs["prediction_2"]).max() > 1e-3


def test_batch_norm_sees_one_view_at_a_time(make_model, views):
    model = make_model()
    one, two = views
    alone = np.asarray(model.predict_views(one, two, training=True)["prediction_1"])
    beside_another = np.asarray(model.predict_views(one, two * 0.3, training=True)["prediction_1"])
    np.testing.assert_allclose(alone, beside_another, atol=1e-6)


def test_the_loss_of_a_step_is_the_sum_of_both_terms_over_two_different_views(make_model, images):
    model = make_model(view_1=AS_IS, view_2=MIRRORED)
    x = images[:16] / 255.0
    mirrored = reference.solarize(reference.grey(x[:, :, ::-1])).astype(np.float32)
    outputs = model.predict_views(x.astype(np.float32), mirrored, training=True)
    expected = reference.pair_loss(outputs["prediction_1"], outputs["target_2"]) + reference.pair_loss(
        outputs["prediction_2"], outputs["target_1"]
    )
    assert train_once(model, images) == pytest.approx(expected.mean(), rel=1e-4)


def test_the_two_views_and_the_images_of_a_batch_are_drawn_apart(shared_model, images, monkeypatch):
    seen = []

    def record(batch, draws, config):
        seen.append((np.asarray(draws), config))
        return np.zeros((len(batch), config.size, config.size, 3), np.float32)

    monkeypatch.setattr(augmentations, "make_view", record)
    shared_model.call(images[:4], training=False)
    shared_model.call(images[:4], training=False)
    draws = [d for d, _ in seen]
    assert len(draws) == 4
    for i in range(4):
        for j in range(i):
            assert np.abs(draws[i] - draws[j]).max() > 0.1
    assert len(np.unique(draws[0][:, 0])) == 4
    assert [config for _, config in seen] == [SETTINGS.view_1, SETTINGS.view_2] * 2


@pytest.mark.parametrize(("tau", "share"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_the_ema_is_exact(make_model, images, tau, share):
    model = make_model(base_tau=tau, optimizer=dataclasses.replace(SETTINGS.optimizer, warmup_steps=0))
    before = [ops.convert_to_numpy(v).copy() for v in targets(model)]
    train_once(model, images)
    online = [ops.convert_to_numpy(v) for v in onlines(model)]
    assert max(np.abs(a - b).max() for a, b in zip(before, online, strict=True)) > 1e-4  # it did learn
    for target, old, new in zip(targets(model), before, online, strict=True):
        expected = np.float32(share) * old + np.float32(1 - share) * new
        np.testing.assert_array_equal(ops.convert_to_numpy(target), expected)


def test_the_target_moves_by_the_ema_and_by_nothing_else(make_model, images, monkeypatch):
    model = make_model(optimizer=dataclasses.replace(SETTINGS.optimizer, warmup_steps=0))
    monkeypatch.setattr(model, "update_target", lambda: None)
    before = [ops.convert_to_numpy(v).copy() for v in targets(model)]
    online = [ops.convert_to_numpy(v).copy() for v in onlines(model)]
    train_once(model, images)
    for target, old in zip(targets(model), before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(target), old)
    assert any(
        not np.array_equal(ops.convert_to_numpy(v), o) for v, o in zip(onlines(model), online, strict=True)
    )


def test_tau_follows_the_steps_of_the_whole_training(make_model, images):
    model = make_model(base_tau=0.5, optimizer=dataclasses.replace(SETTINGS.optimizer, warmup_steps=0))
    assert model.total_steps == 8
    for step in range(8):
        before = [ops.convert_to_numpy(v).copy() for v in targets(model)]
        train_once(model, images)
        assert int(model.optimizer.iterations) == step + 1
        tau = reference.tau(step, 8, 0.5)
        for online, target, old in zip(onlines(model), targets(model), before, strict=True):
            expected = tau * old + (1 - tau) * ops.convert_to_numpy(online)
            np.testing.assert_allclose(ops.convert_to_numpy(target), expected, rtol=1e-5, atol=1e-6)


def test_the_moments_of_both_networks_move_each_by_its_own_batches(make_model, images):
    model = make_model(base_tau=1.0, optimizer=dataclasses.replace(SETTINGS.optimizer, warmup_steps=0))
    initial = values_of(model.online_encoder.variables)
    for _ in range(3):
        train_once(model, images)
    for network in (model.online_encoder, model.target_encoder):
        norm = network.get_layer("stem_norm")
        assert np.abs(ops.convert_to_numpy(norm.moving_mean)).max() > 0.01
        assert np.abs(ops.convert_to_numpy(norm.moving_variance) - 1).max() > 0.01
    # At tau 1 the target's weights never change, the online's do: their later moments differ.
    last = "stage2_block1_norm2"
    online, target = (n.get_layer(last).moving_mean for n in (model.online_encoder, model.target_encoder))
    assert np.abs(ops.convert_to_numpy(online) - ops.convert_to_numpy(target)).max() > 1e-4
    assert initial.keys() == values_of(model.online_encoder.variables).keys()


def test_the_targets_forward_uses_the_batchs_statistics(shared_model, views):
    assert uses_batch_statistics(shared_model.online_encoder, views[0])
    assert uses_batch_statistics(shared_model.target_encoder, views[0])
    hidden = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    assert uses_batch_statistics(shared_model.target_projector, hidden)


def test_that_check_detects_a_target_frozen_by_the_layers_flag(shared_model, views):
    """The trap: under `trainable = False` Keras' batch norm uses its moments whatever `training` says."""
    trapped = keras.models.clone_model(shared_model.target_encoder)
    trapped.trainable = False
    assert not uses_batch_statistics(trapped, views[0])


def test_the_optimizer_counts_each_step_once(make_model, images):
    model = make_model()
    model.fit(images, batch_size=16, epochs=2, shuffle=False, verbose=0)
    assert int(model.optimizer.iterations) == 8


def test_the_product_treats_a_batch_of_one_like_a_batch_of_many(make_model, images, tmp_path):
    model = make_model()
    model.fit(images, batch_size=16, verbose=0)
    model.online_encoder.save(tmp_path / "encoder.keras")
    loaded = keras.models.load_model(tmp_path / "encoder.keras", compile=False)
    together = representations.embed(loaded, images)
    alone = np.concatenate([representations.embed(loaded, images[i : i + 1]) for i in range(8)])
    np.testing.assert_allclose(alone, together[:8], atol=1e-5)
    np.testing.assert_allclose(together, representations.embed(model.online_encoder, images), atol=1e-6)
    moments = [v for v in loaded.variables if v.name == "moving_variance"]
    assert all(np.abs(ops.convert_to_numpy(v) - 1).max() > 1e-3 for v in moments)
    # By the batch's own statistics it would not agree: the check above can fail.
    by_batch = np.asarray(loaded(images[:1] / np.float32(255), training=True))
    assert np.abs(by_batch - together[:1]).max() > 1e-3
