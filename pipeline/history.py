"""What became of every run of a root: spans, accuracy, verdict, version, warm-start parent, and why.

Read from ML Metadata, the summaries of runs, the serving folder and the ledger of retraining. What was pruned is None.
"""

import dataclasses
import datetime as dt
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from components import serving_folder
from pipeline import nodes, store_graph
from pipeline.root import Root
from pipeline.store_graph import Artifact, Execution, Run, StoreGraph

LEDGER = pathlib.Path("retraining") / "ledger.json"
PUSHED, SERVED_ALREADY, REFUSED, FAILED, UNFINISHED = "pushed", "served already", "refused", "failed", "unfinished"
_FORMAT = 1
_DONE = (store_graph.COMPLETE, store_graph.CACHED)


@dataclasses.dataclass(frozen=True)
class Parent:
    """The pretrained model that a pretraining started from.

    Attributes:
        artifact: its id in the metadata store.
        uri: where it lies, or lay.
        versions: as which a model with this encoder was pushed.
    """

    artifact: int
    uri: str
    versions: list[int]


@dataclasses.dataclass(frozen=True)
class RunEntry:
    """One run, or one attempt of `byol retrain` that did not become a run.

    Attributes:
        run_id: TFX's; None for an attempt without a run.
        started: ISO, UTC.
        seconds: from its first node's start to its last node's end.
        spans: what it trained on; none when it did not come that far. 0 stands for data without spans.
        newest_span: the highest that it read, trained on or not.
        accuracy: of the linear probe over the test split, 0 to 1; None when not measured or not kept.
        random_encoder_accuracy: the same of the probe on the untrained encoder.
        blessed: the verdict; None when there is none.
        outcome: "pushed", "served already" (the same model), "refused", "failed" or "unfinished".
        reason: why it was not pushed.
        failed_node: the node that failed, or that was at work when the process ended.
        version: as which it was pushed, or is served already.
        parent: what pretraining started from; None for a random start.
        pruned: nodes whose files are no longer there.
        retraining: what the ledger of `byol retrain` says about it; None for a plain run.
    """

    run_id: str | None
    started: str | None
    seconds: float | None
    spans: list[int]
    newest_span: int | None
    accuracy: float | None
    random_encoder_accuracy: float | None
    blessed: bool | None
    outcome: str
    reason: str
    failed_node: str | None
    version: int | None
    parent: Parent | None
    pruned: list[str]
    retraining: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class VersionEntry:
    """One version that is in the serving folder now.

    Attributes:
        version: its number.
        origin: the number under which its model was first pushed.
        action: "push" or "rollback"; "" for one that another tool pushed.
        published: ISO.
        served: whether it is served now.
        withdrawn: whether it was rolled back from.
    """

    version: int
    origin: int
    action: str
    published: str
    served: bool
    withdrawn: bool


@dataclasses.dataclass(frozen=True)
class SpanEntry:
    """What the ledger of `byol retrain` decided about one span: "accepted", "refused" or "too old", and why."""

    span: int
    state: str
    reason: str
    seen: str
    runs: list[str]


@dataclasses.dataclass(frozen=True)
class History:
    """A root's past, the oldest first."""

    runs: list[RunEntry]
    versions: list[VersionEntry]
    spans: list[SpanEntry]


def history(root: Root) -> History:
    """Gathers it.

    Raises:
        ValueError: the root has no metadata store, or a file in it is not what it should be.
    """
    graph, ledger = StoreGraph(root.metadata), read_ledger(root)
    attempts = {attempt["run_id"]: attempt for attempt in ledger["runs"] if attempt.get("run_id")}
    runs = [_run_entry(graph, run, root, attempts.get(run.id)) for run in graph.runs]
    known = {run.id for run in graph.runs}
    for attempt in ledger["runs"]:
        if attempt.get("run_id") not in known:
            _insert(runs, _attempt_entry(attempt))
    return History(
        runs=runs,
        versions=version_entries(serving_folder.versions(root.serving)),
        spans=[_span_entry(int(number), span) for number, span in sorted(ledger["spans"].items(), key=_number)],
    )


