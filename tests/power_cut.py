"""Plays a power cut without root: what was not synced since it was written is an empty file afterwards.

That is what ext4 and XFS leave: a file's name is in the journal, its content only once somebody asked for it.
"""

import os
import pathlib

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
