"""Scheduled retraining: looks for new spans, looks at their data, trains on a window of them, and remembers why."""

import dataclasses
import hashlib
import json
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from rich.console import Console

from components.data import cifar10, data_limits, dataset
from components.data.dataset import DataSet
from pipeline.config import PipelineConfig
from pipeline.console import DataRefusedError, NodeFailedError, size_words
from pipeline.retrain.place import Asked, Place, PlaceError, Served, StillAtWorkError
from pipeline.root import Records, Root
from pipeline.run import fitness
from pipeline.source_digest import source_digest
from pipeline.spans import arrivals, ledger
from pipeline.spans.ledger import Ledger, Training

NOTHING_NEW, AT_WORK = "nothing new", "at work"
# What looks at a span's data, besides the limits: mended, it looks at refused spans again.
_JUDGES = ("components/data", "components/gate/label_check.py", "components/gate/robustness.py")


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked of a retraining.

    Attributes:
        data: holds `span-N` folders.
        test: holds the test set that stays the same from span to span; spans of a data set without labels need none.
        root: everything that runs leave behind.
        preset: its name, for the record.
        config: what is trained, what it must reach, and what it starts from.
        window: how many of the newest spans are trained on, besides those that none was trained on yet, and older ones
            where only they show a class with its label.
        attempts: how often a training is begun that fails; then it waits for a new span.
        accept: spans to let through whose data was refused.
        accept_kinds: which kinds of findings to let through of one of these, as
            `components.data.data_limits.allowed_kinds` reads them; all of them where nothing is said.
        exclude: spans never to train on again.
        keep_runs: how many of the newest runs keep their files; what is served and what it came from stays anyway.
        keep_spans: Examples of how many of the newest spans stay, at least a window of them: a new span is compared
            with them.
        marker_hours: a span without its marker, in which nothing has changed for longer, is told.
    """

    data: pathlib.Path
    test: pathlib.Path
    root: Root
    preset: str
    config: PipelineConfig
    window: int = 4
    attempts: int = 3
    accept: tuple[int, ...] = ()
    exclude: tuple[int, ...] = ()
    keep_runs: int = 3
    keep_spans: int = 8
    accept_kinds: Mapping[int, str] = dataclasses.field(default_factory=dict)
    marker_hours: float = 24.0

    def __post_init__(self) -> None:
        for name in ("window", "attempts", "keep_runs", "keep_spans"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1; received {getattr(self, name)}.")
        for kinds in self.accept_kinds.values():
            data_limits.allowed_kinds(kinds)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a retraining came to.

    Attributes:
        kind: one of the ledger's PUSHED, NOT_PUSHED and FAILED, or NOTHING_NEW; AT_WORK where a run goes on without
            this call, and a later one takes up what comes of it.
        reason: why nothing was pushed, and which spans were not taken.
        spans: those that are new in it.
        run_id, version, accuracy: of the last training; None without one.
        seconds: of the whole; None where nothing was done, or something goes on.
        told: the reason alone of the training, a sentence.
        untaken: spans that were not taken or could not be looked at, each with why.
    """

    kind: str
    reason: str = ""
    spans: tuple[int, ...] = ()
    run_id: str | None = None
    version: int | None = None
    accuracy: float | None = None
    seconds: float | None = 0.0
    told: str = ""
    untaken: tuple[tuple[int, str], ...] = ()


def waiting(request: Request, known: Ledger, complete: Mapping[int, str] | None = None) -> dict[int, str]:
    """The complete spans that were never looked at, or not as they or the limits are now, with their fingerprints.

    Args:
        request: what is asked.
        known: what is remembered.
        complete: all complete spans, where `arrivals.complete_spans` has just been asked; it takes a second of a
            thousand.

    Raises:
        ValueError: as `arrivals.complete_spans`.
    """
    judge = judged_by(request.config)
    return {
        number: fingerprint
        for number, fingerprint in _complete(request, known, complete).items()
        if number not in request.exclude and _is_new(number, fingerprint, request, known, judge)
    }


def _complete(request: Request, known: Ledger, complete: Mapping[int, str] | None) -> Mapping[int, str]:
    return arrivals.complete_spans(request.data, known.spans) if complete is None else complete


def judged_by(config: PipelineConfig) -> str:
    """Hex digest of what decides whether a span's data is refused: the limits, what is let through, and the code."""
    limits = {
        "data": dataclasses.asdict(config.data),
        "agreement": config.gate.minimum_label_agreement,
        "allowed": data_limits.told_kinds(data_limits.allowed_kinds(config.allow_anomalies)),
        "code": source_digest(_JUDGES),
    }
    return hashlib.sha256(json.dumps(limits, sort_keys=True).encode()).hexdigest()


