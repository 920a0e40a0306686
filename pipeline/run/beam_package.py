"""TFX's own source for Beam's workers: packed once a run, in the root, and gone with the run; for most not at all.

TFX packs itself anew for every Beam component that has arguments, into the temporary folder, and leaves it there: some
40 MB and a second and a half each time. Workers that are this process, or others that it starts, need none of it.

What else this process puts into the temporary folder during a run goes there too: TensorFlow's autograph writes a file
for each function and removes it at the interpreter's end, so a killed run would leave all of them.
"""

import contextlib
import functools
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from tfx.utils import dependency_utils

from pipeline.beam import IN_PROCESS


@contextlib.contextmanager
def packed_in(folder: pathlib.Path) -> Iterator[None]:
    """Within the block TFX packs itself at most once, and `folder`, removed before and after, is for temporary files.

    For Beam's runner in this process, TFX packs nothing.

    The caller holds the root's lock, so what is in the folder at the beginning is of a process that was killed.

    Args:
        folder: nobody else's.
    """
    build, flags_for = dependency_utils.build_ephemeral_package, dependency_utils.make_beam_dependency_flags

    @functools.cache
    def build_once() -> str:
        return build()

    def flags_where_needed(flags: list[str]) -> list[str]:
        return flags if IN_PROCESS in flags else flags_for(flags)

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    dependency_utils.build_ephemeral_package = build_once
    dependency_utils.make_beam_dependency_flags = flags_where_needed
    try:
        yield
    finally:
        tempfile.tempdir = before
        dependency_utils.build_ephemeral_package = build
        dependency_utils.make_beam_dependency_flags = flags_for
        shutil.rmtree(folder, ignore_errors=True)
