"""Pretraining as a whole: resume after a stop anywhere, checkpoints, history, and the ends that are errors."""

import csv
import dataclasses
import errno
import logging
import os
import pathlib
import re
import shutil
import typing

import numpy as np
import pytest
from keras import ops

from tests.unit.trainer import reference
from tests.unit.trainer.conftest import SETTINGS, TINY
from trainer.byol import checkpoint, choice, monitors, pretraining
from trainer.byol.byol import BYOL
from trainer.byol.checkpoint import CheckpointFolder, Position
from trainer.byol.config import OptimizerConfig
from trainer.byol.pretraining import PretrainingImages, pretrain

# Written after every step, and after no step but the last.
ALWAYS = dataclasses.replace(SETTINGS, checkpoint_minutes=1e-9)
TIMING = {"images_per_second", "seconds"}


class Stop(Exception):  # noqa: N818, no error but a kill
    """What ends a training in the middle."""


def state(model):
    return [ops.convert_to_numpy(v) for v in [*model.variables, *model.optimizer.variables]]


def assert_same_state(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def untimed(history):
    return [{name: value for name, value in epoch.items() if name not in TIMING} for epoch in history]


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    """State and history of a training that was never stopped: 2 epochs of 4 steps."""
    result = pretrain(SETTINGS, TINY, data, None, tmp_path_factory.mktemp("whole"))
    return state(result.model), result.history


@pytest.fixture(scope="module")
def killed(data, tmp_path_factory):
    """For each number of checkpoints, the folder that a kill after so many would leave: 4 steps an epoch, 8 saves."""
    folder, plain, count = tmp_path_factory.mktemp("killed"), CheckpointFolder.save, iter(range(1, 1000))

    def save(self, model, position, history):
        plain(self, model, position, history)
        shutil.copytree(self.folder.parent, folder / f"after-{next(count)}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointFolder, "save", save)
        pretrain(ALWAYS, TINY, data, None, folder / "running")
    assert next(count) == 9
    return folder


# Inside the first epoch, between both, and inside the second.
@pytest.mark.parametrize(("saves", "resumed_at"), [(2, (0, 2)), (4, (1, 0)), (6, (1, 2))])
def test_a_resumed_training_ends_in_the_same_bits(
    data, killed, monkeypatch, uninterrupted, saves, resumed_at
):
    starts: list[tuple[int, int]] = []
    plain = CheckpointFolder.restore

    def restore(self, model):
        position, history = plain(self, model)
        starts.append((position.epoch, position.step))
        return position, history

    monkeypatch.setattr(CheckpointFolder, "restore", restore)
    result = pretrain(ALWAYS, TINY, data, None, killed / f"after-{saves}")
    assert starts == [resumed_at]
    assert_same_state(state(result.model), uninterrupted[0])
    for resumed, whole in zip(untimed(result.history), untimed(uninterrupted[1]), strict=True):
        assert resumed.pop("loss") == pytest.approx(whole.pop("loss"), rel=1e-6)
        assert resumed == whole  # the schedules' values among them


def test_several_steps_a_call_end_in_the_same_bits_and_resume_between_calls(
    data, tmp_path, monkeypatch, uninterrupted
):
    """4 steps in calls of 3: the second call of each epoch is cut short."""
    calls = dataclasses.replace(ALWAYS, steps_per_execution=3)
    plain, count = CheckpointFolder.save, iter(range(1, 1000))

    def save(self, *arguments):
        plain(self, *arguments)
        if next(count) == 3:  # in each epoch after step 3 and at its end
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFolder, "save", save)
        with pytest.raises(Stop):
            pretrain(calls, TINY, data, None, tmp_path)
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoint-000001-00000000.npz",
        "checkpoint-000001-00000003.npz",
    ]
    seen: list[dict[str, float]] = []
    result = pretrain(calls, TINY, data, None, tmp_path, on_epoch=seen.append)
    assert_same_state(state(result.model), uninterrupted[0])
    assert seen == result.history  # the epoch before the stop is told again
    for one, other in zip(untimed(result.history), untimed(uninterrupted[1]), strict=True):
        assert one.pop("loss") == pytest.approx(other.pop("loss"), rel=1e-6)
        assert one == other


