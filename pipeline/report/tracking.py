"""Hands finished runs to MLflow, by its own client, where MLFLOW_TRACKING_URI says so. Nothing heavy is imported.

The client reads its address, its credentials and the experiment's name from MLflow's own variables.
"""

import contextlib
import dataclasses
import math
import os
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

ADDRESS, EXPERIMENT = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"
DEFAULT_EXPERIMENT = "byol-tfx"
MODEL_FOLDER = "model"
# A server that is gone must not hold a finished run up: MLflow's own defaults are minutes.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
_METRICS_AT_ONCE, _PARAMS_AT_ONCE = 500, 100  # of MLflow's REST API: 1,000 and 100 in one call
_LONGEST_VALUE = 500  # characters of a parameter that every release of MLflow takes


class NotInstalledError(RuntimeError):
    """The address of a server is given, and there is no client to speak to it."""


@dataclasses.dataclass(frozen=True)
class TrackedRun:
    """What is logged of a run.

    Attributes:
        run_id: TFX's; the name of the run in MLflow.
        tags: short facts by name.
        params: every setting by its dotted name.
        metrics: what the run came to.
        epochs: columns of pretraining's history, a value an epoch, counted from 1.
        files: documents, which lie side by side in MLflow.
        model: folder of the SavedModel.
    """

    run_id: str
    tags: Mapping[str, str]
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    epochs: Mapping[str, Sequence[float]]
    files: Sequence[pathlib.Path]
    model: pathlib.Path


def asked() -> bool:
    """Whether the environment names a server, or a folder, to log to."""
    return bool(os.environ.get(ADDRESS))


def log(run: TrackedRun) -> str:
    """Logs it as a run of its own; returns MLflow's id of it.

    Raises:
        NotInstalledError: MLflow cannot be imported.
        Exception: whatever its client raises; the run in MLflow is then marked as failed, if it can be.
    """
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param
    except ImportError as error:
        raise NotInstalledError(
            f"{ADDRESS} is set, and mlflow cannot be imported ({error}). Install byol-tfx[mlflow]"
        ) from error
    client, now = MlflowClient(), int(1000 * time.time())
    with _run(client, run) as identifier:
        params = [Param(name, _short(value)) for name, value in run.params.items()]
        for some in _parts(params, _PARAMS_AT_ONCE):
            client.log_batch(identifier, params=some)
        values = [Metric(name, value, now, step) for name, value, step in _values(run)]
        for some in _parts(values, _METRICS_AT_ONCE):
            client.log_batch(identifier, metrics=some)
        for path in run.files:
            client.log_artifact(identifier, str(path))
        client.log_artifacts(identifier, str(run.model), MODEL_FOLDER)
    return identifier


@contextlib.contextmanager
def _run(client: Any, run: TrackedRun) -> Iterator[str]:
    name = os.environ.get(EXPERIMENT) or DEFAULT_EXPERIMENT
    experiment = client.get_experiment_by_name(name)
    number = experiment.experiment_id if experiment else client.create_experiment(name)
    identifier = client.create_run(number, run_name=run.run_id, tags=dict(run.tags)).info.run_id
    try:
        yield identifier
    except BaseException:
        client.set_terminated(identifier, "FAILED")
        raise
    client.set_terminated(identifier, "FINISHED")


def _values(run: TrackedRun) -> Iterator[tuple[str, float, int]]:
    """Name, value and step of every number that is one: MLflow's databases refuse those that are not finite."""
    for name, value in run.metrics.items():
        yield name, float(value), 0
    for name, column in run.epochs.items():
        for epoch, value in enumerate(column, 1):
            if math.isfinite(value):
                yield f"pretraining/{name}", float(value), epoch


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
