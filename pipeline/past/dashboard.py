"""A root as one page without network: what is served or waits, accuracy and gates over time, spans, disk, reports.

No TensorFlow is imported. The look is in dashboard.html and in the report's style.css.
"""

import dataclasses
import datetime as dt
import itertools
import os
import pathlib
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

import jinja2

from components.serving import candidates, serving_folder
from components.serving.candidates import Candidate
from components.serving.serving_folder import Version
from components.staging import write_atomically
from pipeline.past import history, history_plot
from pipeline.past.history import History, RunEntry
from pipeline.report import charts
from pipeline.root import Root

FILE = "dashboard.html"
JUDGED_SHOWN = 12  # columns of the table of gates
DECISIONS_SHOWN = 20  # on candidates, of the newest
RUNS_SHOWN = 200  # of the newest; the plot keeps its marks apart, and the page its size
_FOLDERS = (pathlib.Path(__file__).parent, pathlib.Path(charts.__file__).parent)
_DAY = 86_400.0


@dataclasses.dataclass(frozen=True)
class RunRow:
    """A run, and the address of its report as the page has it; "" without one."""

    run: RunEntry
    report: str


@dataclasses.dataclass(frozen=True)
class GateRow:
    """One criterion that at least one of the runs shown missed.

    Attributes:
        what, pictures: as `components.gate.misses.Miss` has them.
        cells: by run, how far it was missed by; "" for a run that met it.
    """

    what: str
    pictures: str
    cells: list[str]


@dataclasses.dataclass(frozen=True)
class SpanRow:
    """A span and what became of it; `seen` is "" where `byol retrain` did not decide about it."""

    span: int
    fate: str
    seen: str
    runs: int
    reason: str


@dataclasses.dataclass(frozen=True)
class DiskRow:
    """What lies below a root by that name, and its share of the whole in [0, 1]."""

    name: str
    bytes: int
    share: float


@dataclasses.dataclass(frozen=True)
class WaitingRow:
    """The candidate that waits for approval, for how long, and the addresses of what is told about it; "" without."""

    candidate: Candidate
    age: str
    report: str
    card: str
    verdict: str


@dataclasses.dataclass(frozen=True)
class VersionRow:
    """A version, and the addresses of what is told about it."""

    version: Version
    withdrawn: bool
    card: str
    verdict: str


def write(root: Root, out: pathlib.Path, now: dt.datetime | None = None) -> pathlib.Path:
    """Writes the page and returns its file.

    Args:
        root: of the runs.
        out: the file; links to reports are relative to its folder.
        now: the time that the page names; this moment if left out.

    Raises:
        ValueError: the root has no metadata store, or a file in it is not what it should be.
        OSError: the page cannot be written.
    """
    write_atomically(out, render(root, out.absolute().parent, now or dt.datetime.now(dt.timezone.utc)))
    return out


def render(root: Root, folder: pathlib.Path, now: dt.datetime) -> str:
    """The page as HTML for a file in that folder."""
    past = history.history(root)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(list(map(str, _FOLDERS))),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"percent": _percent, "moment": moment, "size": size, "quoted": _quoted}
    return environment.get_template("dashboard.html").render(context(root, past, folder, now))


def context(root: Root, past: History, folder: pathlib.Path, now: dt.datetime) -> dict[str, Any]:
    """Everything that the page shows, by the names of its template."""
    runs = [run for run in past.runs if run.outcome != history.LOOKED_AT][-RUNS_SHOWN:]
    judged = [run for run in runs if run.blessed is not None][-JUDGED_SHOWN:]
    versions = _versions(root, past, folder)
    served = next((row for row in versions if row.version.served), None)
    candidate = candidates.waiting(root.serving)
    disk = disk_use(root.path)
    return {
        "root": str(root.path),
        "now": now.isoformat(timespec="seconds"),
        "served": served,
        "since": "" if served is None else age(str(served.version.record.get("published_at", "")), now),
        "waiting": None if candidate is None else _waiting(root, candidate, folder, now),
        "decisions": candidates.decisions(root.serving)[: -DECISIONS_SHOWN - 1 : -1],
        "versions": versions[::-1],
        "last": runs[-1] if runs else None,
        "plot": history_plot.plot(dataclasses.replace(past, runs=runs)),  # escaped by ElementTree
        "curves": list(filter(None, curves(runs))),
        "judged": judged,
        "gates": gate_rows(judged),
        "spans": span_rows(past),
        "runs": [RunRow(run, _report(root, run.run_id, folder)) for run in reversed(runs)],
        "left_out": len(past.runs) - len(runs),
        "disk": disk,
        "disk_total": sum(row.bytes for row in disk),
        "logs": _link(root.logs, folder),
    }