def read_ledger(root: Root) -> dict[str, Any]:
    """The ledger of `byol retrain`; an empty one when there is none.

    Raises:
        ValueError: it is not one of the known format.
    """
    path = root.path / LEDGER
    if not path.is_file():
        return {"spans": {}, "runs": []}
    try:
        ledger = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"Expected JSON in {path}, received something else: {error}.") from error
    if not isinstance(ledger, dict) or ledger.get("format") != _FORMAT:
        raise ValueError(f"Expected a ledger of format {_FORMAT} in {path}, received another one.")
    return {"spans": ledger.get("spans", {}), "runs": ledger.get("runs", [])}


def pushed_as(graph: StoreGraph, pretrained: int) -> list[int]:
    """The versions as which models on a pretrained encoder were pushed, by the encoder's artifact id."""
    probes = [one for one in graph.readers(pretrained, nodes.BASE_MODEL) if one.node == nodes.LINEAR_PROBE]
    models = {pretrained} | {model.id for probe in probes for model in graph.written(probe, nodes.MODEL)}
    pushers = [pusher for model in sorted(models) for pusher in graph.readers(model, nodes.MODEL)]
    found = {_version(one) for pusher in pushers for one in graph.written(pusher, nodes.PUSHED_MODEL)}
    return sorted(version for version in found if version is not None)


def spans_of(examples: Iterable[Artifact]) -> list[int]:
    """The span numbers of Examples, in order."""
    return sorted({int(one.properties[nodes.SPAN]) for one in examples if nodes.SPAN in one.properties})


def iso(milliseconds: int) -> str:
    """A time of ML Metadata as ISO 8601, UTC."""
    return dt.datetime.fromtimestamp(milliseconds / 1000, dt.timezone.utc).isoformat(timespec="seconds")


def version_entries(present: list[serving_folder.Version]) -> list[VersionEntry]:
    """What the serving folder tells of itself."""
    withdrawn = present[-1].record.get("withdrawn", []) if present else []
    return [
        VersionEntry(
            version=version.number,
            origin=version.origin,
            action=str(version.record.get("action", "")),
            published=str(version.record.get("published_at", "")),
            served=version.served,
            withdrawn=version.digest in withdrawn,
        )
        for version in present
    ]


def _run_entry(graph: StoreGraph, run: Run, root: Root, attempt: Mapping[str, Any] | None) -> RunEntry:
    executions = run.executions
    outcome, reason, failed_node = _outcome(graph, run)
    verdict = _first(graph.written(executions.get(nodes.VERDICT), nodes.VERDICT_REPORT))
    pushed = _first(graph.written(executions.get(nodes.PUSHER), nodes.PUSHED_MODEL))
    parent = _first(graph.read(executions.get(nodes.PRETRAINER), nodes.BASE_MODEL))
    summary = _summary(root, run.id)
    trained = spans_of(graph.read(executions.get(nodes.TRANSFORM), nodes.EXAMPLES))
    return RunEntry(
        run_id=run.id,
        started=iso(run.started),
        seconds=round(max((e.ended for e in executions.values()), default=run.started) / 1000 - run.started / 1000, 1),
        spans=trained,
        newest_span=max([*trained, *_came_in(graph, executions.values())], default=None),
        accuracy=_accuracy(verdict, summary),
        random_encoder_accuracy=summary.get("random_encoder_linear_accuracy"),
        blessed=None if verdict is None or nodes.BLESSED not in verdict.properties else verdict.properties[nodes.BLESSED] == 1,
        outcome=outcome,
        reason=reason or str((attempt or {}).get("reason") or ""),
        failed_node=failed_node,
        version=None if pushed is None else _version(pushed),
        parent=None if parent is None else Parent(parent.id, parent.uri, pushed_as(graph, parent.id)),
        pruned=_pruned(graph, executions.values()),
        retraining=attempt,
    )


