"""Files and folders that appear complete or not at all, and that a power cut does not take back.

A rename alone is not enough: the file system may write down the new name before the content, and after a cut the file
is there and empty. So the content goes to the disk first, then the name, then the folder that holds the name.
"""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def staged_folder(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary folder beside `target`, and renames it to `target` if the block succeeds.

    On any error, an interrupt included, the temporary folder is removed and `target` is as it was.

    Args:
        target: the folder to make; it may exist if it is empty.

    Raises:
        ValueError: `target` is a file or a folder that holds something.
        OSError: no write permission, or a full disk.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ValueError(
            f"Cannot write a data set to {target}: it exists and is not an empty folder. "
            "Name another folder, or remove this one."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = pathlib.Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield staging
        staging.chmod(0o755)  # mkdtemp makes folders that only their owner can read
        sync_tree(staging)
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    sync_folder(target.parent)


@contextlib.contextmanager
def written_whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields the name of a temporary file beside `path`, and renames it to `path` if the block succeeds.

    A reader sees the old file or the new one, and so does whoever looks after a power cut.

    Args:
        path: the file to make or to replace; its folder is made.

    Raises:
        OSError: no write permission, or a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        sync_file(temporary)
        temporary.replace(path)
    finally:  # a full disk gets its room back
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_atomically(path: pathlib.Path, text: str, mode: int | None = None) -> None:
    """Writes UTF-8 `text` to `path` as `written_whole` does.

    Args:
        path: the file.
        text: what is in it afterwards.
        mode: permissions of the new file, set before anything is in it; None for those of any new file.

    Raises:
        OSError: no write permission, or a full disk.
    """
    with written_whole(path) as temporary:
        if mode is not None:
            temporary.touch(mode=mode)
        temporary.write_text(text, encoding="utf-8")


def move(path: pathlib.Path, target: pathlib.Path) -> None:
    """Renames a file or a folder whose content is on the disk already, within one file system."""
    path.replace(target)
    sync_folder(target.parent)


def sync_tree(folder: pathlib.Path) -> None:
    """Returns when all files and folders below, and the folder itself, are on the disk; links are not followed."""
    for path in folder.rglob("*"):
        if path.is_symlink():
            continue
        if path.is_dir():
            sync_folder(path)
        elif path.is_file():
            sync_file(path)
    sync_folder(folder)


def sync_file(path: pathlib.Path) -> None:
    """Returns when the file's content is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: pathlib.Path) -> None:
    """Returns when the names in the folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
