"""The real command on a small embedded data set."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from multiprocessing.process import BaseProcess

from tests.e2e import warm_process

PROJECT = pathlib.Path(__file__).resolve().parents[2]
TRAIN_IMAGES, TEST_IMAGES = 1200, 300
SMALL = [
    "pretraining.epochs=4",
    "pretraining.batch_size=64",
    "pretraining.optimizer.warmup_steps=5",
    "pretraining.monitor_images=50",
    "pretraining.checkpoint_minutes=0",
    "probe.epochs=10",
    "gate.minimum_accuracy=0.15",
    f"gate.class_floors={(0.0,) * 10}",
    "gate.minimum_gain=-1",
    "gate.minimum_corrupted_accuracy=0.1",
    "gate.minimum_worst_corrupted_accuracy=0",
    "gate.minimum_label_agreement=0",
    f"gate.robustness_images={TEST_IMAGES}",
    f"gate.minimum_test_images={TEST_IMAGES}",
]


def command(data: pathlib.Path, root: pathlib.Path, *settings: str) -> list[str]:
    """The command line of one small run; later settings win over the small ones."""
    assignments = [part for setting in [*SMALL, *settings] for part in ("--set", setting)]
    return [
        *[sys.executable, "-m", "pipeline.cli", "run", "--preset", "demo"],
        *["--data", str(data), "--root", str(root)],
        *assignments,
    ]


def environment() -> dict[str, str]:
    """The test's environment with the project importable and lines wide enough to be compared."""
    return {**os.environ, "PYTHONPATH": str(PROJECT), "COLUMNS": "300", "PYTHONUNBUFFERED": "1"}


def start(arguments: list[str], said: pathlib.Path) -> BaseProcess:
    """Starts the command line with these arguments in a warm process that says all it says to a file."""
    return warm_process.start(["python", "-m", *arguments], PROJECT, environment(), (said, said))


def warm(arguments: list[str], timeout: float = 500) -> subprocess.CompletedProcess[str]:
    """What the command line does with these arguments, in a fork of a process that has imported TFX.

    For commands of which a process of their own has already shown that they work when started as they stand.
    """
    with tempfile.TemporaryDirectory() as folder:
        said = pathlib.Path(folder) / "out", pathlib.Path(folder) / "err"
        command = ["python", "-m", *arguments]
        status = warm_process.run(command, PROJECT, environment(), said, timeout)
        out, err = (path.read_text() for path in said)
    return subprocess.CompletedProcess(command, status, out, err)


def run(data: pathlib.Path, root: pathlib.Path, *settings: str) -> subprocess.CompletedProcess[str]:
    """One small run to its end, in a warm process."""
    return warm(command(data, root, *settings)[2:])


def summary(root: pathlib.Path) -> dict:
    """The last finished run's `summary.json`."""
    return json.loads((root / "latest" / "summary.json").read_text())
