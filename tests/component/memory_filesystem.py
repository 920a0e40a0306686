"""A Beam file system that keeps files in a dictionary: stands for any that is not the local one."""

import fnmatch
import io

from apache_beam.io.filesystem import CompressionTypes, FileMetadata, FileSystem, MatchResult

FILES: dict[str, bytes] = {}


class MemoryFileSystem(FileSystem):
    """Serves `FILES` under the scheme "mem"; read-only."""

    @classmethod
    def scheme(cls):
        return "mem"

    def match(self, patterns, limits=None):
        del limits
        return [
            MatchResult(
                pattern, [FileMetadata(x, len(FILES[x]), 0.0) for x in FILES if fnmatch.fnmatch(x, pattern)]
            )
            for pattern in patterns
        ]

    def open(self, path, mime_type="", compression_type=CompressionTypes.AUTO):
        del mime_type, compression_type
        return io.BytesIO(FILES[path])

    def _unsupported(self, *arguments, **named):
        raise NotImplementedError(f"read-only: {arguments} {named}")

    join = split = mkdirs = has_dirs = create = copy = rename = delete = _unsupported
    exists = size = last_updated = checksum = metadata = _list = _unsupported