def _is_new(number: int, fingerprint: str, request: Request, known: Ledger, judge: str) -> bool:
    record = known.spans.get(number)
    if record is None:
        return True
    if record.state == ledger.REFUSED:
        return (record.fingerprint, record.judged_by) != (fingerprint, judge) or number in request.accept
    return record.state != ledger.ACCEPTED and number in request.accept


def has_work(request: Request, known: Ledger, complete: Mapping[int, str] | None = None) -> bool:
    """Whether there is anything to look at or to train, of those that are `complete`; nothing is written."""
    return bool(known.unfinished() or known.unheard() or waiting(request, known, complete))


def check_test_set(request: Request) -> None:
    """Checks that the fixed test set is there, large enough for the gate, and of what is served.

    Without labels nothing is judged, and it may be missing.

    Raises:
        ValueError: it is not; it says what to do.
    """
    tested_on = _test_data_set(request)
    fitness.check_served(tested_on, request.root.serving)
    if not tested_on.classes:
        return
    count = cifar10.count_test_records(request.test)
    if count < request.config.gate.minimum_test_images:
        raise ValueError(
            f"The gate needs {request.config.gate.minimum_test_images} test images; {request.test} has {count}. Give "
            "the whole test set, or lower gate.minimum_test_images."
        )


def check_settings(request: Request) -> None:
    """Checks that the settings can train on what would be trained on: the whole window, and not one span of it.

    A new span that is damaged is left to its refusal. Where the files of an older one are gone, nobody can tell.

    Raises:
        ValueError: the window has too few pictures for the steps that are asked for; it says what to do.
    """
    known = Ledger.load(request.root.ledger)
    new, old = waiting(request, known), known.untrained()
    if not new and not old:
        return
    numbers = {number: number in new for number in {*known.accepted()[-request.window :], *new, *old}}
    counts = [_train_records(request, number, is_new) for number, is_new in numbers.items()]
    if any(counts) and None not in counts:
        request.config.pretraining.total_steps(sum(filter(None, counts)))


def _train_records(request: Request, number: int, is_new: bool) -> int | None:
    """How many training pictures a span adds; 0 of a new one that will be refused, None where nobody can tell."""
    try:
        return cifar10.inspect_folder(request.data / f"{cifar10.SPAN_FOLDER}{number}").train_records
    except ValueError as error:
        return 0 if is_new and not isinstance(error.__cause__, OSError) else None


def odd(request: Request, known: Ledger, complete: Mapping[int, str] | None = None) -> list[str]:
    """What lies among the spans and will not be trained on by itself, in a sentence each; it stops nothing.

    Names that are no span's, spans without their marker for longer than `marker_hours`, and spans that changed after
    they were accepted.

    Raises:
        ValueError: as `arrivals.complete_spans`.
    """
    complete = _complete(request, known, complete)
    changed = [
        f"span {number} changed after it was accepted on {known.spans[number].seen[:10]}; what was read then is "
        "trained on. Deliver it under a new number, or exclude it."
        for number, fingerprint in complete.items()
        if number in known.spans
        and known.spans[number].state == ledger.ACCEPTED
        and known.spans[number].fingerprint != fingerprint
    ]
    silent = arrivals.without_marker(request.data, request.marker_hours)
    return [*arrivals.odd_folders(request.data), *silent, *changed]


def spans_left(request: Request, known: Ledger, complete: Mapping[int, str] | None = None) -> int:
    """How many complete spans were not looked at yet, or not trained on, those of a given up training included.

    Raises:
        ValueError: as `arrivals.complete_spans`.
    """
    return len({*waiting(request, known, complete), *known.untrained()})


