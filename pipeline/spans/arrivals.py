"""Which spans have arrived in a folder: those whose writer has said that they are complete."""

import hashlib
import os
import pathlib
import re
import time
from collections.abc import Mapping

from components import path_names
from components.data import cifar10, dataset, file_digest
from pipeline.spans.ledger import SpanRecord

# Written last, empty, by whoever delivers a span: what MapReduce, Spark and Beam users know it as.
COMPLETE_MARKER = "_SUCCESS"
TEST_FOLDER = "test"
_HIGHEST = 2**31 - 1  # a number above is a slip, or a time in milliseconds
# What people and programs write for `span-7`: Span_7, spans-7, "span 7", span7, span-7.tar.
_NEARLY = re.compile(r"spans?[ _.:-]*\d|span-", re.IGNORECASE)


def complete_spans(folder: pathlib.Path, known: Mapping[int, SpanRecord] | None = None) -> dict[int, str]:
    """Returns the numbers of the complete spans, ascending, each with the fingerprint of its files.

    Args:
        folder: holds `span-N` folders.
        known: what was said of spans before: files with the seal that they had then are not read again.

    Raises:
        ValueError: there is no such folder, or TFX would take its name for something else.
    """
    if not folder.is_dir():
        raise ValueError(
            f"No such folder: {folder}. Expected one that holds {cifar10.SPAN_FOLDER}N folders, each with CIFAR-10's "
            f"binary files and an empty {COMPLETE_MARKER} written last."
        )
    path_names.check(folder, is_data=True)
    numbers = sorted(int(name) for name in _span_names(folder) if _is_number(name))
    spans = {number: folder / f"{cifar10.SPAN_FOLDER}{number}" for number in numbers}
    return {
        number: _unless_known(path, (known or {}).get(number))
        for number, path in spans.items()
        if _has_marker(path)
    }


def odd_folders(folder: pathlib.Path) -> list[str]:
    """What looks like a span and never counts as one, in a sentence each; it does not stop those beside it.

    That is what has nearly a span's name, be it a folder, a file or a link to nothing, and any folder with a marker.
    """
    return [
        f"{path.name!a}{_nature(path)} in {folder} is no span and waits for ever: expected {cifar10.SPAN_FOLDER}N, "
        f"a folder with a number up to {_HIGHEST} without leading zeros; rename it."
        for path in sorted(folder.iterdir())
        if _is_odd(path)
    ]


def without_marker(folder: pathlib.Path, hours: float) -> list[str]:
    """Spans without their marker in which nothing has changed for so many hours, in a sentence each."""
    found = []
    for number in sorted(int(name) for name in _span_names(folder) if _is_number(name)):
        span = folder / f"{cifar10.SPAN_FOLDER}{number}"
        try:
            if _has_marker(span):
                continue
            waited = (time.time() - max(path.lstat().st_mtime for path in [span, *span.iterdir()])) / 3600
        except OSError as error:
            found.append(
                f"span {number} in {folder} cannot be looked into ({error.strerror}); expected a folder that this user "
                "may read."
            )
            continue
        if waited > hours:
            found.append(
                f"span {number} in {folder} has no {COMPLETE_MARKER} though nothing in it has changed for more than "
                f"{hours:g} hours; expected its writer to write that last."
            )
    return found


def _span_names(folder: pathlib.Path) -> list[str]:
    """What follows `span-` in the names of the folders."""
    return [
        path.name.removeprefix(cifar10.SPAN_FOLDER)
        for path in folder.iterdir()
        if path.name.startswith(cifar10.SPAN_FOLDER) and path.is_dir()
    ]


def _is_odd(path: pathlib.Path) -> bool:
    name = path.name
    if name.startswith(cifar10.SPAN_FOLDER) and path.is_dir():
        return not _is_number(name.removeprefix(cifar10.SPAN_FOLDER))
    is_other = name != TEST_FOLDER and path.is_dir() and _has_marker(path)
    return is_other or bool(_NEARLY.match(name))


def _nature(path: pathlib.Path) -> str:
    if not path.exists():
        return " (a link to nothing)"
    return "" if path.is_dir() else " (a file)"


def _has_marker(span: pathlib.Path) -> bool:
    """Whether its writer has said that it is complete; not of one that cannot be looked into."""
    try:
        return (span / COMPLETE_MARKER).is_file()
    except OSError:
        return False


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and str(int(name)) == name and int(name) <= _HIGHEST


def fingerprint(span: pathlib.Path) -> str:
    """Of a span's files: names, sizes and times of change, and then their content: another one is another delivery.

    Equal sizes and times are not enough: labels that are mended in place keep the size, and a copy the time. A link to
    nothing counts by itself, so that the span is looked at, and by what it leads to once that is there.
    """
    digest = hashlib.sha256()
    for path in _files(span):
        try:
            content = file_digest.sha256(path)
        except OSError:
            content = "unreadable"  # whoever looks at the span says why; the others do not wait for it
        digest.update(os.fsencode(path.relative_to(span).as_posix()) + f"\0{content}\n".encode())
    return f"{_by_status(span)}:{digest.hexdigest()}"


def seal(span: pathlib.Path) -> str:
    """Hex digest by which the system tells that no file of a span was written to since, without reading them."""
    digest = hashlib.sha256()
    for path in _files(span):
        name, found = os.fsencode(path.relative_to(span).as_posix()), file_digest.seal_of(_status(path))
        digest.update(name + f"\0{found}\n".encode())
    return digest.hexdigest()


def _unless_known(span: pathlib.Path, known: SpanRecord | None) -> str:
    if known is None:
        return fingerprint(span)
    # An earlier release noted names, sizes and times alone; it never asks for more.
    is_same = known.seal == seal(span) if known.seal else known.fingerprint == _by_status(span)
    return known.fingerprint if is_same else fingerprint(span)


def _by_status(span: pathlib.Path) -> str:
    """Hex digest of the record files' names, sizes and times of change."""
    digest = hashlib.sha256()
    for path in sorted(span.rglob("*.bin")):
        status = _status(path)
        name = os.fsencode(path.relative_to(span).as_posix())
        digest.update(name + f"\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _status(path: pathlib.Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError:
        return path.lstat()


def _files(span: pathlib.Path) -> list[pathlib.Path]:
    """The records, and what says what they are."""
    return sorted(
        path for path in span.rglob("*") if path.suffix == ".bin" or path.name in dataset.DESCRIPTIONS
    )
