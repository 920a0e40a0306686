"""Commands in forks of one process that has imported TFX: half of what a small command takes is that import."""

import multiprocessing
import pathlib
import runpy

FORKED_COMMAND = pathlib.Path(__file__).with_name("forked_command.py")
# What most commands import; nothing of this project, which each of them imports anew.
PRELOADED = [
    "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor",
    "keras",
    "tensorflow_transform",
    "tensorflow_model_analysis",
]


def run(
    command: list[str],
    folder: pathlib.Path,
    variables: dict[str, str],
    said: tuple[pathlib.Path, pathlib.Path],
    seconds: float,
    umask: int = 0o022,
) -> int:
    """Runs `python -m MODULE ARGUMENT...` to its end; returns its exit status, negative for a signal.

    Args:
        command: `python` stands for the interpreter that runs here.
        folder: where it works.
        variables: its whole environment.
        said: files to which its two outputs are added; they may be the same.
        seconds: after which it is killed.
        umask: that it is started with.

    Raises:
        TimeoutError: it was.
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
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"{command} did not end within {seconds:g} s.")
    return process.exitcode