def retrain(
    request: Request, place: Place, console: Console, training_begins: Callable[[str], None] = lambda _: None
) -> Outcome:
    """Does all the work there is; the caller holds the root's lock.

    `place` is where runs happen. `training_begins` is told, in words, of each training before it.

    Every decision is in the ledger before it is acted on and after, so that the next call goes on from where a killed
    one was: an unfinished training is finished first, with the window, baseline and parent that it was begun with.

    Raises:
        ValueError: the served version was not made in this root, or the ledger is none.
    """
    started = time.monotonic()
    known = Ledger.load(request.root.ledger)
    _exclude(request, known)
    outcome, refused, unseen = Outcome(NOTHING_NEW), dict[int, str](), dict[int, str]()
    try:
        while outcome.kind != ledger.FAILED:
            training = known.unfinished()
            if training is None:
                refused |= _look_at_new(request, place, known, console, unseen)
                training = _plan(request, place, known, console)
            if training is None:
                break
            training_begins(f"spans {', '.join(map(str, training.window))}")
            outcome = _train(request, place, known, training, console)
            _prune(request, place, console)
            if training.outcome == ledger.UNFINISHED:  # the next call goes on with it
                break
    except (NodeFailedError, PlaceError) as error:  # while looking at data; the next call looks again
        outcome = Outcome(ledger.FAILED, str(error))
    except StillAtWorkError as at_work:
        outcome = Outcome(AT_WORK, str(at_work))
    kind = outcome.kind
    if kind in (NOTHING_NEW, AT_WORK) and (unseen or refused):
        kind = ledger.FAILED if unseen else ledger.NOT_PUSHED
    return dataclasses.replace(
        outcome,
        kind=kind,
        reason="; ".join(filter(None, [outcome.reason, *refused.values(), *unseen.values()])),
        told=outcome.reason,
        untaken=tuple(sorted((refused | unseen).items())),
        # A call that did nothing, or left a run at work, says nothing of how long a retraining takes.
        seconds=None if kind in (NOTHING_NEW, AT_WORK) else round(time.monotonic() - started, 1),
    )


def _exclude(request: Request, known: Ledger) -> None:
    for number in request.exclude:
        record = known.spans.get(number)
        if record is None or record.state != ledger.EXCLUDED:
            fingerprint = record.fingerprint if record else ""
            known.mark(number, ledger.EXCLUDED, fingerprint, "excluded by --exclude")
        training = known.unfinished()
        if training is not None and number in training.window:
            training.reason, training.outcome = f"span {number} was excluded", ledger.FAILED
            _ended(known, training)


def _look_at_new(
    request: Request, place: Place, known: Ledger, console: Console, unseen: dict[int, str]
) -> dict[int, str]:
    """Looks at each new span's data; returns what to say of each that was refused, by number.

    One that cannot be looked at now is put into `unseen` with what to say of it, so that the others do not wait for it;
    those that are in it already are left to the next call.
    """
    reasons = {}
    for number in waiting(request, known):
        if number in unseen:
            continue
        console.print(f"Looking at span {number}.", highlight=False)
        folder = request.data / f"{cifar10.SPAN_FOLDER}{number}"
        # The seal before the fingerprint: a change between the two is seen by the next call.
        seal = arrivals.seal(folder)
        fingerprint = arrivals.fingerprint(folder)
        newer = [span for span in known.accepted() if span > number]
        if len(newer) >= request.window and number not in request.accept:
            reason = f"{len(newer)} newer spans fill the window of {request.window}"
            found = ledger.SpanRecord(ledger.TOO_OLD, reason, fingerprint, ledger.now())
        else:
            try:
                found = _look_at(request, place, known, number, fingerprint)
            except NodeFailedError as error:
                unseen[number] = f"span {number} could not be looked at: {str(error).rstrip('.')}"
                console.print(f"{unseen[number]}.", highlight=False, markup=False, soft_wrap=True)
                continue
        known.spans[number] = dataclasses.replace(found, seal=seal, told=found.state == ledger.ACCEPTED)
        known.save()
        state, reason = found.state, found.reason
        if state != ledger.ACCEPTED:
            console.print(f"Span {number}: {state}. {reason}", highlight=False, markup=False, soft_wrap=True)
            reasons[number] = untaken(number, found)
    return reasons


def untaken(number: int, span: ledger.SpanRecord) -> str:
    """What is said of a span that was not taken."""
    return f"span {number} was not taken ({span.state}): {span.reason.rstrip('.')}"


