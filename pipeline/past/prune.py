"""Bounds the disk that a root takes: removes what old runs left, and nothing that is needed or asked for again.

An artifact is marked DELETED in ML Metadata first, all of them in one transaction; from then on TFX's cache and
resolvers pass it over. Then every folder is removed that no LIVE artifact lies in. So whatever ends the process, the
next call completes it, and what a crashed execution left goes with it.
"""

import collections
import dataclasses
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping

from components.serving import candidates, serving_folder
from components.staging import copy_of
from pipeline import nodes
from pipeline.past import lineage, store_graph
from pipeline.past.store_graph import Artifact, Execution, Run, StoreGraph
from pipeline.root import Root
from pipeline.spans import ledger
from pipeline.spans.ledger import Ledger

# What a node only compares with. Following it would keep every span and every model there ever was.
_COMPARED = {nodes.EARLIER_EXAMPLES, nodes.BASELINE_MODEL}
_SUMMARY_FILE = "summary.json"
_SYSTEM = ".system"


@dataclasses.dataclass(frozen=True)
class PrunePolicy:
    """What stays besides what must.

    Attributes:
        keep_runs: so many of the newest runs that trained stay whole, finished or not; and so many of those that only
            looked at data.
        keep_spans: Examples of so many of the highest spans stay, for the rolling window and for the AnomalyGate to
            compare with. Spans that `byol retrain` did not accept do not count.
    """

    keep_runs: int = 5
    keep_spans: int = 8

    def __post_init__(self) -> None:
        for name in ("keep_runs", "keep_spans"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1; received {getattr(self, name)}.")


@dataclasses.dataclass(frozen=True)
class Pruned:
    """What `prune` did, or would do.

    Attributes:
        artifacts: ids of those that were marked DELETED now.
        removed: folders and files that are gone, each with the bytes that it took.
        kept: the reason -> how many LIVE artifacts stay for it; one counts for each of its reasons.
        elsewhere: LIVE artifacts that lie outside of the root, which are left alone.
    """

    artifacts: list[int]
    removed: Mapping[pathlib.Path, int]
    kept: Mapping[str, int]
    elsewhere: int

    @property
    def bytes(self) -> int:
        """How much was freed."""
        return sum(self.removed.values())


@dataclasses.dataclass(frozen=True)
class _Plan:
    graph: StoreGraph
    reasons: Mapping[int, list[str]]
    marked: list[int]
    kept_runs: list[Run]
    versions: list[serving_folder.Version]


def prune(root: Root, policy: PrunePolicy | None = None, dry_run: bool = False) -> Pruned:
    """Removes what nothing needs.

    The caller holds `Root.locked()`: a run that is at work writes folders that are no artifact yet.

    Args:
        root: of the runs.
        policy: how much of the past stays.
        dry_run: says what would be done, and changes nothing.

    Raises:
        ValueError: the root has no metadata store, or one without a run: then nothing is known of its files.
        OSError: something cannot be removed.
    """
    plan = _plan(root, policy or PrunePolicy())
    if plan.marked and not dry_run:
        store_graph.mark_deleted(root.metadata, plan.marked)
    removed = {path: _bytes(path) for path in _unneeded(root, plan)}
    for path in removed if not dry_run else ():
        _remove(path)
    counts = collections.Counter(reason for number in plan.reasons for reason in plan.reasons[number])
    return Pruned(plan.marked, removed, dict(sorted(counts.items())), len(_elsewhere(root, plan.graph)))


def reasons_to_keep(graph: StoreGraph, root: Root, policy: PrunePolicy) -> dict[int, list[str]]:
    """Why each artifact that stays does so: artifact id -> reasons.

    Raises:
        ValueError: a `serving.json` is not readable as one.
    """
    reasons: dict[int, list[str]] = collections.defaultdict(list)
    for reason, artifacts in _needs(graph, root, policy):
        for number in sorted({one.id for one in artifacts}):
            if graph.artifacts[number].state == store_graph.LIVE:
                reasons[number].append(reason)
    return dict(reasons)


def _needs(graph: StoreGraph, root: Root, policy: PrunePolicy) -> Iterator[tuple[str, set[Artifact]]]:
    for version in serving_folder.versions(root.serving):
        pushed = lineage.pushed_artifacts(graph, {version.number, version.origin})
        inputs = lineage.recorded_inputs(graph, version)
        name = f"lineage of version {version.number}{', which is served' if version.served else ''}"
        yield name, _with_ancestors(graph, [*pushed, *inputs])
    for candidate in _candidates(root):
        name = f"lineage of candidate {candidate.path.name}"
        yield name, _with_ancestors(graph, lineage.recorded_inputs(graph, candidate))
    yield "latest blessed model", _with_ancestors(graph, _latest_blessed(graph))
    known = Ledger.load(root.ledger)
    stored = _newest_of_spans(graph)
    for span in _accepted(stored, known)[-policy.keep_spans :]:
        yield f"span {span}", {stored[span]}
    training = known.unfinished()
    if training:
        spans = {stored[span] for span in training.window if span in stored}
        models = [
            graph.artifacts[number]
            for number in (training.parent, training.baseline)
            if number in graph.artifacts
        ]
        yield "unfinished retraining", spans | _with_ancestors(graph, models)
    for run in kept_runs(graph, policy):
        yield f"run {run.id}", {one for e in run.executions.values() for one in _touched(graph, e)}


def kept_runs(graph: StoreGraph, policy: PrunePolicy) -> list[Run]:
    """The newest runs of both kinds, the oldest first."""
    trained = [run for run in graph.runs if nodes.TRANSFORM in run.executions]
    looked = [run for run in graph.runs if nodes.TRANSFORM not in run.executions]
    chosen = {run.id for run in [*trained[-policy.keep_runs :], *looked[-policy.keep_runs :]]}
    return [run for run in graph.runs if run.id in chosen]


def _accepted(spans: Iterable[int], known: Ledger) -> list[int]:
    """The spans that may be trained on, ascending; one that the ledger does not know came by `byol run`."""
    return sorted(
        span for span in spans if span not in known.spans or known.spans[span].state == ledger.ACCEPTED
    )


def _with_ancestors(graph: StoreGraph, seeds: Iterable[Artifact]) -> set[Artifact]:
    """The artifacts and all that they were made of, back to the data; of warm-start parents the first alone."""
    found: set[Artifact] = set()
    open_ones = list(seeds)
    while open_ones:
        one = open_ones.pop()
        if one in found:
            continue
        found.add(one)
        maker = graph.maker(one.id)
        if maker is None:
            continue
        # An execution's outputs stay together: one of them missing, and TFX's cache has none of them.
        found |= {graph.artifacts[number] for number in maker.writes}
        sources = _sources(graph, maker)
        is_warm_start = maker.node == nodes.PRETRAINER
        parents = [source for source, channels in sources if is_warm_start and nodes.BASE_MODEL in channels]
        found |= {sibling for parent in parents for sibling in _siblings(graph, parent)}
        open_ones += [source for source, _ in sources if source not in parents]
    return found


def _sources(graph: StoreGraph, execution: Execution) -> list[tuple[Artifact, frozenset[str]]]:
    """What an execution was made from, without what it only compared with."""
    return [
        (graph.artifacts[number], channels)
        for number, channels in execution.reads.items()
        if not channels <= _COMPARED
    ]


def _siblings(graph: StoreGraph, artifact: Artifact) -> list[Artifact]:
    maker = graph.maker(artifact.id)
    return [graph.artifacts[number] for number in maker.writes] if maker else [artifact]


def _touched(graph: StoreGraph, execution: Execution) -> list[Artifact]:
    """Everything that an execution wrote, took from the cache, or was made from."""
    return [
        *(graph.artifacts[number] for number in execution.writes),
        *(source for source, _ in _sources(graph, execution)),
    ]


def _latest_blessed(graph: StoreGraph) -> list[Artifact]:
    """The model and the blessing that TFX's LatestBlessedModelStrategy finds: the newest model with one."""
    blessings = {
        one.properties.get(nodes.CURRENT_MODEL_ID): one
        for one in _live_outputs(graph, nodes.VERDICT, nodes.BLESSING)
        if one.properties.get(nodes.BLESSED) == 1
    }
    for model in reversed(_live_outputs(graph, nodes.LINEAR_PROBE, nodes.MODEL)):
        if model.id in blessings:
            return [model, blessings[model.id]]
    return []


def _live_outputs(graph: StoreGraph, node: str, channel: str) -> list[Artifact]:
    """A node's own LIVE outputs in the whole store, the oldest first."""
    numbers = {
        a for e in graph.executions.values() if e.node == node for a in e.writes if channel in e.writes[a]
    }
    return [graph.artifacts[n] for n in sorted(numbers) if graph.artifacts[n].state == store_graph.LIVE]


def _newest_of_spans(graph: StoreGraph) -> dict[int, Artifact]:
    """The newest LIVE Examples of each span; a span that was read again has older ones."""
    return {
        int(one.properties[nodes.SPAN]): one
        for one in _live_outputs(graph, nodes.EXAMPLE_GEN, nodes.EXAMPLES)
        if nodes.SPAN in one.properties
    }


def _plan(root: Root, policy: PrunePolicy) -> _Plan:
    graph = StoreGraph(root.metadata)
    if not graph.runs:
        raise ValueError(f"{root.metadata} holds no run, so nothing is known of the files in {root.path}.")
    reasons = reasons_to_keep(graph, root, policy)
    elsewhere = _elsewhere(root, graph)
    marked = [
        one.id
        for one in graph.artifacts.values()
        if one.state == store_graph.LIVE and one.id not in reasons and one.id not in elsewhere
    ]
    present = serving_folder.versions(root.serving)
    for version in present:
        if version.fault:  # it alone knows which of the artifacts the version is of
            raise ValueError(version.fault)
    return _Plan(graph, reasons, marked, kept_runs(graph, policy), [*present, *_candidates(root)])


def _candidates(root: Root) -> list[serving_folder.Version]:
    """The candidate that waits for approval, as the version that it may become."""
    found = candidates.waiting(root.serving)
    return [] if found is None else [serving_folder.Version(0, found.path, False, True, found.record)]


def _elsewhere(root: Root, graph: StoreGraph) -> set[int]:
    """LIVE artifacts whose address is not below the root: imported ones, or all of them in a root that was moved."""
    base = root.artifacts.resolve()
    return {
        one.id
        for one in graph.artifacts.values()
        if one.state == store_graph.LIVE and not pathlib.Path(one.uri).resolve().is_relative_to(base)
    }


def _unneeded(root: Root, plan: _Plan) -> Iterator[pathlib.Path]:
    yield from _artifact_folders(root, plan)
    yield from _run_files(root, plan)
    yield from _old_logs(root, plan)
    yield from _stale_checkpoints(root, plan)


def _artifact_folders(root: Root, plan: _Plan) -> Iterator[pathlib.Path]:
    """Folders `tfx/NODE/OUTPUT/EXECUTION` without a LIVE artifact, and TFX's own notes on old executions.

    A folder is known by its last three names, so that nothing is lost in a root that was moved.
    """
    needed = _needed_names(plan)
    recent = {str(e.id) for run in plan.kept_runs for e in run.executions.values()}
    for node in _folders(root.artifacts):
        for output in _folders(node):
            if output.name == _SYSTEM:
                yield from (
                    note for kind in _folders(output) for note in _folders(kind) if note.name not in recent
                )
            else:
                yield from (
                    folder
                    for folder in _folders(output)
                    if folder.name.isdecimal() and (node.name, output.name, folder.name) not in needed
                )


def _needed_names(plan: _Plan) -> set[tuple[str, ...]]:
    """Every three names in a row of the addresses of what stays, and of what a version says that it came from."""
    marked = set(plan.marked)
    uris = [
        one.uri
        for one in plan.graph.artifacts.values()
        if one.state == store_graph.LIVE and one.id not in marked
    ]
    for version in plan.versions:
        inputs = version.record.get("lineage", {}).get("inputs", {})
        uris += [str(one.get("uri", "")) for ones in inputs.values() for one in ones]
    parts = [pathlib.PurePath(uri).parts for uri in uris]
    return {names[i : i + 3] for names in parts for i in range(len(names) - 2)}


def _run_files(root: Root, plan: _Plan) -> Iterator[pathlib.Path]:
    """Reports of old runs; those of runs whose version is still there explain it, and every summary stays."""
    kept = {run.id for run in plan.kept_runs}
    kept |= {version.record.get("lineage", {}).get("run_id") for version in plan.versions}
    kept_names = (_SUMMARY_FILE, copy_of(pathlib.Path(_SUMMARY_FILE)).name)
    for run in plan.graph.runs:
        folder = root.summary(run.id).parent
        if run.id not in kept and folder.is_dir():
            yield from (path for path in sorted(folder.iterdir()) if path.name not in kept_names)


def _old_logs(root: Root, plan: _Plan) -> list[pathlib.Path]:
    """Logs from before the kept runs; as many of the newest stay in any case, should the clock have been set back."""
    oldest = min(run.started for run in plan.kept_runs) / 1000
    logs = sorted(root.logs.glob("*.log"), key=_changed)
    return [log for log in logs[: -len(plan.kept_runs)] if _changed(log) < oldest]


def _stale_checkpoints(root: Root, plan: _Plan) -> list[pathlib.Path]:
    """All when the last pretraining finished; else a few of the newest stay, for the same command to go on from."""
    attempts = [e for e in plan.graph.executions.values() if e.node == nodes.PRETRAINER]
    last = max(attempts, key=lambda execution: execution.id, default=None)
    finished = last is not None and last.state in (store_graph.COMPLETE, store_graph.CACHED)
    folders = sorted(_folders(root.checkpoints), key=_changed)
    return folders if finished else folders[: -len(plan.kept_runs)]


def _folders(parent: pathlib.Path) -> list[pathlib.Path]:
    """Its folders; links are not followed, so that nothing outside is ever reached."""
    if not parent.is_dir() or parent.is_symlink():
        return []
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.is_symlink())


def _changed(path: pathlib.Path) -> float:
    """When it, or what is in it, was last written: seconds since the epoch."""
    return max(one.lstat().st_mtime for one in [path, *path.rglob("*")])


def _bytes(path: pathlib.Path) -> int:
    return sum(
        one.lstat().st_size for one in [path, *path.rglob("*")] if not one.is_dir() or one.is_symlink()
    )


def _remove(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
