"""A run logged to a real MLflow server and read back through it, by an interpreter that has mlflow.

PYTHON -m tests.component.report.mlflow_server FOLDER writes FOLDER/found.json; FOLDER holds `report.html` and `model/`.
"""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request
from typing import Any

from pipeline.report import tracking

RUN: dict[str, Any] = {
    "run_id": "2026-01-02T03:04:05",
    "tags": {"byol.blessed": "yes"},
    "params": {f"setting.{number}": number for number in range(150)} | {"long": "x" * 2000},
    "metrics": {"linear_accuracy": 0.75},
    "epochs": {"loss": [3.0, float("nan"), 1.0], "tau": [0.1 * epoch for epoch in range(600)]},
}


@contextlib.contextmanager
def server(folder):
    """MLflow's own server with a database and a folder of artifacts; yields its address."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1"]
    command += [f"--backend-store-uri=sqlite:///{folder}/mlflow.db", f"--artifacts-destination={folder}/kept"]
    with (
        (folder / "server.log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True) as process,
    ):
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(f"{address}/health", process)
            yield address
        finally:
            os.killpg(process.pid, 15)


def _wait(address, process):
    patience = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < patience:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):  # noqa: S310 - its own address
            return
        time.sleep(0.3)
    raise RuntimeError("The server does not answer.")


def main():
    folder = pathlib.Path(sys.argv[1]).absolute()
    with server(folder) as address:
        os.environ[tracking.ADDRESS] = address
        identifier = tracking.log(
            tracking.TrackedRun(**RUN, files=[folder / "report.html"], model=folder / "model")
        )
        from mlflow import MlflowClient

        client = MlflowClient()
        run = client.get_run(identifier)
        back = pathlib.Path(client.download_artifacts(identifier, "model/saved_model.pb", str(folder)))
        found = {
            "experiment": client.get_experiment(run.info.experiment_id).name,
            "name": run.info.run_name,
            "status": run.info.status,
            "tags": run.data.tags,
            "params": run.data.params,
            "accuracy": run.data.metrics["linear_accuracy"],
            "loss": [(m.step, m.value) for m in client.get_metric_history(identifier, "pretraining/loss")],
            "taus": len(client.get_metric_history(identifier, "pretraining/tau")),
            "files": [file.path for file in client.list_artifacts(identifier)],
            "model": back.read_text(),
        }
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
