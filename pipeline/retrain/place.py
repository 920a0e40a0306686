"""Where the runs of a retraining happen: what its decisions ask for, and what they get. No TFX, no Kubernetes."""

import dataclasses
from typing import Protocol

from pipeline.config import PipelineConfig
from pipeline.root import Records


class StillAtWorkError(RuntimeError):
    """What was asked for has begun and goes on without this process; asked again, the place says what came of it."""


class PlaceError(RuntimeError):
    """The place cannot be asked now; nothing was decided, and the next call asks again."""


@dataclasses.dataclass(frozen=True)
class Served:
    """What is served, in the place's own numbers.

    Attributes:
        version: its number.
        restored: whether it is served because of a rollback.
        model: what a new model is compared with.
        pretrainer: what a warm start begins with.
    """

    version: int
    restored: bool
    model: int
    pretrainer: int


@dataclasses.dataclass(frozen=True)
class Asked:
    """One run that was decided on; equal ones are one run, however often it is asked for.

    Attributes:
        config: what is trained, what it must reach, and what of the data is let through.
        records: the newest span's files, and the fixed test set.
        compared: accepted spans that its data is compared with.
        baseline: `Served.model` to compare with; None before the first push.
        window: accepted spans that are trained on; empty where the data is only looked at.
        parent: `Served.pretrainer` to start from; None for random weights.
        begun: how often it was begun before, and failed.
    """

    config: PipelineConfig
    records: Records
    compared: tuple[int, ...]
    baseline: int | None
    window: tuple[int, ...] = ()
    parent: int | None = None
    begun: int = 0


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a finished training came to.

    Attributes:
        run_id: the place's id of the run.
        accuracy: on the test set, 0 to 1; None where nothing is labelled.
        version: what was pushed; None when nothing was.
        reason: why nothing was pushed; "" when something was.
        overtaken: whether that was a rollback while it trained.
        candidate: whether it waits for a person's approval.
    """

    run_id: str
    accuracy: float | None
    version: int | None
    reason: str
    overtaken: bool
    candidate: bool = False


class Place(Protocol):
    """One machine, or a cluster. It decides nothing."""

    def served(self) -> Served | None:
        """What is served now; None for nothing.

        Raises:
            ValueError: nothing can be compared with it, and why.
        """

    def stored(self) -> set[int]:
        """Spans whose Examples are there to be compared with and trained on."""

    def look_at(self, asked: Asked) -> None:
        """Runs the gates of the data; what passes is stored.

        Raises:
            DataRefusedError: AnomalyGate or LabelCheck objects to the data; nothing else refuses a span.
            NodeFailedError: a node failed otherwise, one of these two included; the span is looked at again.
            StillAtWorkError: it is not known yet.
            PlaceError: the place cannot be asked.
        """

    def train(self, asked: Asked) -> Trained:
        """Runs the pipeline to its end.

        Raises:
            NodeFailedError: a node failed.
            StillAtWorkError: it is not known yet.
            PlaceError: the place cannot be asked.
        """

    def prune(self, keep_runs: int, keep_spans: int) -> int:
        """Removes what old runs left, but nothing of what is served; returns how many bytes.

        Raises:
            ValueError: what is kept is not known.
            OSError: something cannot be removed now.
        """
