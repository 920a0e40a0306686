"""What a person decides on versions: `byol approve`, `byol reject`, `byol rollback`; each keeps who, when and why."""

import contextlib
import getpass
import pathlib
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline import console
from pipeline.root import Root, RootInUseError
from pipeline.spans import ledger

if TYPE_CHECKING:
    from components.serving import candidates
    from pipeline.retrain import hooks

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


def approve(
    root: RootOption,
    candidate: CandidateArgument = None,
    reason: Annotated[str, typer.Option(help="Why, for the lineage.")] = "",
    by: ByOption = "",
    on_pushed: Annotated[str, typer.Option(help=_TOLD)] = "",
) -> None:
    """Push the candidate that waits for approval (gate.approval=manual)."""
    from components.serving import candidates

    place, who = _existing(root), by or getpass.getuser()
    config = _hooks(on_pushed=on_pushed)
    try:
        held = candidates.waiting(place.serving)
        publication = candidates.approve(place.serving, who, reason, candidate)
    except (ValueError, OSError) as error:
        console.stop(str(error))
    typer.echo(
        f"Pushed candidate {held.name if held else ''}: it is served as version {publication.version}."
    )
    _tell(place, config, _event(place, "pushed", who, reason, held, publication.version))


def reject(
    root: RootOption,
    reason: Annotated[str, typer.Option(help="Why, for whoever reads it later.")],
    candidate: CandidateArgument = None,
    by: ByOption = "",
    on_rejected: Annotated[str, typer.Option(help=_TOLD)] = "",
) -> None:
    """Remove the candidate that waits for approval; the same model does not become one again."""
    from components.serving import candidates

    place, who = _existing(root), by or getpass.getuser()
    config = _hooks(on_rejected=on_rejected)
    try:
        held = candidates.waiting(place.serving)
        decision = candidates.reject(place.serving, who, reason, candidate)
    except (ValueError, OSError) as error:
        console.stop(str(error))
    typer.echo(f"Rejected candidate {decision.name}.")
    _tell(place, config, _event(place, "rejected", who, reason, held))


def rollback(
    root: RootOption,
    version: Annotated[
        int | None, typer.Argument(help="The version to serve again; the one before if left out.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the lineage.")] = "",
    by: ByOption = "",
    on_rollback: Annotated[str, typer.Option(help=_TOLD)] = "",
) -> None:
    """Serve an older version again, as a new highest one."""
    from components.serving import serving_folder

    place, who = _existing(root), by or getpass.getuser()
    config = _hooks(on_rollback=on_rollback)
    told = {"by": who, "at": ledger.now(), "reason": reason}
    try:
        publication = serving_folder.rollback(place.serving, version, told=told)
        restored = next(
            v.origin for v in serving_folder.versions(place.serving) if v.number == publication.version
        )
    except (ValueError, OSError) as error:
        console.stop(str(error))
    typer.echo(
        f"Restored the model of version {restored}: it is served as version {publication.version} from "
        f"{publication.path}."
    )
    if publication.is_new:
        why = f"restored the model of version {restored}{f': {reason}' if reason else ''}"
        _tell(place, config, _event(place, "rollback", who, why, None, publication.version))


def _existing(root: pathlib.Path) -> Root:
    if not root.is_dir():
        console.stop(f"There is no folder {root}; --root is the folder that `byol run` was given.")
    return Root(root.absolute())


def _hooks(**chosen: str) -> "hooks.HookConfig":
    from pipeline.retrain import hooks

    try:
        return hooks.HookConfig(**chosen)  # type: ignore[arg-type] # names of hooks alone
    except ValueError as error:
        console.stop(str(error))


def _event(
    place: Root,
    kind: "hooks.Kind",
    who: str,
    reason: str,
    candidate: "candidates.Candidate | None",
    version: int | None = None,
) -> "hooks.Event":
    from components.serving import serving_folder
    from pipeline.retrain import hooks, notices

    served = serving_folder.served(place.serving)
    run_id = (
        candidate.run_id
        if candidate
        else (served.record.get("lineage", {}).get("run_id") if served else None)
    )
    return hooks.Event(
        kind=kind,
        at=ledger.now(),
        root=str(place.path),
        run_id=run_id,
        spans=_spans(place, run_id),
        version=version,
        accuracy=candidate.accuracy if candidate else (served.accuracy if served else None),
        reason=reason,
        seconds=0.0,
        report=notices.report_address(place, run_id),
        by=who,
    )


def _spans(place: Root, run_id: str | None) -> tuple[int, ...]:
    """What a run was trained on, as the ledger has it; none for a run outside retraining."""
    with contextlib.suppress(ValueError, OSError):
        for training in ledger.Ledger.load(place.ledger).trainings:
            if run_id is not None and training.run_id == run_id:
                return tuple(training.window)
    return ()


def _tell(place: Root, config: "hooks.HookConfig", event: "hooks.Event") -> None:
    """Monitoring shows what is served, unless a run is at work, which does so at its end; then the hook."""
    from components.serving import serving_folder
    from pipeline.retrain import hooks, vital_signs

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
    for problem in [*problems, *hooks.deliver(event, config)]:
        typer.echo(problem, err=True)
