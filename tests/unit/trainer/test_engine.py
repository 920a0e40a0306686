"""Pretraining on JAX in a process of its own: the same product, its resume, its end with its parent, and its errors."""

import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import tracemalloc
import types

import keras
import numpy as np
import pytest

from tests.unit.trainer import engines
from tests.unit.trainer.conftest import SETTINGS, TINY, coloured_images
from trainer import input_pipeline
from trainer import networks as trained_networks
from trainer.byol import choice, engine, jax_process, job, run_fn
from trainer.byol.monitors import CollapseError
from trainer.byol.pretraining import PretrainingImages, build_model
from trainer.byol.warm_start import ENCODER_FILE, NETWORKS_FILE, read_warm_start, save_networks

ROOT = pathlib.Path(__file__).parents[3]
ON_JAX = dataclasses.replace(SETTINGS, engine="jax", checkpoint_minutes=1e-9)

if not choice.installed():
    pytest.skip("JAX is not installed", allow_module_level=True)


@pytest.fixture(autouse=True, scope="module")
def _on_the_cpu():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_PLATFORMS", "cpu")
        yield


def networks(folder):
    with np.load(folder / "networks.npz") as arrays:
        found = {name: arrays[name] for name in arrays.files}
    encoder = keras.models.load_model(folder / "encoder.keras", compile=False)
    return found | {f"encoder/{v.path}": keras.ops.convert_to_numpy(v) for v in encoder.variables}


def write_job(folder, data, config=ON_JAX, start=None):
    folder.mkdir()
    job.write_images(folder, len(data), [data.images[:40], data.images[40:]])
    job.write_job(folder, job.Job(config, TINY, data, None, folder / "checkpoints", folder, start))
    return folder


@pytest.fixture(scope="module")
def pretrained(data, tmp_path_factory):
    """The folder that the Pretrainer's run_fn leaves with `pretraining.engine=jax`: two epochs of four steps."""
    folder = tmp_path_factory.mktemp("pretrainer")
    holdout = np.arange(len(data)) % 4 == 0
    rows = input_pipeline.Rows(
        np.arange(len(data)) % 10, holdout, data.channel_mean, data.channel_std, "rows"
    )
    custom = {
        "pretraining": dataclasses.asdict(dataclasses.replace(ON_JAX, monitor_images=8)),
        "encoder": dataclasses.asdict(TINY),
        "checkpoints": str(folder / "checkpoints"),
        "memory_bytes": 4_000_000,
    }
    arguments = types.SimpleNamespace(
        custom_config=custom,
        base_model=None,
        train_files=[],
        model_run_dir=str(folder / "run"),
        serving_model_dir=str(folder / "model"),
    )
    with pytest.MonkeyPatch.context() as patch:
        split = input_pipeline.ImagesInMemory(data.images, rows)
        patch.setattr(input_pipeline, "open_split", lambda *_: split)
        run_fn.run_fn(arguments)
    return folder


def test_the_pretrainer_leaves_what_it_leaves_on_tensorflow_and_nothing_else(pretrained, data):
    assert {path.name for path in (pretrained / "model").iterdir()} == {
        "encoder.keras",
        "networks.npz",
        "pretraining.json",
    }
    record = json.loads((pretrained / "model" / "pretraining.json").read_text())
    assert (record["backend"], record["images"]) == ("jax", 64)
    assert [epoch["epoch"] for epoch in record["epochs"]] == [1, 2]
    assert 0 <= record["epochs"][1]["knn_accuracy"] <= 1
    assert len((pretrained / "run" / "history.csv").read_text().splitlines()) == 3
    assert {path.name for path in (pretrained / "run").iterdir()} == {"history.csv", "tensorboard"}
    assert not any((pretrained / "checkpoints").iterdir())
    encoder = keras.models.load_model(pretrained / "model" / "encoder.keras", compile=False)
    features = keras.ops.convert_to_numpy(encoder(data.images[:8] / np.float32(255)))
    assert features.shape == (8, 16)
    assert np.ptp(features, axis=0).max() > 0.01


