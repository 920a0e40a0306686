"""Files and folders that appear complete or not at all, and that a power cut does not take back.

A rename alone is not enough: the file system may write down the new name before the content, and after a cut the file
is there and empty. So the content goes to the disk first, then the name, then the folder that holds the name.

Some disks say that they have written what they have not. So a small file that decides something is written twice, one
copy on the disk before the other is begun; where one has lost its end, the other is read.
"""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def staged_folder(target: pathlib.Path, within: pathlib.Path | None = None) -> Iterator[pathlib.Path]:
    """Yields a temporary folder beside `target`, and renames it to `target` if the block succeeds.

    On any error, an interrupt included, the temporary folder is removed and `target` is as it was.

    Args:
        target: the folder to make; it may exist if it is empty.
        within: an existing folder of the same file system, for the temporary one.

    Raises:
        ValueError: `target` is a file or a folder that holds something.
        OSError: no write permission, or a full disk.
    """
    check_free(target)
    make_folder(target.parent)
    staging = pathlib.Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=within or target.parent))
    try:
        yield staging
        staging.chmod(0o755)  # mkdtemp makes folders that only their owner can read
        sync_tree(staging)
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    sync_folder(target.parent)


def check_free(target: pathlib.Path) -> None:
    """Checks that a folder can be made.

    Raises:
        ValueError: it is a file or a folder that holds something.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ValueError(
            f"Cannot write a data set to {target}: it exists and is not an empty folder. "
            "Name another folder, or remove this one."
        )


@contextlib.contextmanager
def written_whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields the name of a temporary file beside `path`, and renames it to `path` if the block succeeds.

    A reader sees the old file or the new one, and so does whoever looks after a power cut.

    Args:
        path: the file to make or to replace; its folder is made.

    Raises:
        OSError: no write permission, or a full disk.
    """
    make_folder(path.parent)
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


def write_twice(path: pathlib.Path, text: str, mode: int | None = None) -> None:
    """Writes `text` as `write_atomically` does, after a second copy beside it, for `read_either`.

    Args:
        path: the file; its copy is `copy_of(path)`.
        text: JSON.
        mode: of both.

    Raises:
        OSError: no write permission, or a full disk.
    """
    write_atomically(copy_of(path), text, mode)
    write_atomically(path, text, mode)


def read_either(path: pathlib.Path, copy: pathlib.Path | None = None) -> str:
    """The text of a JSON file, or that of its copy where the file has lost its end.

    Args:
        path: the file.
        copy: `copy_of(path)` if None.

    Raises:
        OSError: there is no such file, or it may not be read; a copy alone is no file.
        ValueError: it is no UTF-8.
    """
    text = path.read_text(encoding="utf-8")
    if not is_cut(text):
        return text
    try:
        other = (copy or copy_of(path)).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return text
    return text if is_cut(other) else other


def copy_of(path: pathlib.Path) -> pathlib.Path:
    """The second copy of a small file."""
    return path.with_name(f".{path.name}.copy")


def remove_both(path: pathlib.Path) -> None:
    """Removes a file of `write_twice` after its copy, so that none stays alone; what is gone already is all right."""
    copy_of(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def is_cut(text: str) -> bool:
    """Whether the end of a JSON text is missing, as after a power cut; another fault is somebody's doing."""
    return not text.rstrip("\0\n ").endswith(("}", "]"))


def move(path: pathlib.Path, target: pathlib.Path) -> None:
    """Renames a file or a folder whose content is on the disk already, within one file system."""
    path.replace(target)
    sync_folder(target.parent)


def make_folder(folder: pathlib.Path, mode: int = 0o777) -> None:
    """Makes the folder and those above it, and returns when their names are on the disk; one that is there stays.

    Raises:
        OSError: no write permission, a full disk, or there is a file of that name.
    """
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    for made in reversed(missing):
        sync_folder(made.parent)


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
