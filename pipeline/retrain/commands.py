"""`byol retrain`: one call of scheduled retraining. What has nothing to do ends in a second, without TensorFlow."""

import contextlib
import pathlib
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from components import path_names
from components.data import data_limits
from pipeline import console, refusal
from pipeline.config import PipelineConfig, chosen_preset
from pipeline.retrain.options import Options, PresetOption, spread
from pipeline.root import Root, RootInUseError
from pipeline.run import engine
from pipeline.spans import ledger
from pipeline.spans.ledger import Ledger
from trainer import architecture
from trainer.byol import choice

if TYPE_CHECKING:
    from pipeline.retrain import notices, retraining
    from pipeline.retrain.place import Place


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command()(retrain)


@spread
def retrain(
    data: Annotated[
        pathlib.Path, typer.Option(help="Folder of span-N folders; one counts when it holds `_SUCCESS`.")
    ],
    root: Annotated[pathlib.Path, typer.Option(help="Folder of everything that runs leave behind.")],
    preset: PresetOption,
    options: Options,
    test: Annotated[
        pathlib.Path | None,
        typer.Option(help="Folder of the fixed test set; `test` in --data if left out."),
    ] = None,
) -> None:
    """Train on what has arrived since the last call, and push it if it is better proven than what is served.

    Safe to call at any time: without new spans it does nothing, one works at a time, a killed one is taken up again.

    Exit status: 0 pushed, nothing new, or another one at work; 1 failed; 2 wrong arguments; 3 refused by a gate.
    """
    from pipeline.spans import arrivals

    request, told = asked(data, test or data / arrivals.TEST_FOLDER, root, preset, options)
    call(
        request,
        told,
        lambda person: _this_machine(request, person),
        lambda: _try_engines(request),
    )


def call(
    request: "retraining.Request",
    told: "notices.Notices",
    place: "Callable[[Console], Place]",
    check_place: Callable[[], None] = lambda: None,
) -> None:
    """One call of retraining, to its words and its exit status.

    Args:
        request: what is asked.
        told: who is told.
        place: makes where runs happen, given the console that reaches the person.
        check_place: whether a run could work there, before anything is written.
    """
    _rebuild(request, told)
    if _idle(request, told):
        typer.echo(f"Nothing new in {request.data}.")
    else:
        _say(_work(request, told, place, check_place), request.root)


def check(data: pathlib.Path, root: pathlib.Path, preset: str, options: Options) -> None:
    """Checks what a parser of the command line cannot; for a schedule, which is made long before the first run.

    Raises:
        ValueError: a folder's name, a preset, a setting, a hook or the file of metrics that can never be used; a
            password in a hook.
        OSError: the root cannot be written to, or the file of hooks not be read.
    """
    from pipeline.retrain import hook_file

    path_names.check(data, is_data=True)
    Root(root.absolute()).check()
    _settings(preset, options)
    for kinds in _accepted(options.accept or []).values():
        data_limits.allowed_kinds(kinds)
    _notices(root, options)
    hook_file.check_public(_hooks(options))


def asked(
    data: pathlib.Path, test: pathlib.Path, root: pathlib.Path, preset: str, options: Options
) -> "tuple[retraining.Request, notices.Notices]":
    """What is to be trained and who is told."""
    from pipeline.retrain import retraining

    try:
        told = _notices(root, options)
    except (ValueError, OSError) as error:
        console.fail(error)
    try:
        accepted = _accepted(options.accept or [])
        request = retraining.Request(
            data=data,
            test=test,
            root=Root(root.absolute()),
            preset=preset,
            config=_settings(preset, options, _side(data)),
            window=options.window,
            attempts=options.attempts,
            accept=tuple(accepted),
            accept_kinds=accepted,
            exclude=tuple(options.exclude or ()),
            keep_runs=options.keep_runs,
            keep_spans=options.keep_spans,
            marker_hours=options.marker_hours,
        )
    except (ValueError, OSError) as error:
        _stop(told, error)
    return request, told


def _stop(told: "notices.Notices", error: Exception) -> NoReturn:
    """Ends the call before anything was looked at; monitoring and the hook hear of it as of any failure."""
    told.stopped(console.reason(error), console.status(error))
    console.fail(error)


def _settings(preset: str, options: Options, side: int = architecture.BASE_SIDE) -> PipelineConfig:
    chosen = [] if options.warm_start is None else [f"warm_start={options.warm_start}"]
    return chosen_preset(preset, [*(options.assignments or []), *chosen], side)


def _side(data: pathlib.Path) -> int:
    """Pixels of the shorter side of the spans' pictures, which are of one size.

    Where no span has arrived, or the oldest tells nothing readable, for which it is refused later, the presets' own.
    """
    from pipeline.retrain import retraining

    try:
        return retraining.span_data_set(data).side
    except (IndexError, ValueError, OSError):
        return architecture.BASE_SIDE


def _notices(root: pathlib.Path, options: Options) -> "notices.Notices":
    from pipeline.retrain import hook_file, notices

    config = hook_file.chosen(options.hooks_file, _hooks(options))
    if warning := hook_file.open_to_others(options.hooks_file):
        typer.echo(warning, err=True)
    return notices.Notices(Root(root.absolute()), config, options.metrics)


