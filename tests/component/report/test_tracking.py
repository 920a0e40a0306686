"""Runs handed to MLflow: against its own server where an interpreter has it, and what is said where it has not."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import types
from typing import Any

import pytest
from rich.console import Console

from pipeline.report import tracking, write
from pipeline.root import Root
from tests.component.report import mlflow_server

PROJECT = pathlib.Path(__file__).resolve().parents[3]
PYTHON = os.environ.get("BYOL_MLFLOW_PYTHON") or (
    sys.executable if importlib.util.find_spec("mlflow") and importlib.util.find_spec("flask") else None
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_text("weights")
    (tmp_path / "report.html").write_text("<!doctype html>")
    return tmp_path


@pytest.mark.skipif(
    PYTHON is None, reason="mlflow is not installed; BYOL_MLFLOW_PYTHON=PYTHON names one that has its server"
)
def test_a_real_server_has_parameters_metrics_by_epoch_report_and_model(folder):
    done = subprocess.run(
        [str(PYTHON), "-m", "tests.component.report.mlflow_server", str(folder)],
        cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((folder / "found.json").read_text())
    assert (found["experiment"], found["name"], found["status"]) == (
        "byol-tfx", "2026-01-02T03:04:05", "FINISHED",
    )  # fmt: skip
    assert found["tags"]["byol.blessed"] == "yes"
    assert len(found["params"]) == 151
    assert found["params"]["setting.149"] == "149"
    assert found["params"]["long"] == "x" * 497 + "..."
    assert found["accuracy"] == 0.75
    assert found["loss"] == [[1, 3.0], [3, 1.0]]
    assert found["taus"] == 600
    assert sorted(found["files"]) == ["model", "report.html"]
    assert found["model"] == "weights"


class Client:
    """Remembers what MLflow's client is asked, by the names that its REST API has; refuses a call if told to."""

    refused = ""
    last: Any = None

    def __init__(self):
        self.calls = []
        Client.last = self

    def __getattr__(self, name):
        def call(*arguments, **named):
            self.calls.append((name, arguments, named))
            if name == self.refused:
                raise ConnectionError("the server is gone\nand more")
            if name == "get_experiment_by_name":
                return None
            return (
                types.SimpleNamespace(info=types.SimpleNamespace(run_id="one"))
                if name == "create_run"
                else "7"
            )

        return call


@pytest.fixture
def client(monkeypatch):
    """MLflow's client, replaced by one that remembers."""
    entities: Any = types.ModuleType("mlflow.entities")
    entities.Metric = entities.Param = lambda *values: values
    module: Any = types.ModuleType("mlflow")
    module.MlflowClient, module.entities = Client, entities
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.setattr(Client, "refused", "")
    monkeypatch.setenv(tracking.ADDRESS, "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    return Client


def run(folder):
    return tracking.TrackedRun(**mlflow_server.RUN, files=[folder / "report.html"], model=folder / "model")


def test_calls_are_as_small_as_the_rest_api_asks_and_the_run_is_ended(client, folder, monkeypatch):
    monkeypatch.setenv(tracking.EXPERIMENT, "mine")
    assert tracking.log(run(folder)) == "one"
    calls = client.last.calls
    assert [name for name, _, _ in calls] == [
        "get_experiment_by_name", "create_experiment", "create_run",
        *["log_batch"] * 4, "log_artifact", "log_artifacts", "set_terminated",
    ]  # fmt: skip
    assert calls[1][1] == ("mine",)
    sent = [named for name, _, named in calls if name == "log_batch"]
    assert [len(one.get("params", [])) for one in sent] == [100, 51, 0, 0]
    metrics = [value for one in sent for value in one.get("metrics", [])]
    assert [(name, value, step) for name, value, _, step in metrics[:3]] == [
        ("linear_accuracy", 0.75, 0), ("pretraining/loss", 3.0, 1), ("pretraining/loss", 1.0, 3),
    ]  # fmt: skip
    assert calls[-1][1] == ("one", "FINISHED")


def said(capsys):
    write.track_after_run(Root(pathlib.Path("/nowhere")), "one", Console(width=300))
    return capsys.readouterr().out


def test_a_server_that_fails_is_one_line_and_the_run_there_is_marked(client, folder, monkeypatch, capsys):
    monkeypatch.setattr(client, "refused", "log_artifact")
    monkeypatch.setattr(write, "tracked", lambda root, run_id: run(folder))
    assert said(capsys) == "Not logged to MLflow: ConnectionError: the server is gone.\n"
    assert client.last.calls[-1][1] == ("one", "FAILED")


def test_a_client_that_is_missing_is_one_line_with_the_remedy(folder, monkeypatch, capsys):
    monkeypatch.setenv(tracking.ADDRESS, "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setattr(write, "tracked", lambda root, run_id: run(folder))
    line = said(capsys)
    assert line.startswith(
        "Not logged to MLflow: NotInstalledError: MLFLOW_TRACKING_URI is set, and mlflow cannot be"
    )
    assert line.endswith("Install byol-tfx[mlflow].\n")


def test_without_an_address_nothing_is_said_and_nothing_imported(monkeypatch, capsys):
    monkeypatch.delenv(tracking.ADDRESS, raising=False)
    monkeypatch.setattr(write, "tracked", lambda root, run_id: pytest.fail("it was read"))
    assert said(capsys) == ""
