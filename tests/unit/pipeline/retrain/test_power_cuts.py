"""A power cut at every moment of a retraining: the same call finishes, and nothing was accepted, refused or lost by it.

The place of the runs is a small one that stores and pushes for real. For TFX's own part there is
tests/component/run/test_on_disk.py, and for all of it on real file systems `python -m benchmarks.power_cuts`.
"""

import dataclasses
import os
import pathlib

import numpy as np
import pytest
from rich.console import Console

from components import staging
from components.data import cifar10
from components.serving import serving_folder
from pipeline.config import PRESETS
from pipeline.console import DataRefusedError
from pipeline.retrain import hooks, notices, retraining
from pipeline.retrain.place import Asked, Served, Trained
from pipeline.root import Root
from pipeline.spans.ledger import Ledger
from tests.power_cut import Disk
from trainer import settings

CONFIG = settings.override(
    PRESETS["demo"],
    [
        "pretraining.batch_size=10",
        "pretraining.optimizer.warmup_steps=1",
        "gate.minimum_test_images=10",
        "gate.robustness_images=10",
    ],
)
POISONED = 3


class SmallPlace:
    """Stores Examples, "trains" a file and pushes it, each on the disk before it is said to be done."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def served(self) -> Served | None:
        """As the versions say."""
        version = serving_folder.served(self._root.serving)
        if version is None:
            return None
        model = version.record["lineage"]["model"]
        return Served(
            version.number, restored=version.record["action"] == "rollback", model=model, pretrainer=model
        )

    def stored(self) -> set[int]:
        """Spans with a folder."""
        return {int(path.name) for path in self._root.artifacts.glob("[0-9]*")}

    def look_at(self, asked: Asked) -> None:
        """Refuses one span's data."""
        span = asked.records.span
        assert span is not None
        if span not in self.stored():
            with staging.staged_folder(self._root.artifacts / str(span)) as folder:
                (folder / "examples").write_text(f"span {span}")
        if span == POISONED:
            raise DataRefusedError("LabelCheck", "labels were permuted")

    def train(self, asked: Asked) -> Trained:
        """A model's number is what it was asked to be of."""
        number = int("".join(map(str, asked.window)))
        model = self._root.path / "models" / str(number)
        if not model.exists():
            with staging.staged_folder(model) as folder:
                (folder / serving_folder.SAVED_MODEL_FILE).write_text(f"{asked.window} from {asked.parent}")
        before = self._root.path / "models" / str(asked.baseline)
        pushed = serving_folder.publish(
            model,
            self._root.serving,
            {"model": number, "metrics": {"sparse_categorical_accuracy": 0.5}},
            replaces=serving_folder.model_digest(before) if asked.baseline is not None else "",
            keep_versions=2,
            retire_after_seconds=0,
        )
        return Trained(f"run {number}", 0.5, pushed.version, "", overtaken=False)

    def prune(self, keep_runs: int, keep_spans: int) -> int:
        """Nothing to do."""
        return 0


class Retraining:
    """`byol retrain` over a root, and the events that its hook was given."""

    def __init__(self, root: pathlib.Path, data: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.told = Root(root), list[hooks.Event]()
        self._request = retraining.Request(
            data, data / "test", self.root, "demo", dataclasses.replace(CONFIG, warm_start="full")
        )
        monkeypatch.setattr(hooks, "deliver", self._deliver)

    def _deliver(self, event: hooks.Event, config: hooks.HookConfig) -> list[str]:
        self.told.append(event)
        return []

    def call(self) -> str:
        """As the command does; how it ended."""
        told = notices.Notices(
            self.root, hooks.HookConfig(on_pushed="x", on_refused="x", on_failed="x"), None
        )
        self.root.prepare()
        person = Console(quiet=True)
        with self.root.locked():
            outcome = told.watch(
                lambda: retraining.retrain(self._request, SmallPlace(self.root), person),
                lambda: 0,
            )
        told.deliver()
        return outcome.kind

    def found(self) -> dict[str, object]:
        """What was decided, without times and version numbers."""
        known = Ledger.load(self.root.ledger)
        versions = serving_folder.versions(self.root.serving)
        return {
            "spans": {n: (s.state, s.reason, s.compared, s.told) for n, s in known.spans.items()},
            "trainings": [
                (t.window, t.new, t.parent, t.baseline, t.outcome, t.reason, t.attempts, t.told)
                for t in known.trainings
            ],
            "pushed": [t.version for t in known.trainings][-1] == versions[-1].number,
            "versions": [(v.digest, v.fault, v.record["action"]) for v in versions],
            "outbox": sorted(path.name for path in self.root.ledger.parent.glob("outbox/[0-9]*")),
        }


def _pushes(told: list[hooks.Event]) -> list[tuple[object, ...]]:
    """Each push that was told, once however often: the id is the same."""
    pushed = {event.id: event for event in told if event.kind == "pushed"}
    return [(event.spans, event.accuracy) for event in pushed.values()]


def _findings(told: list[hooks.Event]) -> set[str]:
    """After a cut a refused span may be told before the push, and not with it."""
    return {finding for event in told for finding in event.findings}


def _write(folder: pathlib.Path, count: int = 20) -> None:
    folder.mkdir(parents=True)
    for name in ("data_batch_1.bin", "test_batch.bin"):
        images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        (folder / name).write_bytes(cifar10.encode_records(images, np.arange(count) % 10))


@pytest.fixture
def data(tmp_path: pathlib.Path) -> pathlib.Path:
    for name in ("test", "span-1", "span-2", f"span-{POISONED}"):
        _write(tmp_path / "spans" / name)
    (tmp_path / "spans" / "span-1" / "_SUCCESS").touch()
    return tmp_path / "spans"


def test_a_cut_at_every_moment_of_a_retraining_changes_nothing(
    data: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # what a real disk takes for it is not asked
    root = tmp_path / "root"
    retrained = Retraining(root, data, monkeypatch)
    assert retrained.call() == "pushed"
    for number in (2, POISONED):
        (data / f"span-{number}" / "_SUCCESS").touch()
    retrained.told.clear()
    disk = Disk(root, monkeypatch, lambda: len(retrained.told))
    with disk.followed():
        assert retrained.call() == "pushed"
    expected, told = retrained.found(), list(retrained.told)
    assert [(event.kind, event.spans, len(event.findings)) for event in told] == [("pushed", (2,), 1)]
    moments = disk.different()
    assert len(moments) > 50
    for moment in moments:
        moment.put(root)
        assert isinstance(moment.beside, int)
        retrained.told[:] = told[: moment.beside]
        retrained.call()
        assert retrained.found() == expected, moment.before
        assert _pushes(retrained.told) == [((2,), 0.5)], moment.before
        assert _findings(retrained.told) == _findings(told), moment.before
