"""The command line starts fast and ends clean."""

import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import pytest

PROJECT = pathlib.Path(__file__).resolve().parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PROJECT), "COLUMNS": "200"}
HEAVY = (
    "tensorflow",
    "tfx",
    "keras",
    "apache_beam",
    "jax",
    "sklearn",
    "scipy",
    "pandas",
    "pyarrow",
    "jinja2",
    "numpy",
)
COMMANDS = ("embed", "search", "serve", "report", "tensorboard", "history", "lineage", "prune")


def _seconds(*arguments: str) -> float:
    """Processor time of one thread, which is what the clock shows on an idle machine; the best of five."""
    found = []
    for _ in range(5):
        start = _processor_seconds()
        subprocess.run(
            [sys.executable, *arguments], env=ENVIRONMENT, cwd=PROJECT, check=True, capture_output=True
        )
        found.append(_processor_seconds() - start)
    return min(found)


def _processor_seconds() -> float:
    """Of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_imports_nothing_heavy():
    """What cannot be blamed on the machine: no library that takes long is imported before it is needed."""
    told = subprocess.run(
        [sys.executable, "-c", "import sys, pipeline.cli; print(*sys.modules)"],
        env=ENVIRONMENT,
        cwd=PROJECT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert not set(told) & set(HEAVY)
    assert "typer" in told


def test_help_takes_less_than_half_a_second():
    assert _seconds("-m", "pipeline.cli", "--help") < 0.5


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    said = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", command, "--help"],
        env=ENVIRONMENT,
        cwd=PROJECT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "Usage:" in said
    assert "--root" in said


def test_ctrl_c_while_tensorflow_loads_is_clean(tmp_path):
    """The longest wait of a short command: status 130, no stack, no half-written file."""
    model, image, out = tmp_path / "1", tmp_path / "x.png", tmp_path / "x.npz"
    model.mkdir()
    (model / "saved_model.pb").touch()
    image.write_bytes(b"\x89PNG\r\n\x1a\n")
    command = [
        *[sys.executable, "-m", "pipeline.cli", "embed", str(image)],
        "--model",
        str(model),
        "--out",
        str(out),
    ]
    with subprocess.Popen(
        command, env=ENVIRONMENT, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while "libtensorflow" not in pathlib.Path(f"/proc/{process.pid}/maps").read_text():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "x.png"]
