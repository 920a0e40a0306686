"""Fixtures of the end-to-end tests: one small data set, and one finished run that several tests look at."""

import pathlib
import subprocess
import typing

import pytest

from components.data import synthetic
from tests.e2e import byol_command


class FinishedRun(typing.NamedTuple):
    """A root, what the command said on its first run, and that run's summary: later tests run more in the root."""

    root: pathlib.Path
    process: subprocess.CompletedProcess
    summary: dict


@pytest.fixture(scope="session")
def small_data(tmp_path_factory) -> pathlib.Path:
    """A folder of spans with one in it: 1,200 training and 300 test images of the embedded data set."""
    folder = tmp_path_factory.mktemp("data")
    synthetic.write(folder / "span-3", train=byol_command.TRAIN_IMAGES, test=byol_command.TEST_IMAGES)
    return folder


@pytest.fixture(scope="session")
def first_run(small_data, tmp_path_factory) -> FinishedRun:
    """A first run in an empty root. Slow (about a minute): everything from records to a pushed encoder."""
    root = tmp_path_factory.mktemp("root")
    process = byol_command.run(small_data, root)
    assert process.returncode == 0, process.stdout + process.stderr
    return FinishedRun(root, process, byol_command.summary(root))
