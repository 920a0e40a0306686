"""The process that pretrains on JAX for a Pretrainer on TensorFlow; `trainer.byol.engine` starts it and listens.

    KERAS_BACKEND=jax .venv/bin/python -m trainer.byol.jax_process JOB_FOLDER MESSAGES_FD

Each line that it writes to MESSAGES_FD is a JSON object: "log", "epoch", "error" or, as the last one, "done". It ends
when its standard input does: with the process that started it, however that one ended.

    KERAS_BACKEND=jax .venv/bin/python -m trainer.byol.jax_process

is one of several processes but the first (`trainer.byol.processes`). It waits until the first one, which is started as
above, has a job for them, and takes its share of that training. The job's folder has to be there on its host, too.
"""

import importlib.abc
import json
import logging
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import ModuleType, TracebackType
from typing import Any, TextIO


def main() -> None:
    """Trains the job of the folder, and tells about it; without a folder, trains the first process' job with it."""
    if len(sys.argv) == 1:
        _follow()
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent as well, which decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    messages = os.fdopen(int(sys.argv[2]), "w", buffering=1)  # open to the end, for the last words
    sys.excepthook = _teller(messages)
    ours = logging.getLogger("byol")
    ours.setLevel(logging.INFO)
    ours.addHandler(_ToParent(messages))
    _tell(messages, done=_train(pathlib.Path(sys.argv[1]), messages))


def _follow() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.meta_path.insert(0, NoTensorFlow())
    from trainer.byol import job, processes
    from trainer.byol.pretraining import pretrain

    if processes.announced().number == 0:
        sys.exit(
            "The environment names no process that this one could follow. Give JAX_COORDINATOR_ADDRESS, "
            "JAX_NUM_PROCESSES and JAX_PROCESS_ID (1 or more), or start it by Slurm, Open MPI or in a TPU slice."
        )
    processes.join()
    _keep_programs()
    work = job.read_job(pathlib.Path(processes.of_first(bytes).decode()))
    pretrain(work.config, work.encoder, work.data, work.monitor, work.checkpoints, None, work.start)


def _train(folder: pathlib.Path, messages: TextIO) -> dict[str, Any]:
    sys.meta_path.insert(0, NoTensorFlow())
    # Imported late: the parent's death and errors of these imports are to be noticed, too.
    from trainer.byol import job, processes
    from trainer.byol.pretraining import pretrain

    processes.join()
    _keep_programs()
    processes.of_first(lambda: str(folder.absolute()).encode())
    work = job.read_job(folder)
    result = pretrain(
        work.config,
        work.encoder,
        work.data,
        work.monitor,
        work.checkpoints,
        lambda values: _tell(messages, epoch=values),
        work.start,
    )
    job.write_result(work, result)
    return {"history": result.history, "checkpoints": str(result.checkpoints.folder)}


def _keep_programs() -> None:
    import jax

    cache = compilation_cache(jax.default_backend())
    if cache is not None:
        jax.config.update("jax_compilation_cache_dir", str(cache))


def compilation_cache(device: str) -> pathlib.Path | None:
    """Where compiled programs are kept between runs; None where JAX's own variable says so, and on CPUs: what JAX
    0.4.34 reads back there crashes.
    """
    if device == "cpu" or os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return None
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "byol-tfx" / "jax"


class NoTensorFlow(importlib.abc.MetaPathFinder):
    """Keras would import TensorFlow where it finds it, for seconds and a GPU's memory; nothing here needs it."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Answers for TensorFlow as a machine does that has none."""
        if fullname.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError("Pretraining on JAX does without TensorFlow.", name=fullname)


def _tell(messages: TextIO, **message: Any) -> None:
    messages.write(json.dumps(message) + "\n")
    messages.flush()


class _ToParent(logging.Handler):
    """Hands log lines on."""

    def __init__(self, messages: TextIO) -> None:
        super().__init__()
        self.messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        _tell(self.messages, log=record.levelno, name=record.name, text=record.getMessage())


def _teller(messages: TextIO) -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    """What is done with an exception that nobody caught: it is told, and its traceback goes to standard error."""

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        known = "OSError" if isinstance(error, OSError) else kind.__name__
        _tell(messages, error=known, text=str(error))
        sys.__excepthook__(kind, error, traceback)

    return hook


def _end_with_parent() -> None:
    """Standard input is a pipe on which nothing is ever written; the system closes it when the parent is gone."""
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
