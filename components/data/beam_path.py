"""Files and folders on any file system that Beam knows, as far as pathlib is needed to read and write data sets.

A folder is what lies below it: object stores have no others. Everything below is listed once, when a folder is opened.
Beam is imported when such a path is used, so that local folders do not wait for it.
"""

import collections
import dataclasses
import fnmatch
import functools
import io
import pathlib
import types
from collections.abc import Callable, Iterator
from typing import IO, Any, TypeVar

_Result = TypeVar("_Result")
_GLOB = "*?["


@dataclasses.dataclass(frozen=True)
class _Listing:
    """Everything below a folder: of each file size in bytes and time of the last change, of each folder its names."""

    files: dict[str, tuple[int, float]]
    folders: dict[str, set[str]]


@functools.total_ordering
class BeamPath:
    """A file or a folder by its address, such as gs://bucket/photos; equal and ordered as their addresses are.

    Args:
        address: SCHEME://...; Beam cannot quote wildcards, so it has none.
        listing: of the folder that was opened, in which it lies; None where nothing was.
    """

    def __init__(self, address: str, listing: _Listing | None = None) -> None:
        self._address, self._listing = address.rstrip("/"), listing or _Listing({}, {})

    @classmethod
    def opened(cls, address: str) -> "BeamPath":
        """A folder with a list of everything below it.

        Raises:
            ValueError: Beam knows no such file system, or there is a wildcard in the address.
            OSError: it cannot be listed.
        """
        if any(sign in address for sign in _GLOB):
            raise ValueError(
                f"An address has none of {' '.join(_GLOB)}, which are wildcards; received {address}."
            )
        root = address.rstrip("/")
        files: dict[str, tuple[int, float]] = {}
        folders: dict[str, set[str]] = collections.defaultdict(set)
        for file in _asked(lambda systems: systems.match([f"{root}/**"])[0].metadata_list):
            files[file.path] = file.size_in_bytes, file.last_updated_in_seconds or 0.0
            path = file.path
            while path != root and path.startswith(root):
                path, _, name = path.rpartition("/")
                if name in folders[path]:
                    break
                folders[path].add(name)
        return cls(root, _Listing(files, dict(folders)))

    def __str__(self) -> str:
        return self._address

    def __repr__(self) -> str:
        return f"BeamPath({self._address!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BeamPath) and str(self) == str(other)

    def __lt__(self, other: "BeamPath") -> bool:
        return str(self) < str(other)

    def __hash__(self) -> int:
        return hash(self._address)

    def __truediv__(self, name: str) -> "BeamPath":
        return self._at(f"{self._address}/{name}")

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process: with its own size, without the others'."""
        known = self._listing.files.get(self._address)
        return BeamPath, (self._address, _Listing({self._address: known}, {}) if known else None)

    def _at(self, address: str) -> "BeamPath":
        return BeamPath(address, self._listing)

    @property
    def name(self) -> str:
        """The last part."""
        return self._address.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The name's end, with its dot."""
        return pathlib.PurePosixPath(self.name).suffix

    @property
    def parent(self) -> "BeamPath":
        """What it lies in."""
        return self._at(self._address.rpartition("/")[0])

    def is_file(self) -> bool:
        """Whether a file has this address; asked for where it is not in the list."""
        if self._address in self._listing.files:
            return True
        return not self.is_dir() and bool(_asked(lambda systems: systems.exists(self._address)))

    def exists(self) -> bool:
        """Whether there is a file or a folder."""
        return self.is_dir() or self.is_file()

    def is_dir(self) -> bool:
        """Whether files lie below, in the folder that was opened."""
        return self._address in self._listing.folders

    def is_symlink(self) -> bool:
        """False: there are no links."""
        return False

    def iterdir(self) -> Iterator["BeamPath"]:
        """What lies in the folder that was opened, or in one below it."""
        yield from (self / name for name in sorted(self._listing.folders.get(self._address, ())))

    def glob(self, pattern: str) -> Iterator["BeamPath"]:
        """What of it has a name that fits."""
        yield from (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern))

    def stat(self) -> Any:
        """`st_size` in bytes and `st_mtime_ns`, 0 where the file system does not tell, of a file that was listed."""
        size, changed = self._listing.files[self._address]
        return types.SimpleNamespace(st_size=size, st_mtime_ns=int(changed * 1e9))

    def open(self, mode: str = "r", encoding: str | None = None, newline: str | None = None) -> IO[Any]:
        """Its content, "rb" or "r", read whole."""
        data = io.BytesIO(self.read_bytes())
        return data if mode == "rb" else io.TextIOWrapper(data, encoding or "utf-8", newline=newline)

    def read_bytes(self) -> bytes:
        """The content.

        Raises:
            OSError: it cannot be read.
        """

        def read(systems: Any) -> bytes:
            with systems.open(self._address, compression_type=_plain()) as file:
                return file.read()

        return _asked(read)

    def write_bytes(self, data: bytes) -> None:
        """Makes or replaces the file.

        Raises:
            OSError: it cannot be written.
        """

        def write(systems: Any) -> None:
            with systems.create(self._address, compression_type=_plain()) as file:
                file.write(data)

        _asked(write)

    def unlink(self) -> None:
        """Removes the file.

        Raises:
            OSError: it cannot be removed.
        """
        _asked(lambda systems: systems.delete([self._address]))


Place = pathlib.Path | BeamPath


def place(text: str) -> Place:
    """A folder of this machine, or what Beam finds at an address with a scheme.

    Raises:
        ValueError: Beam knows no such file system.
        OSError: it cannot be listed.
    """
    return BeamPath.opened(text) if "://" in text else pathlib.Path(text)


def _plain() -> Any:
    from apache_beam.io.filesystem import CompressionTypes

    return CompressionTypes.UNCOMPRESSED


def _asked(ask: Callable[[Any], _Result]) -> _Result:
    """What Beam's file systems answer.

    Raises:
        OSError: for each error of theirs; Beam's own is none.
    """
    from apache_beam.io.filesystem import BeamIOError
    from apache_beam.io.filesystems import FileSystems

    try:
        return ask(FileSystems)
    except BeamIOError as error:
        causes = "; ".join(f"{path}: {why}" for path, why in (error.exception_details or {}).items())
        raise OSError(causes or str(error)) from error
