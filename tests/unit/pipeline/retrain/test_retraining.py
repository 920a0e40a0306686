"""What retraining decides, over a simulated year, with a pipeline that takes no time.

The pipeline is a stand-in that answers as the real one does (tests/e2e/test_retraining.py runs that one); the spans,
the ledger and every decision are real.
"""

import contextlib
import dataclasses
import pathlib
import random
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from components.data import cifar10, dataset
from components.data.dataset import CIFAR10, DataSet
from components.data.features import LABEL_NAMES
from components.serving import serving_folder
from pipeline.config import PRESETS
from pipeline.console import DataRefusedError, NodeFailedError, NodeSkippedError
from pipeline.past import prune
from pipeline.retrain import notices, retraining
from pipeline.retrain.this_machine import ThisMachine
from pipeline.root import Root
from pipeline.run import local_runner, parentage
from pipeline.run.parentage import Parentage
from pipeline.spans import arrivals, ledger
from pipeline.spans.ledger import Ledger
from trainer import settings

PROJECT = pathlib.Path(__file__).resolve().parents[4]
TRAIN, TEST = 20, 10
CONFIG = settings.override(
    PRESETS["demo"],
    [
        "pretraining.batch_size=10",
        "pretraining.optimizer.warmup_steps=1",
        f"gate.minimum_test_images={TEST}",
        f"gate.robustness_images={TEST}",
    ],
)


PARTLY = dataclasses.replace(CIFAR10, unlabelled=True)
UNLABELLED = DataSet("photos", "", (), 32, 32, unlabelled=True)
FABRICS = DataSet("fabrics", "stripes", ("wool", "silk", "linen"), 24, 40)


class Killed(BaseException):
    """The machine goes off: nothing after this line runs."""


