"""Which spans have arrived in a folder: those whose writer has said that they are complete."""

import hashlib
import pathlib
import time

from components.data import cifar10

# Written last, empty, by whoever delivers a span: what MapReduce, Spark and Beam users know it as.
COMPLETE_MARKER = "_SUCCESS"
TEST_FOLDER = "test"
_HIGHEST = 2**31 - 1  # a number above is a slip, or a time in milliseconds


def complete_spans(folder: pathlib.Path) -> dict[int, str]:
    """Returns the numbers of the complete spans, ascending, each with the fingerprint of its files.

    Args:
        folder: holds `span-N` folders.

    Raises:
        ValueError: there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(
            f"No such folder: {folder}. Expected one that holds {cifar10.SPAN_FOLDER}N folders, each with CIFAR-10's "
            f"binary files and an empty {COMPLETE_MARKER} written last."
        )
    numbers = sorted(int(name) for name in _span_names(folder) if _is_number(name))
    spans = {number: folder / f"{cifar10.SPAN_FOLDER}{number}" for number in numbers}
    return {number: fingerprint(path) for number, path in spans.items() if (path / COMPLETE_MARKER).is_file()}


def odd_folders(folder: pathlib.Path) -> list[str]:
    """What looks like a span and never counts as one, in a sentence each; it does not stop those beside it."""
    names = sorted(name for name in _span_names(folder) if not _is_number(name))
    return [
        f"{cifar10.SPAN_FOLDER + name!a} in {folder} is no span and waits for ever: expected {cifar10.SPAN_FOLDER}N, "
        f"a folder with a number up to {_HIGHEST} without leading zeros; rename it."
        for name in names
    ]


def without_marker(folder: pathlib.Path, hours: float) -> list[str]:
    """Spans without their marker in which nothing has changed for so many hours, in a sentence each."""
    found = []
    for number in sorted(int(name) for name in _span_names(folder) if _is_number(name)):
        span = folder / f"{cifar10.SPAN_FOLDER}{number}"
        if (span / COMPLETE_MARKER).is_file() or not span.is_dir():
            continue
        waited = (time.time() - max(path.lstat().st_mtime for path in [span, *span.iterdir()])) / 3600
        if waited > hours:
            found.append(
                f"span {number} in {folder} has no {COMPLETE_MARKER} though nothing in it has changed for more than "
                f"{hours:g} hours; expected its writer to write that last."
            )
    return found


def _span_names(folder: pathlib.Path) -> list[str]:
    """What follows `span-` in the names of the folders, and of the links that lead nowhere."""
    return [
        path.name.removeprefix(cifar10.SPAN_FOLDER) + ("" if path.exists() else " (a link to nothing)")
        for path in folder.iterdir()
        if path.name.startswith(cifar10.SPAN_FOLDER) and (path.is_dir() or not path.exists())
    ]


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and str(int(name)) == name and int(name) <= _HIGHEST


def fingerprint(span: pathlib.Path) -> str:
    """Hex digest of a span's file names, sizes and times of change: another one means another delivery."""
    digest = hashlib.sha256()
    for path in sorted(span.rglob("*.bin")):
        status = path.stat()
        digest.update(
            f"{path.relative_to(span).as_posix()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode()
        )
    return digest.hexdigest()
