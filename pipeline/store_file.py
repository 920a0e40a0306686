"""Whether the file of ML Metadata can be used: ML Metadata itself waits for ever, or says it in C++."""

import contextlib
import pathlib
import sqlite3

# A run holds the lock for milliseconds at a time.
WAIT_SECONDS = 5.0
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
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            tables = connection.execute(
                "SELECT count(*) FROM sqlite_master WHERE name = 'Execution'"
            ).fetchone()
    except (sqlite3.Error, OSError) as error:
        raise ValueError(_words(database, error)) from error
    if found != "ok":
        raise ValueError(f"{database} is damaged: {' '.join(found.split())}. {_WAY_OUT}")
    if not tables[0]:
        raise ValueError(f"{database} is no database of ML Metadata. {_WAY_OUT}")


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
