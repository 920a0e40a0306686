"""Commands about the past of a root: its history and dashboard, the lineage of a version, pruning what is old."""

import dataclasses
import enum
import json
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from components.staging import write_atomically
from pipeline import console, refusal
from pipeline.root import Root, RootInUseError

if TYPE_CHECKING:
    from pipeline.past.history import History, RunEntry
    from pipeline.past.lineage import Check, Lineage, Place, SpanSource, Training
    from pipeline.past.prune import Pruned

_FAILED = 1
_COLUMNS = ("run", "min", "spans", "accuracy", "untrained", "outcome", "version")
_INDENT = 4
RootOption = Annotated[
    pathlib.Path, typer.Option("--root", help="Folder of everything that runs leave behind.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="The same as --format json.")]


class HistoryFormat(str, enum.Enum):
    """What `byol history` writes."""

    table = "table"
    json = "json"
    plot = "plot"


class LineageFormat(str, enum.Enum):
    """What `byol lineage` writes."""

    text = "text"
    json = "json"


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command()(history)
    app.command()(lineage)
    app.command()(prune)
    app.command()(dashboard)
    app.command("mend-clock")(mend_clock)


def history(
    root: RootOption,
    style: Annotated[
        HistoryFormat, typer.Option("--format", help="A table, JSON, or a plot of the accuracy as SVG.")
    ] = HistoryFormat.table,
    out: Annotated[pathlib.Path | None, typer.Option(help="File to write JSON or the plot to.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List every run: spans, accuracy, verdict, version, warm-start parent, and why it ended as it did."""
    place = console.existing_root(root)
    style = HistoryFormat.json if as_json else style
    if style is HistoryFormat.plot and out is None:
        console.stop("A plot needs --out FILE.svg.")
    from pipeline.past import history as past
    from pipeline.past import history_plot

    try:
        found = past.history(place)
        if style is HistoryFormat.table:
            _tell_history(found)
            return
        text = history_plot.plot(found) if style is HistoryFormat.plot else _json(found)
        _put(text, out)
    except (ValueError, OSError) as error:
        console.fail(error)


def lineage(
    root: RootOption,
    version: Annotated[int | None, typer.Argument(help="The version; the served one if left out.")] = None,
    style: Annotated[LineageFormat, typer.Option("--format", help="Text or JSON.")] = LineageFormat.text,
    check: Annotated[
        bool, typer.Option("--verify", help="Hash the version's and the data's files again.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Follow a version back: push, probe, pretraining and its parents, spans, data files and their SHA-256.

    Exit status of --verify: 0 when whatever still exists is as it was, 1 when something differs.
    """
    place = console.existing_root(root)
    from pipeline.past import lineage as origin

    try:
        found = origin.lineage(place, version)
        checks = origin.verify(place, found) if check else []
    except (ValueError, OSError) as error:
        console.fail(error)
    if as_json or style is LineageFormat.json:
        typer.echo(
            _json({**dataclasses.asdict(found), "checks": [dataclasses.asdict(one) for one in checks]})
        )
    else:
        _tell_lineage(found)
        _tell_checks(checks)
    differing = [one.what for one in checks if one.result == origin.DIFFERS]
    if differing:
        console.stop(
            f"{len(differing)} files differ from what was recorded: {', '.join(differing)}.", _FAILED
        )


def prune(
    root: RootOption,
    keep_runs: Annotated[int, typer.Option(min=1, help="So many of the newest runs stay whole.")] = 5,
    keep_spans: Annotated[int, typer.Option(min=1, help="Examples of so many spans stay.")] = 8,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")
    ] = False,
) -> None:
    """Remove what old runs left on the disk; never a version, its lineage, or what the next run needs."""
    place = console.existing_root(root)
    from pipeline.past import prune as pruning

    try:
        with place.locked():
            pruned = pruning.prune(place, pruning.PrunePolicy(keep_runs, keep_spans), dry_run)
    except RootInUseError as error:
        console.fail(error)
    except (ValueError, OSError) as error:
        console.fail(error)
    _tell_pruned(pruned, place, dry_run)


def dashboard(
    root: RootOption,
    out: Annotated[
        pathlib.Path | None, typer.Option(help="File to write; dashboard.html in the root if left out.")
    ] = None,
) -> None:
    """Write the root as one page that needs no network: served, accuracy, gates, spans, disk, every report."""
    place = console.existing_root(root)
    from pipeline.past import dashboard as page

    try:
        typer.echo(f"Wrote {page.write(place, out or place.path / page.FILE)}.")
    except (ValueError, OSError) as error:
        console.fail(error)


def mend_clock(root: RootOption) -> None:
    """Go on after a clock that was ahead is right again: times in metadata.sqlite that lie ahead are moved back."""
    place = console.existing_root(root)
    from pipeline.past import mend_clock as clock

    try:
        with place.locked():
            moved = clock.mend(place.metadata)
    except (RootInUseError, ValueError, OSError) as error:
        console.fail(error)
    if not moved.times:
        typer.echo(f"No time in {place.metadata} lies ahead of the clock; nothing was changed.")
    else:
        typer.echo(f"Moved {moved.times} times in {place.metadata} back by {moved.seconds:.0f} s.")


def _json(found: object) -> str:
    return json.dumps(found if isinstance(found, dict) else dataclasses.asdict(found), indent=2) + "\n"  # type: ignore[call-overload]


def _put(text: str, out: pathlib.Path | None) -> None:
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_atomically(out, text)
        typer.echo(f"Wrote {out}.")


def _tell_history(found: "History") -> None:
    screen = console.screen()
    told = {span.reason for span in found.spans}
    shown = [run for run in found.runs if run.outcome != "data looked at"]
    rows = [_row(run) for run in shown]
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    screen.print(_line(_COLUMNS, widths), style="bold", highlight=False, soft_wrap=True)
    for run, row in zip(shown, rows, strict=True):
        screen.print(_line(row, widths), highlight=False, markup=False, soft_wrap=True)
        why = _why(run, told)
        if why:
            screen.print(Padding(Text(why), (0, 0, 0, _INDENT), expand=False))
    refused = next((run for run in reversed(shown) if run.missed), None)
    if refused is not None:
        screen.print(f"\nThe last refusal, {refused.run_id}:", highlight=False)
        refusal.tell(refused.missed, screen)
    left_out = len(found.runs) - len(shown)
    if left_out:
        runs = (
            "1 run that only looked at data is"
            if left_out == 1
            else f"{left_out} runs that only looked at data are"
        )
        screen.print(f"{runs} left out; --format json has them all.", highlight=False)
    _tell_spans(found, screen)
    for version in found.versions:
        marks = [
            word for word, is_so in (("served", version.served), ("withdrawn", version.withdrawn)) if is_so
        ]
        origin = "" if version.origin == version.version else f" of version {version.origin}"
        words = f"{version.version}: {version.action or 'foreign'}{origin}, {version.published} {', '.join(marks)}"
        screen.print(f"Version {words.rstrip()}", highlight=False)


def _why(run: "RunEntry", told: set[str]) -> str:
    """Why a run ended as it did; a reason that is told of its span is not said twice."""
    reason = f"see span {run.newest_span}" if run.reason in told - {""} else run.reason
    node = f"{run.failed_node}: " if run.failed_node and not reason.startswith(run.failed_node) else ""
    parent = (
        ""
        if run.parent is None
        else ", ".join(map(str, run.parent.versions)) or f"model {run.parent.artifact}"
    )
    parts = [f"{node}{reason}", f"from {parent}" if parent else "", "files pruned" if run.pruned else ""]
    return "; ".join(part.rstrip(".") for part in parts if part)


def span_words(numbers: Sequence[int]) -> str:
    """Span numbers in a few signs: 1, 2, 3, 4, 7 -> "1-4, 7"; 0, which stands for data without spans, is none."""
    groups: list[list[int]] = []
    for number in filter(None, numbers):
        if groups and number == groups[-1][-1] + 1:
            groups[-1].append(number)
        else:
            groups.append([number])
    return ", ".join(f"{g[0]}-{g[-1]}" if len(g) > 2 else ", ".join(map(str, g)) for g in groups)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _row(run: "RunEntry") -> list[str]:
    """The cells of a run, under `_COLUMNS`."""
    return [
        (run.run_id or f"none, {run.started}")[:19],
        "" if run.seconds is None else f"{run.seconds / 60:.1f}",
        span_words(run.spans) or (f"({run.newest_span})" if run.newest_span else ""),
        "" if run.accuracy is None else f"{run.accuracy:.2%}",
        "" if run.random_encoder_accuracy is None else f"{run.random_encoder_accuracy:.2%}",
        run.outcome,
        str(run.version or ""),
    ]


def _tell_spans(found: "History", screen: Console) -> None:
    if not found.spans:
        return
    table = Table("span", "state", "seen", "runs", "why", box=None, pad_edge=False)
    for column in table.columns[:-1]:
        column.no_wrap = True
    for span in found.spans:
        table.add_row(str(span.span), span.state, span.seen[:10], str(len(span.runs)), Text(span.reason))
    screen.print()
    screen.print(table, highlight=False)


def _tell_lineage(found: "Lineage") -> None:
    _tell_version(found)
    if found.pushed_model:
        typer.echo(f"PushedModel {found.pushed_model.id}, {_where(found.pushed_model)}")
    if not found.probe:
        typer.echo(
            "The metadata store of this root does not know this model; its serving.json says what is known."
        )
        return
    _tell_training("Probed by", found.probe)
    for place, training in enumerate(found.pretraining):
        _tell_training("Pretrained by" if place == 0 else "  which started from the model of", training)
        for span in training.spans:
            _tell_source(span)
    typer.echo("  which started from random weights")
    for source in found.tested_on:
        typer.echo("Tested on the test split of")
        _tell_source(source)


def _tell_version(found: "Lineage") -> None:
    marks = [word for word, is_so in (("served", found.served), ("withdrawn", found.withdrawn)) if is_so]
    typer.echo(", ".join([f"Version {found.version}", *marks]))
    record, told = found.record, found.record.get("lineage", {})
    for name in ("action", "origin_version", "restored_version", "published_at", "digest"):
        if name in record:
            typer.echo(f"  {name}: {record[name]}")
    if record.get("parent"):
        typer.echo(f"  served before: {record['parent'].get('version')}")
    typer.echo(f"  run: {told.get('run_id', 'not recorded')}")
    for name, verb in (("approval", "approved"), ("rollback", "rolled back")):
        if isinstance(told.get(name), dict):
            one = told[name]
            why = f": {one.get('reason')}" if one.get("reason") else ""
            typer.echo(f"  {verb} by {one.get('by')}, {one.get('at')}{why}")
    typer.echo(f"  code digest: {told.get('code_digest', 'not recorded')}")
    for name, value in told.get("metrics", {}).items():
        if not name.endswith("_diff"):  # to the baseline; the verdict and --format json have them
            typer.echo(f"  {name}: {value:.6g}")


def _tell_training(how: str, training: "Training") -> None:
    pushed = f"; pushed as {', '.join(map(str, training.pushed_as))}" if training.pushed_as else ""
    typer.echo(
        f"{how} {training.node}, run {training.run_id}, {training.started}, {training.seconds:.1f} s{pushed}"
    )
    typer.echo(f"    model {training.model.id}, {_where(training.model)}")
    typer.echo(f"    source digest {training.source_digest}")


def _tell_source(source: "SpanSource") -> None:
    typer.echo(f"    span {source.span}: Examples {source.examples.id}, {_where(source.examples)}")
    typer.echo(f"      read from {source.input_base}")
    for name, digest in source.files.items():
        typer.echo(f"      {digest}  {name}")
    if not source.files:
        typer.echo(f"      no digests were recorded; fingerprint {' '.join(source.fingerprint.split())}")


def _where(place: "Place") -> str:
    note = {"LIVE": "", "DELETED": " (pruned)"}.get(place.state, f" ({place.state})")
    return f"{place.uri}{note}"


def _tell_checks(checks: list["Check"]) -> None:
    counts: dict[str, int] = {}
    for one in checks:
        counts[one.result] = counts.get(one.result, 0) + 1
        if one.result != "same":
            typer.echo(f"{one.result}: {one.what}")
    if checks:
        typer.echo(
            "Verified: " + ", ".join(f"{count} {result}" for result, count in sorted(counts.items())) + "."
        )


def _tell_pruned(pruned: "Pruned", place: Root, dry_run: bool) -> None:
    groups: dict[str, list[int]] = {}
    for path, size in pruned.removed.items():
        groups.setdefault("/".join(path.relative_to(place.path).parts[:2]), []).append(size)
    for name, sizes in groups.items():
        verb = "would remove" if dry_run else "removed"
        typer.echo(f"{verb} {len(sizes):4d} of {name}, {console.size_words(sum(sizes))}")
    for reason, count in pruned.kept.items():
        typer.echo(f"kept {count:4d} artifacts for {reason}")
    if pruned.elsewhere:
        typer.echo(f"left alone {pruned.elsewhere} artifacts that lie outside of {place.path}")
    verb = "Would free" if dry_run else "Freed"
    typer.echo(
        f"{verb} {console.size_words(pruned.bytes)}; "
        f"{len(pruned.artifacts)} artifacts {'would be' if dry_run else 'are'} "
        "marked as deleted."
    )
