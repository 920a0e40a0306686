"""A year of weekly spans with everything that goes wrong in one, through the real `byol retrain`, a process a call.

    .venv/bin/python -m benchmarks.simulated_year --out DIR                 52 weeks
    .venv/bin/python -m benchmarks.simulated_year --out DIR --weeks 20      shorter; every fault still occurs once

The spans are the embedded data set with light that changes over the year. Some weeks bring nothing, or a span that is
small, late, damaged, empty or poisoned (labels permuted); in some the machine goes off (SIGKILL at a random moment), a
file cannot be read or the disk is full, in one the clock is set back by a year (where `faketime` is installed): that
call fails, and the next one makes up for it. In some what looks like spans lies beside the new one. In some a blessed
model waits for a person, who approves it, rejects it, or has not looked when a newer one replaces it. At the end it
checks that no span was lost or used twice, that nothing refused was trained on, that the last model that was let
through is served, that hook and metrics told of it, and that the disk stayed under its bound.
"""

import argparse
import contextlib
import json
import os
import pathlib
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks import simulated_spans
from benchmarks.simulated_spans import DAMAGED, EMPTY, POISONED, SMALL
from components.serving import candidates, serving_folder
from pipeline.retrain import vital_signs
from pipeline.root import Root
from pipeline.spans import ledger
from pipeline.spans.ledger import Ledger

HONEST, NONE, LATE, ODD, KILLED, CLOCK = "honest", "none", "late", "odd", "killed", "clock"
UNREADABLE, FULL_DISK = "unreadable", "full disk"
APPROVED, REJECTED, REPLACED = candidates.APPROVED, candidates.REJECTED, candidates.REPLACED
# How many weeks of a year have each fault; a shorter simulation has at least one of each. What needs two weeks first.
FAULTS = {REPLACED: 2, APPROVED: 2, REJECTED: 2} | {NONE: 3, LATE: 3, SMALL: 4, ODD: 2}
FAULTS |= {DAMAGED: 2, EMPTY: 2, POISONED: 3, KILLED: 5, UNREADABLE: 2, FULL_DISK: 2, CLOCK: 1}
WITHOUT_SPAN = (NONE, LATE)
REFUSED = (DAMAGED, EMPTY, POISONED)
WAITING = (APPROVED, REJECTED, REPLACED)
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
LATEST_KILL_SECONDS = 60.0
FULL_AT_BYTES = 64 * 1024  # no file may grow beyond: smaller than the metadata store, larger than a heartbeat
# Root may read what nobody may; without these two it may not.
NOT_ALL_MIGHTY = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")


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
    kinds = kinds_of_weeks(options.weeks, np.random.default_rng(options.seed))
    year = Year(options)
    print(
        "| week | span | exit status | accuracy | version | seconds | root, MB | |\n|---|---|---|---|---|---|---|---|"
    )
    for week, kind in kinds.items():
        print(year.week(week, kind, kinds.get(week - 1) == LATE), flush=True)
    if kinds[options.weeks] == LATE:
        year.spans.deliver(options.weeks, LATE)
        year.call()
    print(json.dumps(year.checked(kinds), indent=1))


def kinds_of_weeks(weeks: int, rng: np.random.Generator) -> dict[int, str]:
    """What happens in each week.

    Raises:
        SystemExit: there are too few for one of each.
    """
    kinds = dict.fromkeys(range(1, weeks + 1), HONEST)
    for kind, yearly in FAULTS.items():
        for _ in range(max(1, round(yearly * weeks / 52))):
            free = [week for week in kinds if week >= FIRST_FAULTY_WEEK and kinds[week] == HONEST]
            if kind == REPLACED:  # by the one of the week after, which is approved
                free = [week for week in free if kinds.get(week + 1) == HONEST]
            if not free:
                sys.exit(f"{weeks} weeks are too few for one of each of {', '.join(FAULTS)}; give more.")
            week = int(rng.choice(free))
            kinds[week] = kind
            if kind == REPLACED:
                kinds[week + 1] = APPROVED
    return kinds


