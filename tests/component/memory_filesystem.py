"""A Beam file system that keeps files in a dictionary: stands for any that is not the local one."""

import fnmatch
import io

from apache_beam.io.filesystem import CompressionTypes, FileMetadata, FileSystem, MatchResult

FILES: dict[str, bytes] = {}


class _Written(io.BytesIO):
    def __init__(self, path):
        super().__init__()
        self.path = path

    def close(self):
        if not self.closed:
            FILES[self.path] = self.getvalue()
        super().close()


class MemoryFileSystem(FileSystem):
    """Serves `FILES` under the scheme "mem"; a file is there when it is closed, and there are no folders."""

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

    def create(self, path, mime_type="", compression_type=CompressionTypes.AUTO):
        del mime_type, compression_type
        return _Written(path)

    def exists(self, path):
        return path in FILES

    def delete(self, paths):
        for path in paths:
            del FILES[path]

    def _unsupported(self, *arguments, **named):
        raise NotImplementedError(f"not here: {arguments} {named}")

    join = split = mkdirs = has_dirs = copy = rename = _unsupported
    size = last_updated = checksum = metadata = _list = _unsupported
