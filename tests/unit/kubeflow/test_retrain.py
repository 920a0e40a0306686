"""One retraining in two places: the same spans through this machine and through a cluster, both stand-ins.

The spans, the ledgers, every decision, the volume and the served folder are real; no run computes anything.
"""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from rich.console import Console

from components.data import cifar10
from components.serving import serving_folder
from kubeflow import retrain
from kubeflow.config import KubeflowConfig
from kubeflow.server import ServerError
from pipeline.config import PRESETS
from pipeline.console import DataRefusedError, NodeFailedError
from pipeline.retrain import retraining
from pipeline.retrain.place import Served, Trained
from pipeline.root import Root
from pipeline.spans import ledger
from pipeline.spans.ledger import Ledger
from trainer import settings

CONFIG = settings.override(
    PRESETS["demo"],
    [
        "pretraining.batch_size=10",
        "pretraining.optimizer.warmup_steps=1",
        "gate.minimum_test_images=10",
        "gate.robustness_images=10",
        "warm_start=encoder",
    ],
)
REFUSED, COLLAPSED = "the served model agrees with 10.0% of the labels", "collapse"


@dataclasses.dataclass
class Story:
    """What is wrong with spans: data that a gate refuses, models that one refuses, trainings that fail at first."""

    poisoned: frozenset = frozenset()
    worse: frozenset = frozenset()
    broken: frozenset = frozenset()


def write(path, train=20, test=10):
    path.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, count in (("data_batch_1.bin", train), ("test_batch.bin", test)):
        images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        (path / name).write_bytes(cifar10.encode_records(images, np.arange(count) % 10))


def deliver(root, number, damaged=False):
    path = root / "data" / f"span-{number}"
    shutil.rmtree(path, ignore_errors=True)
    write(path)
    if damaged:
        (path / "data_batch_1.bin").open("ab").write(b"x")
    (path / "_SUCCESS").touch()


class Machine:
    """Answers at once, as `pipeline.retrain.this_machine.ThisMachine` does."""

    def __init__(self, story):
        self.story, self.kept, self.asked, self.versions = story, set(), [], 0

    def served(self):
        number = self.versions
        return Served(number, False, number, number) if number else None

    def stored(self):
        return set(self.kept)

    def look_at(self, asked):
        self.asked.append(asked)
        if asked.records.span in self.story.poisoned:
            raise DataRefusedError("LabelCheck", REFUSED)
        self.kept.add(asked.records.span)

    def train(self, asked):
        self.asked.append(asked)
        if asked.records.span in self.story.broken and not asked.begun:
            raise NodeFailedError("Pretrainer", COLLAPSED)
        good = asked.records.span not in self.story.worse
        self.versions += good
        return Trained(
            "run", 0.9, self.versions if good else None, "" if good else "accuracy is too low", False
        )

    def prune(self, keep_runs, keep_spans):
        self.kept = set(sorted(self.kept)[-keep_spans:])
        return 0


class Runs:
    """A server whose runs do on the volume what the steps do, and are seen at work once before they end."""

    def __init__(self, story, root):
        self.story, self.root, self.asked, self.names, self.looks = story, root, [], {}, {}
        self.down, self.ended, self.stuck = False, [], False

    def start(self, asked, decided, name):
        if self.down:
            raise ServerError("http://kfp cannot be reached.")
        assert decided.notes == f"/mnt/byol/retraining/notes/{name}"
        self.asked.append(asked)
        self.names[name] = run = f"id-of-{name}"
        self.looks[run] = 0
        self.answer = self.work(asked, self.root / "retraining" / "notes" / name)
        return run

    def named(self, name):
        return self.names.get(name)

    def state(self, run):
        if self.down:
            raise ServerError("http://kfp cannot be reached.")
        self.looks[run] += 1
        if self.stuck:
            return "CANCELED" if run in self.ended else "RUNNING"
        return self.answer if self.looks[run] > 1 else "RUNNING"

    def end(self, run):
        self.ended.append(run)
        return "pretrainer PENDING"

    def work(self, asked, notes):
        notes.mkdir(parents=True)
        span = asked.records.span
        if not asked.window and span in self.story.poisoned:
            return self.failed(notes, "LabelCheck", REFUSED)
        if not asked.window:
            copy = self.root / "spans" / f"span-{span}" / "1"
            copy.mkdir(parents=True, exist_ok=True)
            (copy / "rows").write_text("x")
            return "SUCCEEDED"
        if span in self.story.broken and not asked.begun:
            return self.failed(notes, "Pretrainer", COLLAPSED)
        pushed = {"pushed": 0, "not_pushed_reason": "not blessed"}
        if span not in self.story.worse:
            model = notes / "model"
            model.mkdir()
            (model / "saved_model.pb").write_text(notes.name)
            made = serving_folder.publish(model, self.root / "serving", retire_after_seconds=0)
            pushed = {"pushed": 1, "pushed_version": str(made.version)}
        verdict = {"accuracy": 0.9, "reason": "accuracy is too low" if span in self.story.worse else ""}
        (notes / "Pusher.json").write_text(json.dumps({"outputs": {"pushed_model": pushed}}))
        (notes / "Verdict.json").write_text(json.dumps({"outputs": {"verdict": verdict}}))
        return "SUCCEEDED"

    @staticmethod
    def failed(notes, node, reason):
        (notes / f"{node}.json").write_text(json.dumps({"failed": reason, "refused": node == "LabelCheck"}))
        return "FAILED"