class Year:
    """Spans, a root, and the commands on them.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.rng = np.random.default_rng((options.seed, 1))
        self.root = Root((options.out / "root").absolute())
        self.told = (options.out / "told.jsonl").absolute()
        self.spans = simulated_spans.Spans(options.out / "spans", options.train)
        self.largest_mb = 0.0
        self.let_through: list[int] = []
        self.broken: list[str] = []
        self.spans.deliver_test(options.test)

    def week(self, week: int, kind: str, has_late: bool) -> str:
        """Delivers what comes in a week, calls the command, and returns the table's row."""
        if has_late:
            self.spans.deliver(week - 1, LATE)
        if kind not in WITHOUT_SPAN:
            self.spans.deliver(week, kind)
        started, before = time.monotonic(), len(self.known().trainings)
        statuses, said = self._as_it_happens(week, kind)
        seconds = time.monotonic() - started
        size = sum(path.lstat().st_size for path in self.root.path.rglob("*") if path.is_file()) / 1e6
        self.largest_mb = max(self.largest_mb, size)
        trainings = self.known().trainings
        training = trainings[-1] if len(trainings) > before else None
        accuracy = f"{training.accuracy:.3f}" if training and training.accuracy else ""
        version = self.let_through[-1] if training and self._follow(training) else ""
        last = said.strip().splitlines()[-1]
        status = ", ".join(map(str, statuses))
        return f"| {week} | {kind} | {status} | {accuracy} | {version} | {seconds:.0f} | {size:.0f} | {last[:160]} |"

    def _as_it_happens(self, week: int, kind: str) -> tuple[list[int], str]:
        """The calls of a week; their exit statuses, and what the last one said."""
        if kind == KILLED:
            self.kill()
        first: list[int] = []
        if kind in (UNREADABLE, FULL_DISK):
            first = [self._call_that_fails(week, kind)]
        if kind == ODD:
            with self.spans.odd_things(week) as things:
                return self._call_that_names(things)
        if kind in WAITING:
            status, said = self.call("--set", "gate.approval=manual")
            if kind != REPLACED and candidates.waiting(self.root.serving):
                words = self._decide("approve" if kind == APPROVED else "reject", week)
                return [status], words
            return [status], said
        status, said = self.call(clock="-365d" if kind == CLOCK else "")
        if kind == CLOCK and shutil.which("faketime"):
            self._expect(status == 2, f"week {week}: a clock that was set back is refused")
            first, (status, said) = [status], self.call()
        return [*first, status], said

    def _call_that_fails(self, week: int, kind: str) -> int:
        """One that cannot read a file of the span, or not write; nothing is decided on the span."""
        before = len(self.known().trainings)
        if kind == UNREADABLE:
            with self.spans.unreadable(week):
                status, _ = self.call()
        else:
            status, _ = self.call(largest_file=FULL_AT_BYTES)
        other = len(self.known().trainings) > before  # a late one, beside it
        self._expect(status == 1 or other, f"week {week}: {kind} is a failure, no refusal (status {status})")
        self._expect(week not in self.known().spans, f"week {week}: {kind} decides nothing on its span")
        return status

    def _call_that_names(self, things: list[str]) -> tuple[list[int], str]:
        status, said = self.call()
        unnamed = [thing for thing in things if thing not in said]
        self._expect(not unnamed, f"odd things are named: {unnamed}")
        counted = self._measures()["byol_spans_odd"]
        self._expect(counted == len(things), f"{len(things)} odd things are counted, not {counted:g}")
        return [status], said

    def _decide(self, verb: str, week: int) -> str:
        words = [
            *_BYOL,
            verb,
            "--root",
            str(self.root.path),
            "--reason",
            f"week {week}",
            "--by",
            "simulation",
        ]
        told = ["--on-pushed" if verb == "approve" else "--on-rejected", self._hook()]
        done = subprocess.run([*words, *told], capture_output=True, text=True, check=False)
        self._expect(done.returncode == 0, f"week {week}: {verb} works: {done.stderr.strip()}")
        return done.stdout

    def _follow(self, training: ledger.Training) -> bool:
        """Notes the version that a training or a person let through, if there is one."""
        decided = candidates.decisions(self.root.serving)
        by_person = [one.version for one in decided if one.run_id == training.run_id and one.version]
        found = [version for version in (training.version, *by_person) if version]
        self.let_through += found
        return bool(found)

    def _expect(self, holds: bool, rule: str) -> None:
        if not holds:
            self.broken.append(rule)

    def kill(self) -> None:
        """Starts the command and kills it with all it started, somewhere in the middle."""
        process = subprocess.Popen(self._command(), start_new_session=True, **_SILENT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self.rng.uniform(1.0, LATEST_KILL_SECONDS))
            return
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def call(self, *more: str, clock: str = "", largest_file: int = 0) -> tuple[int, str]:
        """Runs the command to its end.

        Args:
            more: further options.
            clock: by how much it is moved, where `faketime` is there.
            largest_file: in bytes; 0 for no bound.
        """
        before = ["faketime", "-f", clock] if clock and shutil.which("faketime") else []
        if os.geteuid() == 0:
            before = [*NOT_ALL_MIGHTY, *before]
        done = subprocess.run(
            [*before, *self._command(), *more],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
            preexec_fn=lambda: _bound_files(largest_file) if largest_file else None,
        )
        return done.returncode, done.stdout + done.stderr

    def known(self) -> Ledger:
        """What the root remembers."""
        return Ledger.load(self.root.ledger)

    def checked(self, kinds: dict[int, str]) -> dict[str, Any]:
        """What has to hold at the end.

        Raises:
            SystemExit: it does not; the message says what.
        """
        rules = {**self._of_spans(kinds), **self._of_models()}
        broken = [*self.broken, *(rule for rule, holds in rules.items() if not holds)]
        if broken:
            sys.exit(f"Does not hold: {'; '.join(broken)}. Ledger: {self.root.ledger}")
        trainings = self.known().trainings
        accuracies = [training.accuracy for training in trainings if training.version]
        return {
            "weeks": len(kinds),
            "trainings": len(trainings),
            **{f"trainings: {kind}": count for kind, count in _counts(t.outcome for t in trainings)},
            **{f"candidates: {kind}": count for kind, count in _counts(self._decisions())},
            "accuracy, first and last pushed": [accuracies[0], accuracies[-1]],
            "largest root, MB": round(self.largest_mb),
            "clock was set back": shutil.which("faketime") is not None,
            "holds": list(rules),
        }

    def _of_spans(self, kinds: dict[int, str]) -> dict[str, bool]:
        known = self.known()
        good = {week for week, kind in kinds.items() if kind not in (NONE, *REFUSED)}
        trained = {span for training in known.trainings for span in training.window}
        new = [span for training in known.trainings for span in training.new]
        return {
            "every span was decided on": set(known.spans) == {w for w, kind in kinds.items() if kind != NONE},
            "the honest ones, and no others, were accepted": set(known.accepted()) == good,
            "each accepted one was new in one training": sorted(new) == sorted(good),
            "nothing refused was trained on": trained == good,
            "no span waits, and nothing is odd any more": all(
                self._measures()[name] == 0 for name in ("byol_spans_waiting", "byol_spans_odd")
            ),
        }

    def _of_models(self) -> dict[str, bool]:
        served = next(v for v in serving_folder.versions(self.root.serving) if v.served)
        events = _events(self.told)
        pushed = [event["version"] for event in events if event["kind"] == "pushed"]
        return {
            "the last model that was let through is served": served.number == self.let_through[-1],
            "the metrics show what is served": self._measures()["byol_served_version"] == served.number,
            "candidates were approved, rejected and replaced": set(self._decisions())
            == {APPROVED, REJECTED, REPLACED},
            "the hook was told of each push": set(pushed) == set(self.let_through),
            "the hook was told of odd things": any(event["kind"] == "odd" for event in events),
            "the disk stayed under its bound": self.largest_mb <= self.options.disk_mb,
        }

    def _decisions(self) -> list[str]:
        return [one.decision for one in candidates.decisions(self.root.serving)]

    def _measures(self) -> dict[str, float]:
        return json.loads(vital_signs.VitalSigns(self.root.path).heartbeat.read_text())["measures"]

    def _hook(self) -> str:
        file = shlex.quote(str(self.told))
        return f"sh -c {shlex.quote(f'cat >> {file}; echo >> {file}')}"

    def _command(self) -> list[str]:
        kinds = ("pushed", "refused", "failed", "candidate", "odd")
        return [
            *[*_BYOL, "retrain", "--preset", "demo", "--data", str(self.spans.folder)],
            *["--root", str(self.root.path), "--window", str(self.options.window)],
            *["--warm-start", self.options.warm_start],
            *[part for setting in self._settings() for part in ("--set", setting)],
            *[part for kind in kinds for part in (f"--on-{kind}", self._hook())],
        ]

    def _settings(self) -> list[str]:
        images = self.options.test
        return [*SETTINGS, f"gate.minimum_test_images={images}", f"gate.robustness_images={images}"]


def _bound_files(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _counts(words: Any) -> Iterator[tuple[str, int]]:
    found = list(words)
    return ((word, found.count(word)) for word in sorted(set(found)))


def _events(path: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line]


_BYOL = (sys.executable, "-m", "pipeline.cli")
_SILENT: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

if __name__ == "__main__":
    main()
