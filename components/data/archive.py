"""Download, verification and unpacking of the official CIFAR-10 binary archive.

Server and archive are untrusted: nothing is unpacked before its checksum is right, only the expected files
are, and a data set appears complete or not at all.
"""

import hashlib
import http.client
import pathlib
import tarfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from typing import IO

from components import staging
from components.data import cifar10

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"  # as https://www.cs.toronto.edu/~kriz/cifar.html states it

_FILE_BYTES = cifar10.RECORDS_PER_FILE * cifar10.RECORD_BYTES
RECORD_FILES: Mapping[str, int] = {
    **{f"data_batch_{number}.bin": _FILE_BYTES for number in range(1, 6)},
    "test_batch.bin": _FILE_BYTES,
}
_SMALL_FILES = (cifar10.LABEL_NAMES_FILE, "readme.html")  # may be missing, at most this large:
_SMALL_FILE_BYTES = 16 * 1024

_MAX_ARCHIVE_BYTES = 256 * 1024 * 1024  # the official one has 170,052,171
_CHUNK_BYTES = 1024 * 1024
_TIMEOUT_SECONDS = 60
_PARTIAL_NAME = "cifar-10-binary.tar.gz.part"

Progress = Callable[[int, int], None]


class DownloadError(OSError):
    """The archive could not be fetched; what has arrived is kept, and the next attempt goes on from there."""


class ArchiveError(ValueError):
    """The archive is not the official one, or holds what it should not; nothing was unpacked."""


def download_cifar10(
    out_dir: str | pathlib.Path,
    url: str = URL,
    progress: Progress | None = None,
    md5: str = MD5,
    record_files: Mapping[str, int] = RECORD_FILES,
) -> pathlib.Path:
    """Makes `out_dir/cifar-10-batches-bin`, or leaves it alone if it is complete.

    Args:
        out_dir: made if it is missing.
        url: http or https.
        progress: called with the bytes received so far and the bytes in all.
        md5: expected checksum of the archive, hexadecimal.
        record_files: expected record files and their sizes in bytes.

    Returns:
        The folder with the record files.

    Raises:
        DownloadError: network or server failed; calling again resumes.
        ArchiveError: wrong checksum or wrong content; calling again starts afresh.
        ValueError: `url` is neither http nor https, or the folder exists and holds something else.
        OSError: no write permission, or a full disk.
    """
    if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        raise ValueError(f"Cannot download from {url!r}: expected an http or https address.")
    target = pathlib.Path(out_dir) / cifar10.OFFICIAL_FOLDER
    if all(
        (target / name).is_file() and (target / name).stat().st_size == size
        for name, size in record_files.items()
    ):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / _PARTIAL_NAME
    fetch(url, partial, progress)
    verify(partial, md5)
    unpack(partial, target, record_files)
    partial.unlink()
    return target


def fetch(
    url: str,
    partial: pathlib.Path,
    progress: Progress | None = None,
    max_bytes: int | None = None,
) -> None:
    """Downloads `url` to `partial`, from where an earlier attempt stopped if the server can do that.

    Raises:
        DownloadError: as `download_cifar10`.
    """
    start = partial.stat().st_size if partial.exists() else 0
    # The caller has checked that the scheme is http or https.
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310
            resumes = response.status == http.HTTPStatus.PARTIAL_CONTENT and _range_start(response) == start
            _receive(response, partial, start if resumes else 0, progress, max_bytes or _MAX_ARCHIVE_BYTES)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            return  # everything had arrived; the checksum tells whether it is right
        raise DownloadError(f"{url} answered {error.code} {error.reason}. Check the address.") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise DownloadError(
            f"Download of {url} failed: {error}. Run the same command again to go on."
        ) from error


