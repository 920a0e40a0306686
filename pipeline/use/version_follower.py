"""Which version of a serving folder answers: the highest that can be loaded, from one push to the next."""

import dataclasses
import logging
import pathlib
import threading
import weakref

from components.serving import serving_folder
from pipeline.use import memory
from pipeline.use.served_model import ServedModel

POLL_SECONDS = 1.0
LOG = logging.getLogger("byol.serve")


@dataclasses.dataclass(frozen=True)
class LoadedVersion:
    """The version that answers now."""

    number: int
    model: ServedModel


class VersionFollower:
    """Keeps the highest version of a serving folder loaded.

    A request takes `current` once and keeps it, so a switch never changes the model under a request. A version that
    cannot be loaded is reported and passed over, until one of its files changes; the next lower one answers.

    Args:
        folder: the serving folder.

    Raises:
        ValueError: there is no version that can be loaded.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self._refused: dict[int, int] = {}
        self._retired: list[weakref.ref[ServedModel]] = []
        self._stopped = threading.Event()
        found = self._highest(None)
        if found is None:
            refused = ", ".join(str(number) for number in sorted(self._refused))
            raise ValueError(
                f"Expected a version that can be loaded in {folder}, received "
                + (f"{refused}, of which none can: see above." if refused else "none. `byol run` pushes one.")
            )
        self.current = found

    def follow(self, seconds: float = POLL_SECONDS) -> None:
        """Looks for a new version every `seconds`, until `stop`; runs in a thread of its own."""
        while not self._stopped.wait(seconds):
            self.look()

    def look(self) -> None:
        """Loads the highest version, if it is another one than the current, and frees those that answer no more."""
        self._free_retired()
        found = self._highest(self.current)
        if found is not None and found is not self.current:
            self._retired.append(weakref.ref(self.current.model))
            self.current = found
            LOG.info("Version %d is served now.", found.number)
            self._free_retired()

    def stop(self) -> None:
        """Ends `follow`."""
        self._stopped.set()

    def _free_retired(self) -> None:
        """Gives back the memory of models whose last request was answered; TensorFlow ties them in cycles."""
        held = [model for model in self._retired if model() is not None]
        if len(held) < len(self._retired):
            self._retired = held
            memory.collect()

    def _highest(self, current: LoadedVersion | None) -> LoadedVersion | None:
        """The highest version that can be loaded; `current` if it is that, or if nothing can be."""
        try:
            complete = [version for version in serving_folder.versions(self.folder) if version.complete]
        except (OSError, ValueError) as error:
            LOG.warning("Cannot list %s: %s", self.folder, error)
            return current
        for version in reversed(complete):
            if current is not None and version.number == current.number:
                return current
            loaded = self._loaded(version)
            if loaded is not None:
                return loaded
        return current

    def _loaded(self, version: serving_folder.Version) -> LoadedVersion | None:
        changed = _last_change(version.path)
        if self._refused.get(version.number) == changed:
            return None
        try:
            model = ServedModel(version.path)
            model.warm_up()
            return LoadedVersion(version.number, model)
        except ValueError as error:
            self._refused[version.number] = changed
            LOG.warning("Version %d is passed over: %s", version.number, error)
        memory.collect()  # what was loaded of it, once the error no longer holds it
        return None


def _last_change(folder: pathlib.Path) -> int:
    """The latest time of the folder and all in it, in nanoseconds; 0 if it cannot be read or is gone."""
    try:
        return max(path.stat().st_mtime_ns for path in (folder, *folder.rglob("*")))
    except OSError:
        return 0
