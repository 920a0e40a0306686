"""What a scheduler is given to start, and when."""

import dataclasses
import pathlib
import re
import sys

from pipeline.schedule.cron import Cron

# The interpreter that this runs in has the packages; `byol` need not be on a scheduler's PATH.
RETRAIN = (sys.executable, "-m", "pipeline.cli", "retrain")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


class SchedulerError(RuntimeError):
    """A scheduler of this machine is missing, or refused."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One schedule.

    Attributes:
        name: by which it is found again, to be replaced or removed.
        command: the program, by its whole path, and its arguments.
        folder: what relative paths among the arguments are relative to.
        root: of the runs.
    """

    name: str
    command: tuple[str, ...]
    folder: pathlib.Path
    root: pathlib.Path

    def __post_init__(self) -> None:
        check_name(self.name)
        for word in (*self.command, str(self.folder), str(self.root)):
            # A new line would end the entry, and begin another one.
            if not word.isprintable():
                raise ValueError(
                    f"{word!r} cannot be written into a schedule; expected text without control characters. Rename "
                    "the file or folder."
                )


@dataclasses.dataclass(frozen=True)
class When:
    """The times of a schedule: those of `cron`, or every so many seconds.

    Attributes:
        cron: None for `every`.
        every: seconds; 0 for `cron`.
        timezone: such as Europe/Berlin, for `cron`; the machine's if empty.
    """

    cron: Cron | None
    every: int = 0
    timezone: str = ""


def check_name(name: str) -> None:
    """Names are parts of file names and of lines.

    Raises:
        ValueError: this one cannot be.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"The name of a schedule is letters, digits, - and _, such as byol-retrain; received {name!r}."
        )
