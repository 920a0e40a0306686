"""What the outside is told of one call of `byol retrain`: monitoring of every call, a hook of what was decided."""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import time
from collections.abc import Callable

import typer

from components.serving import serving_folder
from components.staging import write_atomically
from pipeline import console, refusal
from pipeline.retrain import decisions, hooks, outbox, retraining
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
        self._outbox = outbox.of(root)
        self._posted: set[str] = set()
        self._unwritten: list[hooks.Event] = []
        self._odd: list[str] | None = None
        self._told_odd = root.ledger.parent / "odd.json"
        self._refused_before: frozenset[tuple[str, int, str]] | None = None

    def idle(self, waiting: int) -> None:
        """There was nothing to do; not told where another call is at work, which tells for itself.

        Args:
            waiting: how many spans are left: those of a training that was given up wait for a new one.

        Raises:
            OSError: the root cannot be written to.
        """
        self._root.prepare()
        with contextlib.suppress(RootInUseError), self._root.locked():
            _say(self._signs.started())
            self._post_odd()
            self._post_untold()
            outcome = retraining.Outcome(retraining.NOTHING_NEW, seconds=None)
            self._finish(outcome, NOTHING_OR_PUSHED, lambda: waiting)

    def watch(self, work: Callable[[], retraining.Outcome], waiting: Callable[[], int]) -> retraining.Outcome:
        """Does the work and tells monitoring how it went; the caller holds the root's lock.

        Args:
            work: whatever it raises is passed on.
            waiting: how many spans are left afterwards; asked at the end.
        """
        begun = time.monotonic()
        self._refused_before = _refused(self._root)
        _say(self._signs.started())
        self._post_odd()
        self._post_untold()
        try:
            outcome = work()
        except KeyboardInterrupt:
            # Whoever pressed it knows: monitoring is told, no hook.
            self._finish(_failure("interrupted", begun), INTERRUPTED, waiting)
            raise
        except Exception as error:
            failure = _failure(console.reason(error) or type(error).__name__, begun)
            self._post(_event(self._root, failure))
            status = console.status(error) if isinstance(error, ValueError | OSError) else FAILED
            self._finish(failure, status, waiting)
            raise
        known = ledger.Ledger.load(self._root.ledger)
        if outcome.kind in hooks.KINDS:
            self._post(_with_id(_event(self._root, outcome), known.untold()))
        known.all_told()
        self._finish(outcome, STATUS[outcome.kind], waiting)
        return outcome

    def odd(self, sentences: list[str]) -> None:
        """What lies among the spans and will not be trained on: a line each now, a metric and a hook at the end.

        The hook is told when there is something that it was not told of before.
        """
        self._odd = sentences
        _say(sentences)

    def stopped(self, reason: str, status: int = USAGE) -> None:
        """The call ends before anything was looked at: wrong arguments, no data, a ledger that is none, a full disk.

        A root that is not there yet is not made for it; the hook is told all the same.
        """
        failure = retraining.Outcome(ledger.FAILED, reason, seconds=None)
        event = _event(self._root, failure)
        if not self._root.path.is_dir():
            if self._hooks.of(event.kind):
                self._unwritten.append(event)
        else:
            self._post(event)
            with contextlib.suppress(RootInUseError, OSError), self._root.locked():
                _say(self._signs.started())
                self._finish(failure, status, lambda: None)
        self.deliver()

    def _post_odd(self) -> None:
        """Tells the hook of what it was not told of before."""
        if self._odd is None:
            return
        before: list[str] = []
        with contextlib.suppress(OSError, ValueError):
            before = json.loads(self._told_odd.read_text(encoding="utf-8"))
        if before == self._odd:
            return
        if not set(self._odd) <= set(before):
            count = len(self._odd)
            things = "1 thing" if count == 1 else f"{count} things"
            told = retraining.Outcome("odd", f"{things} among the spans will not be trained on", seconds=None)
            self._post(dataclasses.replace(_event(self._root, told), findings=tuple(self._odd)))
        try:
            write_atomically(self._told_odd, json.dumps(self._odd, indent=1) + "\n")
        except OSError as error:
            _say([f"{self._told_odd} cannot be written ({error.strerror}); the hook may be told twice."])

    def _post_untold(self) -> None:
        """Keeps the events of what an earlier call, or a person, decided and was killed before it could tell."""
        try:
            decisions.keep_left(self._root)
            known = ledger.Ledger.load(self._root.ledger)
        except (ValueError, OSError):
            return  # the work says so
        untold = known.untold()
        untaken = tuple((number, retraining.untaken(number, span)) for number, span in untold.spans.items())
        outcomes = [_outcome_of(training) for training in untold.trainings]
        if untaken:  # one event tells of all that a call came to
            last = outcomes.pop() if outcomes else retraining.Outcome(ledger.NOT_PUSHED, seconds=None)
            outcomes.append(dataclasses.replace(last, untaken=untaken))
        for place, outcome in enumerate(outcomes):
            about = dataclasses.replace(untold, trainings=untold.trainings[place : place + 1])
            self._post(_with_id(_event(self._root, outcome), about))
        known.all_told()

    def training(self, detail: str) -> None:
        """Tells monitoring what the call is at."""
        _say(self._signs.training(detail))

    def deliver(self) -> None:
        """Runs the hooks for what was decided by this call, and by earlier ones whose hook failed or that were killed.

        Better without the lock, since it may take minutes. Two calls at once may tell of an event twice.
        """
        for unwritten in self._unwritten:
            _say(hooks.deliver(unwritten, self._hooks))
        _say(self._outbox.deliver(self._hooks, self._posted))

    def _post(self, event: hooks.Event) -> None:
        """Puts an event on the disk before anything is told; a full disk is an event as well, and told at once."""
        if not self._hooks.of(event.kind):
            return
        self._posted.add(event.id)
        try:
            self._outbox.put(event)
        except OSError as error:
            self._unwritten.append(event)
            _say(
                [f"The event for the hook on_{event.kind} cannot be kept: {error}. It is tried now or never."]
            )

    def _finish(self, outcome: retraining.Outcome, status: int, waiting: Callable[[], int | None]) -> None:
        _say(self._signs.finished(self._outcome(outcome, status, _count(waiting))))

    def _outcome(self, outcome: retraining.Outcome, status: int, waiting: int | None) -> Outcome:
        version, accuracy = _served(self._root)
        before = self._refused_before
        return Outcome(
            exit_status=status,
            seconds=outcome.seconds,
            pushed_at=_pushed_at(self._root),
            accuracy=outcome.accuracy,
            served_version=version,
            served_accuracy=accuracy,
            spans_waiting=waiting,
            spans_odd=None if self._odd is None else len(self._odd),
            spans_refused=0 if before is None else len(_refused(self._root) - before),
            detail=outcome.reason or outcome.kind,
        )