def _hooks(options: Options) -> dict[str, str]:
    """The hooks of the command line, by `on_<kind>`; empty ones where none was given."""
    from pipeline.retrain import hooks

    names = [f"on_{kind}" for kind in hooks.KINDS]
    return {name: getattr(options, name) for name in names if hasattr(options, name)}


def _rebuild(request: "retraining.Request", told: "notices.Notices") -> None:
    """Makes a ledger again of which a power cut took both copies; one line says so."""
    root = request.root
    if not ledger.is_rebuildable(root.ledger):
        return
    from pipeline.retrain import rebuilding

    try:
        with (
            contextlib.suppress(RootInUseError),
            root.locked(),
        ):  # whoever is at work has read it, and saves it
            known = rebuilding.rebuilt(root, request.data)
            known.save()
            typer.echo(
                f"The ledger {root.ledger} was lost in a power cut; made again from ML Metadata: {len(known.spans)} "
                f"spans and {len(known.trainings)} trainings. Repeat --exclude for what was excluded by hand.",
                err=True,
            )
    except (ValueError, OSError) as error:
        _stop(told, error)


def _idle(request: "retraining.Request", told: "notices.Notices") -> bool:
    """Whether there is nothing to do; the heartbeat says that somebody looked."""
    from pipeline.retrain import retraining
    from pipeline.spans import arrivals

    try:
        known = Ledger.load(request.root.ledger)
        complete = arrivals.complete_spans(request.data, known.spans)
        told.odd(retraining.odd(request, known, complete))
        idle = not request.exclude and not retraining.has_work(request, known, complete)
        if idle:
            told.idle(retraining.spans_left(request, known, complete))
            told.deliver()
    except (ValueError, OSError) as error:
        _stop(told, error)
    return idle


def _say(outcome: "retraining.Outcome", root: Root) -> None:
    """Tells the outcome, in words and as the exit status."""
    from pipeline.retrain import notices, retraining

    if outcome.kind == ledger.PUSHED:
        measured = "not judged" if outcome.accuracy is None else f"accuracy {outcome.accuracy:.2%}"
        typer.echo(f"Pushed version {outcome.version}, {measured}.")
        if outcome.reason:
            typer.echo(f"Not taken: {outcome.reason.rstrip('.')}.", err=True)
    elif outcome.kind == ledger.CANDIDATE:
        typer.echo(f"Not pushed yet: {outcome.reason.rstrip('.')}.")
    elif outcome.kind == retraining.AT_WORK:
        typer.echo(f"{outcome.reason.rstrip('.')}.")
    elif outcome.kind != retraining.NOTHING_NEW:
        words = "Failed" if outcome.kind == ledger.FAILED else "Not pushed"
        console.say(f"{words}: {outcome.reason.rstrip('.')}.")
        refusal.tell(refusal.recorded(root, outcome.run_id), Console(file=sys.stderr))
        raise typer.Exit(notices.STATUS[outcome.kind])


def _accepted(told: list[str]) -> dict[int, str]:
    """The spans of --accept with the kinds of findings to let through; "" for all of them."""
    found = {}
    for text in told:
        number, _, kinds = text.partition(":")
        if not (number.isascii() and number.isdecimal()):
            raise ValueError(
                f"--accept takes a span's number, such as 7 or 7:class_balance; received {text!r}."
            )
        found[int(number)] = kinds
    return found


def _work(
    request: "retraining.Request",
    told: "notices.Notices",
    place: "Callable[[Console], Place]",
    check_place: Callable[[], None],
) -> "retraining.Outcome":
    from pipeline.retrain import notices, retraining

    try:
        request.root.check()
        check_place()
        request.root.prepare()
    except (ValueError, OSError) as error:
        _stop(told, error)
    try:
        with request.root.locked():
            return told.watch(
                lambda: _in_the_lock(request, told, place),
                lambda: retraining.spans_left(request, Ledger.load(request.root.ledger)),
            )
    except RootInUseError as error:
        typer.echo(f"Nothing done: {error}")
        raise typer.Exit(notices.NOTHING_OR_PUSHED) from error
    except (ValueError, OSError) as error:
        console.fail(error)
    except KeyboardInterrupt:
        # Only clearing up is left: a second Ctrl-C ends the process at once, and silently.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        console.stop("Interrupted. The same command goes on from where it was.", notices.INTERRUPTED)
    finally:
        told.deliver()


def _try_engines(request: "retraining.Request") -> None:
    choice.check(request.config.pretraining)
    engine.try_engine(request.config.beam, request.root.path, request.data)


def _this_machine(request: "retraining.Request", person: Console) -> "Place":
    from pipeline.retrain.this_machine import ThisMachine

    return ThisMachine(request.root, request.preset, person)


def _in_the_lock(
    request: "retraining.Request", told: "notices.Notices", place: "Callable[[Console], Place]"
) -> "retraining.Outcome":
    from pipeline.retrain import retraining

    retraining.check_test_set(request)
    retraining.check_settings(request)
    log_file = request.root.logs / f"{time.strftime('%Y%m%dT%H%M%S')}.log"
    with console.quiet(log_file) as person:
        person.print(f"Preset {request.preset}. Full log: {log_file}", highlight=False)
        return retraining.retrain(request, place(person), person, told.training)