class World:
    """Spans on disk, and a pipeline that remembers what it was asked.

    Attributes:
        poisoned: spans whose data the gates refuse.
        worse: windows' newest spans whose model the gate refuses.
        broken: newest spans whose training fails.
        crashes: spans at which a gate breaks down, once.
        pushed: (version, window, parent, baseline) of each push, in order.
        began: windows in the order in which trainings were begun.
        asked: the records of each.
        kill: called at each moment at which a machine may go off.
    """

    def __init__(self, folder, monkeypatch):
        self.folder, self.root, self.monkeypatch = folder, Root(folder / "root"), monkeypatch
        self.poisoned, self.worse, self.broken, self.crashes = set(), set(), set(), set()
        self.pushed, self.began, self.compared = [], [], {}
        self.asked = []
        self.allowed: list[str] = []
        self.stored: set[int] = set()
        self.pruned: list[prune.PrunePolicy] = []
        self.restored = None
        self.rollback_during_run = None
        self.candidate = None
        self.manual: set[int] = set()
        self.kill = lambda: None
        self.rng = np.random.default_rng(0)
        (folder / "spans").mkdir()
        self.write(folder / "spans" / "test", 0, TEST)
        monkeypatch.setattr(local_runner, "look_at", self.look_at)
        monkeypatch.setattr(local_runner, "run", self.run)
        monkeypatch.setattr(prune, "prune", self.prune)
        monkeypatch.setattr(parentage, "of_served", lambda *_: self.served())
        monkeypatch.setattr(parentage, "stored_spans", lambda *_: set(self.stored))

    def prune(self, root, policy):
        self.pruned.append(policy)
        self.kill()
        return prune.Pruned([], {}, {}, 0)

    def write(self, path, train=TRAIN, test=TEST, labels=range(10), data_set=CIFAR10):
        """Records whose labels come in turn; of a data set that allows it, none where `labels` are none."""
        path.mkdir()
        for name, count in (("data_batch_1.bin", train), ("test_batch.bin", test)):
            if count:
                images = self.rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
                these = np.resize(list(labels) or [dataset.UNLABELLED], count)
                (path / name).write_bytes(cifar10.encode_records(images, these, data_set))
        if data_set != CIFAR10:
            (path / dataset.FILE).write_text(data_set.to_json())

    def deliver(self, number, **kinds):
        path = self.folder / "spans" / f"span-{number}"
        self.write(path, **kinds)
        (path / "_SUCCESS").touch()
        return path

    def request(self, **values):
        chosen = {"data": self.folder / "spans", "test": self.folder / "spans" / "test", "root": self.root}
        return retraining.Request(**{**chosen, "preset": "demo", "config": CONFIG, "window": 3, **values})

    def call(self, **values):
        person = Console(quiet=True)
        return retraining.retrain(self.request(**values), ThisMachine(self.root, "demo", person), person)

    def known(self):
        return Ledger.load(self.root.ledger)

    def served(self):
        if not self.pushed:
            return None
        if self.restored is not None:
            return Parentage(version=99, restored=True, model=self.restored, pretrainer=10 * self.restored)
        version = self.pushed[-1][0]
        return Parentage(version=version, restored=False, model=version, pretrainer=10 * version)

    def look_at(self, config, preset, records, root, console, earlier):
        self.kill()
        if records.span in self.crashes:
            self.crashes -= {records.span}
            raise NodeFailedError("AnomalyGate", "[Errno 28] No space left on device")
        self.compared[records.span] = earlier.spans
        self.stored.add(records.span)
        if records.span in self.poisoned and not config.allow_anomalies:
            raise DataRefusedError("LabelCheck", "the served model agrees with 10.0% of the labels")
        self.kill()

    def run(self, config, preset, records, root, console, earlier):
        self.began.append(earlier.window)
        self.asked.append(records)
        self.allowed.append(config.allow_anomalies)
        self.kill()
        if records.span in self.broken:
            raise NodeFailedError("Pretrainer", "collapse")
        blessed = records.span not in self.worse
        candidate = self.candidate or ("waits" if records.span in self.manual else None)
        blessed = blessed and candidate is None
        overtaken, self.rollback_during_run = self.rollback_during_run, None
        if overtaken is not None:
            self.restored, blessed = overtaken, False
        # As the Pusher: the same model is not pushed twice.
        again = bool(self.pushed) and self.pushed[-1][1:] == (
            earlier.window,
            earlier.warm_start,
            earlier.served_model,
        )
        if blessed and not again:
            self.restored = None
            self.pushed.append(
                (len(self.pushed) + 1, earlier.window, earlier.warm_start, earlier.served_model)
            )
        self.kill()
        return local_runner.Summary(
            run_id=f"run-{len(self.began)}", preset=preset, data=str(records.folder), linear_accuracy=0.9,
            random_encoder_linear_accuracy=0.5, knn_accuracy=0.8, blessed=blessed,
            pushed_version=self.pushed[-1][0] if blessed else None, pushed_path=None,
            not_pushed_because=None if blessed else "a rollback came" if overtaken else "accuracy is too low",
            seconds=1.0, components={}, overtaken=overtaken is not None, candidate=candidate,
        )  # fmt: skip


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch)


def test_each_span_is_trained_on_in_a_rolling_window_and_once_as_new(world):
    for number in range(1, 6):
        world.deliver(number)
        assert world.call().kind == ledger.PUSHED
        assert world.call().kind == retraining.NOTHING_NEW
    assert [window for _, window, _, _ in world.pushed] == [(1,), (1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5)]
    assert [training.new for training in world.known().trainings] == [[1], [2], [3], [4], [5]]
    assert [baseline for *_, baseline in world.pushed] == [None, 1, 2, 3, 4]


def test_what_gathered_while_the_machine_was_off_is_trained_on_together(world):
    for number in (1, 2, 3):
        world.deliver(number)
    outcome = world.call()
    assert (outcome.kind, outcome.spans) == (ledger.PUSHED, (1, 2, 3))
    assert world.began == [(1, 2, 3)]


def test_an_incomplete_span_waits(world):
    marker = world.deliver(1) / "_SUCCESS"
    marker.unlink()
    assert not retraining.has_work(world.request(), world.known())
    marker.touch()
    assert retraining.has_work(world.request(), world.known())


@pytest.mark.parametrize("policy", ["never", "encoder", "full"])
def test_a_warm_start_begins_from_the_served_model(world, policy):
    config = settings.override(CONFIG, [f"warm_start={policy}"])
    for number in (1, 2):
        world.deliver(number)
        world.call(config=config)
    assert [parent for _, _, parent, _ in world.pushed] == [None, None if policy == "never" else 10]
    assert world.known().trainings[1].parent_version == (None if policy == "never" else 1)