def verify(path: pathlib.Path, md5: str) -> None:
    """Compares a file's MD5, and removes the file if it differs, so that the next attempt starts afresh.

    Raises:
        ArchiveError: the checksum differs.
    """
    digest = hashlib.md5(usedforsecurity=False)  # the official page gives no other
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != md5:
        path.unlink()
        raise ArchiveError(
            f"The archive has MD5 {digest.hexdigest()}, expected {md5}. It was removed; download it again."
        )


def unpack(
    archive: pathlib.Path, target: pathlib.Path, record_files: Mapping[str, int] = RECORD_FILES
) -> None:
    """Unpacks the expected files to `target`, all of them or none.

    Raises:
        ArchiveError: no gzipped tar archive, an unexpected member, link, size or path, or a missing file.
        ValueError: `target` holds something already.
    """
    with staging.staged_folder(target) as staged:
        try:
            with tarfile.open(archive, "r|gz") as tar:
                for member in tar:
                    _unpack_member(tar, member, staged, record_files)
        except (tarfile.TarError, EOFError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's fault: full, or not writable
            raise ArchiveError(f"{archive} is damaged, or no gzipped tar archive: {error}.") from error
        missing = [name for name in record_files if not (staged / name).is_file()]
        if missing:
            raise ArchiveError(f"{archive} lacks {', '.join(missing)}. Expected CIFAR-10's binary version.")


def _unpack_member(
    tar: tarfile.TarFile, member: tarfile.TarInfo, staged: pathlib.Path, record_files: Mapping[str, int]
) -> None:
    """Copies one expected file by its own name; names, modes and owners of the archive are never used as
    paths.
    """
    folder, _, name = member.name.partition("/")
    if member.isdir() and member.name.rstrip("/") == cifar10.OFFICIAL_FOLDER:
        return
    if folder != cifar10.OFFICIAL_FOLDER or not (name in record_files or name in _SMALL_FILES):
        raise ArchiveError(f"Unexpected member {member.name!r} in the archive; nothing was unpacked.")
    if not member.isreg():
        raise ArchiveError(f"{member.name!r} in the archive is no regular file; nothing was unpacked.")
    if name in record_files and member.size != record_files[name]:
        raise ArchiveError(f"{member.name!r} has {member.size} bytes, expected {record_files[name]}.")
    if member.size > max(_SMALL_FILE_BYTES, record_files.get(name, 0)):
        raise ArchiveError(f"{member.name!r} has {member.size} bytes, expected at most {_SMALL_FILE_BYTES}.")
    source = tar.extractfile(member)
    if source is None or (staged / name).exists():
        raise ArchiveError(
            f"{member.name!r} is in the archive twice, or has no content; nothing was unpacked."
        )
    with open(staged / name, "wb") as file:
        while chunk := source.read(_CHUNK_BYTES):
            file.write(chunk)


def _receive(
    response: http.client.HTTPResponse,
    partial: pathlib.Path,
    start: int,
    progress: Progress | None,
    max_bytes: int,
) -> None:
    length = response.headers.get("Content-Length")
    total = start + int(length) if length and length.isdigit() else -1
    if total > max_bytes:
        raise DownloadError(f"The server announces {total} bytes, expected at most {max_bytes}. Stopped.")
    received = start
    with open(partial, "ab" if start else "wb") as file:
        while chunk := _read_chunk(response):
            received += len(chunk)
            if received > max_bytes:
                raise DownloadError(f"The server sent more than {max_bytes} bytes. Stopped.")
            file.write(chunk)
            if progress:
                progress(received, total)
    if total >= 0 and received < total:
        raise DownloadError(
            f"The connection ended after {received} of {total} bytes. Run the same command again to go on."
        )


def _read_chunk(response: IO[bytes]) -> bytes:
    """Reads on; a connection cut short in the middle of a chunk ends like any other, so that nothing is
    thrown away.
    """
    try:
        return response.read(_CHUNK_BYTES)
    except http.client.IncompleteRead as error:
        return error.partial


def _range_start(response: http.client.HTTPResponse) -> int | None:
    """The first byte of `Content-Range: bytes 100-199/200`, or None."""
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    first = rest.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdigit() else None
