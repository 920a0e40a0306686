"""Events that a hook was not told of yet, a file each: on disk before they are tried, and until they arrived."""

import dataclasses
import json
import pathlib
import time

from components.gate.misses import Miss
from components.staging import sync_folder, write_atomically
from pipeline.retrain.hooks import Event

_SUFFIX = ".json"


class Outbox:
    """The events in a folder, in the order in which they were put there.

    Args:
        folder: made with the first event.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder

    def put(self, event: Event) -> None:
        """Writes the event to the disk.

        Raises:
            OSError: it cannot be written.
        """
        write_atomically(self._folder / f"{time.time_ns():020d}-{event.id}{_SUFFIX}", event.to_json() + "\n")

    def waiting(self) -> list[pathlib.Path]:
        """The files of the events, the oldest first."""
        return sorted(path for path in self._folder.glob(f"[0-9]*{_SUFFIX}"))

    def read(self, path: pathlib.Path) -> Event:
        """The event in a file.

        Raises:
            ValueError: it is none; the message says which file.
            OSError: the file is gone: another call has delivered it.
        """
        text = path.read_text(encoding="utf-8")
        try:
            values = json.loads(text)
            missed = tuple(Miss(**miss) for miss in values["missed"])
            values = {name: value for name, value in values.items() if name != "text"}
            lists = {name: tuple(values.get(name, ())) for name in ("spans", "findings")}
            return Event(**{**values, **lists, "missed": missed})
        except (ValueError, TypeError, KeyError) as error:
            known = ", ".join(field.name for field in dataclasses.fields(Event))
            raise ValueError(f"{path} is no event: expected JSON with {known}. Remove it.") from error

    def arrived(self, path: pathlib.Path) -> None:
        """Removes the event's file; one that another call has removed is all right."""
        path.unlink(missing_ok=True)
        sync_folder(self._folder)