def test_a_damaged_span_is_refused_by_name_and_taken_once_it_is_repaired(world):
    path = world.deliver(1)
    with (path / "data_batch_1.bin").open("ab") as file:
        file.write(b"x")
    outcome = world.call()
    assert outcome.kind == ledger.NOT_PUSHED
    assert "span 1 was not taken" in outcome.reason
    assert "1 more than 20 records" in outcome.reason
    assert world.call().kind == retraining.NOTHING_NEW
    shutil.rmtree(path)
    world.deliver(1)
    assert world.call().kind == ledger.PUSHED


def test_a_span_is_not_refused_for_a_setting_that_the_window_satisfies(world):
    config = settings.override(CONFIG, ["pretraining.optimizer.warmup_steps=3", "pretraining.epochs=1"])
    world.deliver(1)
    with pytest.raises(ValueError, match="warmup_steps"):
        retraining.check_settings(world.request(config=config))
    assert not world.root.ledger.exists()
    world.deliver(2)
    world.deliver(3)
    retraining.check_settings(world.request(config=config))
    assert world.call(config=config).spans == (1, 2, 3)
    assert world.known().accepted() == [1, 2, 3]


def test_a_damaged_span_does_not_hide_a_setting_that_does_not_fit_the_window(world):
    world.deliver(1)
    (world.deliver(2) / "data_batch_1.bin").write_bytes(b"x" * 100)
    config = settings.override(CONFIG, ["pretraining.optimizer.warmup_steps=1000"])
    with pytest.raises(ValueError, match="warm"):
        retraining.check_settings(world.request(config=config))
    shutil.rmtree(world.folder / "spans" / "span-1")
    retraining.check_settings(world.request(config=config))  # nothing would be trained on


def test_a_call_that_only_excludes_says_nothing_of_durations(world):
    world.deliver(1)
    assert world.call().seconds is not None
    assert world.call(exclude=(7,)).seconds is None


def test_a_file_that_cannot_be_read_is_no_refusal(world, monkeypatch):
    world.deliver(1)

    def unreadable(folder):
        raise ValueError(f"{folder} cannot be read") from OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(cifar10, "inspect_folder", unreadable)
        outcome = world.call()
    assert outcome.kind == ledger.FAILED
    assert "Reading span 1" in outcome.reason
    assert world.known().spans == {}
    assert world.call().kind == ledger.PUSHED


@pytest.mark.parametrize("cause", ["Out of memory", "[Errno 28] No space left on device"])
def test_what_breaks_down_at_one_span_refuses_nothing_and_keeps_no_other_waiting(world, monkeypatch, cause):
    def crash(config, preset, records, root, console, earlier):
        if records.span == 1:
            raise NodeFailedError("AnomalyGate", cause)
        world.look_at(config, preset, records, root, console, earlier)

    for number in (1, 2):
        world.deliver(number)
    with monkeypatch.context() as broken:
        broken.setattr(local_runner, "look_at", crash)
        outcome = world.call()
        assert (outcome.kind, outcome.spans) == (ledger.PUSHED, (2,))
        assert f"span 1 could not be looked at: AnomalyGate failed: {cause}" in outcome.reason
        assert list(world.known().spans) == [2]
        assert world.call().kind == ledger.FAILED
    assert world.call().spans == (1,)


@pytest.mark.parametrize("mended", ["data.drift=0.2", "gate.minimum_label_agreement=0.1"])
def test_a_refused_span_is_looked_at_again_under_other_limits_and_not_under_the_same(world, mended):
    world.poisoned = {1}
    world.deliver(1)
    assert world.call().kind == ledger.NOT_PUSHED
    assert world.call().kind == retraining.NOTHING_NEW
    config = settings.override(CONFIG, [mended])
    assert world.call(config=config).kind == ledger.NOT_PUSHED
    assert world.call(config=config).kind == retraining.NOTHING_NEW
    world.poisoned = set()
    assert world.call().kind == ledger.PUSHED


def test_a_refused_span_is_looked_at_again_by_other_code_alone(world, monkeypatch):
    world.poisoned = {1}
    world.deliver(1)
    world.call()
    assert not retraining.has_work(world.request(), world.known())
    monkeypatch.setattr(retraining, "source_digest", lambda sources: "mended")
    assert retraining.has_work(world.request(), world.known())


