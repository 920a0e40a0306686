"""A disk that fills up and a Ctrl-C in the middle of pretraining: one clear line each, and the next run works."""

import os
import pathlib
import signal
import subprocess
import time

import pytest

from tests.e2e import byol_command

LONGER = "pretraining.epochs=12"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 6 MiB that the test can enlarge; needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = os.geteuid() == 0 and not _mount(folder, "size=6m")
    if not mounted:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=False)


def _mount(folder: pathlib.Path, options: str) -> int:
    return subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False, capture_output=True
    ).returncode


def test_full_disk_then_ctrl_c_then_the_same_command_finishes(small_disk, small_data):
    """Slow (three processes): the two faults share a root, since each proves that the other left it whole."""
    full = byol_command.run(small_data, small_disk, LONGER)
    assert full.returncode == 1, full.stdout + full.stderr
    assert "failed:" in full.stderr
    assert "No space left on device" in full.stderr or "the disk is full" in full.stderr
    assert "Traceback" not in full.stderr
    subprocess.run(["mount", "-o", "remount,size=512m", str(small_disk)], check=True)

    said = _interrupt_after(small_data, small_disk, "epoch 3/12")
    assert "Interrupted. The same command goes on from the last checkpoint." in said
    assert "Traceback" not in said
    assert not (small_disk / "serving").exists()

    finished = byol_command.run(small_data, small_disk, LONGER)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "Resuming pretraining at epoch" in finished.stdout
    assert "epoch 2/12" not in finished.stdout
    assert byol_command.summary(small_disk)["pushed_version"]
    assert not list((small_disk / "checkpoints").glob("*/*.npz"))


def _interrupt_after(data: pathlib.Path, root: pathlib.Path, text: str) -> str:
    """Sends Ctrl-C when the command has printed `text`; returns all it said."""
    process = subprocess.Popen(
        byol_command.command(data, root, LONGER),
        cwd=byol_command.PROJECT,
        env=byol_command.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said, deadline, pressed = "", time.monotonic() + 400, False
    assert process.stdout is not None
    for line in process.stdout:
        said += line
        if text in line and not pressed:  # progress may name the epoch again
            process.send_signal(signal.SIGINT)
            pressed = True
        assert time.monotonic() < deadline, said
    assert process.wait(timeout=60) == 130, said
    return said
