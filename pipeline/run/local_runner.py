"""One run on this machine: TFX's LocalDagRunner over a root folder, and the summary it leaves."""

import dataclasses
import json
import time

from rich.console import Console
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.pipeline import Pipeline, RunOptions

from components.data.anomaly_gate import DataAnomalyError
from components.data.dataset import CIFAR10, DataSet
from components.data.schema import schema_text
from components.gate import misses
from components.serving import candidates, serving_folder
from components.serving.pusher import CANDIDATE_PROPERTY, OVERTAKEN_PROPERTY
from components.staging import write_atomically, write_twice
from pipeline import console as console_lines
from pipeline import mounts, pipeline, store_file
from pipeline import nodes as node_names
from pipeline.beam import beam_args
from pipeline.config import PipelineConfig
from pipeline.report.write import track_after_run, write_after_run
from pipeline.root import Records, Root
from pipeline.run import beam_package, on_disk, parentage, progress
from pipeline.run.bindings import Earlier, bindings
from pipeline.run.run_record import RunRecord


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a run came to; written as `summary.json`.

    Attributes:
        run_id: TFX's id of the run.
        preset: its name.
        data: folder of the record files.
        linear_accuracy: TFMA's accuracy of the probe on every test image; this and the next two are None where nothing
            is labelled.
        random_encoder_linear_accuracy: the same for the same probe on an untrained encoder.
        knn_accuracy: of kNN on held-out training images.
        blessed: the gate's verdict.
        pushed_version, pushed_path: what is served now by this run; None when nothing was pushed.
        not_pushed_because: the reason, one sentence; None when the model was pushed.
        missed: what the gate asked and did not get; empty when it blessed the model.
        still_served: the version that is served although this run pushed none; None when there is none.
        seconds: from the start of the command, the loading of TFX included, until this was written.
        components: seconds of each node.
        overtaken: whether it was not pushed because of a rollback meanwhile.
        candidate: the name under which it waits for a person's approval; None when it does not.
    """

    run_id: str
    preset: str
    data: str
    linear_accuracy: float | None
    random_encoder_linear_accuracy: float | None
    knn_accuracy: float | None
    blessed: bool
    pushed_version: int | None
    pushed_path: str | None
    not_pushed_because: str | None
    seconds: float
    components: dict[str, float]
    overtaken: bool = False
    missed: tuple[misses.Miss, ...] = ()
    still_served: int | None = None
    candidate: str | None = None


def run(
    config: PipelineConfig,
    preset: str,
    records: Records,
    root: Root,
    console: Console,
    earlier: Earlier | None = None,
    started: float | None = None,
) -> Summary:
    """Runs the pipeline once and writes its summary.

    Args:
        config: what to train and what it must reach.
        preset: the preset's name, for the record.
        records: the record files, checked already.
        root: prepared and locked by the caller.
        console: where progress is printed.
        earlier: what it takes from earlier runs; by default the served model to compare with, and no more.
        started: `time.monotonic` when the command began, from which its seconds are counted; now if left out.

    Raises:
        NodeFailedError: when a node fails or is skipped; what it names is the cause, not the stack.
        ValueError: when the served version was not made in this root, or the clock was set back.
    """
    started = time.monotonic() if started is None else started
    built = _build(config, records, root, earlier or Earlier(served_model=_served_model(root)))
    _follow(built, [node.id for node in built.components], preset, root, console)
    record = RunRecord(root.metadata)
    summary = summarize(
        record, preset, str(records.folder), time.monotonic() - started, _served_version(root)
    )
    text = json.dumps(dataclasses.asdict(summary), indent=2) + "\n"
    write_twice(root.summary(summary.run_id), text)
    root.latest_report.unlink(missing_ok=True)  # an earlier run's must not stand beside this one's summary
    write_twice(root.latest_summary, text)
    write_after_run(root, summary.run_id, console)
    track_after_run(root, summary.run_id, console)
    return summary


def summarize(
    record: RunRecord, preset: str, data: str, seconds: float, served: int | None = None
) -> Summary:
    """Collects what a finished run came to from its record; `served` is the version that is served after it."""
    pushed = record.pushed().custom_properties
    is_pushed = pushed["pushed"].int_value == 1
    verdict = record.verdict()
    reason = verdict["reason"] or pushed["not_pushed_reason"].string_value or "the Pusher gave no reason"
    return Summary(
        run_id=record.run_id,
        preset=preset,
        data=data,
        linear_accuracy=record.accuracy(),
        random_encoder_linear_accuracy=record.random_encoder_accuracy(),
        knn_accuracy=record.knn_accuracy(),
        blessed=verdict["blessed"],
        pushed_version=int(pushed["pushed_version"].string_value) if is_pushed else None,
        pushed_path=pushed["pushed_destination"].string_value if is_pushed else None,
        not_pushed_because=None if is_pushed else reason,
        seconds=round(seconds, 1),
        components=record.seconds(),
        overtaken=pushed[OVERTAKEN_PROPERTY].int_value == 1,
        missed=tuple(misses.misses(verdict["criteria"])),
        still_served=None if is_pushed else served,
        candidate=pushed[CANDIDATE_PROPERTY].string_value or None,
    )


def look_at(
    config: PipelineConfig, preset: str, records: Records, root: Root, console: Console, earlier: Earlier
) -> None:
    """Runs the nodes that look at the data, and none that trains; a later `run` takes them from the cache.

    Raises:
        DataRefusedError: AnomalyGate or LabelCheck found that the data is not fit to train on.
        NodeFailedError: a node failed otherwise, one of these two included.
    """
    built = _build(config, records, root, earlier)
    nodes = [node.id for node in built.components]
    nodes = nodes[: nodes.index(pipeline.LABEL_CHECK) + 1]
    _follow(built, nodes, preset, root, console, RunOptions(to_nodes=list(node_names.DATA_GATES)))


def _served_version(root: Root) -> int | None:
    return next((v.number for v in serving_folder.versions(root.serving) if v.served), None)


def _served_model(root: Root) -> int | None:
    served = parentage.of_served(root.serving, root.metadata)
    return served.model if served else None


def _build(config: PipelineConfig, records: Records, root: Root, earlier: Earlier) -> Pipeline:
    data_set = records.data_set or CIFAR10
    return pipeline.create_pipeline(
        config,
        pipeline.Locations(
            schema=_schema(root, data_set),
            data_set=data_set,
            newest_labelled=records.test_labelled,
            data=str(records.input_base),
            span=records.span,
            test=str(records.test) if records.test else None,
            pipeline_root=str(root.artifacts),
            metadata=str(root.metadata),
            checkpoints=str(root.checkpoints),
            serving=str(root.serving),
            served=_pushes(root),
        ),
        beam_args(config.beam),
        bindings(earlier),
    )


def _pushes(root: Root) -> tuple[str, ...]:
    """What became of every push so far: the versions, the candidate and the decisions on earlier ones."""
    candidate = candidates.waiting(root.serving)
    return (
        *(f"{v.number}:{v.digest}" for v in serving_folder.versions(root.serving)),
        *([f"candidate:{candidate.name}"] if candidate else []),
        *(
            f"{decision.name}:{decision.decision}:{decision.at}"
            for decision in candidates.decisions(root.serving)
        ),
    )


def _schema(root: Root, data_set: DataSet) -> str:
    """The reviewed schema for CIFAR-10; for another data set the same with its labels, written into the root."""
    if data_set == CIFAR10:
        return pipeline.SCHEMA_FILE
    write_atomically(root.schema, schema_text(data_set))
    return str(root.schema)


def _follow(
    built: Pipeline,
    nodes: list[str],
    preset: str,
    root: Root,
    console: Console,
    options: RunOptions | None = None,
) -> None:
    store_file.check_clock(root.metadata)
    if warning := mounts.warning(root.metadata):
        console.print(warning, highlight=False)
    for node in on_disk.forget_what_a_cut_took(root):
        console.print(f"{node} runs again: files that it wrote are gone or cut short.", highlight=False)
    with progress.followed(console, nodes, progress.expected_seconds(root, preset)) as follower:
        try:
            with on_disk.outputs_before_complete(), beam_package.packed_in(root.beam_package):
                LocalDagRunner().run(built, options)
        except Exception as error:
            # The boundary between TFX and a person: whatever a node raised becomes one line that names the node.
            kind = console_lines.DataRefusedError if objects(error) else console_lines.NodeFailedError
            raise kind(follower.running or "The runner", console_lines.cause(error)) from error
    for node, reason in RunRecord(root.metadata).not_done(nodes).items():
        raise console_lines.NodeSkippedError(node, reason)


def objects(error: BaseException) -> bool:
    """Whether a gate objects to the data, somewhere in a chain of exceptions; a gate may also break down."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, DataAnomalyError):
        found = found.__cause__ or found.__context__
    return found is not None