def test_a_killed_pretrainer_takes_its_process_along_and_the_next_ends_in_the_same_bits(
    pretrained, data, tmp_path
):
    folder = write_job(tmp_path / "job", data)
    program = (
        "import pathlib, sys, time\nfrom trainer.byol import engine\n"
        "def told(values):\n    print('told', flush=True)\n    time.sleep(60)\n"
        "engine.train_on_jax(pathlib.Path(sys.argv[1]), told)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": "jax"},  # which imports no TensorFlow
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "told\n"  # the first epoch is over
    children = pathlib.Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    patience = time.monotonic() + 20
    while any(_is_alive(child) for child in children):
        assert time.monotonic() < patience
        time.sleep(0.05)
    assert len(children) == 1
    assert list(folder.glob("checkpoints/*/checkpoint-*.npz"))
    history, checkpoints = engine.train_on_jax(folder, lambda values: None)
    assert [epoch["epoch"] for epoch in history] == [1, 2]
    assert checkpoints.parent == folder / "checkpoints"
    resumed, whole = networks(folder), networks(pretrained / "model")
    assert len(whole) == len(resumed) > 50
    for name, value in whole.items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)


def test_two_processes_end_as_two_devices_of_one_do(pretrained, data, tmp_path):
    """Statistics of half a batch, a gradient counted twice or other draws would be off by 1e-3 and more."""
    whole = write_job(tmp_path / "devices", data, dataclasses.replace(ON_JAX, devices=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
        by_devices, _ = engine.train_on_jax(whole, lambda values: None)
    folder = write_job(tmp_path / "job", data, dataclasses.replace(ON_JAX, devices=0))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    place = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "KERAS_BACKEND": "jax"}
    follower = subprocess.Popen(
        [sys.executable, "-m", "trainer.byol.jax_process"],
        cwd=ROOT,
        env=os.environ | place | {"JAX_PROCESS_ID": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (place | {"JAX_PROCESS_ID": "0"}).items():
                patch.setenv(name, value)
            history, checkpoints = engine.train_on_jax(folder, lambda values: None)
        _, said = follower.communicate(timeout=60)
    finally:
        follower.kill()
    assert follower.returncode == 0, said
    assert "epoch 2/2" in said  # it has made the same updates
    for epoch, expected in zip(history, by_devices, strict=True):
        assert epoch["loss"] == pytest.approx(expected["loss"], abs=2e-6)
    # One device sums in another order: 2e-5 after four updates on one processor, and training amplifies it.
    record = json.loads((pretrained / "model" / "pretraining.json").read_text())
    for epoch, expected, near in zip(history, record["epochs"], (2e-4, 1e-3), strict=True):
        assert epoch["loss"] == pytest.approx(expected["loss"], abs=near)
    together, divided = networks(folder), networks(whole)
    assert together.keys() == divided.keys() == networks(pretrained / "model").keys()
    for name, value in divided.items():
        np.testing.assert_allclose(together[name], value, atol=1e-5, rtol=1e-5, err_msg=name)
    assert list(checkpoints.glob("checkpoint-*.npz"))


def _is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_compiled_programs_are_kept_between_runs_but_on_cpus(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert jax_process.compilation_cache("gpu") == tmp_path / "byol-tfx" / "jax"
    assert jax_process.compilation_cache("cpu") is None
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
    assert jax_process.compilation_cache("gpu") is None


def test_what_the_training_refuses_is_raised_in_its_words(data, tmp_path):
    folder = write_job(tmp_path / "job", data, dataclasses.replace(ON_JAX, batch_size=65))
    with pytest.raises(ValueError, match=r"^Pretraining needs at least one batch of 65 images; received 64"):
        engine.train_on_jax(folder, lambda values: None)


def child(monkeypatch, program):
    """Puts a program in the place of the process that trains; its messages go to `out`."""
    start = "import json, os, sys, time; out = os.fdopen(int(sys.argv[2]), 'w', buffering=1)\n"
    tell = "def tell(**message): print(json.dumps(message), file=out, flush=True)\n"
    monkeypatch.setattr(engine, "_COMMAND", (sys.executable, "-c", start + tell + program))


@pytest.mark.parametrize(
    ("program", "kind", "words"),
    [
        ("tell(error='CollapseError', text='collapsed to a point')", CollapseError, "^collapsed to a point$"),
        ("tell(error='OSError', text='[Errno 28] No space left')", OSError, "No space left"),
        ("tell(error='TypeError', text='odd'); sys.exit(1)", RuntimeError, r"status 1\. TypeError: odd$"),
        ("os.kill(os.getpid(), 9)", RuntimeError, "ended by SIGKILL, as by a machine out of memory"),
        ("sys.exit(0)", RuntimeError, "ended with status 0"),
    ],
)
def test_each_end_that_is_none_is_one_clear_line(monkeypatch, tmp_path, program, kind, words):
    child(monkeypatch, program)
    with pytest.raises(kind, match=words):
        engine.train_on_jax(tmp_path, lambda values: None)


def test_log_lines_and_epochs_come_as_they_are_told(monkeypatch, tmp_path, caplog):
    child(
        monkeypatch,
        "tell(log=30, name='byol.checkpoint', text='100% odd'); tell(epoch={'loss': float('nan')})\n"
        "tell(done={'history': [], 'checkpoints': '/x'})",
    )
    seen: list[dict[str, float]] = []
    assert engine.train_on_jax(tmp_path, seen.append) == ([], pathlib.Path("/x"))
    assert np.isnan(seen[0]["loss"])
    assert ("byol.checkpoint", 30, "100% odd") in caplog.record_tuples


def test_an_interrupt_of_the_parent_ends_the_child_at_once(monkeypatch, tmp_path):
    child(monkeypatch, "tell(epoch={'pid': os.getpid()}); time.sleep(600)")
    seen = []

    def interrupted(values):
        seen.append(values["pid"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.train_on_jax(tmp_path, interrupted)
    assert not _is_alive(seen[0])


def test_both_engines_have_the_same_encoder_after_twenty_updates(tmp_path):
    """From the same weights, with views that are not random. A tau or rate of another step would be off by 1e-2."""
    out = tmp_path / "jax.npz"
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.trainer.engines", str(out)],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, other = engines.updated(), dict(np.load(out))
    assert len(one["losses"]) == engines.UPDATES
    assert one["losses"][-1] < one["losses"][0]
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, atol=1e-3, rtol=1e-3, err_msg=name)


def test_images_come_back_from_disk_memory_mapped_and_whole(tmp_path):
    images = coloured_images(10)
    data = PretrainingImages(images, np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32))
    folder = tmp_path / "job"
    folder.mkdir()
    job.write_images(folder, 10, [images[:7], images[7:]])
    job.write_job(folder, job.Job(ON_JAX, TINY, data, None, tmp_path, tmp_path, None))
    read = job.read_job(folder)
    assert isinstance(read.data, PretrainingImages)
    assert isinstance(read.data.images, np.memmap)
    np.testing.assert_array_equal(read.data.images, images)
    assert read.data.digest() == data.digest()
    assert (read.config, read.encoder, read.monitor, read.start) == (ON_JAX, TINY, None, None)


def test_a_warm_start_reaches_the_process_with_the_weights_of_all_networks(data, tmp_path):
    """With a rate of nothing and a target that stays, the process hands back the weights it was given."""
    still = dataclasses.replace(
        ON_JAX,
        epochs=1,
        base_tau=1.0,
        optimizer=dataclasses.replace(SETTINGS.optimizer, base_learning_rate=1e-30, warmup_steps=0),
    )
    earlier = build_model(dataclasses.replace(still, seed=99), TINY, data)
    trained_networks.as_float32(earlier.online_encoder).save(tmp_path / ENCODER_FILE)
    save_networks(earlier, tmp_path / NETWORKS_FILE)
    folder = write_job(tmp_path / "job", data, still, read_warm_start("full", str(tmp_path)))
    engine.train_on_jax(folder, lambda values: None)
    given, found = networks(tmp_path), networks(folder)
    assert given.keys() == found.keys()
    weights = [name for name in given if "moving" not in name and "normalization" not in name]
    for name in weights:
        np.testing.assert_allclose(found[name], given[name], atol=1e-6, err_msg=name)
    assert len(weights) > 25
    # Other weights than a cold start's, and moments that have seen images since.
    cold = build_model(still, TINY, data).online_encoder.get_layer("stem").kernel
    assert np.abs(keras.ops.convert_to_numpy(cold) - found["encoder/stem/kernel"]).max() > 0.01
    assert any(np.abs(found[name] - given[name]).max() > 0.01 for name in given if "moving" in name)


def test_an_epoch_of_a_file_of_images_is_read_a_batch_at_a_time(tmp_path):
    """The same batches in the same order as from memory, and no more than a few of them in memory."""
    images = coloured_images(640)
    stats = np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32)
    job.write_images(tmp_path, len(images), [images])
    streamed = PretrainingImages(np.load(tmp_path / "images.npy", mmap_mode="r"), *stats)
    expected = PretrainingImages(images, *stats).epoch(SETTINGS, epoch=1, first_step=2)
    tracemalloc.start()
    found = streamed.epoch(SETTINGS, epoch=1, first_step=2)
    batches = 0
    for number, (batch,) in enumerate(found["x"]):
        np.testing.assert_array_equal(batch, expected["x"][number * 16 : (number + 1) * 16])
        batches += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert batches == found["steps_per_epoch"] == len(images) // 16 - 2
    assert peak < images.nbytes / 4
