"""The ledger again from ML Metadata, where a file system emptied both copies of it: nothing begins anew."""

import json
import pathlib
from collections.abc import Mapping

from components.data import cifar10
from components.data.file_digest import sha256
from pipeline import nodes
from pipeline.past import history, store_graph
from pipeline.past.history import RunEntry
from pipeline.past.store_graph import Artifact, Run, StoreGraph
from pipeline.root import Root
from pipeline.spans import arrivals, ledger
from pipeline.spans.ledger import Ledger, SpanRecord, Training

_DONE = (store_graph.COMPLETE, store_graph.CACHED)
_ALLOWED = "allow_anomalies"  # of AnomalyGate, as its components.data.anomaly_gate.ALLOW_KEY
_WINDOW = "Window"  # the node that only a retraining has
_ENDS = {
    history.PUSHED: ledger.PUSHED,
    history.SERVED_ALREADY: ledger.PUSHED,
    history.REFUSED: ledger.NOT_PUSHED,
    history.CANDIDATE: ledger.CANDIDATE,
}


def rebuilt(root: Root, data: pathlib.Path) -> Ledger:
    """The ledger as ML Metadata has it; it is not saved.

    A span that passed both gates is accepted, one of which a gate failed is refused and is looked at again. A training
    that ended has its window, parent, baseline and end; one that had not is decided on again. What a person excluded is
    known to nobody else.

    Args:
        root: with a metadata store.
        data: holds the `span-N` folders; one whose files are those that were read is known by its fingerprint.

    Raises:
        ValueError: the store cannot be read.
    """
    graph = StoreGraph(root.metadata)
    known = Ledger(root.ledger)
    entries = {entry.run_id: entry for entry in history.run_entries(graph, root)}
    for run in graph.runs:
        for number, record in _looked_at(graph, run, data).items():
            before = known.spans.get(number)
            if before is None or before.state != ledger.ACCEPTED:
                known.spans[number] = record
        if _WINDOW in run.executions:
            _note(known, _training(graph, run, entries[run.id]))
    if known.trainings:
        known.trainings[-1].told = False  # nobody knows whether its event was kept: at least once
    return known


def _looked_at(graph: StoreGraph, run: Run, data: pathlib.Path) -> Mapping[int, SpanRecord]:
    """What a run found of the span that came in; nothing where it did not come that far."""
    gate = run.executions.get(nodes.ANOMALY_GATE)
    examples = graph.written(run.executions.get(nodes.EXAMPLE_GEN), nodes.EXAMPLES)
    if gate is None or not examples or nodes.SPAN not in examples[0].properties:
        return {}
    gates = [run.executions[name] for name in nodes.DATA_GATES if name in run.executions]
    both = nodes.LABEL_CHECK in run.executions or nodes.TRANSFORM in run.executions  # which waits for both
    number, seen = int(examples[0].properties[nodes.SPAN]), history.iso(run.started)
    fingerprint, seal = _delivered(examples[0], data / f"{cifar10.SPAN_FOLDER}{number}")
    if any(one.state == store_graph.FAILED for one in gates):
        failed = next(one for one in gates if one.state == store_graph.FAILED)
        reason = (
            failed.failure or f"{failed.node} refused it; the ledger with its words was lost in a power cut"
        )
        return {number: SpanRecord(ledger.REFUSED, reason, fingerprint, seen, seal=seal)}
    if not both or any(one.state not in _DONE for one in gates):
        return {}
    allowed = str(gate.properties.get(_ALLOWED) or "")
    earlier = history.spans_of(graph.read(gate, nodes.EARLIER_EXAMPLES))
    compared = [span for span in earlier if span < number]
    return {
        number: SpanRecord(
            ledger.ACCEPTED,
            "",
            fingerprint,
            seen,
            compared,
            by_hand=bool(allowed),
            allowed=allowed,
            seal=seal,
        )
    }


def _delivered(examples: Artifact, folder: pathlib.Path) -> tuple[str, str]:
    """Fingerprint and seal of a span's folder if its files are those that were read; else two that no folder has."""
    try:
        seal = arrivals.seal(folder)
        read: dict[str, str] = json.loads(str(examples.properties.get(nodes.FILES, "{}")))
        if read and all(sha256(folder.parent / name) == digest for name, digest in read.items()):
            return arrivals.fingerprint(folder), seal
    except (OSError, ValueError):
        pass  # the files are gone, which stops nothing: what was read then is trained on
    return "", ""


def _training(graph: StoreGraph, run: Run, entry: RunEntry) -> Training | None:
    """The training that a run ended; None of one that did not end, or that a rollback overtook."""
    pushed = graph.written(run.executions.get(nodes.PUSHER), nodes.PUSHED_MODEL)
    if entry.outcome not in _ENDS or any(one.properties.get(nodes.OVERTAKEN) for one in pushed):
        return None
    served = [model for node in run.executions.values() for model in graph.read(node, nodes.BASELINE_MODEL)]
    return Training(
        window=entry.spans,
        new=[],
        warm_start="full" if entry.parent else "never",
        parent=entry.parent.artifact if entry.parent else None,
        parent_version=max(entry.parent.versions, default=None) if entry.parent else None,
        baseline=served[0].id if served else None,
        run_id=run.id,
        outcome=_ENDS[entry.outcome],
        reason=entry.reason,
        version=entry.version,
        accuracy=entry.accuracy,
        started=entry.started or "",
        ended=history.iso(max(one.ended for one in run.executions.values())),
    )


def _note(known: Ledger, training: Training | None) -> None:
    """Adds it; a run that was called again after its end is the same training."""
    if training is None:
        return
    last = known.trainings[-1] if known.trainings else None
    if last is not None and (last.window, last.parent) == (training.window, training.parent):
        known.trainings.pop()
    had = {span for one in known.trainings for span in one.window}
    training.new = [span for span in training.window if span not in had]
    known.trainings.append(training)