def _look_at(
    request: Request, place: Place, known: Ledger, number: int, fingerprint: str
) -> ledger.SpanRecord:
    """Looks at the data of a span; returns what became of it."""
    record = ledger.SpanRecord(ledger.ACCEPTED, "", fingerprint, ledger.now())
    tested_on = _test_data_set(request)
    try:
        found = cifar10.inspect_folder(request.data / f"{cifar10.SPAN_FOLDER}{number}")
        fitness.check_test_set(found.data_set, tested_on)
        request.config.gate.floors(found.data_set.label_names)
        record.labelled = list(found.train_label_counts)
        record.test_labelled = found.test_unlabelled == 0
    except ValueError as error:
        if isinstance(error.__cause__, OSError):  # the machine's fault, not the data's: it is looked at again
            raise NodeFailedError(f"Reading span {number}", str(error)) from error
        return _refused(request, record, str(error))
    stored = place.stored()
    record.compared = [span for span in known.accepted() if span < number and span in stored]
    before = known.spans.get(number)
    record.by_hand = number in request.accept or (before is not None and before.by_hand)
    if record.by_hand:
        kept = before.allowed if before is not None else ""
        record.allowed = request.accept_kinds.get(number, "") if number in request.accept else kept
    served = place.served()
    asked = Asked(
        _config(request, record),
        _records(request, number, record.test_labelled),
        compared=tuple(record.compared),
        baseline=served.model if served else None,
    )
    try:
        place.look_at(asked)
    except DataRefusedError as error:
        return _refused(request, record, error.reason)
    return record


def _test_data_set(request: Request) -> DataSet:
    """What the fixed test set says of itself, or the oldest span where there is none."""
    test = _fixed_test(request)
    return span_data_set(request.data) if test is None else dataset.read(cifar10.location(test))


def _fixed_test(request: Request) -> pathlib.Path | None:
    """The folder of the fixed test set; None where there is none, and spans have no label to judge by."""
    if (
        not request.test.exists()
        and cifar10.span_numbers(request.data)
        and not span_data_set(request.data).classes
    ):
        return None
    return request.test.absolute()


def span_data_set(data: pathlib.Path) -> DataSet:
    """What the oldest span in a folder of spans says of itself, as all of them have to.

    Raises:
        IndexError: there is no span.
        ValueError: it tells nothing readable.
        OSError: it cannot be read.
    """
    number = cifar10.span_numbers(data)[0]
    return dataset.read(cifar10.location(data / f"{cifar10.SPAN_FOLDER}{number}"))


def _refused(request: Request, record: ledger.SpanRecord, reason: str) -> ledger.SpanRecord:
    judge = judged_by(request.config)
    return dataclasses.replace(record, state=ledger.REFUSED, reason=reason, judged_by=judge)


def _config(request: Request, record: ledger.SpanRecord) -> PipelineConfig:
    """The settings for a span; what a person let through stays let through."""
    allowed = data_limits.allowed_kinds(request.config.allow_anomalies)
    if record.by_hand:
        allowed |= data_limits.allowed_kinds(record.allowed or data_limits.ALL)
    return dataclasses.replace(request.config, allow_anomalies=data_limits.told_kinds(allowed))


def _plan(request: Request, place: Place, known: Ledger, console: Console) -> Training | None:
    """Decides on a training when there is an accepted span that none was begun for.

    Raises:
        ValueError: no accepted span shows some class with its label; the probe would find out hours later.
    """
    if not known.unheard():
        return None
    window = _window(request, place, known, console)
    if not window:
        return None
    _check_labels(request, known, window)
    served = place.served()
    warm = served is not None and request.config.warm_start != "never"
    training = Training(
        window=window,
        new=[span for span in window if span in known.untrained()],
        warm_start=request.config.warm_start,
        parent=served.pretrainer if served and warm else None,
        parent_version=served.version if served and warm else None,
        baseline=served.model if served else None,
        started=ledger.now(),
    )
    known.trainings.append(training)
    known.save()
    return training


def _window(request: Request, place: Place, known: Ledger, console: Console) -> list[int]:
    """The newest accepted spans, and further back each that was never trained on: a machine that was off loses none.

    And of those before them the newest that show a class with its label which none of these does: pictures without a
    label come every night, labelled ones came once.

    One whose Examples were pruned is read again, or left out where its files are gone or others than they were.
    """
    stored, complete = place.stored(), arrivals.complete_spans(request.data, known.spans)
    window = []
    for number in _chosen(request, known):
        fingerprint = known.spans[number].fingerprint
        if number in stored:
            window.append(number)
        elif complete.get(number) == fingerprint:
            console.print(f"Reading span {number} again; its Examples were pruned.", highlight=False)
            if _look_at(request, place, known, number, fingerprint).state == ledger.ACCEPTED:
                window.append(number)
    return window


def _chosen(request: Request, known: Ledger) -> list[int]:
    """The numbers of the spans to train on, ascending."""
    chosen = {*known.accepted()[-request.window :], *known.untrained()}
    for number in reversed(known.accepted()):
        shown, more = _shown(known, chosen), known.spans[number].labelled
        if shown is not None and more and any(new and not old for new, old in zip(more, shown, strict=True)):
            chosen.add(number)
    return sorted(chosen)


