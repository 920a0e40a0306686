"""Times in ML Metadata that a clock wrote which was ahead: moved back, so that what is written now comes after them."""

import contextlib
import dataclasses
import pathlib
import sqlite3
import time

from pipeline import store_file

# Of ML Metadata's schema (ml_metadata/util/metadata_source_query_config.cc), in milliseconds since 1970.
_TIMES = {
    "Artifact": ("create_time_since_epoch", "last_update_time_since_epoch"),
    "Execution": ("create_time_since_epoch", "last_update_time_since_epoch"),
    "Context": ("create_time_since_epoch", "last_update_time_since_epoch"),
    "Event": ("milliseconds_since_epoch",),
}


@dataclasses.dataclass(frozen=True)
class Moved:
    """What was changed.

    Attributes:
        times: how many.
        seconds: by how much they were moved back.
    """

    times: int
    seconds: float


def mend(database: pathlib.Path) -> Moved:
    """Moves every time that lies ahead of now back by as much as the latest of them does, all or none.

    What lies between them stays as it is, so durations and the order of runs do; none comes before what was written
    with a clock that was right. The caller holds the root's lock.

    Args:
        database: the MLMD SQLite file.

    Raises:
        ValueError: it cannot be used, as `pipeline.store_file.check` says.
    """
    if not database.exists():
        raise ValueError(f"There is no {database}; a root has one from its first run on.")
    store_file.check(database)
    columns = [(table, column) for table, names in _TIMES.items() for column in names]
    now, moved = int(1000 * time.time()), 0
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=store_file.WAIT_SECONDS)) as store, store:
            latest = max(_most(store, f"SELECT max({column}) FROM {table}") for table, column in columns)  # noqa: S608
            if latest <= now:
                return Moved(0, 0.0)
            right = max(
                _most(store, f"SELECT max({column}) FROM {table} WHERE {column} <= ?", now)  # noqa: S608
                for table, column in columns
            )
            for table, column in columns:
                moved += store.execute(
                    f"UPDATE {table} SET {column} = max({column} - ?, ?) WHERE {column} > ?",  # noqa: S608
                    (latest - now, right, now),
                ).rowcount
    except sqlite3.Error as error:
        raise ValueError(f"{database} cannot be written: {error}. Nothing was changed.") from error
    return Moved(moved, (latest - now) / 1000)


def _most(store: sqlite3.Connection, query: str, *values: int) -> int:
    return store.execute(query, values).fetchone()[0] or 0
