"""Embeddings of many images as a file, and the search in them. No TensorFlow."""

import dataclasses
import json
import pathlib
import zipfile
from collections.abc import Callable, Iterator

import numpy as np

from components.data import picture_folders, pictures
from components.staging import written_whole

SUFFIXES = (".parquet", ".npz")
_KINDS = ", ".join(pictures.FORMATS)
_KEYS = ("names", "vectors", "model", "digest")
_METADATA = b"byol"


@dataclasses.dataclass(frozen=True)
class EmbeddingTable:
    """Embeddings and whose they are.

    Attributes:
        names: [n] paths of the images.
        vectors: [n, d] float32.
        model: the version folder of the encoder.
        digest: of that model's files; embeddings of two models cannot be compared.
    """

    names: tuple[str, ...]
    vectors: np.ndarray
    model: str
    digest: str


@dataclasses.dataclass(frozen=True)
class Neighbor:
    """A name and its cosine to the query, in [-1, 1]."""

    name: str
    cosine: float


def image_files(paths: list[pathlib.Path]) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """The files named and every picture below the folders named, each once, folders in order of name; and the files
    below them that are none, by what they begin with. Hidden files and those of file managers are left alone.

    Raises:
        ValueError: a path that does not exist, or no picture at all: before TensorFlow is loaded to find that out.
    """
    found: dict[pathlib.Path, None] = {}
    others: dict[pathlib.Path, None] = {}
    for path in paths:
        if path.is_dir():
            for file in picture_folders.files_below(path):
                (found if pictures.is_picture(file) else others)[file] = None
        elif path.exists():
            found[path] = None
        else:
            raise ValueError(f"There is no {path}; give pictures ({_KINDS}), or folders of them.")
    if not found:
        raise ValueError(f"There is no picture ({_KINDS}) in {', '.join(map(str, paths))}.")
    check_pictures(list(found))
    return list(found), list(others)


def check_pictures(paths: list[pathlib.Path]) -> None:
    """Raises ValueError when none of the files is a picture: before TensorFlow is loaded to find that out."""
    if not any(map(pictures.is_picture, paths)):
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        verb = "are" if more else "is"
        raise ValueError(
            f"{paths[0]}{more} {verb} no picture that is read ({_KINDS}), by what it begins with. Convert it first."
        )


def check_suffix(path: pathlib.Path) -> None:
    """Raises ValueError for a file whose name ends otherwise than a table's."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"The file of embeddings ends in {' or '.join(SUFFIXES)}; received {path}.")


def save(table: EmbeddingTable, path: pathlib.Path) -> None:
    """Writes the table in one rename: Parquet with the columns `name` and `embedding`, or NumPy's archive.

    Raises:
        ValueError: the name ends otherwise.
        OSError: it cannot be written.
    """
    check_suffix(path)
    with written_whole(path) as temporary:
        _WRITERS[path.suffix](table, temporary)


def load(path: pathlib.Path) -> EmbeddingTable:
    """Reads a table that `save` wrote.

    Raises:
        ValueError: there is no such file, or it is none of ours.
    """
    check_suffix(path)
    if not path.is_file():
        raise ValueError(f"There is no file {path}; `byol embed IMAGES --out {path}` writes one.")
    try:
        table = _READERS[path.suffix](path)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is not a file that `byol embed` wrote: {str(error).rstrip('.')}. Embed the images again."
        ) from error
    if table.vectors.ndim != 2 or len(table.vectors) != len(table.names) or not len(table.names):
        raise ValueError(f"{path} holds {len(table.names)} names and vectors {list(table.vectors.shape)}.")
    return table


def nearest(table: EmbeddingTable, query: np.ndarray, k: int) -> list[Neighbor]:
    """The `k` images with the highest cosine to the query, exactly; fewer when the table is smaller.

    Args:
        table: what is searched.
        query: [d] float32.
        k: at least 1.

    Raises:
        ValueError: a query of another dimension, or `k` below 1.
    """
    if query.shape != table.vectors.shape[1:]:
        raise ValueError(
            f"The query has {query.shape[-1]} dimensions, the embeddings {table.vectors.shape[1]}: use the encoder "
            f"that made them, {table.model}."
        )
    if k < 1:
        raise ValueError(f"k is at least 1; received {k}.")
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(metric="cosine", algorithm="brute").fit(table.vectors)
    distances, places = index.kneighbors(query[None], n_neighbors=min(k, len(table.names)))
    return [
        Neighbor(table.names[place], float(1.0 - distance))
        for distance, place in zip(distances[0], places[0], strict=True)
    ]


def batches(items: list[pathlib.Path], size: int) -> Iterator[list[pathlib.Path]]:
    """The items, `size` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _write_parquet(table: EmbeddingTable, path: pathlib.Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    vectors = pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(table.vectors, np.float32).reshape(-1)), table.vectors.shape[1]
    )
    origin = json.dumps({"model": table.model, "digest": table.digest})
    columns = pa.table({"name": pa.array(table.names, pa.string()), "embedding": vectors})
    pq.write_table(columns.replace_schema_metadata({_METADATA: origin.encode()}), path)


def _read_parquet(path: pathlib.Path) -> EmbeddingTable:
    import pyarrow.parquet as pq

    columns = pq.read_table(path)
    origin = json.loads((columns.schema.metadata or {})[_METADATA])
    vectors = columns["embedding"].combine_chunks()
    return EmbeddingTable(
        names=tuple(columns["name"].to_pylist()),
        vectors=vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(vectors), -1),
        model=origin["model"],
        digest=origin["digest"],
    )


def _write_npz(table: EmbeddingTable, path: pathlib.Path) -> None:
    with path.open("wb") as file:
        np.savez(
            file,
            names=np.array(table.names, dtype=np.str_),
            vectors=table.vectors.astype(np.float32),
            model=np.array(table.model),
            digest=np.array(table.digest),
        )


def _read_npz(path: pathlib.Path) -> EmbeddingTable:
    with np.load(path, allow_pickle=False) as arrays:
        names, vectors, model, digest = (arrays[key] for key in _KEYS)
    return EmbeddingTable(tuple(map(str, names)), vectors, str(model), str(digest))


_WRITERS: dict[str, Callable[[EmbeddingTable, pathlib.Path], None]] = {
    ".parquet": _write_parquet,
    ".npz": _write_npz,
}
_READERS: dict[str, Callable[[pathlib.Path], EmbeddingTable]] = {".parquet": _read_parquet, ".npz": _read_npz}