def _damaged(world):
    (world.deliver(1) / "data_batch_1.bin").write_bytes(b"x" * 100)


def _lacks_a_split(world):
    world.deliver(1, test=0)


def _poisoned(world):
    world.deliver(1)
    world.poisoned = {1}


def _unreadable(world):
    world.deliver(1)
    inspect = cifar10.inspect_folder

    def broken(folder):
        if folder.name == "span-1":
            raise ValueError(f"{folder} cannot be read") from OSError(5, "Input/output error")
        return inspect(folder)

    world.monkeypatch.setattr(cifar10, "inspect_folder", broken)


def _breaks_down(world):
    world.deliver(1)
    world.crashes = {1}


def _too_old(world):
    for number in (2, 3, 4):
        world.deliver(number)
        world.call()
    world.deliver(1)


def _without_marker(world):
    (world.deliver(1) / "_SUCCESS").unlink()


def _changed(world):
    path = world.deliver(1)
    world.call()
    shutil.rmtree(path)
    world.deliver(1)


# Each row of the guide's table: what is done to span 1, and what else is asked for.
_REFUSALS: dict[str, tuple[Any, dict[str, Any]]] = {
    "nothing": (lambda world: world.deliver(1), {}),
    "its files are damaged": (_damaged, {}),
    "it lacks a split": (_lacks_a_split, {}),
    "AnomalyGate or LabelCheck object, beyond their limit and beyond chance": (_poisoned, {}),
    "a file cannot be read": (_unreadable, {}),
    "the disk is full, or a gate breaks down": (_breaks_down, {}),
    "the settings do not fit the window, such as a warm-up longer than its steps": (
        lambda world: world.deliver(1),
        {"config": settings.override(CONFIG, ["pretraining.optimizer.warmup_steps=1000"])},
    ),
    "it comes when newer spans fill the window": (_too_old, {}),
    "`--exclude` names it": (lambda world: world.deliver(1), {"exclude": (1,)}),
    "its marker is missing, or its name is no span's": (_without_marker, {}),
    "it was accepted, and its files changed since": (_changed, {}),
}


def _table():
    """The guide's rows: what is found, the state, the exit status."""
    page = (PROJECT / "docs" / "guides" / "retraining.md").read_text()
    lines = page.partition("| what is found |")[2].partition("\n\n")[0].splitlines()[2:]
    return [tuple(cell.strip() for cell in line.split("|")[1:4]) for line in lines]


def test_the_guide_has_a_row_for_each_reason():
    assert [found for found, *_ in _table()] == list(_REFUSALS)


@pytest.mark.parametrize(("found", "state", "status"), _table())
def test_what_is_refused_is_what_the_guide_says(world, found, state, status):
    arrange, values = _REFUSALS[found]
    arrange(world)
    try:
        retraining.check_settings(world.request(**values))
        ended = notices.STATUS[world.call(**values).kind]
    except ValueError:
        ended = notices.USAGE
    span = world.known().spans.get(1)
    assert (span.state if span else "-", str(ended)) == (state, status)


@pytest.mark.parametrize("found", ["its files are damaged", "a file cannot be read"])
def test_a_span_that_is_not_taken_does_not_fail_a_call_that_pushed_another(world, found):
    arrange, _ = _REFUSALS[found]
    arrange(world)
    world.deliver(2)
    outcome = world.call()
    assert (outcome.kind, [number for number, _ in outcome.untaken]) == (ledger.PUSHED, [1])


def test_an_empty_span_is_refused(world):
    world.deliver(1, train=0, test=0)
    assert "has no train file" in world.call().reason


def test_a_refused_span_stays_out_of_every_window_unless_a_person_accepts_it(world):
    world.poisoned = {2}
    for number in (1, 2, 3):
        world.deliver(number)
        world.call()
    assert world.began == [(1,), (1, 3)]
    assert world.compared[3] == (1,)
    assert world.call(accept=(2,)).spans == (2,)
    assert world.began[-1] == (1, 2, 3)


