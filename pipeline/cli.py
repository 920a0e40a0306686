"""The command line, `byol`. Nothing heavy is imported before the arguments are known to be good."""

import functools
import importlib.metadata
import json
import pathlib
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from components.staging import write_atomically
from pipeline import console, refusal
from pipeline.config import PRESETS, PipelineConfig, chosen_preset
from pipeline.past import commands as history_commands
from pipeline.report import commands as report_commands
from pipeline.retrain import approval
from pipeline.retrain import commands as retrain_commands
from pipeline.root import Records, Root, RootInUseError
from pipeline.run import engine
from pipeline.schedule import commands as schedule_commands
from pipeline.use import commands as use_commands
from pipeline.use import data_import
from trainer import architecture, settings
from trainer.byol import choice

if TYPE_CHECKING:
    from components.data.dataset import DataSet
    from components.serving.candidates import Candidate
    from components.serving.serving_folder import Version
    from pipeline.run.local_runner import Summary

app = typer.Typer(
    help="Learn image representations with BYOL and ship them only when they are proven good.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Make a data set of your own pictures, or fetch one.", no_args_is_help=True)
app.add_typer(data_app, name="data")

FAILED, NOT_PUSHED, INTERRUPTED = 1, 3, 130
RootOption = Annotated[
    pathlib.Path, typer.Option("--root", help="Folder of everything that runs leave behind.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead, for programs.")]
DISTRIBUTION = "byol-tfx"


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"{DISTRIBUTION} {importlib.metadata.version(DISTRIBUTION)}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="`run` and `retrain` print how they ended, and no progress.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", help="`run` and `retrain` show what goes to their log file as well."),
    ] = False,
) -> None:
    """Learn image representations with BYOL and ship them only when they are proven good."""
    del version  # its callback has answered
    if quiet and verbose:
        console.stop("--quiet and --verbose exclude each other; give one.")
    console.show_progress(not quiet, verbose)


@app.command()
def run(
    preset: Annotated[
        str, typer.Option(help=f"What is trained and what it must reach: {', '.join(PRESETS)}.")
    ],
    root: RootOption,
    data: Annotated[
        pathlib.Path | None,
        typer.Option(
            help="Folder with CIFAR-10's binary files, or with span-N folders; the demo makes its own."
        ),
    ] = None,
    span: Annotated[
        int | None, typer.Option(help="Number of the span to take; the latest if left out.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Change one setting of the preset; repeat for more."
        ),
    ] = None,
) -> None:
    """Run the pipeline once: pretrain, probe, evaluate, gate, push.

    Exit status: 0 pushed, or waiting for approval; 1 a step failed, 2 wrong arguments or input, 3 not good enough to
    be pushed.
    """
    config = _config(preset, assignments or [])
    place = Root(root.absolute())
    _check_training(config)
    _usable(place, place.check)
    _try_engine(config, place, data)
    _usable(place, place.prepare)
    try:
        with place.locked():
            records = _data(preset, data, span, place, config)
            config = _config(preset, assignments or [], _side(records.data_set))
            summary = _run(config, preset, records, place)
    except (RootInUseError, ValueError) as error:
        console.fail(error)
    except console.NodeFailedError as error:
        console.stop(f"{str(error).rstrip('.')}. The full log is the newest file in {place.logs}.", FAILED)
    except KeyboardInterrupt:
        # Only clearing up is left: a second Ctrl-C ends the process at once, and silently.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        console.stop("Interrupted. The same command goes on from the last checkpoint.", INTERRUPTED)
    _tell(summary)
    if summary.candidate:
        typer.echo(f"Not pushed yet: {summary.not_pushed_because}.")
    elif summary.pushed_version is None:
        _refuse(summary)


