"""Folders of pictures -> a data set that describes itself: records, `dataset.json`, and what was left out.

Files are decoded by several processes, in an order drawn from their names, and written as they come, so memory does not
grow with their pixels. The data set appears complete or not at all; what a killed import decoded is not decoded again.
Source and data set may lie on any file system that Beam knows (docs/decisions/0018-imports-that-go-on.md).
"""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import IO

import numpy as np

from components.data import cifar10, dataset, decoded_parts, features, made_whole
from components.data.beam_path import BeamPath, Place
from components.data.dataset import DataSet
from components.data.picture_folders import TEST, TRAIN, Found, find
from components.data.pictures import BACKGROUND

RECORD_FILE = "import.json"
SUCCESS_FILE = made_whole.SUCCESS_FILE
_FILE_BYTES = 64 * 1024 * 1024  # of a record file, about
_SHOWN = 3
_HASH_RANGE = 2**32

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class ImportSettings:
    """How pictures become records.

    Attributes:
        height, width: of every picture, in pixels.
        test_share: of the labelled pictures that are held out by their content where no test folder is given; of all
            of them where no labelled one is.
        name, pictures: of the data set, for its description.
        background: red, green and blue, 0 to 255, under transparent pictures.
        maximum_unreadable: share of the files that may be left out as unreadable; more stops the import.
        workers: processes that decode.
    """

    height: int = 32
    width: int = 32
    test_share: float = 0.1
    name: str = "own pictures"
    pictures: str = ""
    background: tuple[int, int, int] = BACKGROUND
    maximum_unreadable: float = 0.05
    workers: int = 2

    def __post_init__(self) -> None:
        if not 0.0 < self.test_share < 1.0:
            raise ValueError(f"The test share lies between 0 and 1; received {self.test_share}.")
        if not 0.0 <= self.maximum_unreadable <= 1.0 or self.workers < 1:
            raise ValueError("The share of unreadable files is 0 to 1, and at least 1 process decodes.")


@dataclasses.dataclass
class Imported:
    """What became of the files.

    Attributes:
        folder: of the data set.
        data_set: its description.
        train, test: labelled pictures of each class.
        unlabelled: training pictures without a label.
        test_unlabelled: held-out ones, of pictures of which none is held out with a label.
        repeats: files left out because an equal picture was there already.
        unreadable: reason by file.
    """

    folder: Place
    data_set: DataSet
    train: list[int]
    test: list[int]
    unlabelled: int = 0
    test_unlabelled: int = 0
    repeats: int = 0
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)


def import_pictures(
    source: Place,
    out: Place,
    settings: ImportSettings,
    span: int | None = None,
    progress: Progress | None = None,
) -> Imported:
    """Makes the data set `out`, or its `span-N`.

    Args:
        source: laid out as `picture_folders` says.
        out: made; may be there if it is empty, or if a span is added to it. Decoded pictures are kept in
            `made_whole.work_folder` until it is whole.
        settings: how.
        span: number of the span to write; None for a data set without spans. Later spans have the classes and the size
            of the first; `_SUCCESS` is there when all else is.
        progress: called with the files done and the files in all.

    Raises:
        ValueError: the pictures are none, contradict each other, cannot be read in too large a share, or leave a class
            without a picture on one side; or another import makes the same data set. There is no data set then.
        OSError: no permission, or a full disk. There is no data set, and the same call goes on.
    """
    found = find(source)
    target = out if span is None else out / f"{cifar10.SPAN_FOLDER}{span}"
    described = _describe(found, settings, _earlier(out) if span is not None else None)
    classes = described.classes
    imported = Imported(target, described, [0] * classes, [0] * classes)
    with made_whole.work(target) as work, made_whole.made(target, work) as staged:
        with _Writer(staged, described) as writer:
            _write_all(found, settings, imported, writer, work, progress)
        _check(found, imported, settings, complete=span is None)
        (staged / dataset.FILE).write_text(described.to_json() + "\n", encoding="utf-8")
        (staged / RECORD_FILE).write_text(_record(source, imported, settings), encoding="utf-8")
        if span is not None:
            (staged / SUCCESS_FILE).touch()
    return imported


def is_test(content_hash: bytes, share: float) -> bool:
    """Whether a picture is held out for testing: by its content alone, so that equal ones are on one side.

    Other digits of the hash decide than those of `features.is_holdout`.
    """
    return int(content_hash[8:16], 16) < share * _HASH_RANGE


def _earlier(out: Place) -> DataSet | None:
    """The description of the latest span in `out`; None for the first."""
    if isinstance(out, BeamPath):
        whole = [
            path.name.removeprefix(cifar10.SPAN_FOLDER)
            for path in out.glob(f"{cifar10.SPAN_FOLDER}*")
            if not (path / dataset.UNFINISHED_FILE).exists()
        ]
        numbers = sorted(int(number) for number in whole if number.isdecimal())
    else:
        numbers = cifar10.span_numbers(out) if out.is_dir() else []
    return dataset.read(out / f"{cifar10.SPAN_FOLDER}{numbers[-1]}") if numbers else None


