"""A pool of Beam workers with this project's environment, for engines that ask for their workers at an address.

PYTHON -m pipeline.run.worker_pool --port 50000

PYTHON is the absolute path of the environment's interpreter; nothing has to be on PATH. Beam's own pool starts its
workers as `python`, whatever that is. By default the workers are threads of this process, which stays warm: TensorFlow
is imported once and serves every node. With --processes each worker is a process of its own: it starts cold, and
works beside the others without waiting for Python's lock.
"""

import argparse
import importlib
import logging
import os
import pathlib
import signal
import sys
import threading

from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer

# What the nodes' workers import, before the first of them asks.
_WARM = (
    "pipeline.run.worker_probe",
    "tensorflow",
    "tensorflow_transform",
    "tensorflow_data_validation",
    "tensorflow_model_analysis",
    "components.data.example_gen",
    "components.data.preprocessing",
    "pipeline.eval_config",
)


def main(arguments: list[str] | None = None) -> None:
    """Serves until it is ended by SIGINT or SIGTERM; the first line on the output is the address.

    Args:
        arguments: of the command line; None takes the process's own.
    """
    parser = argparse.ArgumentParser(prog="python -m pipeline.run.worker_pool", description=__doc__)
    parser.add_argument("--port", type=int, default=50000, help="0 takes a free one.")
    parser.add_argument("--processes", action="store_true", help="A process for each worker, not a thread.")
    parser.add_argument("--cold", action="store_true", help="Import TensorFlow only when a worker needs it.")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO)
    _own_python_first()
    importlib.import_module(_WARM[0])
    if not (chosen.processes or chosen.cold):
        for module in _WARM:
            importlib.import_module(module)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    address, server = BeamFnExternalWorkerPoolServicer.start(use_process=chosen.processes, port=chosen.port)
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()
    ended.wait()
    server.stop(1).wait()


def _own_python_first() -> None:
    """Beam's pool says `python`; this makes it the interpreter that runs here."""
    here = pathlib.Path(sys.executable).parent
    os.environ["PATH"] = os.pathsep.join([str(here), os.environ.get("PATH", "")])


if __name__ == "__main__":
    main()