def test_what_is_let_through_of_a_span_may_be_one_kind_of_finding_and_stays_so(world):
    world.poisoned = {1}
    world.deliver(1)
    world.call()
    assert world.call(accept=(1,), accept_kinds={1: "labels"}).kind == ledger.PUSHED
    assert world.allowed == ["labels"]
    assert world.known().spans[1].allowed == "labels"
    with pytest.raises(ValueError, match="no kind of finding 'frogs'"):
        world.request(accept=(1,), accept_kinds={1: "frogs"})


def test_a_gate_that_was_skipped_neither_accepts_nor_refuses(world, monkeypatch):
    """TFX goes on when a node's inputs are missing; a span was once accepted so, by a clock that was set back."""

    def skipped(*_):
        raise NodeSkippedError("AnomalyGate", "its inputs were not found")

    world.deliver(1)
    monkeypatch.setattr(local_runner, "look_at", skipped)
    assert world.call().kind == ledger.FAILED
    assert world.known().spans == {}
    monkeypatch.setattr(local_runner, "look_at", world.look_at)
    assert world.call().kind == ledger.PUSHED


def test_what_a_person_let_through_stays_let_through(world):
    """The training of a call that was killed is finished by one without the option."""
    world.poisoned = {1}
    world.deliver(1)
    assert world.call().kind == ledger.NOT_PUSHED
    moments = iter([False, False, True])
    world.kill = lambda: (_ for _ in ()).throw(Killed) if next(moments, False) else None
    with pytest.raises(Killed):
        world.call(accept=(1,))
    assert world.call().kind == ledger.PUSHED
    assert world.allowed == ["all", "all"]
    assert world.known().spans[1].by_hand


def test_an_unfinished_training_on_an_excluded_span_is_given_up(world):
    world.deliver(1)
    moments = iter([False, False, True])
    world.kill = lambda: (_ for _ in ()).throw(Killed) if next(moments, False) else None
    with pytest.raises(Killed):
        world.call()
    assert world.call(exclude=(1,)).kind == retraining.NOTHING_NEW
    assert world.known().trainings[0].reason == "span 1 was excluded"
    world.deliver(2)
    world.call()
    assert world.began[-1] == (2,)


def test_a_pruned_span_whose_files_changed_is_left_out(world):
    path = world.deliver(1)
    world.call()
    world.stored.clear()
    shutil.rmtree(path)
    world.deliver(1)
    world.deliver(2)
    world.call()
    assert world.began[-1] == (2,)


def test_an_excluded_span_is_left_out_from_then_on(world):
    for number in (1, 2):
        world.deliver(number)
        world.call()
    world.deliver(3)
    world.call(exclude=(2,))
    assert world.began[-1] == (1, 3)
    assert world.known().spans[2].state == ledger.EXCLUDED


def test_a_late_span_is_taken_while_the_window_reaches_it_and_named_when_not(world):
    for number in (1, 3, 4):
        world.deliver(number)
        world.call()
    world.deliver(2)
    assert world.call().spans == (2,)
    assert world.began[-1] == (2, 3, 4)
    world.deliver(0)
    outcome = world.call()
    assert (outcome.kind, world.known().spans[0].state) == (ledger.NOT_PUSHED, ledger.TOO_OLD)
    assert "4 newer spans fill the window of 3" in outcome.reason


def test_a_used_span_that_changes_is_not_used_again_and_is_told(world):
    path = world.deliver(1)
    world.call()
    assert retraining.odd(world.request(), world.known()) == []
    shutil.rmtree(path)
    world.deliver(1)
    assert world.call().kind == retraining.NOTHING_NEW
    (sentence,) = retraining.odd(world.request(), world.known())
    assert sentence.startswith("span 1 changed after it was accepted")


def test_what_was_not_taken_stands_beside_the_reason(world):
    world.poisoned = {1}
    for number in (1, 2):
        world.deliver(number)
    outcome = world.call()
    assert (outcome.told, [number for number, _ in outcome.untaken]) == ("", [1])


