"""Plays power cuts without root: what was not synced since it was written is an empty file afterwards.

That is what ext4 and XFS leave: a file's name is in the journal, its content only once somebody asked for it.
`python -m benchmarks.power_cuts` is the same with real file systems.
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import stat
import sys
from collections.abc import Callable, Iterator

import pytest

# SQLite and flock are below Python: the database syncs by itself, and nobody reads what is in a lock.
_NOT_OURS = (".sqlite", ".sqlite-journal", ".lock")


class Power:
    """Follows what reaches the disk, from its making on.

    Args:
        monkeypatch: puts `os.fsync` and `os.replace` back after the test.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: dict[int, tuple[int, int]] = {}  # inode -> size and time of change when it was synced
        self.events: list[tuple[str, str]] = []
        fsync = os.fsync

        def follow(descriptor: int) -> None:
            fsync(descriptor)
            found = os.fstat(descriptor)
            self.synced[found.st_ino] = (found.st_size, found.st_mtime_ns)
            self.events.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))

        monkeypatch.setattr(os, "fsync", follow)

    def cut(self, folder: pathlib.Path) -> list[pathlib.Path]:
        """Empties every file below that was written after its last sync; returns them."""
        lost = []
        for path in folder.rglob("*"):
            if not path.is_file() or path.name.endswith(_NOT_OURS):
                continue
            found = path.stat()
            if found.st_size and self.synced.get(found.st_ino) != (found.st_size, found.st_mtime_ns):
                os.truncate(path, 0)
                lost.append(path)
        return lost


Tree = dict[str, bytes | None]  # path -> content, None of a folder


@dataclasses.dataclass(frozen=True)
class Moment:
    """What a power cut would leave.

    Attributes:
        before: what was about to happen, such as `rename serving/1763940000`.
        names: whether names reach the disk by themselves, as from a journal, or only when their folder is synced.
        left: the tree on the disk.
        beside: what `beside` said then, of what is not on the disk.
    """

    before: str
    names: bool
    left: Tree
    beside: object

    def put(self, folder: pathlib.Path) -> None:
        """Makes the folder anew as it would be found."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, content in sorted(self.left.items()):
            if content is None:
                (folder / name).mkdir()
            else:
                (folder / name).write_bytes(content)


class Disk:
    """Follows what of a folder is on the disk while something is done in it, and what each cut would leave.

    It is stricter than a file system: a sync of one file does not bring another one's name along.

    Args:
        folder: what is in it already is on the disk.
        monkeypatch: puts `os.fsync` back after the test.
        beside: asked at each moment.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        monkeypatch: pytest.MonkeyPatch,
        beside: Callable[[], object] = lambda: None,
    ) -> None:
        self.folder, self._beside = folder, beside
        self.moments: list[Moment] = []
        self._contents: dict[int, bytes] = {}  # inode -> what of it is on the disk
        self._names: dict[int, dict[str, tuple[int, bool]]] = {}  # the same: name -> inode, is a folder
        self._held: dict[int, int] = {}  # an open inode's number is not given again
        self._monkeypatch = monkeypatch
        for path in [folder, *folder.rglob("*")]:
            descriptor = os.open(path, os.O_RDONLY)
            self._note(descriptor)
            os.close(descriptor)

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """Within the block each moment before something changes, and the one after it, is noted in `moments`."""

        def synced(descriptor: int) -> None:
            self._told("sync", os.readlink(f"/proc/self/fd/{descriptor}"))
            self._note(descriptor)  # the real disk is not waited for

        with self._monkeypatch.context() as patched:
            patched.setattr(os, "fsync", synced)
            _listeners.append(self._told)
            try:
                yield
                self._told("end", str(self.folder / "."))
            finally:
                _listeners.remove(self._told)
                for descriptor in self._held.values():
                    os.close(descriptor)

    def different(self) -> list[Moment]:
        """The moments that leave something else than the one before them with the same journal."""
        found: dict[bool, Moment] = {}
        kept = []
        for moment in self.moments:
            before = found.get(moment.names)
            if before is None or (before.left, before.beside) != (moment.left, moment.beside):
                kept.append(moment)
            found[moment.names] = moment
        return kept

    def _told(self, kind: str, path: str) -> None:
        if not path.startswith(str(self.folder) + os.sep):
            return
        before = f"{kind} {os.path.relpath(path, self.folder)}"
        for names in (False, True):
            left: Tree = {}
            self._leave(self.folder, self.folder.stat().st_ino, "", names, left)
            self.moments.append(Moment(before, names, left, self._beside()))

    def _note(self, descriptor: int) -> None:
        """What is synced now."""
        found = os.fstat(descriptor)
        path = pathlib.Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if not path.is_relative_to(self.folder):
            return
        self._held.setdefault(found.st_ino, os.dup(descriptor))
        if stat.S_ISDIR(found.st_mode):
            self._names[found.st_ino] = self._listed(path)
        else:
            self._contents[found.st_ino] = pathlib.Path(f"/proc/self/fd/{descriptor}").read_bytes()

    def _listed(self, folder: pathlib.Path) -> dict[str, tuple[int, bool]]:
        listed = {entry.name: (entry.inode(), entry.is_dir()) for entry in os.scandir(folder)}
        for name, (inode, _) in listed.items():
            if inode not in self._held:
                self._held[inode] = os.open(folder / name, os.O_RDONLY)
        return listed

    def _leave(self, folder: pathlib.Path | None, inode: int, prefix: str, names: bool, left: Tree) -> None:
        """Puts what a cut leaves below a folder into `left`."""
        current = self._listed(folder) if names and folder is not None else self._names.get(inode, {})
        for name, (number, is_folder) in current.items():
            if is_folder:
                left[prefix + name] = None
                below = folder / name if names and folder is not None else None
                self._leave(below, number, f"{prefix}{name}/", names, left)
            else:
                left[prefix + name] = self._contents.get(number, b"")


_listeners: list[Callable[[str, str], None]] = []
_AUDITED = {"open": "write", "os.rename": "rename", "os.remove": "remove", "os.mkdir": "make"}


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    """Python's own word before it changes something: https://docs.python.org/3/library/audit_events.html."""
    if not _listeners or event not in _AUDITED:
        return
    if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
        return
    path = arguments[1] if event == "os.rename" else arguments[0]
    if isinstance(path, str | bytes | os.PathLike):
        for listener in _listeners:
            listener(_AUDITED[event], os.fsdecode(path))


sys.addaudithook(_audit)
