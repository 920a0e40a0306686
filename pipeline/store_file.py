"""Whether the file of ML Metadata can be used: ML Metadata itself waits for ever, or says it in C++."""

import contextlib
import datetime
import os
import pathlib
import shlex
import sqlite3
import time

# A run holds the lock for milliseconds at a time.
WAIT_SECONDS = 5.0
_CLOCK_TOLERANCE_SECONDS = 60.0
# Files that this process found whole: that takes 0.1 s for a thousand runs (73 MB), and a run opens the file often.
_whole: set[tuple[str, int]] = set()
_WAY_OUT = (
    "Restore it from a backup, or take another --root; what is served stays served and `byol rollback` goes on "
    "working."
)


def check(database: pathlib.Path) -> None:
    """Returns if the file can be read, or if there is none; finishes what a killed writer left in its journal.

    Raises:
        ValueError: one line: it is locked by another program, empty, cut short, no database, or may not be read.
    """
    if not database.exists() or _is_unwritten(database):
        return
    if not database.is_file():
        raise ValueError(f"{database} is no file; expected ML Metadata's database. Take another --root.")
    try:
        if database.stat().st_size == 0:
            raise ValueError(f"{database} is empty, though runs have written to it. {_WAY_OUT}")
        with contextlib.closing(_opened(database)) as connection:
            found = _flaw(connection, database)
            tables = connection.execute(
                "SELECT count(*) FROM sqlite_master WHERE name = 'Execution'"
            ).fetchone()
    except (sqlite3.Error, OSError) as error:
        raise ValueError(_words(database, error)) from error
    if found:
        raise ValueError(f"{database} is damaged: {' '.join(found.split())}. {_WAY_OUT}")
    if not tables[0]:
        raise ValueError(f"{database} is no database of ML Metadata. {_WAY_OUT}")


def check_clock(database: pathlib.Path) -> None:
    """Refuses a clock that is behind the store: ML Metadata pages through its rows by time and then misses new ones.

    Args:
        database: one that `check` lets pass.

    Raises:
        ValueError: the clock is behind what the store has, with both ways out.
    """
    if not database.exists() or not database.stat().st_size:
        return
    with contextlib.closing(_opened(database)) as connection:
        newest = connection.execute("SELECT max(create_time_since_epoch) FROM Execution").fetchone()[0]
    now, last = time.time(), (newest or 0) / 1000
    if now + _CLOCK_TOLERANCE_SECONDS < last:
        raise ValueError(
            f"The clock says {_minute(now)}, but {database} has a run of {_minute(last)}. ML Metadata would lose track "
            "of what is written now; nothing was changed. Set the clock right; or, if it is right now and was ahead "
            f"then, run `byol mend-clock --root {shlex.quote(str(database.parent))}`."
        )


def _minute(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _flaw(connection: sqlite3.Connection, database: pathlib.Path) -> str:
    """What is wrong in the file, looked at once by a process; "" if nothing is."""
    file = (os.path.realpath(database), database.stat().st_ino)
    if file in _whole:
        return ""
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        return found
    _whole.add(file)
    return ""


def _is_unwritten(database: pathlib.Path) -> bool:
    """Whether the first run ended between making the file and writing to it: TFX makes its folder later."""
    return database.is_file() and database.stat().st_size == 0 and not (database.parent / "tfx").exists()


def _opened(database: pathlib.Path) -> sqlite3.Connection:
    """For writing if it may be: a killed writer's journal can only be played back so."""
    address = database.absolute().as_uri()
    try:
        connection = sqlite3.connect(f"{address}?mode=rw", uri=True, timeout=WAIT_SECONDS)
        connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise
        connection = sqlite3.connect(f"{address}?mode=ro", uri=True, timeout=WAIT_SECONDS)
    return connection


def _words(database: pathlib.Path, error: Exception) -> str:
    told = (isinstance(error, OSError) and error.strerror) or str(error)
    if "locked" in told:
        return (
            f"{database} is locked by another program for more than {WAIT_SECONDS:g} s. Wait until it has ended, or "
            f"end it: `fuser {database}` names it. Nothing was changed."
        )
    if "unable to open" in told or isinstance(error, OSError):
        return f"{database} cannot be read: {told}. Give this user permission to read and write it."
    return f"{database} is damaged: {told}. {_WAY_OUT}"
