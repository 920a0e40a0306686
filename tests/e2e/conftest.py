"""Fixtures of the end-to-end tests: one small data set, and one finished run that several tests look at."""

import os
import pathlib
import signal
import subprocess
import time
import typing

import pytest

from components.data import synthetic
from tests.e2e import byol_command

INTERRUPTED_AFTER = "epoch 2/4"


class FinishedRun(typing.NamedTuple):
    """A root, what the command said on its first run, and that run's summary: later tests run more in the root.

    The run began three times: on a disk that was full (None where a small disk cannot be mounted), interrupted by
    Ctrl-C in the middle of pretraining, and to its end. So each of the many tests of its result is one of a run that
    went on.
    """

    root: pathlib.Path
    process: subprocess.CompletedProcess
    summary: dict
    full_disk: subprocess.CompletedProcess | None
    interrupted: str
    served_early: bool


@pytest.fixture(scope="session")
def small_data(tmp_path_factory) -> pathlib.Path:
    """A folder of spans with one in it: 1,200 training and 300 test images of the embedded data set."""
    folder = tmp_path_factory.mktemp("data")
    synthetic.write(folder / "span-3", train=byol_command.TRAIN_IMAGES, test=byol_command.TEST_IMAGES)
    return folder


@pytest.fixture(scope="session")
def first_root(tmp_path_factory) -> typing.Iterator[tuple[pathlib.Path, bool]]:
    """An empty root, and whether it is a file system of 6 MiB that can be enlarged; mounting needs the right to."""
    folder = tmp_path_factory.mktemp("root")
    small = os.geteuid() == 0 and not _mount(folder, "size=6m")
    yield folder, small
    if small:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


@pytest.fixture(scope="session")
def first_run(small_data, first_root) -> FinishedRun:
    """A first run in an empty root. Slow (about a minute): everything from records to a pushed encoder.

    The one that is interrupted is started as a person does it, the others in forks of a process that has imported TFX.
    """
    root, small = first_root
    full = byol_command.run(small_data, root) if small else None
    if small:
        subprocess.run(["mount", "-o", "remount,size=1g", str(root)], check=True)
    interrupted = _interrupted(small_data, root)
    served_early = (root / "serving").exists()
    process = byol_command.run(small_data, root)
    assert process.returncode == 0, process.stdout + process.stderr
    return FinishedRun(root, process, byol_command.summary(root), full, interrupted, served_early)


def _mount(folder: pathlib.Path, options: str) -> int:
    return subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False, capture_output=True
    ).returncode


def _interrupted(data: pathlib.Path, root: pathlib.Path) -> str:
    """Sends Ctrl-C when the command is in the middle of pretraining; returns all it said."""
    process = subprocess.Popen(
        byol_command.command(data, root),
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
        if INTERRUPTED_AFTER in line and not pressed:  # progress may name the epoch again
            process.send_signal(signal.SIGINT)
            pressed = True
        assert time.monotonic() < deadline, said
    assert process.wait(timeout=60) == 130, said
    return said
