"""A pretraining that starts from an earlier one: what it takes over, what it does not, and that it resumes."""

import dataclasses
import json
import shutil
import types

import keras
import numpy as np
import pytest
from keras import ops

from tests.unit.trainer.conftest import SETTINGS, TINY, coloured_images
from trainer import input_pipeline, networks
from trainer.architecture import EncoderConfig
from trainer.byol import pretraining, run_fn, warm_start
from trainer.byol.checkpoint import CheckpointFolder
from trainer.byol.config import WARM_STARTS
from trainer.byol.pretraining import PretrainingImages, build_model, pretrain
from trainer.byol.warm_start import read_warm_start

ONE_EPOCH = dataclasses.replace(SETTINGS, epochs=1, checkpoint_minutes=1e-9)
PREDICTOR = (
    "hidden/kernel",
    "norm/gamma",
    "norm/beta",
    "norm/moving_mean",
    "norm/moving_variance",
    "output/kernel",
    "output/bias",
)
NETWORKS = ("online_encoder", "online_projector", "predictor", "target_encoder", "target_projector")


class Stop(Exception):  # noqa: N818, no error but the end of what a test wants to see
    """Ends a training in the middle."""


def weights(network):
    return [ops.convert_to_numpy(v) for v in network.variables]


def state(model):
    return [ops.convert_to_numpy(v) for v in [*model.variables, *model.optimizer.variables]]


def assert_same(one, other):
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def given(policy, folder):
    """What `policy` takes from the parent's `folder`."""
    start = read_warm_start(policy, str(folder))
    assert start is not None
    return start


def run_pretrainer(monkeypatch, folder, data, config=ONE_EPOCH, encoder=TINY, **changes):
    """The Pretrainer's run_fn on images in memory; returns the networks as its training ended, or what was raised."""
    rows = input_pipeline.Rows(
        np.zeros(len(data), np.int64), np.zeros(len(data), bool), data.channel_mean, data.channel_std, "rows"
    )
    split = input_pipeline.ImagesInMemory(data.images, rows)
    results = []

    def keep(*arguments):
        results.append(pretrain(*arguments))
        return results[-1]

    custom = {
        "pretraining": dataclasses.asdict(config),
        "encoder": dataclasses.asdict(encoder),
        "checkpoints": str(folder / "checkpoints"),
        "memory_bytes": 4_000_000,
    }
    arguments = types.SimpleNamespace(
        custom_config=custom | {k: v for k, v in changes.items() if k == "warm_start"},
        base_model=changes.get("base_model"),
        train_files=[],
        model_run_dir=str(folder / "run"),
        serving_model_dir=str(folder / "model"),
    )
    with monkeypatch.context() as patch:
        patch.setattr(input_pipeline, "open_split", lambda *_: split)
        patch.setattr(run_fn, "pretrain", keep)
        run_fn.run_fn(arguments)
    return results[0].model


@pytest.fixture(scope="module")
def parent(data, tmp_path_factory):
    """The folder of a Pretrainer's model, and its networks: each weight and moment a number of its own."""
    folder = tmp_path_factory.mktemp("parent")
    model, rng = build_model(ONE_EPOCH, TINY, data), np.random.default_rng(9)
    for name in NETWORKS:
        for v in getattr(model, name).variables:
            v.assign(rng.uniform(0.5, 1.5, v.shape) * (ops.convert_to_numpy(v) + 0.01))
    networks.as_float32(model.online_encoder).save(folder / "encoder.keras")
    warm_start.save_networks(model, folder / "networks.npz")
    return folder, {name: weights(getattr(model, name)) for name in NETWORKS}


@pytest.fixture(scope="module")
def newer():
    """Other images, darker and of less contrast: other statistics."""
    images = coloured_images(64, seed=7) // 2
    pixels = images / 255.0
    return PretrainingImages(images, pixels.mean((0, 1, 2)), pixels.std((0, 1, 2)))


@pytest.fixture
def before_the_first_step(monkeypatch, newer, tmp_path):
    """The model as a warm-started training would make its first step."""

    def get(start, config=ONE_EPOCH):
        seen = []

        def stop(model, *_):
            seen.append(model)
            raise Stop

        monkeypatch.setattr(pretraining, "_run_epoch", stop)
        with pytest.raises(Stop):
            pretrain(config, TINY, newer, None, tmp_path, start=start)
        return seen[0]

    return get