def call(root, place, **values):
    chosen = {"data": root / "data", "test": root / "data" / "test", "root": Root(root), "preset": "demo"}
    request = retraining.Request(**{**chosen, "config": CONFIG, "window": 3, "keep_spans": 4, **values})
    idle = not request.exclude and not retraining.has_work(request, Ledger.load(request.root.ledger))
    return None if idle else retraining.retrain(request, place, Console(quiet=True))


def until_done(root, place, **values):
    """Calls in nights to come until no run is at work; what is wrong with a span is told once."""
    for _ in range(20):
        outcome = call(root, place, **values)
        if outcome is None or (outcome.kind != retraining.AT_WORK and "is at work" not in outcome.reason):
            return outcome
    raise AssertionError("a run never ended")


def told(known, versions):
    """A ledger without times and ids of runs, with versions by their order."""
    order = {number: place for place, number in enumerate(versions, 1)}
    trainings = [
        {
            **dataclasses.asdict(training),
            "run_id": None,
            "started": "",
            "ended": None,
            **{
                name: order.get(getattr(training, name))
                for name in ("parent", "parent_version", "baseline", "version")
            },
        }
        for training in known.trainings
    ]
    spans = {
        number: {**dataclasses.asdict(span), "seen": "", "fingerprint": "", "seal": ""}
        for number, span in known.spans.items()
    }
    return spans, trainings


@pytest.fixture
def volume(tmp_path):
    write(tmp_path / "volume" / "data" / "test")
    return tmp_path / "volume"


def cluster(root, runs, **values):
    return retrain.Cluster(Root(root), KubeflowConfig(test="data/test"), runs, poll_seconds=0.0, **values)


def test_twelve_weeks_end_with_the_same_ledger_and_the_same_served_version(tmp_path, volume):
    story = Story(poisoned=frozenset({4}), worse=frozenset({7}), broken=frozenset({8}))
    weeks = [
        [1],
        [2],
        [3],
        [4],
        [],
        [6, 7],
        [5],
        [8],
        [9],
        [10],
        [0],
        [11],
    ]  # 5 is late, 0 too late, 6 and 7 together
    machine_root = tmp_path / "machine"
    write(machine_root / "data" / "test")
    machine, runs = Machine(story), Runs(story, volume)
    on_cluster = cluster(volume, runs)
    published = []
    for week, numbers in enumerate(weeks):
        for root, place, calls in ((machine_root, machine, call), (volume, on_cluster, until_done)):
            for number in numbers:
                deliver(root, number, damaged=number == 9)
            if week == 9:
                deliver(root, 9)  # repaired
            if week == 4:
                calls(root, place, accept=(4,))  # what LabelCheck says again
            for _ in range(3):
                calls(root, place)
        served = on_cluster.served()
        published += [served.version] if served and served.version not in published else []
    ours, theirs = Ledger.load(Root(machine_root).ledger), Ledger.load(Root(volume).ledger)
    every = [t.version for t in theirs.trainings if t.version is not None]
    for one, other in zip(told(ours, range(1, machine.versions + 1)), told(theirs, every), strict=True):
        assert one == other
    assert every.index(on_cluster.served().version) + 1 == machine.served().version
    assert [(t.outcome, t.window) for t in ours.trainings][:4] == [
        (ledger.PUSHED, [1]),
        (ledger.PUSHED, [1, 2]),
        (ledger.PUSHED, [1, 2, 3]),
        (ledger.NOT_PUSHED, [3, 6, 7]),
    ]
    assert ours.spans[9].state == ledger.ACCEPTED  # once it was repaired
    assert max(t.attempts for t in ours.trainings) == 1
    assert {ours.spans[0].state, ours.spans[4].state} == {ledger.TOO_OLD, ledger.REFUSED}
    assert on_cluster.stored() == machine.stored()
    assert len(list((volume / "retraining" / "notes").iterdir())) <= 4


