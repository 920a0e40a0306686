"""`byol retrain` with the real pipeline: spans come, one is poisoned, a training is killed, and each call goes on."""

import json
import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from components.data import cifar10, synthetic
from components.serving import serving_folder
from pipeline.root import Root
from pipeline.spans import arrivals, ledger
from pipeline.spans.ledger import Ledger
from tests.e2e import byol_command

AGREEMENT = "gate.minimum_label_agreement=0.25"  # the small model's accuracy is about a half, a permuted span's a tenth


class Spans:
    """A folder of spans, and the command on it."""

    def __init__(self, folder):
        self.data, self.root = folder / "spans", folder / "root"
        synthetic.write(self.data / arrivals.TEST_FOLDER, train=10, test=byol_command.TEST_IMAGES, seed=99)

    def deliver(self, number, permuted=False):
        path = synthetic.write(
            self.data / f"span-{number}", train=byol_command.TRAIN_IMAGES, test=200, seed=number
        )
        if permuted:
            for file in path.glob("*.bin"):
                images, labels = cifar10.read_records(file)
                file.write_bytes(cifar10.encode_records(images, np.roll(np.arange(10), 3)[labels]))
        (path / arrivals.COMPLETE_MARKER).touch()

    def command(self):
        assignments = [part for setting in [*byol_command.SMALL, AGREEMENT] for part in ("--set", setting)]
        return [
            *[sys.executable, "-m", "pipeline.cli", "retrain", "--preset", "demo", "--window", "2"],
            *["--data", str(self.data), "--root", str(self.root), "--warm-start", "full"],
            *assignments,
        ]

    def start(self, said):
        """A call in a warm process, whose words go to the file `said`."""
        return byol_command.start(self.command()[2:], said)

    def call(self):
        """A call as a scheduler starts it, of which no training is expected."""
        process = subprocess.run(
            self.command(), cwd=byol_command.PROJECT, env=byol_command.environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=500, check=False,
        )  # fmt: skip
        assert process.returncode == 0, process.stdout
        return process.stdout

    def train(self):
        """A call in a warm process to its end; returns its exit status and what it said."""
        process = byol_command.warm(self.command()[2:])
        return process.returncode, process.stdout + process.stderr

    def ledger(self):
        return Ledger.load(Root(self.root).ledger)

    def served(self):
        return next(v for v in serving_folder.versions(Root(self.root).serving) if v.served)


@pytest.fixture(scope="module")
def spans(tmp_path_factory):
    """After a first span."""
    made = Spans(tmp_path_factory.mktemp("retraining"))
    made.deliver(1)
    status, said = made.train()
    assert status == 0, said
    return made


def test_the_first_span_is_pushed_and_then_there_is_nothing_new(spans):
    """Slow: the module's first pipeline. A call without work takes less than three seconds
    of processor time."""
    (training,) = spans.ledger().trainings
    assert (training.outcome, training.window, training.baseline) == (ledger.PUSHED, [1], None)
    assert training.version == spans.served().number
    before = _processor_seconds()
    assert "Nothing new" in spans.call()
    assert _processor_seconds() - before < 3


def _processor_seconds():
    """Of the processes that this one started and that have ended: a busy machine's clock says nothing."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.timeout(900)
def test_a_poisoned_span_is_refused_and_a_killed_training_goes_on(spans, tmp_path):
    """Slow (two pipelines): the faults share them. SIGKILL comes in the middle of pretraining.

    While the first call is at work, a second one says so and ends with 0. The call after the kill finishes the same
    training: its parent and its baseline are those of the first version, and no finished stage is repeated.
    """
    first = spans.served()
    spans.deliver(2, permuted=True)
    spans.deliver(3)
    heard = tmp_path / "said"
    process = spans.start(heard)
    deadline = time.monotonic() + 400
    while not (heard.exists() and "epoch 2/4" in heard.read_text()):
        assert process.is_alive(), heard.read_text()
        assert time.monotonic() < deadline, heard.read_text()
        time.sleep(0.05)
    assert "Nothing done: Another run (process " in spans.call()
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    said = heard.read_text()
    assert process.exitcode == -signal.SIGKILL, said
    assert "Span 2: refused. " in said
    assert "Are the labels right?" in said
    unfinished = spans.ledger().unfinished()
    assert (unfinished.window, unfinished.new, unfinished.parent_version) == ([1, 3], [3], first.number)

    status, said = spans.train()
    assert status in (0, 3), said
    assert "Resuming pretraining at epoch" in said
    assert "Transform: from cache" in said
    known = spans.ledger()
    training = known.trainings[-1]
    assert training.outcome == (ledger.PUSHED if status == 0 else ledger.NOT_PUSHED)
    assert (training.window, training.parent, training.baseline) == (
        unfinished.window, unfinished.parent, unfinished.baseline,
    )  # fmt: skip
    assert known.spans[2].state == ledger.REFUSED
    newest = max(
        spans.root.glob("tfx/Verdict/verdict/*/verdict.json"), key=lambda path: int(path.parent.name)
    )
    compared = json.loads(newest.read_text())["comparison"]
    assert compared["baseline_accuracy"] == known.trainings[0].accuracy
    assert compared["accuracy"] == training.accuracy
