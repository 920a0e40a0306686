"""CIFAR-10's official binary layout, for any classes and size: records <-> arrays, and a folder of them inspected.

A record is one label byte followed by 3072 pixel bytes: 1024 red, 1024 green, 1024 blue, each row-major
(https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version"). A data set that describes itself has records of its own
height and width, two label bytes for more than 255 classes, and a label with all bits set where there is none
(components/data/dataset.py). Everything else here works on HWC images.
NumPy only.
"""

import dataclasses
import os
import pathlib

import numpy as np

from components import path_names
from components.data import dataset
from components.data.dataset import CIFAR10, DataSet

RECORD_BYTES = CIFAR10.record_bytes
RECORDS_PER_FILE = 10_000  # in the official archive
TRAIN_PATTERN = "data_batch*.bin"
TEST_PATTERN = "test_batch*.bin"
LABEL_NAMES_FILE = dataset.NAMES_FILE
OFFICIAL_FOLDER = "cifar-10-batches-bin"
SPAN_FOLDER = "span-"

_BLOCK_BYTES = 12 * 1024 * 1024  # a read while inspecting
_OTHER_FORMATS = (
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"\x80\x02", "a Python pickle, as in the 'python version' of CIFAR-10, which is never unpickled here"),
    (b"\x80\x03", "a Python pickle, which is never unpickled here"),
    (b"\x80\x04", "a Python pickle, which is never unpickled here"),
    (b"\x80\x05", "a Python pickle, which is never unpickled here"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x93NUMPY", "a NumPy file"),
    (b"MATLAB", "a MATLAB file, as in the 'Matlab version' of CIFAR-10"),
)


@dataclasses.dataclass(frozen=True)
class RecordFolder:
    """A folder whose every record was checked.

    Attributes:
        path: where the files lie (the official sub-folder, if that was found).
        train_files, test_files: sorted paths.
        train_label_counts, test_label_counts: of the labelled records, in label order.
        data_set: what they are.
        train_unlabelled, test_unlabelled: records without a label; a test split has labels throughout or none at all.
    """

    path: pathlib.Path
    train_files: tuple[pathlib.Path, ...]
    test_files: tuple[pathlib.Path, ...]
    train_label_counts: tuple[int, ...]
    test_label_counts: tuple[int, ...]
    data_set: DataSet = CIFAR10
    train_unlabelled: int = 0
    test_unlabelled: int = 0

    @property
    def train_records(self) -> int:
        """The number of training images, labelled or not."""
        return sum(self.train_label_counts) + self.train_unlabelled

    @property
    def test_records(self) -> int:
        """The number of test images, labelled or not."""
        return sum(self.test_label_counts) + self.test_unlabelled


def encode_records(images: np.ndarray, labels: np.ndarray, data_set: DataSet = CIFAR10) -> bytes:
    """Packs images into records.

    Args:
        images: `[n, height, width, 3]` uint8, HWC.
        labels: `[n]` integers, places among the label names; `dataset.UNLABELLED` where the data set allows it.
        data_set: what they are.

    Returns:
        `n * data_set.record_bytes` bytes.

    Raises:
        ValueError: another shape, another type, or a label that is none.
    """
    if images.dtype != np.uint8 or images.shape[1:] != data_set.shape or labels.shape != images.shape[:1]:
        raise ValueError(
            f"Expected uint8 images [n, {data_set.height}, {data_set.width}, 3] and labels [n], received "
            f"{images.dtype} {list(images.shape)} and {list(labels.shape)}."
        )
    least = dataset.UNLABELLED if data_set.unlabelled else 0
    if labels.size and (labels.min() < least or labels.max() >= data_set.classes):
        raise ValueError(
            f"Expected labels in {least}..{data_set.classes - 1}, received {labels.min()}..{labels.max()}."
        )
    written = np.where(labels == dataset.UNLABELLED, data_set.no_label, labels)
    records = np.empty((len(images), data_set.record_bytes), np.uint8)
    records[:, data_set.label_bytes - 1] = written % 256
    if data_set.label_bytes > 1:
        records[:, 0] = written // 256
    records[:, data_set.label_bytes :] = images.transpose(0, 3, 1, 2).reshape(
        len(images), data_set.image_bytes
    )
    return records.tobytes()