def test_without_new_data_nothing_is_trained_and_nothing_pushed(volume):
    runs = Runs(Story(), volume)
    place = cluster(volume, runs)
    deliver(volume, 1)
    assert until_done(volume, place).kind == ledger.PUSHED
    begun, served = len(runs.asked), place.served()
    assert begun == 2  # a look and a training
    assert call(volume, place) is None
    assert (len(runs.asked), place.served()) == (begun, served)


def test_a_call_comes_back_and_a_later_one_takes_up_the_same_run(volume):
    runs = Runs(Story(), volume)
    deliver(volume, 1)
    first = call(volume, cluster(volume, runs))
    assert first.kind == retraining.AT_WORK
    assert "byol-look-span-1-" in first.reason
    assert len(runs.asked) == 1
    second = call(volume, cluster(volume, runs))  # the look has ended, the training begins
    assert second.kind == retraining.AT_WORK
    assert call(volume, cluster(volume, runs)).kind == ledger.PUSHED
    assert [asked.window for asked in runs.asked] == [(), (1,)]


def test_a_call_may_wait(volume):
    deliver(volume, 1)
    assert call(volume, cluster(volume, Runs(Story(), volume), wait_seconds=60.0)).kind == ledger.PUSHED


def test_a_run_that_was_started_when_the_machine_went_off_is_found_by_its_name(volume, monkeypatch):
    runs = Runs(Story(), volume)
    deliver(volume, 1)
    start = runs.start

    def cut(*asked):
        start(*asked)
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "start", cut)
    with pytest.raises(KeyboardInterrupt):
        call(volume, cluster(volume, runs))
    monkeypatch.setattr(runs, "start", start)
    assert until_done(volume, cluster(volume, runs)).kind == ledger.PUSHED
    assert [asked.window for asked in runs.asked] == [(), (1,)]


def test_a_server_that_cannot_be_reached_is_no_attempt(volume):
    runs = Runs(Story(), volume)
    deliver(volume, 1)
    for _ in range(2):
        call(volume, cluster(volume, runs))
    assert Ledger.load(Root(volume).ledger).unfinished() is not None
    runs.down = True
    outcome = call(volume, cluster(volume, runs))
    assert (outcome.kind, outcome.reason) == (ledger.FAILED, "http://kfp cannot be reached.")
    runs.down = False
    assert call(volume, cluster(volume, runs)).kind == ledger.PUSHED
    assert len(runs.asked) == 2


def test_a_look_that_failed_for_no_fault_of_the_data_is_begun_again(volume):
    runs = Runs(Story(), volume)
    deliver(volume, 1)
    call(volume, cluster(volume, runs))
    runs.answer = "FAILED"  # out of memory: no step left a note
    outcome = call(volume, cluster(volume, runs))
    assert outcome.kind == ledger.FAILED
    assert outcome.reason.endswith("failed: FAILED")
    assert Ledger.load(Root(volume).ledger).spans == {}
    assert until_done(volume, cluster(volume, runs)).kind == ledger.PUSHED
    assert [name[-2:] for name in runs.names][:2] == ["-0", "-1"]


def test_a_run_that_no_node_takes_is_ended_and_begun_again(volume, monkeypatch):
    """A Pending pod has no limit (see `Cluster._still_at_work`); without one no training would follow, ever."""
    runs = Runs(Story(), volume)
    deliver(volume, 1)
    runs.stuck, clock = True, [1_000_000.0]
    monkeypatch.setattr("kubeflow.retrain.time.time", lambda: clock[0])
    place = cluster(volume, runs)
    for hour in (0, 1, 71):
        clock[0] = 1_000_000.0 + 3600 * hour
        assert "is at work" in call(volume, place).reason
    assert runs.ended == []
    clock[0] = 1_000_000.0 + 3600 * 72
    outcome = call(volume, place)
    assert outcome.kind == ledger.FAILED
    assert "was at work for 72 hours (run_hours=72) and was ended; pretrainer PENDING" in outcome.reason
    assert runs.ended == [runs.named(name) for name in runs.names]
    runs.stuck = False
    assert until_done(volume, place).kind == ledger.PUSHED
    assert [name[-2:] for name in runs.names][:2] == ["-0", "-1"]
