"""Reads one finished run back: executions from MLMD, metrics from TFMA, and the verdict."""

import json
import pathlib
from collections.abc import Iterable
from typing import Any

from ml_metadata.proto import metadata_store_pb2

from components.gate.verdict import JSON_FILE, Evaluation
from pipeline import eval_config, pipeline
from pipeline.past import store_graph
from trainer.probe.run_fn import RESULT_FILE

# Clocks are corrected by less than this all the time.
_DONE = (metadata_store_pb2.Execution.COMPLETE, metadata_store_pb2.Execution.CACHED)
_OUTPUT_EVENTS = (metadata_store_pb2.Event.OUTPUT, metadata_store_pb2.Event.DECLARED_OUTPUT)


class RunRecord:
    """The latest run in a metadata store.

    Args:
        database: the MLMD SQLite file.

    Raises:
        ValueError: when the store holds no run.
    """

    def __init__(self, database: pathlib.Path) -> None:
        self._store = store_graph.open_store(database, writable=True)
        runs = self._store.get_contexts_by_type("pipeline_run")
        if not runs:
            raise ValueError(f"{database} holds no run; run the pipeline first.")
        run = max(runs, key=lambda context: context.id)  # not by time: clocks jump
        self.run_id: str = run.name
        self._executions = {self._node(e): e for e in self._store.get_executions_by_context(run.id)}

    def not_done(self, nodes: Iterable[str]) -> dict[str, str]:
        """The first nodes that should have run and did not, each with the reason as far as TFX wrote it down.

        TFX's local runner goes on after a resolver that fails, skips every node whose inputs are missing, and reports
        success: a gate that was skipped would have let everything pass.
        """
        return {
            node: _failure(self._executions[node]) if node in self._executions else "it was not run"
            for node in nodes
            if node not in self._executions or self._executions[node].last_known_state not in _DONE
        }

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

    def accuracy(self) -> float | None:
        """TFMA's accuracy of the exported model over every row of the test split; None where nothing was judged."""
        if pipeline.EVALUATOR not in self._executions:
            return None
        return Evaluation(self.output(pipeline.EVALUATOR, "ModelEvaluation").uri).metrics[()][
            eval_config.ACCURACY
        ]

    def random_encoder_accuracy(self) -> float | None:
        """The same of the probe on the untrained encoder."""
        if pipeline.RANDOM_EVALUATOR not in self._executions:
            return None
        evaluation = Evaluation(self.output(pipeline.RANDOM_EVALUATOR, "ModelEvaluation").uri)
        return evaluation.baseline_metrics[()][eval_config.ACCURACY]

    def verdict(self) -> dict[str, Any]:
        """What `components.gate.verdict` decided, and on what."""
        folder = pathlib.Path(self.output(pipeline.VERDICT, "ModelEvaluation").uri)
        return json.loads((folder / JSON_FILE).read_text(encoding="utf-8"))

    def knn_accuracy(self) -> float | None:
        """Of the probe's kNN classifier on held-out training images; None where nothing was probed."""
        logs = pathlib.Path(self.output(pipeline.LINEAR_PROBE, "ModelRun").uri)
        found = json.loads((logs / RESULT_FILE).read_text())["knn_accuracy"]
        return None if found is None else float(found)

    def pushed(self) -> metadata_store_pb2.Artifact:
        """The PushedModel artifact, with its verdict in custom properties."""
        return self.output(pipeline.PUSHER, "PushedModel")

    def _node(self, execution: metadata_store_pb2.Execution) -> str:
        contexts = self._store.get_contexts_by_execution(execution.id)
        name = next(context.name for context in contexts if context.type == "node")
        return name.rsplit(".", 1)[-1]


def _failure(execution: metadata_store_pb2.Execution) -> str:
    return store_graph.failure(execution) or "its inputs were not found in the metadata store"