def decode_records(
    data: bytes, source: str = "records", first_record: int = 0, data_set: DataSet = CIFAR10
) -> tuple[np.ndarray, np.ndarray]:
    """Unpacks records; the inverse of `encode_records`.

    Args:
        data: `n * data_set.record_bytes` bytes.
        source: the file's name, for error messages.
        first_record: the number, within that file, of the first record in `data`; for error messages.
        data_set: what they are.

    Returns:
        images `[n, height, width, 3]` uint8 (contiguous, HWC) and labels `[n]` int64, -1 for none.

    Raises:
        ValueError: the length is no whole number of records, or a label is none (named by file and record
            number).
    """
    if len(data) % data_set.record_bytes:
        raise ValueError(
            f"{source}: {len(data)} bytes from record {first_record} on are no whole number of "
            f"{data_set.record_bytes}-byte records. The file is truncated or not in CIFAR-10's binary layout."
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, data_set.record_bytes)
    labels = _labels(records, source, first_record, data_set)
    planes = records[:, data_set.label_bytes :].reshape(-1, 3, data_set.height, data_set.width)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels


def _labels(records: np.ndarray, source: str, first_record: int, data_set: DataSet) -> np.ndarray:
    """Labels int64 [n] of uint8 [n, record_bytes]; raises ValueError for the first that is none, by file and record."""
    labels = records[:, 0].astype(np.int64)
    if data_set.label_bytes > 1:
        labels = labels * 256 + records[:, 1]
    if data_set.unlabelled:
        labels[labels == data_set.no_label] = dataset.UNLABELLED
    wrong = np.flatnonzero(labels >= data_set.classes)
    if wrong.size:
        expected = f"0 to {data_set.classes - 1}" if data_set.classes else "none"
        raise ValueError(
            f"{source}: record {first_record + int(wrong[0])} has label {int(labels[wrong[0]])}; expected {expected}. "
            "Repair or remove the file: it is damaged or not in CIFAR-10's binary layout."
        )
    return labels


