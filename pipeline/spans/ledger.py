"""What scheduled retraining remembers in a root: what became of each span, and each training it decided on.

One JSON file, replaced in one rename. ML Metadata knows what ran; this knows why, and what did not.
"""

import dataclasses
import datetime
import json
import pathlib
from typing import Any

from components.staging import is_cut, read_either, write_twice
from pipeline.root import Root

ACCEPTED, REFUSED, EXCLUDED, TOO_OLD = "accepted", "refused", "excluded", "too old"
UNFINISHED, PUSHED, NOT_PUSHED, FAILED = "unfinished", "pushed", "refused", "failed"
CANDIDATE = "candidate"
_FORMAT = 1


@dataclasses.dataclass
class SpanRecord:
    """What became of a span.

    Attributes:
        state: ACCEPTED, it may be trained on; REFUSED, its data did not pass; EXCLUDED, by a person; TOO_OLD, it came
            when the window had moved on.
        reason: in a sentence; empty for an accepted one.
        fingerprint: of its files when it was looked at: another one is another delivery.
        seen: when, ISO 8601 in UTC.
        compared: the spans that its data was compared with.
        by_hand: whether a person let it through.
        allowed: which kinds of findings were, as `components.data.data_limits.allowed_kinds` reads them; all of them
            where it says nothing.
        judged_by: digest of the limits and the code that refused it: under others it is looked at again. "" of a span
            that was not refused.
        seal: of its files then, as `arrivals.seal`: as long as it is the same, they are not read for the fingerprint.
        told: whether the hook's event of a span that was not taken is kept; a kill may come before that.
        labelled: training pictures of each class that have a label; None of a span that was seen before these were
            counted.
        test_labelled: whether its own test pictures have labels.
    """

    state: str
    reason: str
    fingerprint: str
    seen: str
    compared: list[int] = dataclasses.field(default_factory=list)
    by_hand: bool = False
    allowed: str = ""
    judged_by: str = ""
    seal: str = ""
    told: bool = True
    labelled: list[int] | None = None
    test_labelled: bool = True


@dataclasses.dataclass
class Training:
    """One decision to train.

    Attributes:
        window: spans that are trained on, ascending; the last is the newest.
        new: those of them that no finished training has had.
        warm_start: the policy that was asked for.
        parent: id of the Pretrainer's Model to start from; None for random weights.
        parent_version: the served version that came from it.
        baseline: id of the served LinearProbe's Model to compare with; None before the first push.
        run_id: TFX's; None until the run has ended.
        outcome: UNFINISHED, PUSHED, NOT_PUSHED (the gate refused), CANDIDATE (blessed, for a person to decide on) or
            FAILED (given up after some attempts).
        reason: why nothing was pushed, or what failed.
        version: what was pushed.
        accuracy: on the fixed test set.
        attempts: how often it was begun.
        started, ended: ISO 8601 in UTC.
        told: whether the hook's event of its end is kept; a kill may come before that.
    """

    window: list[int]
    new: list[int]
    warm_start: str
    parent: int | None
    parent_version: int | None
    baseline: int | None
    run_id: str | None = None
    outcome: str = UNFINISHED
    reason: str = ""
    version: int | None = None
    accuracy: float | None = None
    attempts: int = 0
    started: str = ""
    ended: str | None = None
    told: bool = True


@dataclasses.dataclass
class Ledger:
    """All spans by number, and all trainings in their order."""

    path: pathlib.Path
    spans: dict[int, SpanRecord] = dataclasses.field(default_factory=dict)
    trainings: list[Training] = dataclasses.field(default_factory=list)

    @classmethod
    def load(cls, path: pathlib.Path) -> "Ledger":
        """Reads the file; an empty ledger when there is none.

        One that has lost its end, as after a power cut, is read from its copy.

        Raises:
            ValueError: the file is not a ledger of this format. It is left as it is.
        """
        try:
            content = json.loads(read_either(path))
            if content["format"] != _FORMAT:
                raise ValueError(f"format {content['format']}, expected {_FORMAT}")
            spans = {int(number): SpanRecord(**span) for number, span in content["spans"].items()}
            return cls(path, spans, [Training(**training) for training in content["runs"]])
        except FileNotFoundError:
            return cls(path)
        except (ValueError, TypeError, KeyError) as error:
            way = "move it away to begin with all spans anew"
            if is_rebuildable(path):
                way = "let the next `byol retrain` make it again from ML Metadata"
            raise ValueError(
                f"{path} is not a ledger of `byol retrain`: {error}. Restore it from a backup, or {way}."
            ) from error

    def save(self) -> None:
        """Writes the file in one rename, after its copy."""
        content: dict[str, Any] = {
            "format": _FORMAT,
            "spans": {str(number): dataclasses.asdict(self.spans[number]) for number in sorted(self.spans)},
            "runs": [dataclasses.asdict(training) for training in self.trainings],
        }
        write_twice(self.path, json.dumps(content, indent=1) + "\n")

    def mark(
        self, span: int, state: str, fingerprint: str, reason: str = "", compared: list[int] | None = None
    ) -> None:
        """Remembers what became of a span."""
        self.spans[span] = SpanRecord(state, reason, fingerprint, now(), compared or [])
        self.save()

    def untold(self) -> "Ledger":
        """The part of it whose events are not kept yet."""
        spans = {number: span for number, span in self.spans.items() if not span.told}
        return Ledger(self.path, spans, [training for training in self.trainings if not training.told])

    def all_told(self) -> None:
        """Remembers that the event of everything in it is kept."""
        untold = self.untold()
        for span in untold.spans.values():
            span.told = True
        for training in untold.trainings:
            training.told = True
        if untold.spans or untold.trainings:
            self.save()

    def accepted(self) -> list[int]:
        """Spans that may be trained on, ascending."""
        return sorted(number for number, span in self.spans.items() if span.state == ACCEPTED)

    def unfinished(self) -> Training | None:
        """The training that was begun and has not ended; there is at most one."""
        return next((t for t in self.trainings if t.outcome == UNFINISHED), None)

    def untrained(self) -> list[int]:
        """Accepted spans that no finished training has had, ascending."""
        ended = (PUSHED, NOT_PUSHED, CANDIDATE)
        had = {span for t in self.trainings if t.outcome in ended for span in t.window}
        return [span for span in self.accepted() if span not in had]

    def unheard(self) -> list[int]:
        """Untrained spans that no training, given up ones included, was ever begun for."""
        begun = {span for t in self.trainings for span in t.window}
        return [span for span in self.untrained() if span not in begun]


def is_rebuildable(path: pathlib.Path) -> bool:
    """Whether there was a ledger, both copies have lost their end, and the root has the metadata store of its runs."""
    try:
        return is_cut(read_either(path)) and Root(path.parent.parent).metadata.exists()
    except (OSError, ValueError):
        return False


def now() -> str:
    """The time as the ledger writes it."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
