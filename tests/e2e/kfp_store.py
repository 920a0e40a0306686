"""An object store as KFP's launcher uses it: keys and files, no folders, no links, no modes."""

import os
import pathlib
import shutil

SCHEMES = {"minio://": "minio", "s3://": "s3", "gs://": "gcs"}
FOLDER_MODE, FILE_MODE = 0o755, 0o644


class RefusedError(RuntimeError):
    """The store refused a write."""


class Store:
    """Artifacts below one folder, each object a file.

    Args:
        folder: of the store.
        bare_prefix: a download takes everything whose key begins with the artifact's, as every release before 2.17
            does (DownloadBlob, backend/src/v2/objectstore/object_store.go:128 at 2.15.0; isBlobKeyUnderPrefix, :171 at
            2.17.0): `model` brings `model_run` as well.
    """

    def __init__(self, folder: pathlib.Path, bare_prefix: bool) -> None:
        self._folder, self._bare_prefix = folder, bare_prefix

    def path(self, uri: str) -> pathlib.Path:
        """Where the objects of an artifact lie."""
        return self._folder / uri.replace("://", "/")

    def upload(self, source: pathlib.Path, uri: str, objects: int | None = None) -> int:
        """Copies a file or the files of a folder; what is there already stays, and is replaced where a key is the same.

        See UploadBlob (backend/src/v2/objectstore/object_store.go:95 at 2.16.1). Returns the number of objects.

        Raises:
            FileNotFoundError: there is nothing to upload.
            RefusedError: after as many objects as the store is told to take.
        """
        files = _files(source)
        for number, (file, key) in enumerate(files):
            if objects is not None and number >= objects:
                raise RefusedError(f"the store refused {uri}/{key}")
            target = self.path(uri) / key if key else self.path(uri)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        return len(files)

    def download(self, uri: str, local: pathlib.Path) -> None:
        """Writes an artifact's files as the launcher does: whatever they were, they are no one's to execute."""
        place = self.path(uri)
        prefix = os.fspath(place)
        for file in sorted(place.parent.rglob("*")):
            under = file == place or place in file.parents
            if file.is_dir() or not (under or (self._bare_prefix and os.fspath(file).startswith(prefix))):
                continue
            # filepath.Rel of the key: what lies beside the artifact comes to lie beside its copy.
            target = pathlib.Path(os.path.normpath(local / os.path.relpath(file, place)))
            _make(target.parent)
            shutil.copyfile(file, target)
            target.chmod(FILE_MODE)


def staged(uri: str, pod: pathlib.Path) -> pathlib.Path:
    """The file or folder in a pod as which the launcher stages an artifact (LocalPathForURI, launcher_v2.go)."""
    scheme = next(scheme for scheme in SCHEMES if uri.startswith(scheme))
    return pod / SCHEMES[scheme] / uri.removeprefix(scheme)


def _files(source: pathlib.Path, key: str = "") -> list[tuple[pathlib.Path, str]]:
    """The files that are uploaded, with their keys: empty folders have none; a link to a folder is read as a file."""
    if not source.is_dir() or (key and source.is_symlink()):
        source.stat()
        return [(source, key)]
    return [
        found for one in sorted(source.iterdir()) for found in _files(one, f"{key}/{one.name}".lstrip("/"))
    ]


def _make(folder: pathlib.Path) -> None:
    for one in reversed([folder, *folder.parents]):
        if not one.exists():
            one.mkdir(FOLDER_MODE)
