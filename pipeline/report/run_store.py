"""One finished run in ML Metadata: its artifacts, their makers, and what each node was told."""

import dataclasses
import pathlib
from typing import Any

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2 as mlmd_proto

from pipeline import store_file

_OUTPUTS = (mlmd_proto.Event.OUTPUT, mlmd_proto.Event.DECLARED_OUTPUT)
_INPUTS = (mlmd_proto.Event.INPUT, mlmd_proto.Event.DECLARED_INPUT)


@dataclasses.dataclass(frozen=True)
class StoredArtifact:
    """An artifact as a node wrote it.

    Attributes:
        node: its maker in this run.
        id: in the store.
        type: TFX's name of its type.
        uri: where it lies.
        key: the name of the output.
        message: the record itself.
    """

    node: str
    id: int
    type: str
    uri: str
    key: str
    message: mlmd_proto.Artifact


class StoredRun:
    """A run by its id.

    Args:
        database: the MLMD SQLite file.
        run_id: TFX's id of the run.

    Raises:
        ValueError: when the store has no such run, or cannot be used.
    """

    def __init__(self, database: pathlib.Path, run_id: str) -> None:
        store_file.check(database)
        # Without TFX, whose import takes longer than all that is read here.
        config = mlmd_proto.ConnectionConfig()
        config.sqlite.filename_uri = str(database)
        config.sqlite.connection_mode = mlmd_proto.SqliteMetadataSourceConfig.READWRITE
        self._store = mlmd.MetadataStore(config)
        run = self._store.get_context_by_type_and_name("pipeline_run", run_id)
        if run is None:
            known = ", ".join(c.name for c in self._store.get_contexts_by_type("pipeline_run")) or "none"
            raise ValueError(f"{database} has no run {run_id}. Runs there: {known}.")
        self.run_id = run_id
        self._types = {kind.id: kind.name for kind in self._store.get_artifact_types()}
        self._executions = {self._node(e): e for e in self._store.get_executions_by_context(run.id)}

    @property
    def nodes(self) -> list[str]:
        """The nodes that ran or were taken from the cache, in their order."""
        return sorted(self._executions, key=lambda node: self._executions[node].create_time_since_epoch)

    def outputs(self, node: str) -> list[StoredArtifact]:
        """Everything that the node wrote; nothing for a node that did not run."""
        return self._artifacts(node, _OUTPUTS)

    def inputs(self, node: str) -> list[StoredArtifact]:
        """Everything that the node read."""
        return self._artifacts(node, _INPUTS)

    def output(self, node: str, artifact_type: str) -> StoredArtifact:
        """The node's output of that type.

        Raises:
            KeyError: when there is none.
        """
        for artifact in self.outputs(node):
            if artifact.type == artifact_type:
                return artifact
        raise KeyError(f"{node} has no output of type {artifact_type}")

    @property
    def pruned(self) -> list[str]:
        """The nodes of which files are no longer there."""
        deleted = mlmd_proto.Artifact.DELETED
        return [node for node in self.nodes if any(a.message.state == deleted for a in self.outputs(node))]

    def told(self, node: str, parameter: str) -> Any:
        """A parameter of a node; None when it had none of that name."""
        properties = self._executions[node].custom_properties
        if parameter not in properties:
            return None
        return getattr(properties[parameter], str(properties[parameter].WhichOneof("value")))

    def _artifacts(self, node: str, kinds: tuple[int, ...]) -> list[StoredArtifact]:
        if node not in self._executions:
            return []
        events = self._store.get_events_by_execution_ids([self._executions[node].id])
        keys = {event.artifact_id: _key(event) for event in events if event.type in kinds}
        return [
            StoredArtifact(node, found.id, self._types[found.type_id], found.uri, keys[found.id], found)
            for found in self._store.get_artifacts_by_id(sorted(keys))
        ]

    def _node(self, execution: mlmd_proto.Execution) -> str:
        contexts = self._store.get_contexts_by_execution(execution.id)
        name: str = next(context.name for context in contexts if context.type == "node")
        return name.rsplit(".", 1)[-1]


def _key(event: mlmd_proto.Event) -> str:
    """The name of the channel that an event is about."""
    return next((step.key for step in event.path.steps if step.HasField("key")), "")
