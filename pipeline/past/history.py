"""What became of every run of a root: spans, accuracy, verdict, version, warm-start parent, and why.

Read from ML Metadata, the summaries of runs, the serving folder and the ledger of retraining. What was pruned is None.
"""

import dataclasses
import datetime as dt
import json
from collections.abc import Iterable, Mapping
from typing import Any

from components.gate import misses
from components.gate.misses import Miss
from components.serving import candidates, serving_folder
from components.staging import is_cut, read_either
from pipeline import nodes
from pipeline.past import store_graph
from pipeline.past.store_graph import Artifact, Execution, Run, StoreGraph
from pipeline.root import Root
from pipeline.spans import ledger
from pipeline.spans.ledger import Ledger, Training

CANDIDATE = ledger.CANDIDATE
PUSHED, SERVED_ALREADY, REFUSED = ledger.PUSHED, "served already", ledger.NOT_PUSHED
LOOKED_AT, DATA_REFUSED = "data looked at", "data refused"
FAILED, UNFINISHED = ledger.FAILED, ledger.UNFINISHED
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
        baseline_accuracy: the same of the model that it was compared with.
        random_encoder_accuracy: the same of the probe on the untrained encoder.
        blessed: the verdict; None when there is none.
        outcome: "pushed", "served already" (the same model), "refused" by the gate, "data refused", "data looked at"
            (no more was asked), "candidate" (it waits for approval), "rejected" or "replaced" after that, "failed" or
            "unfinished".
        reason: why it was not pushed, in one sentence.
        failed_node: the node that failed, or that was at work when the process ended.
        version: as which it was pushed, or is served already.
        parent: what pretraining started from; None for a random start.
        pruned: nodes whose files are no longer there.
        retraining: the decision of `byol retrain` that led to it; None for a plain run.
        missed: what the gate asked and did not get.
    """

    run_id: str | None
    started: str | None
    seconds: float | None
    spans: list[int]
    newest_span: int | None
    accuracy: float | None
    baseline_accuracy: float | None
    random_encoder_accuracy: float | None
    blessed: bool | None
    outcome: str
    reason: str
    failed_node: str | None
    version: int | None
    parent: Parent | None
    pruned: list[str]
    retraining: Training | None = None
    missed: list[Miss] = dataclasses.field(default_factory=list)


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
    """What `byol retrain` decided about one span, as in `ledger.SpanRecord`, and the runs that trained on it."""

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
    known = Ledger.load(root.ledger)
    runs: list[RunEntry] = []
    if root.metadata.exists() or not known.spans:  # spans may all have been refused before a run was begun
        runs = run_entries(StoreGraph(root.metadata), root)
    decisions = {_run_of(training, runs): training for training in known.trainings}
    told = [_explained(run, decisions.get(run.run_id), _refusals(runs, known)) for run in runs]
    present = {run.run_id for run in runs}
    for training in known.trainings:
        if _run_of(training, runs) not in present:
            _insert(told, _decision_entry(training))
    told = [_decided(run, candidates.decisions(root.serving)) for run in told]
    return History(told, version_entries(serving_folder.versions(root.serving)), _span_entries(told, known))


def run_entries(graph: StoreGraph, root: Root) -> list[RunEntry]:
    """Every run as the store, its summary and nobody's ledger know it, the oldest first."""
    return [_run_entry(graph, run, root) for run in graph.runs]


def _decided(run: RunEntry, decisions: list[candidates.Decision]) -> RunEntry:
    """A run whose candidate is decided on, with what became of it."""
    made = [one for one in decisions if one.run_id == run.run_id]
    if run.outcome != CANDIDATE or not made:
        return run
    last = made[-1]
    by, why = f" by {last.by}" if last.by else "", f": {last.reason}" if last.reason else ""
    reason = f"{last.decision}{by} on {last.at[:10]}{why}"
    outcome = PUSHED if last.decision == candidates.APPROVED else last.decision
    return dataclasses.replace(run, outcome=outcome, reason=reason, version=last.version)


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


def _run_entry(graph: StoreGraph, run: Run, root: Root) -> RunEntry:
    executions = run.executions
    outcome, reason, failed_node = _outcome(graph, run)
    verdict = _first(graph.written(executions.get(nodes.VERDICT), nodes.VERDICT_REPORT))
    pushed = _first(graph.written(executions.get(nodes.PUSHER), nodes.PUSHED_MODEL))
    parent = _first(graph.read(executions.get(nodes.PRETRAINER), nodes.BASE_MODEL))
    summary = _summary(root, run.id)
    trained = spans_of(graph.read(executions.get(nodes.TRANSFORM), nodes.EXAMPLES))
    came_in = spans_of(graph.written(executions.get(nodes.EXAMPLE_GEN), nodes.EXAMPLES))
    blessed = _property(verdict, nodes.BLESSED)
    ended = max((execution.ended for execution in executions.values()), default=run.started)
    return RunEntry(
        run_id=run.id,
        started=iso(run.started),
        seconds=round((ended - run.started) / 1000, 1),
        spans=trained,
        newest_span=max([*trained, *came_in], default=None),
        accuracy=_property(verdict, nodes.ACCURACY, summary.get("linear_accuracy")),
        baseline_accuracy=_property(verdict, nodes.BASELINE_ACCURACY),
        random_encoder_accuracy=summary.get("random_encoder_linear_accuracy"),
        blessed=None if blessed is None else blessed == 1,
        outcome=outcome,
        reason=reason,
        failed_node=failed_node,
        version=None if pushed is None else _version(pushed),
        parent=None if parent is None else Parent(parent.id, parent.uri, pushed_as(graph, parent.id)),
        pruned=_pruned(graph, executions.values()),
        missed=misses.misses(_criteria(verdict)),
    )