def _shown(known: Ledger, numbers: Iterable[int]) -> tuple[int, ...] | None:
    """Labelled training pictures of each class in some spans; None where that of one was never counted."""
    counts = [known.spans[number].labelled for number in numbers]
    told = [count for count in counts if count is not None]
    if len(told) < len(counts) or not told:
        return None
    return tuple(map(sum, zip(*told, strict=True)))


def _check_labels(request: Request, known: Ledger, window: Sequence[int]) -> None:
    """Checks that the probe finds each class among the labelled pictures of the window."""
    shown = _shown(known, window)
    if shown:
        fitness.check_each_class_is_shown(
            _test_data_set(request), shown, f"What was accepted of {request.data}"
        )


def _train(request: Request, place: Place, known: Ledger, training: Training, console: Console) -> Outcome:
    newest = training.window[-1]
    console.print(f"Training on spans {', '.join(map(str, training.window))}.", highlight=False)
    _follow_rollback(place, training)
    stored = place.stored()
    asked = Asked(
        dataclasses.replace(_config(request, known.spans[newest]), warm_start=training.warm_start),
        _records(request, newest, known.spans[newest].test_labelled),
        compared=tuple(span for span in known.spans[newest].compared if span in stored),
        baseline=training.baseline,
        window=tuple(training.window),
        parent=training.parent,
        begun=training.attempts,
    )
    try:
        trained = place.train(asked)
    except NodeFailedError as error:
        return _failed(request, known, training, error)
    training.run_id, training.accuracy, training.version = trained.run_id, trained.accuracy, trained.version
    if trained.candidate:
        training.outcome, training.reason = ledger.CANDIDATE, trained.reason
        return _ended(known, training)
    if trained.overtaken:
        return _overtaken(place, known, training, trained.reason)
    training.outcome = ledger.PUSHED if trained.version is not None else ledger.NOT_PUSHED
    training.reason = trained.reason
    return _ended(known, training)


def _prune(request: Request, place: Place, console: Console) -> None:
    """Bounds the disk. What cannot be removed now is removed by the next call, and changes no decision."""
    try:
        pruned = place.prune(request.keep_runs, max(request.keep_spans, request.window))
    except (ValueError, OSError) as error:
        console.print(f"Nothing pruned: {error}", highlight=False, markup=False, soft_wrap=True)
        return
    if pruned:
        console.print(f"Pruned {size_words(pruned)} of earlier runs.", highlight=False)


def _failed(request: Request, known: Ledger, training: Training, error: NodeFailedError) -> Outcome:
    training.attempts += 1
    training.reason = str(error)
    if training.attempts >= request.attempts:
        training.outcome = ledger.FAILED
        return _ended(known, training)
    known.save()
    left = request.attempts - training.attempts
    reason = f"{training.reason} The next call tries again, {left} more at the most"
    return Outcome(ledger.FAILED, reason, tuple(training.new))


def _overtaken(place: Place, known: Ledger, training: Training, reason: str) -> Outcome:
    """A rollback came while it trained: the training stays unfinished, and the next call judges anew."""
    _go_by(place.served(), training)
    training.reason = reason
    known.save()
    return Outcome(
        ledger.NOT_PUSHED, reason, tuple(training.new), run_id=training.run_id, accuracy=training.accuracy
    )


def _ended(known: Ledger, training: Training) -> Outcome:
    training.ended, training.told = ledger.now(), False
    known.save()
    return Outcome(
        kind=training.outcome,
        reason=training.reason,
        spans=tuple(training.new),
        run_id=training.run_id,
        version=training.version,
        accuracy=training.accuracy,
    )


def _follow_rollback(place: Place, training: Training) -> None:
    """A training that was begun before a rollback goes by what is served since."""
    served = place.served()
    if served is not None and served.restored:
        _go_by(served, training)


def _go_by(served: Served | None, training: Training) -> None:
    """What is served now is what a training is compared with, and what a warm one starts from: no withdrawn model."""
    training.baseline = served.model if served else None
    if training.parent is not None:
        training.parent = served.pretrainer if served else None
        training.parent_version = served.version if served else None


def _records(request: Request, number: int, test_labelled: bool) -> Records:
    folder = request.data / f"{cifar10.SPAN_FOLDER}{number}"
    described = dataset.read(cifar10.location(folder))
    return Records(folder.absolute(), number, _fixed_test(request), described, test_labelled)