def test_full_starts_from_all_five_networks_moments_included(parent, before_the_first_step):
    folder, earlier = parent
    model = before_the_first_step(given("full", folder))
    for name in NETWORKS:
        assert_same(weights(getattr(model, name)), earlier[name])
    # The earlier target was another network than the earlier online one, and so it is again.
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(weights(model.online_encoder), weights(model.target_encoder), strict=True)
    )


def test_encoder_starts_both_encoders_from_the_earlier_one_and_the_heads_anew(
    parent, newer, before_the_first_step
):
    folder, earlier = parent
    model = before_the_first_step(given("encoder", folder))
    assert_same(weights(model.online_encoder), earlier["online_encoder"])
    assert_same(weights(model.target_encoder), earlier["online_encoder"])
    fresh = build_model(ONE_EPOCH, TINY, newer)
    for name in ("online_projector", "predictor", "target_projector"):
        assert_same(weights(getattr(model, name)), weights(getattr(fresh, name)))
        assert any(
            not np.array_equal(a, b)
            for a, b in zip(weights(getattr(model, name)), earlier[name], strict=True)
        )


def test_never_starts_anew_whatever_is_given(parent, newer, before_the_first_step):
    model = before_the_first_step(read_warm_start("never", str(parent[0])))
    assert_same(state(model), state(build_model(ONE_EPOCH, TINY, newer)))


def test_optimizer_and_schedules_start_anew(parent, newer, before_the_first_step):
    model = before_the_first_step(given("full", parent[0]))
    fresh = build_model(ONE_EPOCH, TINY, newer)
    assert_same(
        [ops.convert_to_numpy(v) for v in model.optimizer.variables],
        [ops.convert_to_numpy(v) for v in fresh.optimizer.variables],
    )
    assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize("policy", ["encoder", "full"])
def test_the_normalisation_is_of_the_new_images(parent, newer, before_the_first_step, policy):
    earlier = keras.models.load_model(parent[0] / "encoder.keras").get_layer("normalization")
    model = before_the_first_step(given(policy, parent[0]))
    for encoder in (model.online_encoder, model.target_encoder):
        layer = encoder.get_layer("normalization")
        mean = ops.convert_to_numpy(layer.mean).ravel()
        np.testing.assert_allclose(mean, newer.channel_mean, rtol=1e-6)
        np.testing.assert_allclose(
            ops.convert_to_numpy(layer.variance).ravel(), newer.channel_std**2, rtol=1e-6
        )
        assert np.abs(mean - ops.convert_to_numpy(earlier.mean).ravel()).min() > 0.1


def test_the_weights_reach_a_bfloat16_training_unrounded(parent, before_the_first_step):
    start = given("full", parent[0])
    model = before_the_first_step(start, dataclasses.replace(ONE_EPOCH, precision="mixed_bfloat16"))
    assert_same(weights(model.predictor), parent[1]["predictor"])


def test_a_killed_warm_started_training_ends_in_the_same_bits(parent, newer, tmp_path, monkeypatch):
    """Through run_fn, which reads the parent anew; what a kill would leave is copied as it is written."""
    warm = {"warm_start": "full", "base_model": str(parent[0])}
    plain_save, plain_epoch, fits = CheckpointFolder.save, pretraining._run_epoch, []

    def save(self, model, position, history):
        plain_save(self, model, position, history)
        if position.step == 2:
            shutil.copytree(self.folder.parent, tmp_path / "killed" / "checkpoints", dirs_exist_ok=True)

    def run_epoch(model, config, data, position, callbacks):
        fits.append(position.step)
        return plain_epoch(model, config, data, position, callbacks)

    monkeypatch.setattr(CheckpointFolder, "save", save)
    monkeypatch.setattr(pretraining, "_run_epoch", run_epoch)
    whole = run_pretrainer(monkeypatch, tmp_path / "whole", newer, **warm)
    resumed = run_pretrainer(monkeypatch, tmp_path / "killed", newer, **warm)
    assert fits == [0, 2]
    assert_same(state(resumed), state(whole))
    left = tmp_path / "killed" / "model"
    next_start = given("full", left)  # what the run leaves is what the next one takes
    assert_same([next_start.weights[f"predictor/{n}"] for n in PREDICTOR], weights(resumed.predictor))
    encoder = keras.models.load_model(left / "encoder.keras")
    assert_same(weights(encoder), weights(resumed.online_encoder))
    record = json.loads((left / "pretraining.json").read_text())
    start = given("full", parent[0])
    assert record["warm_start"] == {"policy": "full", "weights": start.digest()}