def _criteria(verdict: Artifact | None) -> list[dict[str, Any]]:
    """The criteria as the verdict's property has them; none for a store of a time before it had."""
    found: list[dict[str, Any]] = json.loads(_property(verdict, nodes.CRITERIA, "[]"))
    return found


def _outcome(graph: StoreGraph, run: Run) -> tuple[str, str, str | None]:
    """What became of it, why, and the node at which it ended too early."""
    failed = next((e for e in run.executions.values() if e.state == store_graph.FAILED), None)
    if failed is not None:
        outcome = DATA_REFUSED if failed.node in nodes.DATA_GATES else FAILED
        return outcome, failed.failure, failed.node
    pusher = run.executions.get(nodes.PUSHER)
    pushed = _first(graph.written(pusher, nodes.PUSHED_MODEL))
    if pusher is None or pushed is None or pusher.state not in _DONE:
        return _ended_early(run)
    if _version(pushed) is not None:
        is_new = pusher.state == store_graph.COMPLETE and pushed.properties.get(nodes.IS_NEW, 1) == 1
        return (PUSHED if is_new else SERVED_ALREADY), "", None
    if pushed.properties.get(nodes.CANDIDATE):
        return CANDIDATE, str(pushed.properties.get(nodes.NOT_PUSHED_REASON, "")), None
    verdict = _first(graph.written(run.executions.get(nodes.VERDICT), nodes.VERDICT_REPORT))
    reason = (
        misses.sentence(_criteria(verdict))
        or _property(verdict, nodes.REASON)
        or pushed.properties.get(nodes.NOT_PUSHED_REASON)
    )
    return REFUSED, str(reason or "no reason was recorded"), None


def _run_of(training: Training, runs: list[RunEntry]) -> str | None:
    """The run of a decision: the ledger names it once it has ended well; else the last that failed on its window."""
    if training.run_id:
        return training.run_id
    begun = dt.datetime.fromisoformat(training.started).timestamp() if training.started else 0.0
    attempts = [
        run.run_id
        for run in runs
        if run.outcome in (FAILED, UNFINISHED) and run.spans == training.window and _moment(run) >= begun
    ]
    return attempts[-1] if attempts else None


def _refusals(runs: list[RunEntry], known: Ledger) -> dict[str | None, str]:
    """Run id -> why the ledger refused the span that came in; of several such runs of a span, the last."""
    last = {run.newest_span: run.run_id for run in runs if run.outcome == DATA_REFUSED}
    return {
        run_id: known.spans[span].reason
        for span, run_id in last.items()
        if span in known.spans and known.spans[span].state == ledger.REFUSED
    }


def _explained(run: RunEntry, decision: Training | None, refusals: Mapping[str | None, str]) -> RunEntry:
    """The run with what only the ledger knows: TFX's local runner records no reason of a node that failed."""
    reason = run.reason or refusals.get(run.run_id) or (decision.reason if decision else "")
    if not reason and run.outcome in (FAILED, DATA_REFUSED):
        reason = "TFX recorded no reason"
    return dataclasses.replace(run, reason=reason, retraining=decision)


def _span_entries(runs: list[RunEntry], known: Ledger) -> list[SpanEntry]:
    return [
        SpanEntry(
            span=number,
            state=span.state,
            reason=span.reason,
            seen=span.seen,
            runs=[run.run_id for run in runs if run.run_id and number in run.spans],
        )
        for number, span in sorted(known.spans.items())
    ]


def _ended_early(run: Run) -> tuple[str, str, str | None]:
    at_work = next((e.node for e in run.executions.values() if e.state not in _DONE), None)
    if at_work is None and nodes.LABEL_CHECK in run.executions and nodes.TRANSFORM not in run.executions:
        return LOOKED_AT, "", None
    last = at_work or next(reversed(list(run.executions)), None)
    return UNFINISHED, "the process ended, or is still at work", last


def _property(artifact: Artifact | None, name: str, otherwise: Any = None) -> Any:
    """From the metadata store, which is never pruned; else what is known otherwise."""
    return artifact.properties.get(name, otherwise) if artifact else otherwise


def _summary(root: Root, run_id: str) -> Mapping[str, Any]:
    try:
        text = read_either(root.summary(run_id))
        found = {} if is_cut(text) else json.loads(text)  # the store has most of it as well
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(
            f"Expected JSON in {root.summary(run_id)}, received something else: {error}."
        ) from error
    return found if isinstance(found, dict) else {}


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


def _decision_entry(training: Training) -> RunEntry:
    """A decision to train without a run in the store: not begun, or given up."""
    return RunEntry(
        run_id=training.run_id,
        started=training.started or None,
        seconds=None,
        spans=[],
        newest_span=max(training.window, default=None),
        accuracy=training.accuracy,
        baseline_accuracy=None,
        random_encoder_accuracy=None,
        blessed=None,
        outcome=training.outcome,
        reason=training.reason,
        failed_node=None,
        version=training.version,
        parent=None,
        pruned=[],
        retraining=training,
    )


def _insert(runs: list[RunEntry], entry: RunEntry) -> None:
    """Before the first run that began later; the runs themselves stay in the order of the store."""
    place = next((i for i, run in enumerate(runs) if _moment(run) > _moment(entry)), len(runs))
    runs.insert(place, entry)


def _moment(entry: RunEntry) -> float:
    """Seconds since the epoch; the ledger may write another time zone than this module."""
    return dt.datetime.fromisoformat(entry.started).timestamp() if entry.started else 0.0
