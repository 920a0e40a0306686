"""The digests of the files that the ExampleGen reads, on any file system that Beam knows."""

import hashlib
import os
from collections.abc import Iterable
from typing import Any

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from tfx.proto import example_gen_pb2
from tfx.types import standard_component_specs
from tfx.utils import proto_utils

from components.data import file_digest


def file_digests(input_base: str, patterns: Iterable[str]) -> dict[str, str]:
    """SHA-256, as hex digits, of every file below `input_base` that a pattern matches, by its name there.

    Any Beam file system will do; a file is read in blocks of a megabyte.
    """
    base = input_base.rstrip("/") + "/"
    matches = FileSystems.match([os.path.join(base, pattern) for pattern in patterns])
    paths = {file.path for match in matches for file in match.metadata_list}
    return {path.removeprefix(base): _sha256(path) for path in sorted(paths)}


def digests(exec_properties: dict[str, Any]) -> dict[str, str]:
    """Of an ExampleGen's input files; its driver has put the span's number into the patterns by now."""
    chosen = example_gen_pb2.Input()
    proto_utils.json_to_proto(exec_properties[standard_component_specs.INPUT_CONFIG_KEY], chosen)
    base = exec_properties[standard_component_specs.INPUT_BASE_KEY]
    return file_digests(base, [split.pattern for split in chosen.splits])


def _sha256(path: str) -> str:
    if os.path.isfile(path):  # where the system tells whether it was changed, it is read once
        return file_digest.sha256(path)
    digest = hashlib.sha256()
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
