"""Which spans have arrived in a folder: those whose writer has said that they are complete."""

import hashlib
import pathlib

from components.data import cifar10

# Written last, empty, by whoever delivers a span: what MapReduce, Spark and Beam users know it as.
COMPLETE_MARKER = "_SUCCESS"
TEST_FOLDER = "test"


def complete_spans(folder: pathlib.Path) -> dict[int, str]:
    """Returns the numbers of the complete spans, ascending, each with the fingerprint of its files.

    Args:
        folder: holds `span-N` folders.

    Raises:
        ValueError: there is no such folder, or a span's number has leading zeros.
    """
    if not folder.is_dir():
        raise ValueError(
            f"No such folder: {folder}. Expected one that holds {cifar10.SPAN_FOLDER}N folders, each with CIFAR-10's "
            f"binary files and an empty {COMPLETE_MARKER} written last."
        )
    spans = {number: folder / f"{cifar10.SPAN_FOLDER}{number}" for number in cifar10.span_numbers(folder)}
    return {number: fingerprint(path) for number, path in spans.items() if (path / COMPLETE_MARKER).is_file()}


def fingerprint(span: pathlib.Path) -> str:
    """Hex digest of a span's file names, sizes and times of change: another one means another delivery."""
    digest = hashlib.sha256()
    for path in sorted(span.rglob("*.bin")):
        status = path.stat()
        digest.update(
            f"{path.relative_to(span).as_posix()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode()
        )
    return digest.hexdigest()
