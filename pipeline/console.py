"""What a person sees of a run: one line a step here, everything else that libraries print in a log file."""

import contextlib
import logging
import os
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import NoReturn

import typer
from rich.console import Console

USAGE = 2

# TFX's own words, by which the runner is followed without a copy of its loop.
_STARTED = "Component %s is running."
_FINISHED = "Component %s is finished."
_CACHED = "A cached execution %d is used."


def stop(message: str, status: int = USAGE) -> NoReturn:
    """Ends the command with one line on the error stream and an exit status."""
    Console(file=sys.stderr, soft_wrap=True).print(message, highlight=False, markup=False)
    raise typer.Exit(status)


class NodeFailedError(RuntimeError):
    """One node of the pipeline failed; the message is its cause in one line."""


class NodeProgress(logging.Handler):
    """Follows TFX's log and tells which node runs, how long it took and whether its cache was used.

    Attributes:
        running: the node at work, which is the one to name when the run fails; None between nodes.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self.running: str | None = None
        self._started = 0.0
        self._cached = False

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a line when a node starts and when it ends."""
        if record.msg == _STARTED and isinstance(record.args, tuple):
            self.running, self._started, self._cached = str(record.args[0]), time.monotonic(), False
            self.console.print(f"[bold]{self.running}[/bold]", highlight=False)
        elif record.msg == _CACHED:
            self._cached = True
        elif record.msg == _FINISHED:
            seconds = time.monotonic() - self._started
            how = "from cache" if self._cached else f"{seconds:.1f} s"
            self.console.print(f"  [dim]{self.running}: {how}[/dim]", highlight=False)
            self.running = None


class TrainingLines(logging.Handler):
    """Prints what the trainers log: epochs, losses, speed, time left."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Prints the message as it is."""
        self.console.print(f"  {record.getMessage()}", highlight=False, markup=False)


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
