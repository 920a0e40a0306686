"""The whole ML Metadata store of a root as a graph in memory: runs, executions, artifacts, and who read and wrote what.

Nothing of TFX is imported: a question about the past is answered in a second.
"""

import collections
import dataclasses
import json
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import ml_metadata as mlmd
from google.protobuf import json_format
from ml_metadata.proto import metadata_store_pb2 as mlmd_proto

from pipeline import store_file

LIVE, DELETED = "LIVE", "DELETED"
COMPLETE, CACHED, FAILED = "COMPLETE", "CACHED", "FAILED"
# A resolver hands on what others wrote; what it "writes" is not its own.
_WRITES = (mlmd_proto.Event.OUTPUT, mlmd_proto.Event.DECLARED_OUTPUT)
_READS = (mlmd_proto.Event.INPUT, mlmd_proto.Event.DECLARED_INPUT)
_RESULT_PROPERTY = "__execution_result__"  # TFX's own: the message of a node that failed, as JSON


@dataclasses.dataclass(frozen=True)
class Artifact:
    """One artifact.

    Attributes:
        id: in the store.
        type: TFX's name of its type.
        uri: where it lies, or lay.
        state: MLMD's, such as `LIVE` or `DELETED`.
        properties: its own and custom properties by name, as plain values.
    """

    id: int
    type: str
    uri: str
    state: str
    properties: Mapping[str, Any] = dataclasses.field(compare=False)


