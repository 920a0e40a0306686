"""A folder that appears complete or not at all."""

import contextlib
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
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
