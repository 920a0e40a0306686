"""Commands in forks of one process that has imported TFX: half of what a small command takes is that import."""

import multiprocessing
import pathlib
import runpy
from multiprocessing.process import BaseProcess

FORKED_COMMAND = pathlib.Path(__file__).with_name("forked_command.py")
# What most commands import; nothing of this project, which each of them imports anew.
PRELOADED = [
    "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor",
    "keras",
    "tensorflow_transform",
    "tensorflow_model_analysis",
]


def start(
    command: list[str],
    folder: pathlib.Path,
    variables: dict[str, str],
    said: tuple[pathlib.Path, pathlib.Path],
    umask: int = 0o022,
) -> BaseProcess:
    """Starts `python -m MODULE ARGUMENT...` as the leader of a session of its own; `exitcode` is its exit status.

    Args:
        command: `python` stands for the interpreter that runs here.
        folder: where it works.
        variables: its whole environment.
        said: files to which its two outputs are added; they may be the same.
        umask: that it is started with.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    out, err = map(str, said)
    given = {
        "command": command,
        "folder": str(folder),
        "variables": variables,
        "out": out,
        "err": err,
        "umask": umask,
    }
    process = context.Process(target=runpy.run_path, args=(str(FORKED_COMMAND), given))
    process.start()
    return process


def run(
    command: list[str],
    folder: pathlib.Path,
    variables: dict[str, str],
    said: tuple[pathlib.Path, pathlib.Path],
    seconds: float,
    umask: int = 0o022,
) -> int:
    """Runs a command as `start` does, to its end; returns its exit status, negative for a signal.

    Raises:
        TimeoutError: it did not end within so many seconds, and was killed.
    """
    process = start(command, folder, variables, said, umask)
    try:
        process.join(seconds)
        if process.exitcode is None:
            raise TimeoutError(f"{command} did not end within {seconds:g} s.")
    finally:
        process.kill()  # nothing where it has ended
    return process.exitcode
