"""Digests of source files: part of each stage's cache key, so that edited code never returns a stale artifact."""

import hashlib
import pathlib
from collections.abc import Iterable

_ROOT = pathlib.Path(__file__).resolve().parent.parent


def source_digest(sources: Iterable[str]) -> str:
    """Returns the hex digest of the named files and, for folders, of the Python files in them.

    Args:
        sources: paths below the project: a file ("components/data/features.py"), the Python files directly in a folder
            ("trainer/byol"), or those in it and below ("trainer/**").

    Raises:
        FileNotFoundError: for a name that is neither file nor folder: a digest of nothing would never change.
    """
    digest = hashlib.sha256()
    for source in sources:
        path = _ROOT / source.removesuffix("/**")
        if not path.exists():
            raise FileNotFoundError(
                f"No source at {source}; the digest of a stage names the files it is made of."
            )
        for file in _python_files(path, below=source.endswith("/**")):
            digest.update(f"{file.relative_to(_ROOT).as_posix()}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _python_files(path: pathlib.Path, below: bool) -> list[pathlib.Path]:
    if not path.is_dir():
        return [path]
    return sorted(path.rglob("*.py") if below else path.glob("*.py"))