def test_a_call_with_nothing_to_do_among_1000_spans_takes_less_than_3_seconds_of_processor(world, tmp_path):
    """In both places, and without TensorFlow; on a cluster no server is asked."""
    known = Ledger.load(world.root.ledger)
    for number in range(1, 1001):
        span = tmp_path / "spans" / f"span-{number}"
        span.mkdir()
        for name in ("data_batch_1.bin", "test_batch.bin", "_SUCCESS"):
            (span / name).touch()
        known.spans[number] = ledger.SpanRecord(
            ledger.ACCEPTED, "", arrivals.fingerprint(span), ledger.now(), seal=arrivals.seal(span)
        )
    window = list(range(1, 1001))
    known.trainings.append(ledger.Training(window, window, "never", None, None, None, outcome=ledger.PUSHED))
    known.save()
    (world.root.path / "data").symlink_to(tmp_path / "spans")
    code = (
        "import resource, sys\nfrom typer.testing import CliRunner\nfrom kubeflow import commands\n"
        "from pipeline import cli\nresult = CliRunner().invoke(cli.app, sys.argv[1:])\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\nassert 'Nothing new' in result.output, result.output\n"
        "print(result.exit_code, 'tensorflow' in sys.modules, used.ru_utime + used.ru_stime)\n"
    )
    common = ["--root", str(world.root.path), "--preset", "demo"]
    image = ["--cluster-set", "image=registry.example/byol:test"]
    for words in (
        ["retrain", "--data", str(tmp_path / "spans"), *common],
        ["kubeflow", "retrain", "--host", "http://127.0.0.1:9", *common, *image],
    ):
        told = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
        )
        status, has_tensorflow, seconds = told.stdout.split()
        assert (status, has_tensorflow) == ("0", "False")
        assert float(seconds) < 3


def test_a_failing_training_is_tried_again_then_waits_for_a_new_span(world):
    world.broken = {1}
    world.deliver(1)
    assert [world.call(attempts=2).kind for _ in range(3)] == [
        ledger.FAILED,
        ledger.FAILED,
        retraining.NOTHING_NEW,
    ]
    assert len(world.began) == 2
    world.deliver(2)
    outcome = world.call(attempts=2)
    assert (outcome.kind, outcome.spans) == (ledger.PUSHED, (1, 2))


def test_a_refused_model_leaves_the_served_one_and_its_spans_are_not_lost(world):
    world.worse = {2}
    for number in (1, 2, 3):
        world.deliver(number)
        world.call()
    assert [window for _, window, _, _ in world.pushed] == [(1,), (1, 2, 3)]
    assert world.pushed[-1][3] == 1
    assert world.known().trainings[1].reason == "accuracy is too low"


def test_a_killed_training_goes_on_with_the_baseline_and_parent_it_was_begun_with(world):
    """Killed after the push and before the ledger knew: what is served now is its own product."""
    config = settings.override(CONFIG, ["warm_start=full"])
    world.deliver(1)
    world.call(config=config)
    world.deliver(2)
    moments = iter([False, False, False, True])
    world.kill = lambda: (_ for _ in ()).throw(Killed) if next(moments, False) else None
    with pytest.raises(Killed):
        world.call(config=config)
    assert world.known().unfinished().window == [1, 2]
    world.deliver(3)
    world.call(config=config)
    assert world.began == [(1,), (1, 2), (1, 2), (1, 2, 3)]
    assert world.pushed == [(1, (1,), None, None), (2, (1, 2), 10, 1), (3, (1, 2, 3), 20, 2)]


def test_a_candidate_ends_its_training_and_the_next_span_makes_the_next_one(world):
    world.worse, world.candidate = {1, 2}, "3f1c"
    world.deliver(1)
    assert world.call().kind == ledger.CANDIDATE
    assert world.call().kind == retraining.NOTHING_NEW
    world.deliver(2)
    assert world.call().spans == (2,)
    assert [training.outcome for training in world.known().trainings] == [ledger.CANDIDATE] * 2


def test_a_rollback_during_a_killed_training_changes_what_it_is_judged_against(world):
    world.deliver(1)
    world.call()
    world.deliver(2)
    moments = iter([False, False, True])
    world.kill = lambda: (_ for _ in ()).throw(Killed) if next(moments, False) else None
    with pytest.raises(Killed):
        world.call()
    world.restored = 7
    world.call()
    assert world.pushed[-1][2:] == (None, 7)


