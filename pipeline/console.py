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


class NodeSkippedError(NodeFailedError):
    """TFX skipped a node for want of its inputs, and went on: nothing is known of what the node would have said."""


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
            yield Console(file=stream, force_terminal=stream.isatty())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for target, descriptor in zip((1, 2), saved, strict=True):
                os.dup2(descriptor, target)
                os.close(descriptor)
