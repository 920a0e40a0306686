"""Which pictures a folder holds, and what its layout or its table says of them.

- Class folders: SOURCE/<class>/.../picture.
- Pictures without a label: SOURCE/picture, SOURCE/unlabelled/.../picture.
- Given splits: SOURCE/train/ and SOURCE/test/, each as above.
- A table: metadata.csv, .jsonl or .parquet with `file_name` and `label`, as Hugging Face's imagefolder reads it, in
  SOURCE or in train/ and test/; an empty label is none.
"""

import csv
import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from components.data.beam_path import Place

TRAIN, TEST = "train", "test"
UNLABELLED_FOLDERS = ("unlabelled", "unlabeled")
TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_NO_PICTURES = ("thumbs.db", "desktop.ini", "__macosx")


@dataclasses.dataclass(frozen=True)
class Found:
    """A file that may be a picture.

    Attributes:
        path: where it lies.
        label: the name of its class; None for none.
        split: TRAIN or TEST; None where the layout does not say.
    """

    path: Place
    label: str | None
    split: str | None = None


def find(source: Place) -> list[Found]:
    """Everything in `source` that may be a picture; hidden files and those of file managers are left alone.

    Raises:
        ValueError: nothing there, a class folder without a file, or a table that does not fit the files.
    """
    if not source.is_dir():
        raise ValueError(f"There is no folder {source}; give one with pictures in it.")
    if (source / TRAIN).is_dir():
        found = list(_in_folder(source / TRAIN, TRAIN))
        if (source / TEST).is_dir():
            found += _in_folder(source / TEST, TEST)
        extra = [path.name for path in _entries(source) if path.name not in (TRAIN, TEST)]
        if extra:
            raise ValueError(
                f"{source} has {TRAIN}/ and beside it {', '.join(extra[:5])}, of which it is not plain where they "
                f"belong. Move them into {TRAIN}/ or {TEST}/, or away."
            )
    else:
        found = list(_in_folder(source, None))
    if not found:
        raise ValueError(f"{source} holds no file; give a folder with pictures.")
    labelled = any(file.label is not None for file in found)
    unlabelled = [file.path for file in found if file.split == TEST and file.label is None]
    if labelled and unlabelled:
        raise ValueError(
            f"{unlabelled[0]} is for testing and has no label. Move it to {TRAIN}/, or label it."
        )
    return found


def _in_folder(folder: Place, split: str | None) -> Iterator[Found]:
    tables = [folder / name for name in TABLES if (folder / name).is_file()]
    if tables:
        yield from _in_table(tables[0], split)
        return
    for path in _entries(folder):
        if path.is_file():
            yield Found(path, None, split)
            continue
        files = list(files_below(path))
        if not files:
            raise ValueError(f"The folder {path} holds no picture. Put some in, or remove it.")
        label = None if path.name.lower() in UNLABELLED_FOLDERS else path.name
        yield from (Found(file, label, split) for file in files)


def _in_table(table: Place, split: str | None) -> Iterator[Found]:
    labels: dict[Place, str | None] = {}
    for number, row in enumerate(_rows(table), start=1):
        name = row.get("file_name")
        if not isinstance(name, str) or not name:
            raise ValueError(
                f"{table}, row {number}, has no file_name. Expected the columns file_name and label."
            )
        path = table.parent / name
        if ".." in pathlib.PurePath(name).parts or pathlib.PurePath(name).is_absolute():
            raise ValueError(f"{table}, row {number}, names {name}, outside of its folder.")
        if not path.is_file():
            raise ValueError(f"{table}, row {number}, names {name}, which is not there.")
        value = row.get("label")
        label = None if value is None or str(value).strip() == "" else str(value).strip()
        if path in labels and labels[path] != label:
            raise ValueError(
                f"{table} gives {name} two labels, {labels[path]} and {label}. Keep the right one."
            )
        labels[path] = label
    yield from (Found(path, label, split) for path, label in labels.items())


def _rows(table: Place) -> Iterator[dict[str, Any]]:
    try:
        if table.suffix == ".csv":
            with table.open(newline="", encoding="utf-8-sig") as file:
                yield from csv.DictReader(file)
        elif table.suffix == ".jsonl":
            with table.open(encoding="utf-8-sig") as file:
                for line in file:
                    if line.strip():
                        row = json.loads(line)
                        if not isinstance(row, dict):
                            raise ValueError(f"a line holds {type(row).__name__}, expected an object")
                        yield row
        else:
            import pyarrow.parquet as pq

            with table.open("rb") as file:
                yield from pq.read_table(file, columns=["file_name", "label"]).to_pylist()
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{table} cannot be read: {str(error).splitlines()[0]}") from error


def _entries(folder: Place) -> list[Any]:
    paths: Iterator[Any] = folder.iterdir()
    return sorted(
        path
        for path in paths
        if not path.name.startswith(".")
        and path.name.lower() not in _NO_PICTURES
        and (path.is_dir() or path.is_file())
    )


def files_below(folder: Place) -> Iterator[Any]:
    """Every file in a folder and its folders, in order of name, but hidden ones and those of file managers."""
    for path in _entries(folder):
        if path.is_dir():
            if not path.is_symlink():  # a link may lead back to where it lies
                yield from files_below(path)
        else:
            yield path