def test_policy_and_parent_are_part_of_the_identity(parent, newer):
    cold = pretraining._identity(ONE_EPOCH, TINY, newer)
    full, encoder = (given(policy, parent[0]) for policy in ("full", "encoder"))
    moved = {
        **full.weights,
        "predictor/output/bias": full.weights["predictor/output/bias"] + np.float32(1e-6),
    }
    starts = [None, full, encoder, dataclasses.replace(full, weights=moved)]
    assert pretraining._identity(ONE_EPOCH, TINY, newer, None) == cold
    assert len({pretraining._identity(ONE_EPOCH, TINY, newer, start) for start in starts}) == 4
    again = dataclasses.replace(full, source="elsewhere")
    assert again.digest() == full.digest()


@pytest.mark.parametrize("policy", ["encoder", "full"])
@pytest.mark.parametrize(
    "other", [EncoderConfig((8, 24), (1, 1), 2), EncoderConfig((8, 16), (1, 2), 2)], ids=["wider", "deeper"]
)
def test_another_architecture_is_refused_whole(parent, newer, policy, other):
    model = build_model(ONE_EPOCH, other, newer)
    before = state(model)
    with pytest.raises(
        ValueError, match=r"variables do not fit.*Received .*, expected .* earlier pretraining"
    ):
        given(policy, parent[0]).apply(model)
    assert_same(state(model), before)


def test_another_head_is_refused_by_full_and_nothing_to_encoder(parent, newer):
    smaller = dataclasses.replace(ONE_EPOCH, head=dataclasses.replace(SETTINGS.head, output_dim=4))
    model = build_model(smaller, TINY, newer)
    before = state(model)
    with pytest.raises(
        ValueError,
        match=r"'online_projector/output/kernel'. Received \(16, 8\), expected \(16, 4\) by encoder\.\* and",
    ):
        given("full", parent[0]).apply(model)
    assert_same(state(model), before)
    given("encoder", parent[0]).apply(model)
    assert_same(weights(model.online_encoder), parent[1]["online_encoder"])


def test_no_earlier_model_starts_anew_and_says_so(caplog):
    with caplog.at_level("INFO"):
        assert [read_warm_start(policy, None) for policy in WARM_STARTS] == [None, None, None]
    assert caplog.text.count("no earlier encoder to start from") == 2


def test_an_unknown_policy_is_named(parent):
    with pytest.raises(ValueError, match="one of never, encoder, full; received 'partial'"):
        read_warm_start("partial", str(parent[0]))


@pytest.mark.parametrize("fault", ["absent", "cut", "pickled"])
def test_networks_that_cannot_be_read_are_one_error(parent, tmp_path, fault):
    (tmp_path / "encoder.keras").write_bytes((parent[0] / "encoder.keras").read_bytes())
    networks = tmp_path / "networks.npz"
    if fault == "cut":
        networks.write_bytes((parent[0] / "networks.npz").read_bytes()[:-100])
    elif fault == "pickled":
        np.savez(networks, **{"predictor/output/bias": np.array([{}], dtype=object)})
    message = (
        "Warm start 'full' expects encoder.keras and networks.npz of an earlier Pretrainer in .*; received"
    )
    with pytest.raises(ValueError, match=message):
        read_warm_start("full", str(tmp_path))
    assert read_warm_start("encoder", str(tmp_path)) is not None
    (tmp_path / "encoder.keras").write_bytes(b"no archive")
    with pytest.raises(
        ValueError, match=r"Warm start 'encoder' expects encoder\.keras of an earlier Pretrainer"
    ):
        read_warm_start("encoder", str(tmp_path))


def test_the_networks_are_float32_without_pickle(parent):
    with np.load(parent[0] / "networks.npz", allow_pickle=False) as arrays:
        assert {name.partition("/")[0] for name in arrays.files} == set(warm_start.OTHERS)
        assert {arrays[name].dtype for name in arrays.files} == {np.dtype(np.float32)}