def _outcome(graph: StoreGraph, run: Run) -> tuple[str, str, str | None]:
    """What became of it, why, and the node at which it ended too early."""
    failed = next((e for e in run.executions.values() if e.state == store_graph.FAILED), None)
    if failed is not None:
        return FAILED, failed.failure or "TFX recorded no reason", failed.node
    pusher = run.executions.get(nodes.PUSHER)
    pushed = _first(graph.written(pusher, nodes.PUSHED_MODEL))
    if pusher is None or pushed is None or pusher.state not in _DONE:
        running = next((e.node for e in run.executions.values() if e.state not in _DONE), None)
        last = running or next(reversed(list(run.executions)), None)
        return UNFINISHED, "the process ended, or is still at work", last
    if _version(pushed) is not None:
        is_new = pusher.state == store_graph.COMPLETE and pushed.properties.get(nodes.IS_NEW, 1) == 1
        return (PUSHED if is_new else SERVED_ALREADY), "", None
    verdict = _first(graph.written(run.executions.get(nodes.VERDICT), nodes.VERDICT_REPORT))
    missed = verdict.properties.get(nodes.REASON) if verdict else None
    return REFUSED, str(missed or pushed.properties.get(nodes.NOT_PUSHED_REASON) or "no reason was recorded"), None


def _accuracy(verdict: Artifact | None, summary: Mapping[str, Any]) -> float | None:
    """From the metadata store, which is never pruned; else from the run's summary."""
    if verdict is not None and nodes.ACCURACY in verdict.properties:
        return float(verdict.properties[nodes.ACCURACY])
    return summary.get("linear_accuracy")


def _summary(root: Root, run_id: str) -> Mapping[str, Any]:
    try:
        found = json.loads(root.summary(run_id).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"Expected JSON in {root.summary(run_id)}, received something else: {error}.") from error
    return found if isinstance(found, dict) else {}


def _came_in(graph: StoreGraph, executions: Iterable[Execution]) -> list[int]:
    """The spans that ExampleGen read."""
    makers = [e for e in executions if e.type == nodes.EXAMPLE_GEN_TYPE]
    return spans_of(one for maker in makers for one in graph.written(maker, nodes.EXAMPLES))


def _pruned(graph: StoreGraph, executions: Iterable[Execution]) -> list[str]:
    return sorted(
        {e.node for e in executions if any(graph.artifacts[a].state == store_graph.DELETED for a in e.writes)}
    )


def _version(pushed: Artifact) -> int | None:
    """As which a PushedModel was pushed; None when it was not."""
    number = str(pushed.properties.get(nodes.PUSHED_VERSION, ""))
    return int(number) if pushed.properties.get(nodes.PUSHED) == 1 and number.isdecimal() else None


def _first(artifacts: list[Artifact]) -> Artifact | None:
    return artifacts[0] if artifacts else None


def _attempt_entry(attempt: Mapping[str, Any]) -> RunEntry:
    """An attempt that left nothing in the metadata store."""
    window = [int(span) for span in attempt.get("window", [])]
    return RunEntry(
        run_id=attempt.get("run_id"),
        started=attempt.get("started"),
        seconds=None,
        spans=[],
        newest_span=max(window, default=None),
        accuracy=None,
        random_encoder_accuracy=None,
        blessed=None,
        outcome=str(attempt.get("outcome", UNFINISHED)),
        reason=str(attempt.get("reason") or ""),
        failed_node=None,
        version=attempt.get("version"),
        parent=None,
        pruned=[],
        retraining=attempt,
    )


def _span_entry(number: int, span: Mapping[str, Any]) -> SpanEntry:
    return SpanEntry(
        span=number,
        state=str(span.get("state", "")),
        reason=str(span.get("reason") or ""),
        seen=str(span.get("seen", "")),
        runs=[str(run) for run in span.get("runs", [])],
    )


def _insert(runs: list[RunEntry], entry: RunEntry) -> None:
    """Before the first run that began later; the runs themselves stay in the order of the store."""
    place = next((i for i, run in enumerate(runs) if _moment(run) > _moment(entry)), len(runs))
    runs.insert(place, entry)


def _moment(entry: RunEntry) -> float:
    """Seconds since the epoch; the ledger may write another time zone than this module."""
    return dt.datetime.fromisoformat(entry.started).timestamp() if entry.started else 0.0


def _number(item: tuple[str, Any]) -> int:
    return int(item[0])