def test_a_rollback_while_a_model_is_trained_wins_and_the_next_call_judges_anew(world):
    config = settings.override(CONFIG, ["warm_start=full"])
    world.deliver(1)
    world.call(config=config)
    world.deliver(2)
    world.rollback_during_run = 7
    outcome = world.call(config=config)
    assert (outcome.kind, outcome.spans, outcome.version) == (ledger.NOT_PUSHED, (2,), None)
    assert outcome.reason == "a rollback came"
    assert len(world.pushed) == 1
    assert len(world.began) == 2  # one call does not judge twice
    assert world.call(config=config).kind == ledger.PUSHED
    assert world.pushed[-1][1:] == (
        (1, 2),
        70,
        7,
    )  # neither starts from the withdrawn model nor is judged by it
    assert world.call(config=config).kind == retraining.NOTHING_NEW


def test_a_pruned_span_of_the_window_is_read_again(world):
    for number in (1, 2):
        world.deliver(number)
        world.call()
    world.stored.clear()
    world.deliver(3)
    world.call()
    assert world.began[-1] == (1, 2, 3)
    assert world.stored == {1, 2, 3}


def test_what_old_runs_left_is_pruned_after_each_training_but_a_window_of_spans(world):
    world.deliver(1)
    world.call(keep_runs=2, keep_spans=1)
    assert world.pruned == [prune.PrunePolicy(keep_runs=2, keep_spans=3)]


def test_a_span_that_was_refused_is_told_though_another_was_pushed(world):
    world.poisoned = {1}
    for number in (1, 2):
        world.deliver(number)
    outcome = world.call()
    assert (outcome.kind, outcome.spans) == (ledger.PUSHED, (2,))
    assert outcome.reason.startswith("span 1 was not taken (refused): ")


def test_the_fixed_test_set_is_checked(world):
    request = world.request(config=settings.override(CONFIG, ["gate.minimum_test_images=11"]))
    with pytest.raises(ValueError, match=r"needs 11 test images; .*test has 10"):
        retraining.check_test_set(request)
    retraining.check_test_set(world.request())
    with pytest.raises(ValueError, match="No such folder"):
        retraining.check_test_set(world.request(test=world.folder / "nowhere"))


def test_what_is_served_must_be_of_the_test_sets_data(world):
    lineage = {"inputs": {"examples": [{"properties": {"data_set": FABRICS.to_json()}}]}}
    (world.folder / "model").mkdir()
    (world.folder / "model" / "saved_model.pb").write_text("a model")
    serving_folder.publish(world.folder / "model", world.root.serving, lineage)
    with pytest.raises(
        ValueError, match=r"serves version \d+ of fabrics \(3 classes.* received CIFAR-10 \(10 "
    ):
        retraining.check_test_set(world.request())


def test_a_span_of_other_names_than_the_test_set_is_refused_before_anything_runs(world):
    world.deliver(1)
    path = world.deliver(2)
    (path / "batches.meta.txt").write_text("\n".join(reversed(LABEL_NAMES)))
    outcome = world.call()
    assert (outcome.kind, outcome.spans) == (ledger.PUSHED, (1,))
    assert world.known().spans[2].state == ledger.REFUSED
    assert "expected the same classes in the same order" in world.known().spans[2].reason
    assert world.stored == {1}


def test_unlabelled_spans_are_trained_on_with_the_labelled_ones_that_came_before(world):
    world.deliver(1)
    world.call(window=2)
    for number in range(2, 6):
        world.deliver(number, labels=(), data_set=PARTLY)
        assert world.call(window=2).kind == ledger.PUSHED
    assert world.began == [(1,), (1, 2), (1, 2, 3), (1, 3, 4), (1, 4, 5)]
    assert [records.test_labelled for records in world.asked] == [True, False, False, False, False]


def test_a_class_that_a_span_lacks_is_shown_by_an_earlier_one(world):
    for number, labels in ((1, range(10)), (2, range(10)), (3, range(5)), (4, range(5, 10)), (5, (0,))):
        world.deliver(number, labels=labels)
        world.call(window=1)
    assert world.began == [(1,), (2,), (2, 3), (3, 4), (3, 4, 5)]


def test_without_any_labelled_picture_of_a_class_nothing_is_begun(world):
    world.deliver(1, labels=(), data_set=PARTLY)
    with pytest.raises(
        ValueError, match=r"has no labelled training image of airplane, automobile, .* 10 classes"
    ):
        world.call()
    assert (world.began, world.known().trainings) == ([], [])
    world.deliver(2)
    assert world.call().kind == ledger.PUSHED
    assert world.began == [(1, 2)]


