"""What reaches a person: a line when a command ends; the noise of libraries goes to a log file."""

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import NoReturn

import typer
from rich.console import Console

USAGE = 2
# Of a file or a pipe, which have no width: no column of a table is so wide that a number has to be broken.
PIPE_WIDTH = 160
_progress_is_shown = True


def show_progress(shown: bool) -> None:
    """Whether a run tells how far it is; how it ended is told anyway."""
    global _progress_is_shown  # noqa: PLW0603 - an option of the whole command line
    _progress_is_shown = shown


def screen() -> Console:
    """The console for a command's result: as wide as the terminal, or wide enough for every table."""
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return Console()
    return Console(width=PIPE_WIDTH)


def stop(message: str, status: int = USAGE) -> NoReturn:
    """Ends the command with one line on the error stream and an exit status."""
    say(message)
    raise typer.Exit(status)


def say(message: str) -> None:
    """One line on the error stream, which only the terminal wraps."""
    Console(file=sys.stderr, soft_wrap=True).print(message, highlight=False, markup=False)


class NodeFailedError(RuntimeError):
    """One node of the pipeline failed; the message names it with its cause in one line.

    Args:
        node: its id.
        reason: the cause.
    """

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(f"{node} failed: {reason}")
        self.node = node
        self.reason = reason


class DataRefusedError(NodeFailedError):
    """A gate looked at a span's data, and found them not fit to train on; a gate that broke down found nothing."""


class NodeSkippedError(NodeFailedError):
    """TFX skipped a node for want of its inputs, and went on: nothing is known of what the node would have said."""


def cause(error: BaseException) -> str:
    """The innermost reason of a chain of exceptions, in one line; Beam's remarks on its stages are dropped."""
    while error.__cause__ or (error.__context__ and not error.__suppress_context__):
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = next((line for line in reversed(lines) if not line.startswith("[while running")), "")
    return message.split(" [while running")[0] or type(error).__name__


@contextlib.contextmanager
def quiet(log_file: pathlib.Path) -> Iterator[Console]:
    """Sends both output streams, C++ included, to `log_file`; yields the console that still reaches the person."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with log_file.open("ab", buffering=0) as log, os.fdopen(os.dup(1), "w") as stream:
        try:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            yield Console(file=stream, force_terminal=stream.isatty(), quiet=not _progress_is_shown)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for target, descriptor in zip((1, 2), saved, strict=True):
                os.dup2(descriptor, target)
                os.close(descriptor)
