"""Reads one finished run back: executions from MLMD, metrics and the gate's verdict from TFMA."""

import dataclasses
import json
import pathlib
from typing import Any

import ml_metadata as mlmd
import tensorflow_model_analysis as tfma
from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration import metadata

from components import features, metrics
from pipeline import eval_config, pipeline
from trainer.probe.run_fn import RESULT_FILE

_OUTPUT_EVENTS = (metadata_store_pb2.Event.OUTPUT, metadata_store_pb2.Event.DECLARED_OUTPUT)


@dataclasses.dataclass(frozen=True)
class Miss:
    """One threshold that the model did not reach."""

    metric: str
    value: float
    bound: float
    kind: str

    def sentence(self) -> str:
        """Which metric missed which floor by how much."""
        return (
            f"{self.metric} is {self.value:.4f}, below its {self.kind} of {self.bound:.4f} "
            f"by {self.bound - self.value:.4f}"
        )


class RunRecord:
    """The latest run in a metadata store.

    Args:
        database: the MLMD SQLite file.

    Raises:
        ValueError: when the store holds no run.
    """

    def __init__(self, database: pathlib.Path) -> None:
        self._store = mlmd.MetadataStore(metadata.sqlite_metadata_connection_config(str(database)))
        runs = self._store.get_contexts_by_type("pipeline_run")
        if not runs:
            raise ValueError(f"{database} holds no run; run the pipeline first.")
        run = max(runs, key=lambda context: context.create_time_since_epoch)
        self.run_id: str = run.name
        self._executions = {self._node(e): e for e in self._store.get_executions_by_context(run.id)}

    def seconds(self) -> dict[str, float]:
        """Seconds of each node, by id; next to nothing when its cache was used."""
        return {
            node: round((e.last_update_time_since_epoch - e.create_time_since_epoch) / 1000, 1)
            for node, e in sorted(self._executions.items(), key=lambda item: item[1].create_time_since_epoch)
        }

    def output(self, node: str, artifact_type: str) -> metadata_store_pb2.Artifact:
        """The node's output artifact of that type.

        Raises:
            KeyError: when the node did not run or has no such output.
        """
        events = self._store.get_events_by_execution_ids([self._executions[node].id])
        ids = [event.artifact_id for event in events if event.type in _OUTPUT_EVENTS]
        names = {kind.id: kind.name for kind in self._store.get_artifact_types()}
        for artifact in self._store.get_artifacts_by_id(ids):
            if names[artifact.type_id] == artifact_type:
                return artifact
        raise KeyError(f"{node} has no output of type {artifact_type}")

    def accuracy(self, evaluator: str) -> float:
        """TFMA's accuracy over every row of the test split."""
        return self.metrics(evaluator)[eval_config.ACCURACY]

    def metrics(self, evaluator: str) -> dict[str, float]:
        """TFMA's scalar metrics over every row of the test split, by name."""
        result = tfma.load_eval_result(self.output(evaluator, "ModelEvaluation").uri)
        overall = dict(result.slicing_metrics)[()]
        values = overall[""][""]
        return {name: value["doubleValue"] for name, value in values.items() if "doubleValue" in value}

    def blessed(self) -> bool:
        """Whether the Evaluator blessed the model."""
        blessing = self.output(pipeline.EVALUATOR, "ModelBlessing")
        return blessing.custom_properties["blessed"].int_value == 1

    def misses(self) -> list[Miss]:
        """The thresholds that the model did not reach, as TFMA's validation found them."""
        validation = tfma.load_validation_result(self.output(pipeline.EVALUATOR, "ModelEvaluation").uri)
        return [
            _miss(failure, per_slice.slice_key)
            for per_slice in validation.metric_validations_per_slice
            for failure in per_slice.failures
        ]

    def knn_accuracy(self) -> float:
        """Of the probe's kNN classifier on held-out training images."""
        logs = pathlib.Path(self.output(pipeline.LINEAR_PROBE, "ModelRun").uri)
        return float(json.loads((logs / RESULT_FILE).read_text())["knn_accuracy"])

    def pushed(self) -> metadata_store_pb2.Artifact:
        """The PushedModel artifact, with its verdict in custom properties."""
        return self.output(pipeline.PUSHER, "PushedModel")

    def _node(self, execution: metadata_store_pb2.Execution) -> str:
        contexts = self._store.get_contexts_by_execution(execution.id)
        name = next(context.name for context in contexts if context.type == "node")
        return name.rsplit(".", 1)[-1]


def _miss(failure: Any, slice_key: Any) -> Miss:
    """One failure of TFMA's validation; `slice_key` says for which test images."""
    value, threshold = failure.metric_value.double_value.value, failure.metric_threshold
    where = "".join(f" of {_slice_name(part)}" for part in slice_key.single_slice_keys)
    name = failure.metric_key.name
    if name == metrics.CHANGE_UPPER:
        return Miss(
            "the change of accuracy against the blessed model on the same images, at the upper end of its interval,",
            value,
            threshold.change_threshold.absolute.value,
            "floor",
        )
    if failure.metric_key.is_diff:
        return Miss(
            f"the change of {name}{where} against the blessed model",
            value,
            threshold.change_threshold.absolute.value,
            "allowed change",
        )
    return Miss(name + where, value, threshold.value_threshold.lower_bound.value, "floor")


def _slice_name(part: Any) -> str:
    """A class by its name, any other slice by feature and value."""
    if part.column == features.LABEL:
        return features.LABEL_NAMES[part.int64_value]
    return f"{part.column} {part.bytes_value.decode() or part.int64_value or part.float_value}"