def test_auto_is_settled_before_the_training_and_a_bfloat16_one_resumes_to_the_same_bits(
    data, tmp_path, monkeypatch
):
    auto = dataclasses.replace(ALWAYS, precision="auto", epochs=1)
    monkeypatch.setattr(choice, "multiplies_bfloat16", lambda: True)
    plain, count = CheckpointFolder.save, iter(range(1, 1000))

    def save(self, *arguments):
        plain(self, *arguments)
        if next(count) == 2:
            shutil.copytree(tmp_path / "whole", tmp_path / "killed")

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFolder, "save", save)
        whole = pretrain(auto, TINY, data, None, tmp_path / "whole")
    assert {layer.compute_dtype for layer in whole.model.online_encoder.layers if "conv" in layer.name} == {
        "bfloat16"
    }
    assert {layer.compute_dtype for layer in whole.encoder().layers} == {"float32"}
    resumed = pretrain(
        dataclasses.replace(auto, precision="mixed_bfloat16"), TINY, data, None, tmp_path / "killed"
    )
    assert_same_state(state(resumed.model), state(whole.model))
    assert len(list((tmp_path / "killed").iterdir())) == 1  # the same training, not another one beside it


def test_the_progress_counts_steps_not_calls():
    clock = pretraining._Clock(SETTINGS, 4, Position(1, 1))
    clock.on_train_begin()
    clock.on_train_batch_end(1, {})
    assert clock.done == 4 + 1 + 2
    clock.on_train_batch_end(5, {})  # the epoch has 3 steps left, the call says up to 6
    assert clock.done == 8


def test_the_history_has_the_schedules_of_each_epochs_last_step(uninterrupted):
    _, history = uninterrupted
    assert [epoch["epoch"] for epoch in history] == [1, 2]
    for epoch, last in zip(history, (3, 7), strict=True):
        assert epoch["tau"] == pytest.approx(reference.tau(last, 8, 0.9), abs=1e-6)
        assert epoch["learning_rate"] == pytest.approx(reference.learning_rate(last, 0.05, 2, 8), rel=1e-5)
        assert 0 < epoch["loss"] < 8
        assert epoch["images_per_second"] == pytest.approx(64 / epoch["seconds"])


def test_a_finished_training_is_not_trained_again(data, tmp_path, uninterrupted, monkeypatch):
    first = pretrain(SETTINGS, TINY, data, None, tmp_path)
    monkeypatch.setattr(pretraining, "_run_epoch", None)
    again = pretrain(SETTINGS, TINY, data, None, tmp_path)
    assert_same_state(state(again.model), uninterrupted[0])
    assert again.history == first.history
    again.checkpoints.remove()
    assert list(tmp_path.iterdir()) == []