def read_records(
    path: str | os.PathLike[str], start: int = 0, count: int | None = None, data_set: DataSet = CIFAR10
) -> tuple[np.ndarray, np.ndarray]:
    """Reads the records `start .. start + count` of a file (to its end without `count`).

    Returns:
        images `[n, height, width, 3]` uint8 and labels `[n]` int64; fewer than `count` rows at the end of the file.

    Raises:
        ValueError: as `decode_records`.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        file.seek(start * data_set.record_bytes)
        data = file.read(-1 if count is None else count * data_set.record_bytes)
    return decode_records(data, str(path), start, data_set)


def inspect_folder(folder: str | os.PathLike[str]) -> RecordFolder:
    """Finds the record files of a folder and checks the size and every label of each.

    Args:
        folder: holds `data_batch*.bin` and `test_batch*.bin` itself or in `cifar-10-batches-bin/`.

    Raises:
        ValueError: one line that names the path, what is wrong, and what was expected.
    """
    root = pathlib.Path(folder)
    try:
        place = location(root)
        train, test = sorted(place.glob(TRAIN_PATTERN)), sorted(place.glob(TEST_PATTERN))
        if not train or not test:
            raise ValueError(_missing_files(place, "test" if train else "train"))
        data_set = dataset.read(place)
        counts = {path: _label_counts(path, data_set) for path in (*train, *test)}
        _check_test_labels({path: counts[path] for path in test})
    except OSError as error:
        raise ValueError(_unreadable(root, error)) from error
    return RecordFolder(
        path=place,
        train_files=tuple(train),
        test_files=tuple(test),
        train_label_counts=_summed([counts[path][:-1] for path in train]),
        test_label_counts=_summed([counts[path][:-1] for path in test]),
        data_set=data_set,
        train_unlabelled=_summed([counts[path][-1:] for path in train])[0],
        test_unlabelled=_summed([counts[path][-1:] for path in test])[0],
    )


def count_test_records(folder: str | os.PathLike[str]) -> int:
    """Checks the test files of a folder, which needs no others, and returns how many records they hold.

    Of a data set with classes they are all labelled: the folder is there to judge by.

    Raises:
        ValueError: as `inspect_folder`.
    """
    root = pathlib.Path(folder)
    try:
        place = location(root)
        files = sorted(place.glob(TEST_PATTERN))
        if not files:
            raise ValueError(_missing_files(place, "test"))
        data_set = dataset.read(place)
        counts = {path: _label_counts(path, data_set) for path in files}
        _check_test_labels(counts, whole=data_set.classes > 0)
        return sum(_summed(list(counts.values())))
    except OSError as error:
        raise ValueError(_unreadable(root, error)) from error


def span_numbers(folder: str | os.PathLike[str]) -> list[int]:
    """Returns the numbers of the `span-N` folders in `folder`, ascending; empty when it has none.

    Raises:
        ValueError: for a number with leading zeros: TFX would look for the folder without them.
    """
    root = pathlib.Path(folder)
    names = [path.name for path in root.glob(f"{SPAN_FOLDER}*") if path.is_dir()]
    numbers = [name.removeprefix(SPAN_FOLDER) for name in names]
    for number in numbers:
        if not number.isdecimal() or str(int(number)) != number:
            raise ValueError(
                f"{root / (SPAN_FOLDER + number)} is no span. Expected {SPAN_FOLDER}N with a number without leading "
                "zeros, such as span-7; rename it."
            )
    return sorted(map(int, numbers))


def _unreadable(root: pathlib.Path, error: OSError) -> str:
    return f"Cannot read {error.filename or root}: {error.strerror}. Give read permission, or name another folder."


def location(root: pathlib.Path) -> pathlib.Path:
    """Where the record files of a folder lie: in it, or in the official sub-folder.

    Raises:
        ValueError: there is no such folder, or TFX would take its name for something else.
    """
    if not root.exists():
        raise ValueError(
            f"No such folder: {root}. Expected one that holds {TRAIN_PATTERN} and {TEST_PATTERN}."
        )
    if not root.is_dir():
        raise ValueError(
            f"{root} is a file. Expected a folder that holds {TRAIN_PATTERN} and {TEST_PATTERN}."
        )
    path_names.check(root, is_data=True)
    nested = root / OFFICIAL_FOLDER
    return nested if nested.is_dir() and not any(root.glob("*_batch*.bin")) else root


def _missing_files(folder: pathlib.Path, split: str) -> str:
    pattern = {"train": TRAIN_PATTERN, "test": TEST_PATTERN}[split]
    reason = f"{folder} has no {split} file. Expected {pattern}, as in CIFAR-10's binary version"
    if any((folder / name).exists() for name in ("data_batch_1", "batches.meta", "cifar-10-batches-py")):
        return (
            f"{reason}; this is the pickled Python version, which is never unpickled here. Get the binary "
            f"version."
        )
    if any((folder / name).exists() for name in ("data_batch_1.mat", "cifar-10-batches-mat")):
        return f"{reason}; this is the Matlab version. Get the binary version."
    if (folder / "fine_label_names.txt").exists() or (folder / "cifar-100-binary").exists():
        return f"{reason}; this is CIFAR-100. Get CIFAR-10."
    return f"{reason}."


def _check_test_labels(counts: dict[pathlib.Path, np.ndarray], whole: bool = False) -> None:
    """What is measured on a test split needs the truth about each of its pictures; one without any measures nothing.

    Args:
        counts: of `_label_counts`, by file.
        whole: whether a split without any label is refused as well.
    """
    labelled = any(found[:-1].any() for found in counts.values())
    for path, found in counts.items():
        if (count := found[-1]) and (labelled or whole):
            raise ValueError(
                f"{path} has {count} records without a label. Unlabelled pictures are for training; move them there."
            )


def _label_counts(path: pathlib.Path, data_set: DataSet) -> np.ndarray:
    """Checks one file and returns how often each label occurs, and last how often none: int64 [classes + 1]."""
    size_of_one = data_set.record_bytes
    if not path.is_file():
        raise ValueError(f"{path} is not a regular file. Expected records of {size_of_one} bytes.")
    size = path.stat().st_size
    if size == 0:
        raise ValueError(f"{path} is empty. Expected records of {size_of_one} bytes.")
    counts = np.zeros(data_set.classes + 1, np.int64)
    with open(path, "rb") as file:
        start = file.read(8)
        if size % size_of_one:
            raise ValueError(
                f"{path} has {size} bytes, {size % size_of_one} more than {size // size_of_one} records of "
                f"{size_of_one}. {_other_format(start)}"
            )
        file.seek(0)
        at_once = max(1, _BLOCK_BYTES // size_of_one)
        for first in range(0, size // size_of_one, at_once):
            block = np.frombuffer(file.read(at_once * size_of_one), np.uint8).reshape(-1, size_of_one)
            labels = _labels(block, str(path), first, data_set)
            labelled = labels[labels != dataset.UNLABELLED]
            counts += np.bincount(labelled, minlength=len(counts))
            counts[-1] += len(labels) - len(labelled)
    return counts


def _other_format(start: bytes) -> str:
    for magic, description in _OTHER_FORMATS:
        if start.startswith(magic):
            return f"It is {description}. Get CIFAR-10's binary version."
    return "It is truncated, or not in CIFAR-10's binary layout. Fetch it again."


def _summed(counts: list[np.ndarray]) -> tuple[int, ...]:
    return tuple(int(count) for count in np.sum(counts, axis=0))
