"""A training in a process of its own, seen from the one that waits for it.

One process cannot hold Keras on two backends, and a GPU's memory is free only when the process that took it has ended
(docs/decisions/0034-engines.md). No TensorFlow and no JAX is imported here.
"""

import contextlib
import json
import logging
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from trainer.byol.monitors import CollapseError

ROOT = pathlib.Path(__file__).parents[2]
_COMMAND = (sys.executable, "-m", "trainer.byol.jax_process")
# What the child may raise and the parent raises again as what it was; all else becomes a RuntimeError.
_KNOWN: dict[str, type[Exception]] = {
    "CollapseError": CollapseError,
    "ValueError": ValueError,
    "OSError": OSError,
}


def train_on_jax(
    job: pathlib.Path, on_epoch: Callable[[dict[str, float]], None]
) -> tuple[list[dict[str, float]], pathlib.Path]:
    """Trains the job in that folder (`job.write_job`) on JAX, in a process of its own that never outlives this one.

    What it logs is logged here; its networks are in the job's result folder at the end.

    Args:
        job: the folder.
        on_epoch: as `pretraining.pretrain` takes it.

    Returns:
        The history, and the folder of this training's checkpoints, to be removed once the result is stored.

    Raises:
        CollapseError, ValueError, OSError: what the training raised, in its words.
        RuntimeError: when it ended otherwise.
    """
    error, done = "", None
    with _process(job) as (process, messages):
        for message in messages:
            if "log" in message:
                logging.getLogger(message["name"]).log(message["log"], "%s", message["text"])
            elif "epoch" in message:
                on_epoch(message["epoch"])
            elif "error" in message:
                error = message["text"]
                if message["error"] in _KNOWN:
                    raise _KNOWN[message["error"]](error)
                error = f"{message['error']}: {error}"
            else:
                done = message["done"]
        status = process.wait()
    if done is None:
        raise RuntimeError(f"Pretraining on JAX {_ending(status)}. {error}".strip())
    return done["history"], pathlib.Path(done["checkpoints"])


@contextlib.contextmanager
def _process(job: pathlib.Path) -> Iterator[tuple[subprocess.Popen, Iterator[dict[str, Any]]]]:
    """The child and its messages, a JSON object a line. It is killed when the `with` is left, however that happens;
    when this process is killed, the child sees the end of its standard input.
    """
    reader, writer = os.pipe()
    with os.fdopen(reader) as lines:
        try:
            process = subprocess.Popen(
                [*_COMMAND, str(job.absolute()), str(writer)],
                cwd=ROOT,
                env=os.environ | {"KERAS_BACKEND": "jax"},
                stdin=subprocess.PIPE,
                pass_fds=(writer,),
            )
        finally:
            os.close(writer)
        try:
            yield process, (json.loads(line) for line in lines)
        finally:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    name = signal.Signals(-status).name
    return f"was ended by {name}" + (", as by a machine out of memory" if name == "SIGKILL" else "")
