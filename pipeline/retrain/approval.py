"""What a person decides: `byol approve`, `byol reject`, `byol rollback`, each with who, when and why; `byol hooks`."""

import getpass
import json
import pathlib
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from pipeline import console
from pipeline.retrain.options import HooksFileOption
from pipeline.root import Root, RootInUseError

if TYPE_CHECKING:
    from pipeline.retrain import decisions, outbox

_FAILED = 1

RootOption = Annotated[
    pathlib.Path, typer.Option("--root", help="Folder of everything that runs leave behind.")
]
CandidateArgument = Annotated[
    str | None, typer.Argument(help="The candidate that is meant; whatever waits if left out.")
]
ByOption = Annotated[str, typer.Option("--by", help="Who decides; the user of this machine if left out.")]
_TOLD = "A command line, or an address that gets a POST; told of it."


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command()(approve)
    app.command()(reject)
    app.command()(rollback)
    app.command("hooks")(undelivered)


def approve(
    root: RootOption,
    candidate: CandidateArgument = None,
    reason: Annotated[str, typer.Option(help="Why, for the lineage.")] = "",
    by: ByOption = "",
    on_pushed: Annotated[str, typer.Option(help=_TOLD)] = "",
    hooks_file: HooksFileOption = None,
) -> None:
    """Push the candidate that waits for approval (gate.approval=manual)."""
    from components.serving import candidates

    place, who = console.existing_root(root), by or getpass.getuser()
    events = _events(place, hooks_file, on_pushed=on_pushed)
    draft = events.draft("pushed", who, reason)
    try:
        held = candidates.waiting(place.serving)
        with events.about(draft):
            publication = candidates.approve(place.serving, who, reason, candidate, draft.at)
    except (ValueError, OSError) as error:
        _stop(events, error)
    typer.echo(
        f"Pushed candidate {held.name if held else ''}: it is served as version {publication.version}."
    )
    _tell(place, events)


def reject(
    root: RootOption,
    reason: Annotated[str, typer.Option(help="Why, for whoever reads it later.")],
    candidate: CandidateArgument = None,
    by: ByOption = "",
    on_rejected: Annotated[str, typer.Option(help=_TOLD)] = "",
    hooks_file: HooksFileOption = None,
) -> None:
    """Remove the candidate that waits for approval; the same model does not become one again."""
    from components.serving import candidates

    place, who = console.existing_root(root), by or getpass.getuser()
    events = _events(place, hooks_file, on_rejected=on_rejected)
    draft = events.draft("rejected", who, reason)
    try:
        with events.about(draft):
            decision = candidates.reject(place.serving, who, reason, candidate, draft.at)
    except (ValueError, OSError) as error:
        _stop(events, error)
    typer.echo(f"Rejected candidate {decision.name}.")
    _tell(place, events)


def rollback(
    root: RootOption,
    version: Annotated[
        int | None, typer.Argument(help="The version to serve again; the one before if left out.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the lineage.")] = "",
    by: ByOption = "",
    on_rollback: Annotated[str, typer.Option(help=_TOLD)] = "",
    hooks_file: HooksFileOption = None,
) -> None:
    """Serve an older version again, as a new highest one."""
    from components.serving import serving_folder

    place, who = console.existing_root(root), by or getpass.getuser()
    events = _events(place, hooks_file, on_rollback=on_rollback)
    draft = events.draft("rollback", who, reason)
    told = {"by": who, "at": draft.at, "reason": reason}
    try:
        with events.about(draft):
            publication = serving_folder.rollback(place.serving, version, told=told)
        restored = next(
            v.origin for v in serving_folder.versions(place.serving) if v.number == publication.version
        )
    except (ValueError, OSError) as error:
        console.fail(error)
    typer.echo(
        f"Restored the model of version {restored}: it is served as version {publication.version} from "
        f"{publication.path}."
    )
    # Also where nothing was new: a call that was cut off after the deed has told nobody yet.
    _tell(place, events)


def undelivered(
    root: RootOption,
    retry: Annotated[
        bool, typer.Option("--retry", help="Tell the hooks of --hooks-file of each of them now.")
    ] = False,
    hooks_file: HooksFileOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead, for programs.")] = False,
) -> None:
    """List the events that no hook has been told of yet, and tell them with --retry.

    Exit status of --retry: 0 when none is left, 1 when some are.
    """
    from pipeline.retrain import decisions, outbox

    place = console.existing_root(root)
    box, problems = outbox.of(place), list[str]()
    if retry and hooks_file is None:
        console.stop("--retry needs --hooks-file FILE, which says whom to tell.")
    events = _events(place, hooks_file)
    try:
        decisions.keep_left(place)
        if retry:
            problems = events.deliver()
    except (ValueError, OSError) as error:
        console.fail(error)
    for problem in problems:
        typer.echo(problem, err=True)
    left = box.waiting()
    if as_json:
        typer.echo(json.dumps([_read(box, path) for path in left], indent=2))
    else:
        for path in left:
            event = _read(box, path)
            typer.echo(event.get("fault") or f"{event['id'][:8]} {event['at'][:19]} {event['text']}")
        if left:
            count = "1 event was" if len(left) == 1 else f"{len(left)} events were"
            typer.echo(
                f"{count} not delivered yet. Each is a file in {left[0].parent}: remove it to give it up."
            )
        else:
            typer.echo("Every event was delivered.")
    if retry and left:
        raise typer.Exit(_FAILED)


def _read(box: "outbox.Outbox", path: pathlib.Path) -> dict[str, Any]:
    """An event for programs, or what is wrong with its file."""
    try:
        return json.loads(box.read(path).to_json())
    except (ValueError, OSError) as error:
        return {"fault": str(error)}


def _events(place: Root, hooks_file: pathlib.Path | None, **given: str) -> "decisions.DecisionEvents":
    from pipeline.retrain import decisions, hook_file

    try:
        config = hook_file.chosen(hooks_file, given)
        warning = hook_file.open_to_others(hooks_file)
    except (ValueError, OSError) as error:
        console.fail(error)
    if warning:
        typer.echo(warning, err=True)
    return decisions.DecisionEvents(place, config)


def _stop(events: "decisions.DecisionEvents", error: Exception) -> NoReturn:
    """Ends the command; what an earlier call could not tell any more, being cut off, is told all the same."""
    for problem in events.deliver():
        typer.echo(problem, err=True)
    console.fail(error)


def _tell(place: Root, events: "decisions.DecisionEvents") -> None:
    """Monitoring shows what is served, unless a run is at work, which does so at its end; then the hook."""
    from components.serving import serving_folder
    from pipeline.retrain import vital_signs

    served = serving_folder.served(place.serving)
    problems: list[str] = []
    try:
        with place.locked():
            problems += vital_signs.known(place.path).serves(
                served.number if served else None,
                served.accuracy if served else None,
                serving_folder.last_push(place.serving),
            )
    except RootInUseError:
        problems.append("A run is at work in this root; the metrics show what is served when it has ended.")
    for problem in [*problems, *events.deliver()]:
        typer.echo(problem, err=True)
