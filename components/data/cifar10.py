"""CIFAR-10's official binary layout: records <-> arrays, and the inspection of a folder of them.

A record is one label byte followed by 3072 pixel bytes: 1024 red, 1024 green, 1024 blue, each row-major
(https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version"). Everything else here works on HWC images.
NumPy only.
"""

import dataclasses
import os
import pathlib

import numpy as np

from components.data import features

RECORD_BYTES = 1 + features.IMAGE_BYTES
RECORDS_PER_FILE = 10_000  # in the official archive
TRAIN_PATTERN = "data_batch*.bin"
TEST_PATTERN = "test_batch*.bin"
LABEL_NAMES_FILE = "batches.meta.txt"
OFFICIAL_FOLDER = "cifar-10-batches-bin"
SPAN_FOLDER = "span-"

_BLOCK_RECORDS = 4096  # 12.6 MB a read while inspecting
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
        train_label_counts, test_label_counts: ten counts each, in label order.
    """

    path: pathlib.Path
    train_files: tuple[pathlib.Path, ...]
    test_files: tuple[pathlib.Path, ...]
    train_label_counts: tuple[int, ...]
    test_label_counts: tuple[int, ...]

    @property
    def train_records(self) -> int:
        """The number of training images."""
        return sum(self.train_label_counts)

    @property
    def test_records(self) -> int:
        """The number of test images."""
        return sum(self.test_label_counts)


def encode_records(images: np.ndarray, labels: np.ndarray) -> bytes:
    """Packs images into records.

    Args:
        images: `[n, 32, 32, 3]` uint8, HWC.
        labels: `[n]` integers in 0..9.

    Returns:
        `n * 3073` bytes.

    Raises:
        ValueError: another shape, another type, or a label outside 0..9.
    """
    if (
        images.dtype != np.uint8
        or images.shape[1:] != features.IMAGE_SHAPE
        or labels.shape != images.shape[:1]
    ):
        raise ValueError(
            f"Expected uint8 images [n, 32, 32, 3] and labels [n], received {images.dtype} "
            f"{list(images.shape)} and {list(labels.shape)}."
        )
    if labels.size and (labels.min() < 0 or labels.max() >= len(features.LABEL_NAMES)):
        raise ValueError(f"Expected labels in 0..9, received {labels.min()}..{labels.max()}.")
    records = np.empty((len(images), RECORD_BYTES), np.uint8)
    records[:, 0] = labels
    records[:, 1:] = images.transpose(0, 3, 1, 2).reshape(len(images), features.IMAGE_BYTES)
    return records.tobytes()


def decode_records(
    data: bytes, source: str = "records", first_record: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Unpacks records; the inverse of `encode_records`.

    Args:
        data: `n * 3073` bytes.
        source: the file's name, for error messages.
        first_record: the number, within that file, of the first record in `data`; for error messages.

    Returns:
        images `[n, 32, 32, 3]` uint8 (contiguous, HWC) and labels `[n]` int64 in 0..9.

    Raises:
        ValueError: the length is no multiple of 3073, or a label is above 9 (named by file and record
            number).
    """
    if len(data) % RECORD_BYTES:
        raise ValueError(
            f"{source}: {len(data)} bytes from record {first_record} on are no whole number of "
            f"{RECORD_BYTES}-byte records. The file is truncated or not in CIFAR-10's binary layout."
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, RECORD_BYTES)
    check_labels(records[:, 0], source, first_record)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0].astype(np.int64)


def check_labels(labels: np.ndarray, source: str, first_record: int = 0) -> None:
    """Raises ValueError for the first label byte above 9, naming the file and the record (counted from 0)."""
    wrong = np.flatnonzero(labels >= len(features.LABEL_NAMES))
    if wrong.size:
        raise ValueError(
            f"{source}: record {first_record + int(wrong[0])} has label {int(labels[wrong[0]])}; expected 0 "
            f"to 9. "
            "Repair or remove the file: it is damaged or not in CIFAR-10's binary layout."
        )


