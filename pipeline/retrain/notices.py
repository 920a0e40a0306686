"""What the outside is told of one call of `byol retrain`: monitoring of every call, a hook of what was decided."""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable

import typer

from components.serving import serving_folder
from pipeline import refusal
from pipeline.retrain import hooks, retraining
from pipeline.retrain.outbox import Outbox
from pipeline.retrain.vital_signs import Outcome, VitalSigns
from pipeline.root import Root, RootInUseError
from pipeline.spans import ledger

NOTHING_OR_PUSHED, FAILED, USAGE, REFUSED, INTERRUPTED = 0, 1, 2, 3, 130
STATUS = {
    retraining.NOTHING_NEW: NOTHING_OR_PUSHED,
    retraining.AT_WORK: NOTHING_OR_PUSHED,
    ledger.PUSHED: NOTHING_OR_PUSHED,
    ledger.CANDIDATE: NOTHING_OR_PUSHED,
    ledger.NOT_PUSHED: REFUSED,
    ledger.FAILED: FAILED,
}
_ACCURACY = "sparse_categorical_accuracy"


class Notices:
    """Tells of one call. What could not be told is a line on the error stream, and stops nothing.

    Args:
        root: of the runs.
        hook_config: who is told of what was decided.
        metrics: file for Prometheus; `<root>/retraining/byol.prom` if None.

    Raises:
        ValueError: the name of that file does not end in .prom.
    """

    def __init__(self, root: Root, hook_config: hooks.HookConfig, metrics: pathlib.Path | None) -> None:
        self._root = root
        self._hooks = hook_config
        self._signs = VitalSigns(root.path, metrics)
        self._outbox = Outbox(root.ledger.parent / "outbox")
        self._posted = ""
        self._unwritten: hooks.Event | None = None
        self._refused_before: frozenset[tuple[str, int, str]] | None = None

    def idle(self) -> None:
        """There was nothing to do; not told where another call is at work, which tells for itself.

        Raises:
            OSError: the root cannot be written to.
        """
        self._root.prepare()
        with contextlib.suppress(RootInUseError), self._root.locked():
            _say(self._signs.started())
            self._finish(retraining.Outcome(retraining.NOTHING_NEW), NOTHING_OR_PUSHED, lambda: 0)

    def watch(self, work: Callable[[], retraining.Outcome], waiting: Callable[[], int]) -> retraining.Outcome:
        """Does the work and tells monitoring how it went; the caller holds the root's lock.

        Args:
            work: whatever it raises is passed on.
            waiting: how many spans are left afterwards; asked at the end.
        """
        begun = time.monotonic()
        self._refused_before = _refused(self._root)
        _say(self._signs.started())
        try:
            outcome = work()
        except KeyboardInterrupt:
            # Whoever pressed it knows: monitoring is told, no hook.
            self._finish(_failure("interrupted", begun), INTERRUPTED, waiting)
            raise
        except Exception as error:
            failure = _failure(str(error) or type(error).__name__, begun)
            self._post(_event(self._root, failure))
            self._finish(failure, USAGE if isinstance(error, ValueError | OSError) else FAILED, waiting)
            raise
        if outcome.kind in hooks.KINDS:
            self._post(_event(self._root, outcome))
        self._finish(outcome, STATUS[outcome.kind], waiting)
        return outcome

    def training(self, detail: str) -> None:
        """Tells monitoring what the call is at."""
        _say(self._signs.training(detail))

    def deliver(self) -> None:
        """Runs the hooks for what was decided by this call, and by earlier ones whose hook failed or that were killed.

        Better without the lock, since it may take minutes. Two calls at once may tell of an event twice.
        """
        if self._unwritten is not None:
            _say(hooks.deliver(self._unwritten, self._hooks))
        once = dataclasses.replace(self._hooks, attempts=1)
        for path in self._outbox.waiting():
            try:
                event = self._outbox.read(path)
                own = event.id == self._posted
                problems = hooks.deliver(event, self._hooks if own else once)
                if not problems:
                    self._outbox.arrived(path)
            except FileNotFoundError:
                continue
            except (ValueError, OSError) as error:
                problems = [str(error)]
            _say(problems)

    def _post(self, event: hooks.Event) -> None:
        """Puts an event on the disk before anything is told; a full disk is an event as well, and told at once."""
        if not self._hooks.of(event.kind):
            return
        self._posted = event.id
        try:
            self._outbox.put(event)
        except OSError as error:
            self._unwritten = event
            _say(
                [f"The event for the hook on_{event.kind} cannot be kept: {error}. It is tried now or never."]
            )

    def _finish(self, outcome: retraining.Outcome, status: int, waiting: Callable[[], int]) -> None:
        _say(self._signs.finished(self._outcome(outcome, status, _count(waiting))))

    def _outcome(self, outcome: retraining.Outcome, status: int, waiting: int | None) -> Outcome:
        version, accuracy = _served(self._root)
        before = self._refused_before
        return Outcome(
            exit_status=status,
            seconds=outcome.seconds,
            pushed=outcome.kind == ledger.PUSHED,
            accuracy=outcome.accuracy,
            served_version=version,
            served_accuracy=accuracy,
            spans_waiting=waiting,
            spans_refused=0 if before is None else len(_refused(self._root) - before),
            detail=outcome.reason or outcome.kind,
        )


def _failure(reason: str, begun: float) -> retraining.Outcome:
    return retraining.Outcome(ledger.FAILED, reason, seconds=round(time.monotonic() - begun, 1))


def _event(root: Root, outcome: retraining.Outcome) -> hooks.Event:
    return hooks.Event(
        kind=outcome.kind,  # type: ignore[arg-type] # checked by the event
        at=ledger.now(),
        root=str(root.path),
        run_id=outcome.run_id,
        spans=outcome.spans,
        version=outcome.version,
        accuracy=outcome.accuracy,
        reason=outcome.reason,
        seconds=outcome.seconds,
        missed=refusal.recorded(root, outcome.run_id) if outcome.kind == ledger.NOT_PUSHED else (),
    )


def _refused(root: Root) -> frozenset[tuple[str, int, str]]:
    """Each delivery of a span whose data was refused, and each span of a training from which nothing was pushed."""
    with contextlib.suppress(ValueError, OSError):
        known = ledger.Ledger.load(root.ledger)
        data = {
            ("data", number, span.fingerprint)
            for number, span in known.spans.items()
            if span.state == ledger.REFUSED
        }
        models = {
            ("model", number, training.started)
            for training in known.trainings
            if training.outcome == ledger.NOT_PUSHED
            for number in training.new
        }
        return frozenset(data | models)
    return frozenset()


def _served(root: Root) -> tuple[int | None, float | None]:
    """Number and accuracy of the served version, as its record has them."""
    with contextlib.suppress(ValueError, OSError):
        for version in serving_folder.versions(root.serving):
            if version.served:
                metrics = version.record.get("lineage", {}).get("metrics", {})
                return version.number, metrics.get(_ACCURACY)
    return None, None


def _count(waiting: Callable[[], int]) -> int | None:
    with contextlib.suppress(ValueError, OSError):
        return waiting()
    return None


def _say(problems: list[str]) -> None:
    for problem in problems:
        typer.echo(problem, err=True)