def test_the_product_is_the_online_encoder_with_its_moments(data, tmp_path, images):
    result = pretrain(dataclasses.replace(SETTINGS, epochs=1), TINY, data, None, tmp_path)
    product, online = result.encoder(), result.model.online_encoder
    x = images[:8] / np.float32(255)
    np.testing.assert_allclose(product(x), online(x), atol=1e-6)
    for a, b in zip(product.get_weights(), online.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [v.path for v in product.variables] == [v.path for v in online.variables]


def test_another_training_starts_anew_beside_the_first(data, tmp_path):
    one = dataclasses.replace(SETTINGS, epochs=1)
    pretrain(one, TINY, data, None, tmp_path)
    starts: list[dict[str, float]] = []
    pretrain(dataclasses.replace(one, seed=1), TINY, data, None, tmp_path, on_epoch=starts.append)
    assert [epoch["epoch"] for epoch in starts] == [1]
    assert len(list(tmp_path.iterdir())) == 2


def test_what_decides_the_weights_decides_the_identity(data):
    identity = pretraining._identity(SETTINGS, TINY, data)
    for change in (
        {"seed": 1},
        {"epochs": 3},
        {"optimizer": OptimizerConfig(name="lars")},
        {"view_2": dataclasses.replace(SETTINGS.view_2, solarize=0.1)},
        {"precision": "mixed_bfloat16"},
    ):
        assert pretraining._identity(dataclasses.replace(SETTINGS, **change), TINY, data) != identity
    other_images = data.images.copy()
    other_images[0, 0, 0, 0] ^= 1
    changed = dataclasses.replace(data, images=other_images)
    assert pretraining._identity(SETTINGS, TINY, changed) != identity
    assert pretraining._identity(SETTINGS, dataclasses.replace(TINY, stem_stride=1), data) != identity
    for harmless in (
        dataclasses.replace(SETTINGS, checkpoint_minutes=9.0),
        dataclasses.replace(SETTINGS, monitor_images=7),
        dataclasses.replace(SETTINGS, monitor_epochs=7),
        dataclasses.replace(SETTINGS, engine="jax"),
        dataclasses.replace(SETTINGS, checkpoints_kept=5),
        dataclasses.replace(SETTINGS, steps_per_execution=4),
    ):
        assert pretraining._identity(harmless, TINY, data) == identity


@pytest.fixture
def folder(shared_model, tmp_path):
    """Two checkpoints of the shared model, the older at epoch 1 and the newer at epoch 2."""
    found = CheckpointFolder(tmp_path / "run", "identity")
    for epoch in (1, 2):
        found.save(shared_model, Position(epoch, 3, 0.5), [{"epoch": epoch}])
    return found


def test_the_newest_checkpoint_is_restored_and_two_are_kept(shared_model, folder):
    assert folder.restore(shared_model) == (Position(2, 3, 0.5), [{"epoch": 2}])
    folder.save(shared_model, Position(3, 0), [])
    assert [path.name for path in folder.paths()] == [
        "checkpoint-000002-00000003.npz",
        "checkpoint-000003-00000000.npz",
    ]
    folder.remove()
    assert folder.restore(shared_model) == (Position(0, 0), [])


def test_as_many_checkpoints_are_kept_as_are_asked_for(shared_model, tmp_path):
    folder = CheckpointFolder(tmp_path / "run", "identity", kept=3)
    for epoch in range(5):
        folder.save(shared_model, Position(epoch, 0), [])
    assert [path.name[11:17] for path in folder.paths()] == ["000002", "000003", "000004"]


def damage(content, kind):
    if kind == "cut":
        return content[: len(content) // 2]
    if kind == "empty":
        return b""
    if kind == "other":
        return b"not a checkpoint" * 100
    place = {"first": 5, "middle": len(content) // 2, "last": len(content) - 1}[kind]
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("kind", ["cut", "empty", "other", "first", "middle", "last"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_and_says_so(
    shared_model, folder, caplog, kind
):
    newest = folder.paths()[-1]
    newest.write_bytes(damage(newest.read_bytes(), kind))
    before = state(shared_model)
    with caplog.at_level(logging.WARNING):
        assert folder.restore(shared_model) == (Position(1, 3, 0.5), [{"epoch": 1}])
    assert f"Checkpoint {newest.name} cannot be used" in caplog.text
    assert_same_state(state(shared_model), before)
    assert [path.name for path in folder.paths()] == ["checkpoint-000001-00000003.npz"]
    assert newest.with_suffix(".unusable").exists()


def test_with_every_checkpoint_damaged_the_training_starts_anew(shared_model, folder, caplog):
    for path in folder.paths():
        path.write_bytes(b"")
    before = state(shared_model)
    with caplog.at_level(logging.WARNING):
        assert folder.restore(shared_model) == (Position(0, 0), [])
    assert caplog.text.count("cannot be used") == 2
    assert_same_state(state(shared_model), before)


def test_a_checkpoint_of_another_training_is_ignored(shared_model, folder, caplog):
    before = state(shared_model)
    with caplog.at_level(logging.WARNING):
        other = CheckpointFolder(folder.folder, "another")
        assert other.restore(shared_model) == (Position(0, 0), [])
    assert "belongs to another training" in caplog.text
    assert_same_state(state(shared_model), before)


def test_a_checkpoint_of_another_architecture_is_ignored(folder, make_model, caplog):
    model = make_model(head=dataclasses.replace(SETTINGS.head, output_dim=7))
    with caplog.at_level(logging.WARNING):
        assert folder.restore(model) == (Position(0, 0), [])
    assert "other shapes" in caplog.text


@pytest.mark.parametrize("failing", ["write", "rename"])
def test_a_write_that_fails_leaves_the_checkpoints_before_it(shared_model, folder, monkeypatch, failing):
    before = {path.name: path.read_bytes() for path in folder.paths()}

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    if failing == "write":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(pathlib.Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        folder.save(shared_model, Position(3, 0), [])
    assert {path.name: path.read_bytes() for path in folder.folder.iterdir()} == before


def test_a_half_written_file_of_a_killed_run_is_no_checkpoint(shared_model, folder):
    (folder.folder / ".4711.checkpoint-000009-00000000.npz").write_bytes(b"half")
    assert folder.restore(shared_model)[0] == Position(2, 3, 0.5)


def test_everything_is_in_a_checkpoint_random_state_and_optimizer_included(make_model, images, folder):
    model = make_model()
    model.fit(images[:32], batch_size=16, verbose=0)
    kept = state(model)
    names = [v.path for v in [*model.variables, *model.optimizer.variables]]
    assert any("seed_generator_state" in name for name in names)
    assert any("momentum" in name for name in names)
    assert any("iteration" in name for name in names)
    assert any("target_encoder" in name or "moving_mean" in name for name in names)
    folder.save(model, Position(5, 0), [])
    model.fit(images[:32], batch_size=16, verbose=0)
    moved = [not np.array_equal(a, b) for a, b in zip(state(model), kept, strict=True)]
    assert sum(moved) > 0.9 * len(moved)
    folder.restore(model)
    assert_same_state(state(model), kept)


def test_a_rate_that_is_far_too_high_is_named_and_writes_no_broken_checkpoint(data, tmp_path):
    wild = dataclasses.replace(ALWAYS, optimizer=OptimizerConfig(base_learning_rate=1e30, warmup_steps=0))
    with pytest.raises(monitors.CollapseError, match=r"finite numbers: loss nan.*Lower the learning rate"):
        pretrain(wild, TINY, data, None, tmp_path)
    for path in tmp_path.rglob("*.npz"):
        header, _ = checkpoint._parsed(checkpoint._read(path))
        assert np.isfinite(header["position"]["loss"])


def test_a_collapsed_training_stops_after_its_first_epoch(data, images, tmp_path):
    """Images without any difference: every projection is the same, whatever the network does."""
    same = PretrainingImages(np.repeat(images[:1], 64, axis=0), data.channel_mean, data.channel_std)
    labels = np.arange(64) % 10
    watched = monitors.MonitorImages(same.images, labels, same.images[:8], labels[:8])
    seen: list[dict[str, float]] = []
    with pytest.raises(monitors.CollapseError, match="collapsed to a point"):
        pretrain(SETTINGS, TINY, same, watched, tmp_path, on_epoch=seen.append)
    assert [epoch["epoch"] for epoch in seen] == [1]  # the logs hold what was seen
    assert seen[0]["projection_spread"] < monitors.COLLAPSE_SHARE


def test_the_monitors_values_are_in_the_history_and_its_csv(data, images, tmp_path):
    labels = np.arange(64) % 10
    watched = monitors.MonitorImages(images[:40], labels[:40], images[40:], labels[40:])
    seen: list[dict[str, float]] = []
    result = pretrain(
        dataclasses.replace(SETTINGS, epochs=1), TINY, data, watched, tmp_path, on_epoch=seen.append
    )
    assert seen == result.history
    pretraining.write_history(result.history, tmp_path / "history.csv")
    with (tmp_path / "history.csv").open() as file:
        (row,) = list(csv.DictReader(file))
    assert list(row)[:4] == ["epoch", "loss", "tau", "learning_rate"]
    for name in monitors.MEASURED:
        assert float(row[name]) == result.history[0][name]


def test_every_image_of_an_epoch_is_seen_once_in_an_order_of_its_own(data, make_model):
    model = make_model()
    seen: list[np.ndarray] = []

    class Recorder:
        total_steps = model.total_steps
        optimizer = model.optimizer

        def fit(self, x, batch_size, shuffle, **_):
            assert not shuffle
            seen.append(x)
            return type("Record", (), {"history": {"loss": [1.0]}})

    for epoch in (0, 1):
        pretraining._run_epoch(typing.cast(BYOL, Recorder()), SETTINGS, data, Position(epoch, 0), [])
    pretraining._run_epoch(typing.cast(BYOL, Recorder()), SETTINGS, data, Position(1, 3), [])
    for images in seen[:2]:
        assert sorted(i.tobytes() for i in images) == sorted(i.tobytes() for i in data.images)
    assert not np.array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[2], seen[1][48:])  # resumed: the rest of the same order


def test_the_monitors_measure_every_so_many_epochs_and_after_the_last(
    data, images, tmp_path, monkeypatch, caplog
):
    watched = monitors.MonitorImages(images[:40], np.arange(40), images[40:], np.arange(24))
    found = {"knn_accuracy": 0.5, "projection_spread": 0.9}
    monkeypatch.setattr(monitors, "measure", lambda model, images: dict(found))
    rare = dataclasses.replace(SETTINGS, epochs=5, monitor_epochs=2)
    with caplog.at_level(logging.INFO, "byol.pretraining"):
        result = pretrain(rare, TINY, data, watched, tmp_path)
    assert [epoch["epoch"] for epoch in result.history if "knn_accuracy" in epoch] == [2, 4, 5]
    lines = [message for message in caplog.messages if message.startswith("epoch ")]
    assert ["kNN" in line for line in lines] == [False, True, False, True, True]
    for line in lines:  # of the steps, and of everything: monitors and compilation as well
        ((steps, whole),) = re.findall(r"(\d+) images/s, (\d+) with all else", line)
        assert 0 < int(whole) <= int(steps) * 1.5


def test_the_time_of_the_monitors_is_in_the_speed_of_the_whole():
    clock = pretraining._Clock(dataclasses.replace(SETTINGS, epochs=4), 4, Position(0, 0))
    clock.on_train_batch_end(3, {})
    clock.started -= 100.0
    values = {"epoch": 1, "loss": 1.0, "tau": 0.9, "images_per_second": 6400.0}
    assert "6400 images/s, 1 with all else" in clock.describe(values)
