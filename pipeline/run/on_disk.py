"""What a node wrote is on the disk before ML Metadata says that it is complete.

ML Metadata's own file is synced, what executors write is not. After a power cut TFX would find complete executions
whose outputs are empty files, and take them from its cache for ever. So every local executor is followed by a sync, and
notes on each artifact how much there is; what holds less, when the next run begins, is taken out of the store, and
TFX makes it again.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Iterator

from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration.portable import (
    beam_executor_operator,
    data_types,
    launcher,
    python_executor_operator,
)
from tfx.proto.orchestration import executable_spec_pb2, execution_result_pb2

from components import staging
from pipeline.past import store_graph
from pipeline.root import Root

SIZE_PROPERTY = "on_disk"
# ROOT/tfx/NODE/OUTPUT/EXECUTION: TFX makes the upper ones with the first artifact in them.
_PARENTS = 4
# Files that are right when they are empty, in artifacts from before sizes were noted: a blessing is a file's name, and
# the Evaluator writes what nobody asked for as files without a record.
_RIGHTLY_EMPTY = re.compile(r"(INFRA_)?(NOT_)?BLESSED|(attributions|plots)(-\d+-of-\d+)?(\.tfrecord)?")


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is in a folder.

    Attributes:
        files: how many, in all folders below.
        bytes: of all of them.
    """

    files: int
    bytes: int

    @classmethod
    def of(cls, folder: pathlib.Path) -> "Size":
        """Of the folder as it is now; nothing where there is none."""
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
        return cls(len(sizes), sum(sizes))

    def holds(self, other: "Size") -> bool:
        """Whether no file and no byte of `other` is missing."""
        return self.files >= other.files and self.bytes >= other.bytes


class PythonOperator(python_executor_operator.PythonExecutorOperator):
    """Runs an executor, and returns when what it wrote is on the disk."""

    def run_executor(self, execution_info: data_types.ExecutionInfo) -> execution_result_pb2.ExecutorOutput:
        """As TFX's own; an OSError of the disk fails the node."""
        return _synced(super().run_executor(execution_info))


class BeamOperator(beam_executor_operator.BeamExecutorOperator):
    """The same for an executor that runs Beam."""

    def run_executor(
        self, execution_info: data_types.ExecutionInfo, *arguments: object
    ) -> execution_result_pb2.ExecutorOutput:
        """As TFX's own; an OSError of the disk fails the node."""
        return _synced(super().run_executor(execution_info, *arguments))


@contextlib.contextmanager
def outputs_before_complete() -> Iterator[None]:
    """Within the block TFX's local runner uses the operators above.

    The runner hands none to its launchers; the table that they take them from is public, and put back afterwards.
    """
    table = launcher.DEFAULT_EXECUTOR_OPERATORS
    before = dict(table)
    table[executable_spec_pb2.PythonClassExecutableSpec] = PythonOperator
    table[executable_spec_pb2.BeamExecutableSpec] = BeamOperator
    try:
        yield
    finally:
        table.update(before)


def forget_what_a_cut_took(root: Root) -> list[str]:
    """Takes artifacts that hold less than was written out of the store, with all outputs of the same execution.

    They are marked DELETED, in one transaction: TFX's cache and resolvers pass them over, `prune` removes the files.

    Returns:
        The nodes whose outputs these were, by name; they run again where they are needed.
    """
    if not root.metadata.exists() or not root.metadata.stat().st_size:
        return []
    graph = store_graph.StoreGraph(root.metadata)
    base = root.artifacts.resolve()
    damaged = {
        one.id
        for one in graph.artifacts.values()
        if one.state == store_graph.LIVE
        and pathlib.Path(one.uri).resolve().is_relative_to(base)
        and _lost_something(pathlib.Path(one.uri), one.properties.get(SIZE_PROPERTY))
    }
    if not damaged:
        return []
    makers = [execution for execution in graph.executions.values() if damaged & execution.writes.keys()]
    store_graph.mark_deleted(root.metadata, sorted(damaged.union(*(maker.writes for maker in makers))))
    return sorted({maker.node for maker in makers})


def _synced(output: execution_result_pb2.ExecutorOutput) -> execution_result_pb2.ExecutorOutput:
    """Puts every output on the disk, and notes its size on it."""
    for artifacts in output.output_artifacts.values():
        for artifact in artifacts.artifacts:
            folder = pathlib.Path(artifact.uri)
            if not folder.is_dir():  # a file, or on a store that is not this machine's
                continue
            staging.sync_tree(folder)
            for parent in folder.parents[:_PARENTS]:
                staging.sync_folder(parent)
            note = json.dumps(dataclasses.asdict(Size.of(folder)))
            artifact.custom_properties[SIZE_PROPERTY].CopyFrom(metadata_store_pb2.Value(string_value=note))
    return output


def _lost_something(folder: pathlib.Path, note: object) -> bool:
    if not folder.exists():
        return False  # TFX's cache looks for that by itself, and a resolver's reader says which one it is
    if isinstance(note, str) and note:
        return not Size.of(folder).holds(Size(**json.loads(note)))
    return any(
        os.stat(path).st_size == 0 and not _RIGHTLY_EMPTY.fullmatch(path.name)
        for path in folder.rglob("*")
        if path.is_file()
    )