def read_records(
    path: str | os.PathLike[str], start: int = 0, count: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Reads the records `start .. start + count` of a file (to its end without `count`).

    Returns:
        images `[n, 32, 32, 3]` uint8 and labels `[n]` int64; fewer than `count` rows at the end of the file.

    Raises:
        ValueError: as `decode_records`.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        file.seek(start * RECORD_BYTES)
        data = file.read(-1 if count is None else count * RECORD_BYTES)
    return decode_records(data, str(path), start)


def inspect_folder(folder: str | os.PathLike[str]) -> RecordFolder:
    """Finds the record files of a folder and checks the size and every label of each.

    Args:
        folder: holds `data_batch*.bin` and `test_batch*.bin` itself or in `cifar-10-batches-bin/`.

    Raises:
        ValueError: one line that names the path, what is wrong, and what was expected.
    """
    root = pathlib.Path(folder)
    try:
        location = _locate(root)
        train, test = sorted(location.glob(TRAIN_PATTERN)), sorted(location.glob(TEST_PATTERN))
        if not train or not test:
            raise ValueError(_missing_files(location, "test" if train else "train"))
        counts = {path: _label_counts(path) for path in (*train, *test)}
    except OSError as error:
        raise ValueError(_unreadable(root, error)) from error
    return RecordFolder(
        path=location,
        train_files=tuple(train),
        test_files=tuple(test),
        train_label_counts=_summed([counts[path] for path in train]),
        test_label_counts=_summed([counts[path] for path in test]),
    )


def count_test_records(folder: str | os.PathLike[str]) -> int:
    """Checks the test files of a folder, which needs no others, and returns how many records they hold.

    Raises:
        ValueError: as `inspect_folder`.
    """
    root = pathlib.Path(folder)
    try:
        location = _locate(root)
        files = sorted(location.glob(TEST_PATTERN))
        if not files:
            raise ValueError(_missing_files(location, "test"))
        return sum(_summed([_label_counts(path) for path in files]))
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


def _locate(root: pathlib.Path) -> pathlib.Path:
    if not root.exists():
        raise ValueError(
            f"No such folder: {root}. Expected one that holds {TRAIN_PATTERN} and {TEST_PATTERN}."
        )
    if not root.is_dir():
        raise ValueError(
            f"{root} is a file. Expected a folder that holds {TRAIN_PATTERN} and {TEST_PATTERN}."
        )
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


def _label_counts(path: pathlib.Path) -> np.ndarray:
    """Checks one file and returns how often each label occurs: int64 [10]."""
    if not path.is_file():
        raise ValueError(f"{path} is not a regular file. Expected records of {RECORD_BYTES} bytes.")
    size = path.stat().st_size
    if size == 0:
        raise ValueError(f"{path} is empty. Expected records of {RECORD_BYTES} bytes.")
    counts = np.zeros(len(features.LABEL_NAMES), np.int64)
    with open(path, "rb") as file:
        start = file.read(8)
        if size % RECORD_BYTES:
            raise ValueError(
                f"{path} has {size} bytes, {size % RECORD_BYTES} more than {size // RECORD_BYTES} records of "
                f"{RECORD_BYTES}. {_other_format(start)}"
            )
        file.seek(0)
        for first in range(0, size // RECORD_BYTES, _BLOCK_RECORDS):
            block = np.frombuffer(file.read(_BLOCK_RECORDS * RECORD_BYTES), np.uint8).reshape(
                -1, RECORD_BYTES
            )
            check_labels(block[:, 0], str(path), first)
            counts += np.bincount(block[:, 0], minlength=len(counts))
    return counts


def _other_format(start: bytes) -> str:
    for magic, description in _OTHER_FORMATS:
        if start.startswith(magic):
            return f"It is {description}. Get CIFAR-10's binary version."
    return "It is truncated, or not in CIFAR-10's binary layout. Fetch it again."


def _summed(counts: list[np.ndarray]) -> tuple[int, ...]:
    return tuple(int(count) for count in np.sum(counts, axis=0))