@app.command("settings")
def show_settings(
    preset: Annotated[str, typer.Option(help=f"Whose values are shown: {', '.join(PRESETS)}.")],
    data: Annotated[
        pathlib.Path | None,
        typer.Option(help="The values for this data set: encoder and views fit the size of its pictures."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List every setting of a preset, as `--set` takes it."""
    config = _config(preset, [], _side(_described(data)))
    if as_json:
        names = settings.names(config)
        values = {name: functools.reduce(getattr, name.split("."), config) for name in names}
        typer.echo(json.dumps(values, indent=2))
        return
    typer.echo("\n".join(settings.lines(config)))


@app.command()
def versions(root: RootOption, as_json: JsonOption = False) -> None:
    """List the pushed versions, the served one marked, and the candidate that waits for approval."""
    from components.serving import candidates, serving_folder

    place = console.existing_root(root)
    try:
        listed = serving_folder.versions(place.serving)
        candidate = candidates.waiting(place.serving)
    except (ValueError, OSError) as error:
        console.fail(error)
    if as_json:
        typer.echo(json.dumps([_told(version) for version in listed], indent=2))
        return
    if candidate is not None:
        typer.echo(_waits(candidate, place))
    if not listed:
        if not (place.metadata.exists() or place.serving.exists() or place.ledger.exists()):
            console.stop(
                f"{root} is the root of no run: it has neither metadata.sqlite nor serving/. --root is the folder that "
                "`byol run` was given."
            )
        typer.echo(f"No version has been pushed to {place.serving} yet.")
        return
    table = Table("version", "served", "pushed (UTC)", "model of", "accuracy", "digest")
    for version in listed:
        table.add_row(
            str(version.number),
            "yes" if version.served else "",
            str(version.record.get("published_at", ""))[:16].replace("T", " "),
            str(version.origin),
            f"{version.accuracy:.2%}"
            if version.accuracy is not None
            else ""
            if version.judged
            else "not judged",
            version.digest.removeprefix("sha256:")[:10],
        )
    console.screen().print(table)
    for version in listed:
        if version.fault:
            typer.echo(f"Version {version.number}: {version.fault}", err=True)


@data_app.command("demo")
def data_demo(
    out_dir: pathlib.Path,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Another seed draws other images of the same ten classes; 0, or the span's number."
        ),
    ] = None,
    span: Annotated[
        int | None, typer.Option(min=1, help="Write span N of OUT_DIR, for `byol retrain`.")
    ] = None,
) -> None:
    """Write the embedded data set: ten procedural classes, 10,000 training and 2,000 test images."""
    from components.data import cifar10, synthetic
    from pipeline.spans import arrivals

    folder = out_dir if span is None else out_dir / f"{cifar10.SPAN_FOLDER}{span}"
    try:
        wrote = synthetic.write(folder, seed=(span or 0) if seed is None else seed)
        if span is not None:
            write_atomically(folder / arrivals.COMPLETE_MARKER, "")  # last: from now on the span counts
        typer.echo(f"Wrote {wrote}.")
    except (ValueError, OSError) as error:
        console.fail(error)


@data_app.command("cifar100")
def data_cifar100(
    out_dir: pathlib.Path,
    coarse: Annotated[
        bool, typer.Option("--coarse", help="The 20 coarse classes, not the 100 fine.")
    ] = False,
) -> None:
    """Download CIFAR-100's official binary archive, verify it and make a data set of it."""
    from components.data import public_sets

    _fetched("CIFAR-100", lambda tell: public_sets.download_cifar100(out_dir, coarse, progress=tell))


@data_app.command("stl10")
def data_stl10(out_dir: pathlib.Path) -> None:
    """Download STL-10's official binary archive (2.6 GB), verify it and make a data set of it."""
    from components.data import public_sets

    _fetched("STL-10", lambda tell: public_sets.download_stl10(out_dir, progress=tell))


@data_app.command("cifar10")
def data_cifar10(out_dir: pathlib.Path) -> None:
    """Download the official binary archive, verify it and unpack it; an interrupted download goes on."""
    from components.data import archive

    _fetched("CIFAR-10", lambda tell: archive.download_cifar10(out_dir, progress=tell))


def _fetched(name: str, fetch: Callable[[Callable[[int, int], None]], pathlib.Path]) -> None:
    """Fetches a data set under a progress bar and says where it is."""
    with Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    ) as bar:
        download = bar.add_task(name, total=None)
        try:
            folder = fetch(lambda done, total: bar.update(download, completed=done, total=total))
        except (ValueError, OSError) as error:
            console.fail(error)
        except KeyboardInterrupt:
            console.stop("Interrupted. The same command resumes the download.", INTERRUPTED)
    typer.echo(f"{name} is in {folder}.")


use_commands.register(app, data_app)
data_import.register(data_app)
report_commands.register(app)
schedule_commands.register(app)
retrain_commands.register(app)
approval.register(app)
history_commands.register(app)


def main() -> None:
    """Entry point of the console script."""
    app()


def _waits(candidate: "Candidate", place: Root) -> str:
    accuracy = "" if candidate.accuracy is None else f", accuracy {candidate.accuracy:.2%}"
    run = "" if candidate.run_id is None else f" Its report: {place.report(candidate.run_id)}"
    since = str(candidate.record["held_at"])[:16].replace("T", " ")
    return f"Candidate {candidate.name} waits for approval since {since} UTC{accuracy}.{run}"


def _told(version: "Version") -> dict[str, object]:
    """A version for programs; an accuracy in [0, 1]."""
    return {
        "version": version.number,
        "served": version.served,
        "published_at": version.record.get("published_at"),
        "origin": version.origin,
        "accuracy": version.accuracy,
        "judged": version.judged,
        "digest": version.digest,
    }


def _config(preset: str, assignments: list[str], side: int = architecture.BASE_SIDE) -> PipelineConfig:
    try:
        return chosen_preset(preset, assignments, side)
    except ValueError as error:
        console.fail(error)


def _side(data_set: "DataSet | None") -> int:
    """Pixels of the shorter side of its pictures."""
    return architecture.BASE_SIDE if data_set is None else data_set.side


def _check_training(config: PipelineConfig) -> None:
    try:
        choice.check(config.pretraining)
    except ValueError as error:
        console.fail(error)


def _try_engine(config: PipelineConfig, place: Root, data: pathlib.Path | None) -> None:
    try:
        engine.try_engine(config.beam, place.path, data)
    except ValueError as error:
        console.fail(error)
    except OSError as error:
        _cannot_write(place, error)
    except KeyboardInterrupt:
        console.stop("Interrupted. Nothing was written.", INTERRUPTED)


def _usable(place: Root, check: Callable[[], None]) -> None:
    try:
        check()
    except ValueError as error:
        console.fail(error)
    except OSError as error:
        _cannot_write(place, error)


def _data(
    preset: str, data: pathlib.Path | None, span: int | None, place: Root, config: PipelineConfig
) -> Records:
    from components.data import cifar10
    from pipeline.run import fitness

    try:
        if data is None and preset != "demo":
            raise ValueError(
                f"The preset {preset} needs --data, a folder with CIFAR-10's binary files. "
                "`byol data cifar10 DIR` fetches them."
            )
        folder = data if data is not None else _demo_data(place)
        span = _span(folder, span)
        found = cifar10.inspect_folder(folder if span is None else folder / f"{cifar10.SPAN_FOLDER}{span}")
        fitness.check_records(found, config)
        fitness.check_served(found.data_set, place.serving)
    except (ValueError, OSError) as error:
        console.fail(error)
    return Records(found.path.absolute(), span, data_set=found.data_set)


def _described(folder: pathlib.Path | None) -> "DataSet | None":
    """What a data set, or the latest span of one, says of itself."""
    from components.data import cifar10, dataset

    if folder is None:
        return None
    try:
        span = _span(folder, None)
        return dataset.read(
            cifar10.location(folder if span is None else folder / f"{cifar10.SPAN_FOLDER}{span}")
        )
    except (ValueError, OSError) as error:
        console.fail(error)


def _span(folder: pathlib.Path, wanted: int | None) -> int | None:
    """The span to take of a folder of spans; None for a plain folder of record files."""
    from components.data import cifar10

    numbers = cifar10.span_numbers(folder)
    if wanted is not None and wanted not in numbers:
        known = ", ".join(map(str, numbers)) or "none"
        raise ValueError(f"{folder} has no {cifar10.SPAN_FOLDER}{wanted}. Spans there: {known}.")
    return wanted if wanted is not None else max(numbers, default=None)


def _demo_data(place: Root) -> pathlib.Path:
    from components.data import synthetic

    if not place.demo_data.exists():
        synthetic.write(place.demo_data)
    return place.demo_data


def _run(config: PipelineConfig, preset: str, records: Records, place: Root) -> "Summary":
    log_file = place.logs / f"{time.strftime('%Y%m%dT%H%M%S')}.log"
    with console.quiet(log_file) as person:
        said = f"Preset {preset}, data {records.folder}. Full log: {log_file}"
        person.print(said, highlight=False, markup=False)
        with console.loading(person):
            from pipeline.run import local_runner

        return local_runner.run(config, preset, records, place, person, started=console.process_start())


def _tell(summary: "Summary") -> None:
    table = Table(title=f"Run {summary.run_id}", show_header=False)
    table.add_row("linear probe, test split (TFMA)", _share(summary.linear_accuracy))
    table.add_row("the same on an untrained encoder", _share(summary.random_encoder_linear_accuracy))
    table.add_row("kNN, held-out training images", _share(summary.knn_accuracy))
    table.add_row("blessed", "yes" if summary.blessed else "no")
    table.add_row("served version", str(summary.pushed_version or "none pushed"))
    table.add_row("served from", summary.pushed_path or "")
    table.add_row("seconds, loading and report included", f"{time.monotonic() - console.process_start():.0f}")
    console.screen().print(table)


def _share(accuracy: float | None) -> str:
    return "not judged: no labels" if accuracy is None else f"{accuracy:.2%}"


def _refuse(summary: "Summary") -> NoReturn:
    """One sentence, what was missed, and what is served meanwhile."""
    console.say(f"Not pushed: {str(summary.not_pushed_because).rstrip('.')}.")
    refusal.tell(summary.missed, Console(file=sys.stderr))
    console.say(
        f"Version {summary.still_served} is still served."
        if summary.still_served is not None
        else "Nothing is served from this root yet."
    )
    raise typer.Exit(NOT_PUSHED)


def _cannot_write(place: Root, error: OSError) -> NoReturn:
    console.stop(
        f"Cannot write to {place.path}: {console.reason(error)}. Choose another --root.",
        console.status(error),
    )


if __name__ == "__main__":
    main()
