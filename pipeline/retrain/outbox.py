"""Events that a hook was not told of yet, a file each: on disk before they are tried, and until they arrived."""

import contextlib
import dataclasses
import fcntl
import json
import pathlib
import time
from collections.abc import Collection, Iterator

from components.gate.misses import Miss
from components.staging import read_either, remove_both, write_twice, written_whole
from pipeline.retrain import hooks
from pipeline.retrain.hooks import Event, HookConfig
from pipeline.root import Root

_SUFFIX = ".json"
_DRAFT = "draft-"
# What is left of earlier calls is tried for so long in one call: a server that is down takes 30 s an event.
_SECONDS_FOR_EARLIER = 120.0


class Outbox:
    """The events in a folder, in the order in which they were put there.

    Args:
        folder: made with the first event.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder

    def put(self, event: Event) -> None:
        """Writes the event to the disk, unless it is there.

        Raises:
            OSError: it cannot be written.
        """
        if not any(self._folder.glob(f"[0-9]*-{event.id}{_SUFFIX}")):
            path = self._folder / f"{time.time_ns():020d}-{event.id}{_SUFFIX}"
            write_twice(path, event.to_json() + "\n")

    def waiting(self) -> list[pathlib.Path]:
        """The files of the events, the oldest first."""
        return sorted(path for path in self._folder.glob(f"[0-9]*{_SUFFIX}"))

    def read(self, path: pathlib.Path) -> Event:
        """The event in a file.

        Raises:
            ValueError: it is none; the message says which file.
            OSError: the file is gone: another call has delivered it.
        """
        text = read_either(path)
        try:
            values = json.loads(text)
            missed = tuple(Miss(**miss) for miss in values["missed"])
            values = {name: value for name, value in values.items() if name != "text"}
            lists = {name: tuple(values.get(name, ())) for name in ("spans", "findings")}
            return Event(**{**values, **lists, "missed": missed})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            known = ", ".join(field.name for field in dataclasses.fields(Event))
            raise ValueError(f"{path} is no event: expected JSON with {known}. Remove it.") from error

    def arrived(self, path: pathlib.Path) -> None:
        """Removes the event's file; one that another call has removed is all right."""
        remove_both(path)

    def deliver(self, config: HookConfig, own: Collection[str] = ()) -> list[str]:
        """Runs the hooks for all events that wait; one whose kind has no hook here goes on waiting.

        Args:
            config: whom to tell.
            own: ids of the events of this call, which are tried as often as `config` says; earlier ones once.

        Returns:
            A sentence for each event that was not delivered.
        """
        once = dataclasses.replace(config, attempts=1)
        problems, begun = list[str](), time.monotonic()
        try:
            left = self.waiting()
        except OSError:
            return []  # whoever cannot look into the root's folder says so
        for path in left:
            try:
                event = self.read(path)
                is_own = event.id in own
                if not config.of(event.kind):
                    continue
                if not is_own and time.monotonic() - begun > _SECONDS_FOR_EARLIER:
                    continue
                failed = hooks.deliver(event, config if is_own else once)
                problems += failed
                if not failed:
                    self.arrived(path)
            except FileNotFoundError:
                continue
            except (ValueError, OSError) as error:
                problems.append(str(error))
        return problems

    @contextlib.contextmanager
    def draft(self, event: Event) -> Iterator[pathlib.Path]:
        """Keeps on the disk that something is about to happen that `event` will tell of; yields the draft's file.

        The file stays: whoever finds it with `left_drafts`, once this process has ended, looks what came of it.

        Raises:
            OSError: it cannot be written.
        """
        path = self._folder / f"{_DRAFT}{event.id}{_SUFFIX}"
        with contextlib.ExitStack() as stack:
            with written_whole(path) as temporary:
                # The lock is of the file, whatever its name: from its first moment on it is seen as held.
                file = stack.enter_context(temporary.open("x", encoding="utf-8"))
                fcntl.flock(file, fcntl.LOCK_EX)
                file.write(event.to_json() + "\n")
                file.flush()
            yield path

    def left_drafts(self) -> Iterator[tuple[pathlib.Path, Event]]:
        """The drafts of processes that have ended, each held while it is looked at; what is none is removed."""
        for path in sorted(self._folder.glob(f"{_DRAFT}*{_SUFFIX}")):
            with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                try:
                    event = self.read(path)
                except ValueError:
                    path.unlink(missing_ok=True)
                    continue
                yield path, event


def of(root: Root) -> Outbox:
    """The outbox of a root."""
    return Outbox(root.ledger.parent / "outbox")