@dataclasses.dataclass(frozen=True)
class Execution:
    """One node of one run.

    Attributes:
        id: in the store; the last part of its outputs' addresses.
        node: the node's id in the pipeline.
        type: TFX's name of the component.
        state: MLMD's: `COMPLETE`, `CACHED`, `FAILED`, or `RUNNING` for ever when the process died.
        started, ended: milliseconds since the epoch; `ended` is the last change.
        properties: the parameters.
        reads, writes: artifact id -> the names of the channels.
    """

    id: int
    node: str
    type: str
    state: str
    started: int
    ended: int
    properties: Mapping[str, Any]
    reads: Mapping[int, frozenset[str]]
    writes: Mapping[int, frozenset[str]]

    @property
    def failure(self) -> str:
        """Why it failed, in one line, as far as TFX wrote it down: it does so for resolvers, as a stack."""
        return _failure(self.properties)


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of the pipeline.

    Attributes:
        id: TFX's.
        started: milliseconds since the epoch.
        executions: by node, in the order of their start.
    """

    id: str
    started: int
    executions: Mapping[str, Execution]


class StoreGraph:
    """Everything in a store.

    Args:
        database: the MLMD SQLite file; it is only read.

    Raises:
        ValueError: there is no such file.
    """

    def __init__(self, database: pathlib.Path) -> None:
        store = open_store(database, writable=False)
        self.artifacts: dict[int, Artifact] = {a.id: _artifact(a) for a in store.get_artifacts()}
        self.executions = _executions(store)
        self.runs = _runs(store, self.executions)
        self._writers: dict[int, list[Execution]] = collections.defaultdict(list)
        self._readers: dict[int, list[Execution]] = collections.defaultdict(list)
        for execution in self.executions.values():
            for artifact in execution.writes:
                self._writers[artifact].append(execution)
            for artifact in execution.reads:
                self._readers[artifact].append(execution)

    def maker(self, artifact: int) -> Execution | None:
        """The execution that wrote an artifact; later ones only took it from the cache."""
        return min(self._writers.get(artifact, []), key=lambda execution: execution.id, default=None)

    def readers(self, artifact: int, channel: str) -> list[Execution]:
        """The executions that read an artifact under that name, the oldest first."""
        return sorted(
            (e for e in self._readers.get(artifact, []) if channel in e.reads[artifact]), key=lambda e: e.id
        )

    def read(self, execution: Execution | None, channel: str) -> list[Artifact]:
        """What an execution read under that name, the oldest first."""
        return self._of(execution.reads if execution else {}, channel)

    def written(self, execution: Execution | None, channel: str) -> list[Artifact]:
        """What it wrote, or took from the cache, under that name."""
        return self._of(execution.writes if execution else {}, channel)

    def _of(self, events: Mapping[int, frozenset[str]], channel: str) -> list[Artifact]:
        return [self.artifacts[number] for number in sorted(events) if channel in events[number]]


def open_store(database: pathlib.Path, writable: bool) -> Any:
    """Opens the MLMD store of a root.

    Raises:
        ValueError: there is none, for a store that is opened for writing would be made; or it cannot be used.
    """
    if not database.exists():
        raise ValueError(f"There is no {database}; a root has one from its first run on.")
    store_file.check(database)
    if not database.stat().st_size:
        raise ValueError(f"{database} is empty: no run has written to it yet.")
    config = mlmd_proto.ConnectionConfig()
    config.sqlite.filename_uri = str(database)
    modes = mlmd_proto.SqliteMetadataSourceConfig
    config.sqlite.connection_mode = modes.READWRITE if writable else modes.READONLY
    return mlmd.MetadataStore(config)


def mark_deleted(database: pathlib.Path, artifacts: Iterable[int]) -> None:
    """Marks artifacts DELETED, all of them or none: TFX's cache and resolvers pass them over from then on.

    Raises:
        ValueError: there is no store.
    """
    store = open_store(database, writable=True)
    messages = store.get_artifacts_by_id(list(artifacts))
    for message in messages:
        message.state = mlmd_proto.Artifact.DELETED
    store.put_artifacts(messages)


def _artifact(message: mlmd_proto.Artifact) -> Artifact:
    state = mlmd_proto.Artifact.State.Name(message.state)
    return Artifact(message.id, message.type, message.uri, state, _plain(message))


def _executions(store: Any) -> dict[int, Execution]:
    found = store.get_executions()
    nodes = {
        execution.id: context.name.rsplit(".", 1)[-1]
        for context in store.get_contexts_by_type("node")
        for execution in store.get_executions_by_context(context.id)
    }
    reads: dict[int, dict[int, frozenset[str]]] = collections.defaultdict(dict)
    writes: dict[int, dict[int, frozenset[str]]] = collections.defaultdict(dict)
    for event in store.get_events_by_execution_ids([e.id for e in found]) if found else []:
        kind = reads if event.type in _READS else writes if event.type in _WRITES else None
        if kind is not None:
            before = kind[event.execution_id].get(event.artifact_id, frozenset())
            kind[event.execution_id][event.artifact_id] = before | _channels(event.path.steps)
    return {
        e.id: Execution(
            id=e.id,
            node=nodes.get(e.id, e.type),
            type=e.type,
            state=mlmd_proto.Execution.State.Name(e.last_known_state),
            started=e.create_time_since_epoch,
            ended=e.last_update_time_since_epoch,
            properties=_plain(e),
            reads=reads[e.id],
            writes=writes[e.id],
        )
        for e in found
    }


def _runs(store: Any, executions: Mapping[int, Execution]) -> list[Run]:
    """Every run, in the order in which they were begun, which a clock that was set back does not change."""
    runs = []
    for context in sorted(store.get_contexts_by_type("pipeline_run"), key=lambda context: context.id):
        members = sorted(e.id for e in store.get_executions_by_context(context.id))
        by_node = {executions[number].node: executions[number] for number in members}
        runs.append(Run(context.name, context.create_time_since_epoch, by_node))
    return runs


def _channels(steps: Iterable[Any]) -> frozenset[str]:
    """The names in an event's path, which is a row of (name, place in the list); one artifact may have several."""
    return frozenset(step.key for step in steps if step.HasField("key") and step.key)


def failure(execution: mlmd_proto.Execution) -> str:
    """`Execution.failure` of one as the store has it."""
    return _failure(_plain(execution))


def _failure(properties: Mapping[str, Any]) -> str:
    try:
        message = json.loads(properties.get(_RESULT_PROPERTY, "{}")).get("resultMessage", "")
    except (ValueError, AttributeError):
        return ""
    first_cause = re.split(r"\n(?:The above exception|During handling)", str(message))[0]
    lines = [line.strip() for line in first_cause.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _plain(message: Any) -> dict[str, Any]:
    """Properties and custom properties by name."""
    found = {}
    for key, value in [*message.properties.items(), *message.custom_properties.items()]:
        kind = value.WhichOneof("value")
        content = getattr(value, kind) if kind else None
        if content is not None and not isinstance(content, int | float | str):
            content = json_format.MessageToDict(content)
        found[key] = content
    return found
