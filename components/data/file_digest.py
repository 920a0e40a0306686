"""SHA-256 of a file on this machine, read once for as long as nothing about the file changes.

Size and time of change alone do not say that the content is the same: both can be set. The system's own time of change
(ctime) cannot, except by whoever sets the clock or writes to the device; some network file systems keep none.
"""

import hashlib
import os
import pathlib

Seal = tuple[int, int, int, int]
_known: dict[tuple[str, Seal], str] = {}
_BLOCK = 1 << 20


def seal(path: str | os.PathLike[str]) -> Seal:
    """Inode, size in bytes, time of change and the system's time of change in ns: the same again, the same content.

    Raises:
        OSError: there is no such file.
    """
    return seal_of(os.stat(path))


def seal_of(status: os.stat_result) -> Seal:
    """The same of what the system said of a file."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def sha256(path: str | os.PathLike[str]) -> str:
    """Hex digits of the file's content; from memory if its seal is as it was when this process read it.

    Raises:
        OSError: it cannot be read, or changed meanwhile.
    """
    key = (os.path.realpath(path), seal(path))
    if key not in _known:
        digest = hashlib.sha256()
        with pathlib.Path(path).open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        if seal(path) != key[1]:
            raise OSError(
                f"{path} was changed while it was being read; it is looked at again by the next call"
            )
        _known[key] = digest.hexdigest()
    return _known[key]
