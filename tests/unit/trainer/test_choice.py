"""Which engine trains, and what is refused before a run writes anything."""

import dataclasses

import keras
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.retrain import commands
from trainer import parallel
from trainer.byol import choice
from trainer.byol.config import PretrainingConfig


@pytest.fixture
def gpus(monkeypatch, tmp_path):
    """Makes a machine of so many NVIDIA GPUs, whose JAX sees none."""

    def make(count):
        for number in range(count):
            (tmp_path / f"0000:{number:02x}:00.0").mkdir()
        monkeypatch.setattr(choice, "_GPUS", tmp_path)
        monkeypatch.setattr(choice, "_has_plugin", lambda: False)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return make


def test_the_engine_is_the_one_asked_for_and_auto_asks_jax(monkeypatch):
    monkeypatch.setattr(choice, "installed", lambda: True)
    assert choice.choose("tensorflow") == "tensorflow"
    assert choice.choose("jax") == "jax"
    for plugin, accelerator, chosen in (
        (False, True, "tensorflow"),
        (True, False, "tensorflow"),
        (True, True, "jax"),
    ):
        monkeypatch.setattr(choice, "_has_plugin", lambda plugin=plugin: plugin)
        monkeypatch.setattr(choice, "_sees_accelerator", lambda accelerator=accelerator: accelerator)
        assert choice.choose("auto") == chosen
    monkeypatch.setattr(choice, "installed", lambda: False)
    assert choice.choose("auto") == "tensorflow"
    with pytest.raises(ValueError, match=r"engine=jax needs JAX.*Install byol-tfx\[jax\]"):
        choice.choose("jax")


@pytest.mark.parametrize(
    ("visible", "seen"), [(None, 3), ("0,2", 2), ("", 0), ("-1", 0), ("1,-1,2", 1), ("0,1,2,3", 3)]
)
def test_the_gpus_are_those_that_the_process_may_see(gpus, monkeypatch, visible, seen):
    gpus(3)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert choice.gpus() == seen


@pytest.mark.parametrize(
    ("devices", "there", "fine"), [(1, 2, True), (0, 1, True), (0, 0, True), (0, 2, False)]
)
def test_tensorflow_takes_one_gpu(gpus, devices, there, fine):
    gpus(there)
    config = PretrainingConfig(devices=devices, engine="tensorflow")
    if fine:
        choice.check(config)
        return
    with pytest.raises(ValueError, match=r"devices=0 asks for 2 devices, and TensorFlow.*engine=jax"):
        choice.check(config)


def test_an_engine_that_is_auto_and_tensorflow_takes_one_device(gpus):
    gpus(0)
    with pytest.raises(ValueError, match="devices=2 asks for 2 devices, and TensorFlow"):
        choice.check(PretrainingConfig(devices=2))


def test_settings_that_no_machine_can_train_are_refused():
    with pytest.raises(ValueError, match="engine is one of auto, tensorflow, jax; received 'torch'"):
        PretrainingConfig(engine="torch")
    with pytest.raises(ValueError, match=r"devices=2 needs pretraining.engine=jax: TensorFlow trains on one"):
        PretrainingConfig(engine="tensorflow", devices=2)
    assert dataclasses.replace(PretrainingConfig(), engine="jax", devices=2).devices == 2


def test_several_gpus_of_tensorflow_are_refused_where_they_would_train(monkeypatch):
    monkeypatch.setattr(parallel, "_devices", lambda: ["/device:GPU:0", "/device:GPU:1"])
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(ValueError, match=r"one GPU here; pretraining.devices=0 asks for 2. Give"):
        parallel.divided(0, 16).__enter__()


@pytest.mark.parametrize("command", ["run", "retrain"])
@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("pretraining.engine=jax", "needs JAX, which is not installed"),
        ("pretraining.devices=2", "TensorFlow"),
    ],
)
def test_a_command_ends_with_status_2_before_it_writes(gpus, monkeypatch, tmp_path, command, setting, words):
    gpus(0)
    monkeypatch.setattr(choice, "installed", lambda: False)
    monkeypatch.setattr(commands, "_idle", lambda *_: False)
    root, data = tmp_path / "root", tmp_path / "data"
    data.mkdir()
    done = CliRunner().invoke(
        app,
        [command, "--preset", "demo", "--root", str(root), "--data", str(data), "--set", setting],
    )
    assert done.exit_code == 2
    assert words in " ".join((done.output + done.stderr).split())
    assert not root.exists()


@pytest.fixture
def processor(monkeypatch, tmp_path_factory, gpus):
    """Makes a machine without GPUs whose processor has these flags."""

    def make(flags):
        gpus(0)
        file = tmp_path_factory.mktemp("processor") / "cpuinfo"
        file.write_text(f"processor\t: 0\nflags\t\t: fpu {flags} sse\n\nprocessor\t: 1\nflags\t\t: fpu\n")
        monkeypatch.setattr(choice, "_PROCESSOR", file)
        for name in ("ONEDNN_MAX_CPU_ISA", "TF_ENABLE_ONEDNN_OPTS"):
            monkeypatch.delenv(name, raising=False)

    return make


@pytest.mark.parametrize(
    ("flags", "masked", "expected"),
    [
        ("avx512f avx512_bf16", {}, "mixed_bfloat16"),
        ("avx512f avx512_bf16 amx_bf16", {"ONEDNN_MAX_CPU_ISA": "avx512_core_amx"}, "mixed_bfloat16"),
        ("avx512f avx512_bf16", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, "float32"),
        ("avx512f avx512_bf16", {"TF_ENABLE_ONEDNN_OPTS": "0"}, "float32"),
        ("avx512f avx512_bf16_other", {}, "float32"),
        ("asimd bf16", {}, "float32"),
    ],
)
def test_auto_is_bfloat16_where_the_processor_multiplies_it(processor, monkeypatch, flags, masked, expected):
    processor(flags)
    for name, value in masked.items():
        monkeypatch.setenv(name, value)
    settled = choice.settled(PretrainingConfig(precision="auto"), "tensorflow")
    assert settled == PretrainingConfig(precision=expected)
    for asked in ("float32", "mixed_bfloat16"):
        assert choice.settled(PretrainingConfig(precision=asked), "tensorflow").precision == asked


def test_auto_on_a_machine_without_such_a_list_is_float32(processor, monkeypatch, tmp_path):
    processor("avx512_bf16")
    monkeypatch.setattr(choice, "_PROCESSOR", tmp_path / "none")
    assert choice.settled(PretrainingConfig(precision="auto"), "tensorflow").precision == "float32"


def test_auto_asks_the_device_and_not_the_processor_where_there_is_one(processor, gpus, monkeypatch):
    processor("avx512_bf16")
    gpus(1)
    assert choice.settled(PretrainingConfig(precision="auto"), "tensorflow").precision == "float32"
    for accelerator, expected in ((True, "mixed_bfloat16"), (False, "float32")):
        monkeypatch.setattr(choice, "_sees_accelerator", lambda accelerator=accelerator: accelerator)
        assert choice.settled(PretrainingConfig(precision="auto"), "jax").precision == expected
