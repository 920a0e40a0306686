"""A year of weekly spans with everything that goes wrong in one, through the real `byol retrain`, a process a call.

    .venv/bin/python -m benchmarks.simulated_year --out DIR                 52 weeks
    .venv/bin/python -m benchmarks.simulated_year --out DIR --weeks 14      shorter; every fault still occurs once

The spans are the embedded data set with light that changes over the year. Some weeks bring nothing, a span that is
late, damaged, empty or poisoned (labels permuted); in some the machine goes off (SIGKILL at a random moment), in one
the clock is set back by a year (where `faketime` is installed): that call fails, and the next one makes up for it. At
the end it checks that no span was lost or used twice, that nothing refused was trained on, that the last model to pass
the gate is served, and that the disk stayed under its bound.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np

from components.data import cifar10, synthetic
from components.serving import serving_folder
from pipeline.root import Root
from pipeline.spans import arrivals, ledger
from pipeline.spans.ledger import Ledger

# How many weeks of a year have each fault; a shorter simulation has at least one of each.
FAULTS = {"none": 3, "late": 3, "damaged": 2, "empty": 2, "poisoned": 3, "killed": 6, "clock": 1}
SETTINGS = (
    "pretraining.epochs=6",
    "pretraining.batch_size=64",
    "pretraining.optimizer.warmup_steps=10",
    "pretraining.monitor_images=50",
    "pretraining.checkpoint_minutes=0",
    "gate.minimum_accuracy=0.3",
    f"gate.class_floors={(0.0,) * 10}",
    "gate.minimum_gain=-1",
    "gate.minimum_corrupted_accuracy=0.1",
    "gate.minimum_worst_corrupted_accuracy=0",
    "gate.minimum_label_agreement=0.25",
    "gate.maximum_regression=0.01",
)
FIRST_FAULTY_WEEK = 3
DRIFT = 0.05  # of the brightness, over the year; the AnomalyGate refuses more from one span to the next
LATEST_KILL_SECONDS = 60.0


def main() -> None:
    """Runs the simulation and prints a table, a row a week."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True, help="a new folder for spans and root")
    parser.add_argument("--weeks", type=int, default=52)
    parser.add_argument("--train", type=int, default=1000, help="training images of a span")
    parser.add_argument("--test", type=int, default=500, help="images of the fixed test set")
    parser.add_argument("--warm-start", default="full")
    parser.add_argument("--window", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--disk-mb", type=float, default=400.0, help="bound of what lies below the root")
    options = parser.parse_args()
    year = Year(options)
    kinds = kinds_of_weeks(options.weeks, np.random.default_rng(options.seed))
    print(
        "| week | span | exit status | accuracy | version | seconds | root, MB | |\n|---|---|---|---|---|---|---|---|"
    )
    for week, kind in kinds.items():
        print(year.week(week, kind, kinds.get(week - 1) == "late"), flush=True)
    if kinds[options.weeks] == "late":
        year.deliver(options.weeks, "late")
        year.call()
    print(json.dumps(year.checked(kinds), indent=1))


def kinds_of_weeks(weeks: int, rng: np.random.Generator) -> dict[int, str]:
    """What happens in each week."""
    kinds = dict.fromkeys(range(1, weeks + 1), "honest")
    free = [week for week in kinds if week >= FIRST_FAULTY_WEEK]
    for kind, yearly in FAULTS.items():
        for _ in range(max(1, round(yearly * weeks / 52))):
            week = int(rng.choice([w for w in free if kinds[w] == "honest"]))
            kinds[week] = kind
    return kinds


class Year:
    """Spans, a root, and the command on them.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.rng = np.random.default_rng((options.seed, 1))
        self.data, self.root = options.out / "spans", Root((options.out / "root").absolute())
        self.largest_mb = 0.0
        synthetic.write(self.data / arrivals.TEST_FOLDER, train=10, test=options.test, seed=1000)

    def week(self, week: int, kind: str, has_late: bool) -> str:
        """Delivers what comes in a week, calls the command, and returns the table's row."""
        if has_late:
            self.deliver(week - 1, "late")
        if kind not in ("none", "late"):
            self.deliver(week, kind)
        started = time.monotonic()
        if kind == "killed":
            self.kill()
        status, said = self.call(clock="-365d" if kind == "clock" else "")
        seconds = time.monotonic() - started
        size = sum(path.lstat().st_size for path in self.root.path.rglob("*") if path.is_file()) / 1e6
        self.largest_mb = max(self.largest_mb, size)
        last = said.strip().splitlines()[-1]
        training = self.known().trainings[-1]
        trained = status in (0, 3) and "Training on" in said
        accuracy = f"{training.accuracy:.3f}" if trained and training.accuracy else ""
        version = training.version if trained and training.version else ""
        return f"| {week} | {kind} | {status} | {accuracy} | {version} | {seconds:.0f} | {size:.0f} | {last[:160]} |"

    def deliver(self, week: int, kind: str) -> None:
        """Writes a span and says that it is complete."""
        path = self.data / f"{cifar10.SPAN_FOLDER}{week}"
        synthetic.write(path, train=self.options.train, test=self.options.train, seed=week)
        light = 1.0 - DRIFT * np.sin(2 * np.pi * week / 52)
        for file in path.glob("*.bin"):
            images, labels = cifar10.read_records(file)
            if kind == "poisoned":
                labels = np.roll(np.arange(10), 3)[labels]
            file.write_bytes(cifar10.encode_records(np.clip(images * light, 0, 255).astype(np.uint8), labels))
            if kind == "damaged":
                file.write_bytes(file.read_bytes()[:-7])
            if kind == "empty":
                file.unlink()
        (path / arrivals.COMPLETE_MARKER).touch()

    def kill(self) -> None:
        """Starts the command and kills it with all it started, somewhere in the middle."""
        process = subprocess.Popen(self._command(), start_new_session=True, **_SILENT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self.rng.uniform(1.0, LATEST_KILL_SECONDS))
            return
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def call(self, clock: str = "") -> tuple[int, str]:
        """Runs the command to its end; with the clock moved by so much where `faketime` is there."""
        faked = ["faketime", "-f", clock] if clock and shutil.which("faketime") else []
        done = subprocess.run([*faked, *self._command()], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def known(self) -> Ledger:
        """What the root remembers."""
        return Ledger.load(self.root.ledger)

    def checked(self, kinds: dict[int, str]) -> dict[str, Any]:
        """What has to hold at the end.

        Raises:
            SystemExit: it does not; the message says what.
        """
        known = self.known()
        good = {week for week, kind in kinds.items() if kind in ("honest", "late", "killed", "clock")}
        accepted = set(known.accepted())
        trained = {span for training in known.trainings for span in training.window}
        new = [span for training in known.trainings for span in training.new]
        pushed = [t.version for t in known.trainings if t.outcome == ledger.PUSHED]
        served = next(v for v in serving_folder.versions(self.root.serving) if v.served)
        rules = {
            "every span was decided on": set(known.spans)
            == {w for w, kind in kinds.items() if kind != "none"},
            "the honest ones, and no others, were accepted": accepted == good,
            "each accepted one was new in one training": sorted(new) == sorted(good),
            "nothing refused was trained on": trained == good,
            "the last model that passed the gate is served": served.number == pushed[-1],
            "the disk stayed under its bound": self.largest_mb <= self.options.disk_mb,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            sys.exit(f"Does not hold: {'; '.join(broken)}. Ledger: {known.path}")
        return {
            "weeks": len(kinds),
            "trainings": len(known.trainings),
            "pushed": len(pushed),
            "refused by the gate": sum(t.outcome == ledger.NOT_PUSHED for t in known.trainings),
            "accuracy, first and last pushed": [
                t.accuracy for t in known.trainings if t.version in (pushed[0], pushed[-1])
            ],
            "largest root, MB": round(self.largest_mb),
            "clock was set back": shutil.which("faketime") is not None,
            "holds": list(rules),
        }

    def _command(self) -> list[str]:
        return [
            *[sys.executable, "-m", "pipeline.cli", "retrain", "--preset", "demo"],
            *["--data", str(self.data), "--root", str(self.root.path), "--window", str(self.options.window)],
            *["--warm-start", self.options.warm_start],
            *[part for setting in self._settings() for part in ("--set", setting)],
        ]

    def _settings(self) -> list[str]:
        images = self.options.test
        return [*SETTINGS, f"gate.minimum_test_images={images}", f"gate.robustness_images={images}"]


_SILENT: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

if __name__ == "__main__":
    main()