def _describe(found: Sequence[Found], settings: ImportSettings, earlier: DataSet | None) -> DataSet:
    names = sorted({file.label for file in found if file.label is not None})
    unlabelled = any(file.label is None for file in found)
    if earlier is not None:
        unknown = sorted(set(names) - set(earlier.label_names))
        if unknown or (settings.height, settings.width) != earlier.shape[:2]:
            raise ValueError(
                f"The spans there have {earlier.in_words}; received "
                f"{settings.height}x{settings.width}"
                + (f" and the new classes {', '.join(unknown[:10])}" if unknown else "")
                + ". Spans are of one data set: use its --size and classes, or another folder."
            )
        return dataclasses.replace(earlier, unlabelled=unlabelled)
    if len(names) == 1:
        raise ValueError(
            f"The probe that measures an encoder needs two classes; received one: {names[0]}. Put some pictures into "
            "a folder a class; all others may lie beside those folders, without a label. Without any class folder "
            "nothing is labelled, and nothing measured."
        )
    try:
        return DataSet(
            settings.name, settings.pictures, tuple(names), settings.height, settings.width, unlabelled
        )
    except ValueError as error:
        raise ValueError(f"These pictures make no data set: {error}.") from error


class _Writer:
    """Record files that begin anew when one is large enough."""

    def __init__(self, folder: pathlib.Path, data_set: DataSet) -> None:
        self._folder, self._data_set = folder, data_set
        self._files: dict[str, IO[bytes]] = {}
        self._numbers = {TRAIN: 0, TEST: 0}

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def write(self, split: str, image: np.ndarray, label: int) -> None:
        file = self._files.get(split)
        if file is None or file.tell() >= _FILE_BYTES:
            if file is not None:
                file.close()
            self._numbers[split] += 1
            stem = "data_batch" if split == TRAIN else "test_batch"
            file = self._files[split] = (self._folder / f"{stem}_{self._numbers[split]}.bin").open("wb")
        file.write(cifar10.encode_records(image[None], np.array([label]), self._data_set))


def _write_all(
    found: Sequence[Found],
    settings: ImportSettings,
    imported: Imported,
    writer: _Writer,
    work: Place,
    progress: Progress | None,
) -> None:
    label_of = {name: number for number, name in enumerate(imported.data_set.label_names)}
    has_test = any(file.split == TEST for file in found)
    seen: dict[bytes, Found] = {}
    # Of equal pictures the labelled one is kept, so those come first; among them the order is drawn from the names.
    ordered = decoded_parts.in_drawn_order(found)
    rows = decoded_parts.decoded(
        ordered, settings.height, settings.width, settings.background, settings.workers, work
    )
    for done, (file, image, reason) in enumerate(rows, start=1):
        if progress:
            progress(done, len(ordered))
        if image is None:
            imported.unreadable[str(file.path)] = reason
            continue
        (name,) = features.content_hashes(image[None])
        if name in seen:
            _check_equal(file, seen[name])
            imported.repeats += 1
            continue
        seen[name] = file
        held_out = file.split == TEST if has_test else is_test(name, settings.test_share)
        if file.label is None:
            # The labelled ones are all written by now. Whatever is measured by labels needs one for each test picture.
            held_out = held_out and not any(imported.test)
            imported.unlabelled += not held_out
            imported.test_unlabelled += held_out
            writer.write(TEST if held_out else TRAIN, image, dataset.UNLABELLED)
            continue
        counts = imported.test if held_out else imported.train
        counts[label_of[file.label]] += 1
        writer.write(TEST if held_out else TRAIN, image, label_of[file.label])


def _check_equal(file: Found, other: Found) -> None:
    """Of two files with one picture: what they say of it must not differ, and none may be trained and tested on."""
    if file.label is not None and file.label != other.label:
        raise ValueError(
            f"{file.path} and {other.path} are one picture with two labels, {file.label} and {other.label}. Keep the "
            "right one."
        )
    if TEST in (file.split, other.split) and file.split != other.split:
        raise ValueError(
            f"{file.path} and {other.path} are one picture, in {TRAIN} and in {TEST}. What is measured must be new to "
            "the model; keep one of them."
        )


def _check(found: Sequence[Found], imported: Imported, settings: ImportSettings, complete: bool) -> None:
    share = len(imported.unreadable) / len(found)
    if share > settings.maximum_unreadable:
        shown = "; ".join(f"{path}: {why}" for path, why in list(imported.unreadable.items())[:_SHOWN])
        raise ValueError(
            f"{len(imported.unreadable)} of {len(found)} files cannot be read, {share:.1%}, where at most "
            f"{settings.maximum_unreadable:.1%} may be left out: {shown}. Repair or remove them, or raise "
            "--maximum-unreadable."
        )
    names = imported.data_set.label_names
    for split, counts, unlabelled in (
        (TRAIN, imported.train, imported.unlabelled),
        (TEST, imported.test, imported.test_unlabelled),
    ):
        missing = [name for name, count in zip(names, counts, strict=True) if not count]
        if missing and complete:
            raise ValueError(
                f"No {split} picture of {', '.join(missing[:10])}: each class needs some for training and some for "
                "testing. Add pictures, raise --test-share, or give train/ and test/ folders."
            )
        if not any(counts) and not unlabelled:
            raise ValueError(
                f"No {split} picture: some are needed for training and some for testing. Add pictures, raise "
                "--test-share, or give train/ and test/ folders."
            )


def _record(source: Place, imported: Imported, settings: ImportSettings) -> str:
    told = {
        "source": str(source),
        "train": dict(zip(imported.data_set.label_names, imported.train, strict=True)),
        "test": dict(zip(imported.data_set.label_names, imported.test, strict=True)),
        "unlabelled": imported.unlabelled,
        "test_unlabelled": imported.test_unlabelled,
        "repeats": imported.repeats,
        "reasons": dict(collections.Counter(imported.unreadable.values())),
        "unreadable": imported.unreadable,
        "settings": dataclasses.asdict(settings),
    }
    return json.dumps(told, indent=2) + "\n"