def test_a_data_set_without_labels_needs_no_test_set(world):
    shutil.rmtree(world.folder / "spans" / "test")
    for number in (1, 2):
        world.deliver(number, labels=(), data_set=UNLABELLED)
        retraining.check_test_set(world.request())
        assert world.call(window=1).kind == ledger.PUSHED
    assert world.began == [(1,), (2,)]
    assert [(records.test, records.data_set) for records in world.asked] == [(None, UNLABELLED)] * 2
    world.deliver(3)
    world.call()
    assert world.known().spans[3].state == ledger.REFUSED


def _kinds_of_weeks(rng):
    kinds = dict.fromkeys(range(1, 53), "honest")
    faults = {"none": 3, "late": 4, "damaged": 3, "empty": 2, "poisoned": 4, "worse": 5}
    faults |= {"small": 5, "odd": 3, "transient": 4, "manual": 5}
    for kind, count in faults.items():
        for week in rng.sample([w for w, k in kinds.items() if k == "honest" and w < 52], count):
            kinds[week] = kind
    return kinds


def _deliver(world, week, kind):
    """What comes in a week; a late span comes in the next."""
    if kind in ("none", "late"):
        return
    sizes = {"empty": {"train": 0, "test": 0}, "small": {"train": 10, "test": 2}}
    path = world.deliver(week, **sizes.get(kind, {}))
    if kind == "damaged":
        (path / "data_batch_1.bin").write_bytes(b"x" * 100)
    if kind == "odd":  # beside a good span
        (path.parent / f"span_{week}").mkdir()
        (path / "again.bin").symlink_to(world.folder / "gone")


@pytest.mark.parametrize("seed", range(6))
def test_a_year_of_weekly_spans(world, seed):
    """52 weeks: no data, late, damaged, empty and poisoned spans, bad models, a machine that goes off at any moment.

    And small spans, folders that are none, gates that break down, candidates that nobody approves. No
    honest span is lost or new twice, nothing refused is trained on, and what is served is the last honest model.
    """
    rng = random.Random(seed)  # noqa: S311
    kinds = _kinds_of_weeks(rng)
    world.poisoned = {week for week, kind in kinds.items() if kind == "poisoned"}
    world.worse = {week for week, kind in kinds.items() if kind == "worse"}
    world.crashes = {week for week, kind in kinds.items() if kind == "transient"}
    world.manual = {week for week, kind in kinds.items() if kind == "manual"}
    world.kill = lambda: (_ for _ in ()).throw(Killed) if rng.random() < 0.15 else None
    for week, kind in kinds.items():
        if kinds.get(week - 1) == "late":
            world.deliver(week - 1)
        _deliver(world, week, kind)
        for _ in range(rng.randint(1, 3)):
            with contextlib.suppress(Killed):
                world.call()
    world.kill = lambda: None
    while world.call().kind != retraining.NOTHING_NEW:
        pass

    known = world.known()
    delivered = {week for week, kind in kinds.items() if kind != "none"}
    assert set(known.spans) == delivered
    good = {week for week in delivered if kinds[week] not in ("damaged", "empty", "poisoned")}
    assert len(arrivals.odd_folders(world.folder / "spans")) == 3
    assert {span for span, record in known.spans.items() if record.state == ledger.ACCEPTED} == good
    assert all(record.reason for span, record in known.spans.items() if span not in good)
    new = [span for training in known.trainings for span in training.new]
    assert sorted(new) == sorted(set(new)) == sorted(good)
    assert {span for window in world.began for span in window} == good
    ends = {training.outcome for training in known.trainings}
    assert ends == {ledger.PUSHED, ledger.NOT_PUSHED, ledger.CANDIDATE}
    assert {t.window[-1] for t in known.trainings if t.outcome == ledger.CANDIDATE} <= world.manual
    last = [training for training in known.trainings if training.outcome == ledger.PUSHED][-1]
    assert (last.version, tuple(last.window)) == world.pushed[-1][:2]
    assert len({version for version, *_ in world.pushed}) == len(world.pushed)
