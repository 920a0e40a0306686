"""A data set that appears complete or not at all on any file system, and the folder of what was done towards it."""

import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from components import staging
from components.data import dataset
from components.data.beam_path import BeamPath, Place

SUCCESS_FILE = "_SUCCESS"


def work_folder(target: Place) -> Place:
    """Where the decoded pictures of an import lie until its data set is whole: beside it."""
    if isinstance(target, pathlib.Path):
        target = target.absolute()
    return target.parent / f".{target.name}.import"


@contextlib.contextmanager
def work(target: Place) -> Iterator[Place]:
    """Yields the work folder, which is removed when the block succeeds, or when nothing is in it."""
    folder = work_folder(target)
    if isinstance(target, BeamPath) or isinstance(folder, BeamPath):
        yield BeamPath.opened(str(folder))  # with what an earlier call has kept
        for part in BeamPath.opened(str(folder)).iterdir():
            part.unlink()
        return
    staging.check_free(target)
    staging.make_folder(folder)
    with _alone(folder):
        for left in folder.glob(f".{target.name}-*"):  # of an import that was killed while it wrote
            shutil.rmtree(left)
        try:
            yield folder
        except BaseException:
            with contextlib.suppress(OSError):
                folder.rmdir()  # where nothing was decoded
            raise
        shutil.rmtree(folder)


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
    """No other process is in the block for the same folder; the kernel gives the lock back when the process dies.

    Raises:
        ValueError: another one is.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"Another import is at work in {folder}. Wait for it, or give another folder to make."
            ) from error
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def made(target: Place, work: Place) -> Iterator[pathlib.Path]:
    """Yields a folder of this machine, which becomes `target` when the block succeeds.

    Where a folder cannot be renamed, `target` says until its last file is there that it is not whole.

    Raises:
        ValueError: it holds something already.
    """
    if isinstance(target, pathlib.Path):
        with staging.staged_folder(target, within=pathlib.Path(str(work))) as staged:
            yield staged
        return
    _left(target)  # raises before anything is decoded
    with tempfile.TemporaryDirectory(prefix="import-") as name:
        yield pathlib.Path(name)
        marker = target / dataset.UNFINISHED_FILE
        marker.write_bytes(b"")
        for stale in _left(target):
            stale.unlink()
        files = {file.name: file for file in pathlib.Path(name).iterdir()}
        success = files.pop(SUCCESS_FILE, None)
        for file in files.values():
            (target / file.name).write_bytes(file.read_bytes())
        marker.unlink()
        if success:
            (target / SUCCESS_FILE).write_bytes(b"")


def _left(target: BeamPath) -> list[BeamPath]:
    """What an import that was killed has left of `target`.

    Raises:
        ValueError: it is more than that.
    """
    found = list(BeamPath.opened(str(target)).iterdir())
    left = [path for path in found if path.name != dataset.UNFINISHED_FILE]
    if left and len(left) == len(found):
        raise ValueError(
            f"Cannot write a data set to {target}: it exists and is not an empty folder. "
            "Name another folder, or remove this one."
        )
    return left
