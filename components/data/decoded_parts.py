"""Pictures decoded part by part by several processes, each part kept on disk until the whole data set is made.

What an import that was killed has decoded, the same command does not decode again. A part is named by its files, their
sizes and times, and by how they are decoded; where a file is added or removed, parts far from it stay what they were.
"""

import collections
import concurrent.futures
import functools
import hashlib
import io
import json
import multiprocessing
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import PIL

from components import staging
from components.data import pictures
from components.data.beam_path import Place
from components.data.picture_folders import Found
from components.data.pictures import PictureError, read_picture

# A part ends after so many files, after so many bytes of theirs or of their pixels, or after a file that draws its end.
PART_FILES = 256
PART_SOURCE_BYTES = 1 << 30
PART_PIXEL_BYTES = 16 * 1024 * 1024
_ENDS_ONE_IN = 128
_CHUNK = 4  # files that a process is given at once: large pictures take a tenth of a second each
_PARTS_AHEAD = 2  # that are being decoded while one is written
_UNUSABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)

Row = tuple[Found, np.ndarray | None, str]
_Pixels = tuple[np.ndarray | None, str]


def in_drawn_order(found: Iterable[Found]) -> list[Found]:
    """The labelled files and then the others, each in an order drawn from their names alone."""
    return sorted(found, key=lambda file: (file.label is None, _drawn(file.path)))


def decoded(
    files: Sequence[Found],
    height: int,
    width: int,
    background: tuple[int, int, int],
    workers: int,
    kept: Place,
) -> Iterator[Row]:
    """Yields each file in order with its pixels, or with the reason why there are none.

    Args:
        files: in the order of `in_drawn_order`.
        height, width, background: as `read_picture` takes them.
        workers: processes that decode.
        kept: folder of the parts; those that are there are read and not decoded.

    Yields:
        a file, uint8 `[height, width, 3]` or None, and the reason.

    Raises:
        OSError: a part cannot be written.
    """
    decode = functools.partial(_decode, height, width, background)
    how = (height, width, background, PIL.__version__, _digest(pathlib.Path(pictures.__file__).read_bytes()))
    most = max(1, min(PART_FILES, PART_PIXEL_BYTES // (height * width * 3)))
    ahead: collections.deque[tuple[list[Found], Place, Iterable[_Pixels], bool]] = collections.deque()
    with _Processes(decode, workers) as processes:
        for part in _parts(files, most):
            place = kept / f"{_digest(repr((how, [_fingerprint(file) for file in part])).encode())}.npz"
            there = _read(place, len(part))
            ahead.append((part, place, there or processes.map(part), there is not None))
            if len(ahead) > _PARTS_AHEAD:
                yield from _finished(*ahead.popleft())
        while ahead:
            yield from _finished(*ahead.popleft())


def _finished(part: list[Found], place: Place, results: Iterable[_Pixels], is_kept: bool) -> Iterator[Row]:
    """The rows of a part; when all are there, and before the last one is handed on, they are kept."""
    rows: list[_Pixels] = []
    for file, result in zip(part, results, strict=True):
        rows.append(result)
        if len(rows) == len(part) and not is_kept:
            _keep(place, rows)
        yield file, *result


def _parts(files: Iterable[Found], most: int) -> Iterator[list[Found]]:
    part: list[Found] = []
    size = 0
    for file in files:
        part.append(file)
        size += _fingerprint(file)[1]
        if len(part) >= most or size >= PART_SOURCE_BYTES or _drawn(file.path)[-1] % _ENDS_ONE_IN == 0:
            yield part
            part, size = [], 0
    if part:
        yield part


def _fingerprint(file: Found) -> tuple[str, int, int]:
    """Name, size in bytes and time of the last change; of a file that is gone meanwhile nothing but its name."""
    try:
        found = file.path.stat()
    except OSError:
        return str(file.path), 0, 0
    return str(file.path), found.st_size, found.st_mtime_ns


class _Processes:
    """Decodes in other processes, or in this one if one is enough. They are spawned: a fork copies no threads."""

    def __init__(self, decode: Callable[[Place], _Pixels], workers: int) -> None:
        self._decode = decode
        context = multiprocessing.get_context("spawn")
        self._pool = concurrent.futures.ProcessPoolExecutor(workers, context) if workers > 1 else None

    def __enter__(self) -> "_Processes":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, part: list[Found]) -> Iterable[_Pixels]:
        paths = [file.path for file in part]
        if self._pool is None:
            return map(self._decode, paths)
        return self._pool.map(self._decode, paths, chunksize=_CHUNK)


def _decode(height: int, width: int, background: tuple[int, int, int], path: Place) -> _Pixels:
    try:
        return read_picture(path, height, width, background), ""
    except PictureError as error:
        return None, str(error)


def _keep(place: Place, rows: list[_Pixels]) -> None:
    """Writes a part as an archive, whose checksums tell whether it is whole."""
    pixels = [image for image, _ in rows if image is not None]
    reasons = json.dumps([None if image is not None else reason for image, reason in rows])
    data = io.BytesIO()
    np.savez(
        data,
        pixels=np.stack(pixels) if pixels else np.zeros((0, 1, 1, 3), np.uint8),
        reasons=np.frombuffer(reasons.encode(), np.uint8),
    )
    if isinstance(place, pathlib.Path):
        with staging.written_whole(place) as temporary:
            temporary.write_bytes(data.getvalue())
    else:
        place.write_bytes(data.getvalue())


def _read(place: Place, count: int) -> list[_Pixels] | None:
    """A part that was kept; None where there is none, or a damaged one."""
    try:
        if not place.is_file():
            return None
        with np.load(io.BytesIO(place.read_bytes()), allow_pickle=False) as archive:
            pixels, reasons = iter(archive["pixels"]), json.loads(archive["reasons"].tobytes())
        rows: list[_Pixels] = [
            (None, reason) if reason is not None else (next(pixels), "") for reason in reasons
        ]
    except (*_UNUSABLE, StopIteration):
        return None
    return rows if len(rows) == count else None


def _drawn(path: Place) -> bytes:
    return hashlib.blake2b(str(path).encode("utf-8", "surrogateescape"), digest_size=8).digest()


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
