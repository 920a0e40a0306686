"""What reaches a person: a line when a command ends; the noise of libraries goes to a log file."""

import contextlib
import errno
import os
import pathlib
import sys
import threading
import time
from collections.abc import Container, Iterator
from typing import Literal, NoReturn

import typer
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner

from pipeline import root
from pipeline.root import Root

FAILED, USAGE = 1, 2
# A full disk or quota; a disk or a network that failed, too many open files, no memory.
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LACKS = frozenset({*_FULL, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
# Of a file or a pipe, which have no width: no column of a table is so wide that a number has to be broken.
PIPE_WIDTH = 160
# What takes long to import, in the words of a person.
_LIBRARIES = {
    "tensorflow": "TensorFlow",
    "apache_beam": "Beam",
    "tfx": "TFX",
    "tensorflow_model_analysis": "TFMA",
}
_COPY_SECONDS = 0.2
_progress_is_shown = True
_log_is_shown = False
# The command line imports this file before anything that takes long.
_STARTED = time.monotonic()


def show_progress(shown: bool, with_log: bool = False) -> None:
    """Whether a run tells how far it is, and what libraries log besides; how it ended is told anyway."""
    global _progress_is_shown, _log_is_shown
    _progress_is_shown, _log_is_shown = shown, with_log


def process_start() -> float:
    """The time of `time.monotonic` at which the command began."""
    return _STARTED


def screen() -> Console:
    """The console for a command's result: as wide as the terminal, or wide enough for every table."""
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return Console()
    return Console(width=PIPE_WIDTH)


def stop(message: str, status: int = USAGE) -> NoReturn:
    """Ends the command with one line on the error stream and an exit status."""
    say(message)
    raise typer.Exit(status)


def fail(error: Exception) -> NoReturn:
    """Ends the command for an error whose words are for a person, in one line."""
    stop(reason(error), status(error))


def status(error: Exception) -> int:
    """2 for what is wrong with words or input; 1 for what the machine lacks now: the same command works later."""
    return USAGE if _lack(error) is None else FAILED


def reason(error: Exception) -> str:
    """The error in a sentence; a full disk with what to do."""
    lack = _lack(error)
    if lack is None or lack is not error or lack.errno not in _FULL:
        return str(error)
    return f"the disk is full ({lack.filename or lack.strerror}); free some space and run the same command"


def _lack(error: BaseException) -> OSError | None:
    """What the machine lacks, where that is what caused an error."""
    found: BaseException | None = error
    while found is not None and not (isinstance(found, OSError) and found.errno in _LACKS):
        found = found.__cause__
    return found


def existing_root(path: pathlib.Path) -> Root:
    """The root of earlier runs that a command was given; the command's end where there is none that can be read."""
    try:
        return root.existing(path)
    except ValueError as error:
        stop(str(error))


def say(message: str) -> None:
    """One line on the error stream, which only the terminal wraps."""
    Console(file=sys.stderr, soft_wrap=True).print(message, highlight=False, markup=False)


def size_words(size: int) -> str:
    """Bytes as a person says them; never nothing where something was."""
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.1f} kB"


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
def quiet(log_file: pathlib.Path, to_person: Literal[1, 2] = 1) -> Iterator[Console]:
    """Sends both output streams, C++ included, to `log_file`; yields the console that still reaches the person.

    Args:
        log_file: is appended to.
        to_person: the stream of that console: 2 where the other one is an answer that programs read.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with log_file.open("ab", buffering=0) as log, os.fdopen(os.dup(to_person), "w") as stream:
        # A live table and the log would write over each other.
        is_live = stream.isatty() and not _log_is_shown
        ended, start = threading.Event(), log.seek(0, os.SEEK_END)
        copier = threading.Thread(target=_copy, args=(log_file, start, saved[1], ended), daemon=True)
        try:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            if _log_is_shown:
                copier.start()
            yield Console(file=stream, force_terminal=is_live, quiet=not _progress_is_shown)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            ended.set()
            if copier.is_alive():
                copier.join()
            for target, descriptor in zip((1, 2), saved, strict=True):
                os.dup2(descriptor, target)
                os.close(descriptor)


@contextlib.contextmanager
def loading(console: Console) -> Iterator[None]:
    """Shows that TFX is being imported inside the `with`: a moving line on a terminal, one line elsewhere.

    Args:
        console: that reaches the person.
    """
    if all(name in sys.modules for name in _LIBRARIES):
        yield
    elif console.is_terminal and not console.is_dumb_terminal:
        # Both streams may belong to a log file, so the line must not take them for itself.
        with Live(_Loading(), console=console, transient=True, redirect_stdout=False, redirect_stderr=False):
            yield
    else:
        names = ", ".join(_LIBRARIES.values())
        console.print(f"Loading {names}; nothing else happens meanwhile.", highlight=False)
        yield


class _Loading:
    """A spinner with what has been imported so far, drawn again several times a second."""

    def __init__(self) -> None:
        self._spinner = Spinner("line")
        self._start = time.monotonic()

    def __rich__(self) -> Spinner:
        """The line as it is now."""
        self._spinner.update(text=loading_words(time.monotonic() - self._start, sys.modules))
        return self._spinner


def loading_words(seconds: float, modules: Container[str]) -> str:
    """What is being imported, with a mark at each library that is there or under way."""
    names = ", ".join(f"{name} {'✓' if module in modules else '·'}" for module, name in _LIBRARIES.items())
    return f"Loading {names} {seconds:.0f} s"


def _copy(log_file: pathlib.Path, start: int, target: int, ended: threading.Event) -> None:
    """Copies what is appended to the log to a descriptor until told to end, and then the rest."""
    with log_file.open("rb", buffering=0) as log:
        log.seek(start)
        while not ended.wait(_COPY_SECONDS):
            os.write(target, log.read())
        os.write(target, log.read())