def curves(runs: Sequence[RunEntry]) -> Iterator[charts.LineChart | None]:
    """What the gate compares, in points by run: against an untrained encoder, and against what was served."""
    for name, title, others in (
        ("gain", "Gain over an untrained encoder, points", [run.random_encoder_accuracy for run in runs]),
        (
            "change",
            "Change against the model that was served, points",
            [run.baseline_accuracy for run in runs],
        ),
    ):
        pairs = [
            (float(number), 100.0 * (run.accuracy - other))
            for number, (run, other) in enumerate(zip(runs, others, strict=True), 1)
            if run.accuracy is not None and other is not None
        ]
        yield charts.line_chart(name, title, [x for x, _ in pairs], [y for _, y in pairs], axis="run")


def gate_rows(judged: Sequence[RunEntry]) -> list[GateRow]:
    """A row for each criterion that one of these runs missed, in the order in which they first were."""
    missed = [
        {(miss.what, miss.pictures): miss.cells[-1] or "missed" for miss in run.missed} for run in judged
    ]
    keys = dict.fromkeys(itertools.chain.from_iterable(missed))
    return [GateRow(*key, [of_run.get(key, "") for of_run in missed]) for key in keys]


def span_rows(past: History) -> list[SpanRow]:
    """Every span: as `byol retrain` decided, or as the runs that read it ended."""
    known = {
        span.span: SpanRow(span.span, span.state, span.seen, len(span.runs), span.reason)
        for span in past.spans
    }
    for run in past.runs:
        for number in {*run.spans, *([] if run.newest_span is None else [run.newest_span])} - {0}:
            if number in {span.span for span in past.spans}:
                continue
            trained = sum(number in one.spans for one in past.runs)
            reason = run.reason if run.newest_span == number else ""
            fate = run.outcome if run.newest_span == number or number not in known else known[number].fate
            known[number] = SpanRow(number, fate, "", trained, reason)
    return [known[number] for number in sorted(known)]


def disk_use(path: pathlib.Path) -> list[DiskRow]:
    """The bytes below each name in a folder, the largest first; a file with several names counts at the first."""
    counted: set[tuple[int, int]] = set()
    sizes = {
        entry.name: _bytes(pathlib.Path(entry), counted) for entry in sorted(os.scandir(path), key=_name)
    }
    total = sum(sizes.values())
    rows = [DiskRow(name, found, found / total if total else 0.0) for name, found in sizes.items()]
    return sorted(rows, key=lambda row: -row.bytes)


def age(since: str, now: dt.datetime) -> str:
    """How long ago an ISO time was, in words; "" for none."""
    if not since:
        return ""
    days = (now - dt.datetime.fromisoformat(since)).total_seconds() / _DAY
    if days >= 2:
        return f"{days:.0f} days"
    return f"{24 * days:.0f} hours" if 24 * days >= 2 else f"{max(24 * 60 * days, 0):.0f} minutes"


def moment(iso: str | None) -> str:
    """An ISO time to the minute, as people read it."""
    return (iso or "")[:16].replace("T", " ")


def size(count: int) -> str:
    """Bytes in words, by thousands."""
    for unit, bytes_of in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= bytes_of:
            return f"{count / bytes_of:.1f} {unit}"
    return f"{count} B"


def _percent(share: float) -> str:
    return f"{share:.2%}"


def _quoted(path: str) -> str:
    """As a shell takes it."""
    return shlex.quote(str(path))


def _name(entry: os.DirEntry) -> str:
    return entry.name


def _bytes(path: pathlib.Path, counted: set[tuple[int, int]]) -> int:
    return sum(_new_bytes(one, counted) for one in _files(path))


def _files(path: pathlib.Path) -> Iterable[pathlib.Path]:
    if path.is_symlink() or not path.is_dir():
        return [path]
    return (pathlib.Path(folder) / name for folder, _, names in os.walk(path) for name in names)


def _new_bytes(path: pathlib.Path, counted: set[tuple[int, int]]) -> int:
    """A file's bytes; 0 for one that was counted or has gone meanwhile."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return 0
    key = (status.st_dev, status.st_ino)
    if key in counted:
        return 0
    counted.add(key)
    return status.st_size


def _versions(root: Root, past: History, folder: pathlib.Path) -> list[VersionRow]:
    withdrawn = {version.version for version in past.versions if version.withdrawn}
    return [
        VersionRow(
            version,
            version.number in withdrawn,
            _link(version.path / serving_folder.CARD_HTML_FILE, folder),
            _link(version.path / serving_folder.VERDICT_FILE, folder),
        )
        for version in serving_folder.versions(root.serving)
    ]


def _waiting(root: Root, candidate: Candidate, folder: pathlib.Path, now: dt.datetime) -> WaitingRow:
    return WaitingRow(
        candidate,
        age(str(candidate.record["held_at"]), now),
        _report(root, candidate.run_id, folder),
        _link(candidate.model / serving_folder.CARD_HTML_FILE, folder),
        _link(candidate.model / serving_folder.VERDICT_FILE, folder),
    )


def _report(root: Root, run_id: str | None, folder: pathlib.Path) -> str:
    return "" if run_id is None else _link(root.report(run_id), folder)


def _link(path: pathlib.Path, folder: pathlib.Path) -> str:
    """The address of a file or folder relative to the page's; "" if there is none."""
    return quote(os.path.relpath(path, folder)) if path.exists() else ""
