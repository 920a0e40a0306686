"""TFX's own source for Beam's workers: packed once a run, in the root, and gone with the run.

TFX packs itself anew for every Beam component that has arguments, into the temporary folder, and leaves it there: some
40 MB each time.
"""

import contextlib
import functools
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from tfx.utils import dependency_utils


@contextlib.contextmanager
def packed_in(folder: pathlib.Path) -> Iterator[None]:
    """Within the block TFX packs itself at most once, below `folder`, which is removed before and after.

    The caller holds the root's lock, so what is in the folder at the beginning is of a process that was killed.

    Args:
        folder: nobody else's.
    """
    build = dependency_utils.build_ephemeral_package

    @functools.cache
    def build_once() -> str:
        folder.mkdir(parents=True, exist_ok=True)
        before, tempfile.tempdir = tempfile.tempdir, str(folder)
        try:
            return build()
        finally:
            tempfile.tempdir = before

    shutil.rmtree(folder, ignore_errors=True)
    dependency_utils.build_ephemeral_package = build_once
    try:
        yield
    finally:
        dependency_utils.build_ephemeral_package = build
        shutil.rmtree(folder, ignore_errors=True)