def _failure(reason: str, begun: float) -> retraining.Outcome:
    return retraining.Outcome(ledger.FAILED, reason, seconds=round(time.monotonic() - begun, 1))


def _event(root: Root, outcome: retraining.Outcome) -> hooks.Event:
    reason, findings = _sentence(outcome)
    return hooks.Event(
        kind=outcome.kind,  # type: ignore[arg-type] # checked by the event
        at=ledger.now(),
        root=str(root.path),
        run_id=outcome.run_id,
        spans=outcome.spans or tuple(number for number, _ in outcome.untaken),
        version=outcome.version,
        accuracy=outcome.accuracy,
        reason=reason,
        findings=tuple(findings),
        report=root.report_address(outcome.run_id),
        seconds=outcome.seconds or 0.0,
        missed=refusal.recorded(root, outcome.run_id) if outcome.kind == ledger.NOT_PUSHED else (),
    )


def _outcome_of(training: ledger.Training) -> retraining.Outcome:
    return retraining.Outcome(
        training.outcome,
        training.reason,
        tuple(training.new),
        training.run_id,
        training.version,
        training.accuracy,
        seconds=None,
        told=training.reason,
    )


def _with_id(event: hooks.Event, untold: ledger.Ledger) -> hooks.Event:
    """The event with the id of the decision that it tells of: told again after a kill, it has the same."""
    about: dict[str, object] = {str(number): span.seen for number, span in untold.spans.items()}
    if untold.trainings:
        last = untold.trainings[-1]
        about = {"window": last.window, "started": last.started, "ended": last.ended}
    if not about:
        return event
    text = json.dumps([event.root, event.kind, about], sort_keys=True)
    return dataclasses.replace(event, id=hashlib.sha256(text.encode()).hexdigest()[:32])


def _sentence(outcome: retraining.Outcome) -> tuple[str, list[str]]:
    """The reason in one sentence, and what else there is to say."""
    findings = [reason for _, reason in outcome.untaken]
    reason = outcome.told or ("" if findings else outcome.reason)
    if not reason and findings and outcome.kind != ledger.PUSHED:
        numbers = ", ".join(str(number) for number, _ in outcome.untaken)
        reason = f"span {numbers} was not taken" if len(findings) == 1 else f"spans {numbers} were not taken"
    first, _, rest = reason.partition(". ")
    return first, [*([rest] if rest else []), *findings]


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


def _pushed_at(root: Root) -> float | None:
    """As the served folder has it: an approval is a push as well, and a call that was killed after one told nobody."""
    with contextlib.suppress(ValueError, OSError):
        return serving_folder.last_push(root.serving)
    return None


def _count(waiting: Callable[[], int | None]) -> int | None:
    with contextlib.suppress(ValueError, OSError):
        return waiting()
    return None


def _say(problems: list[str]) -> None:
    for problem in problems:
        typer.echo(problem, err=True)
