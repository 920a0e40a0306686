"""CIFAR-100 and STL-10 from their official binary archives, as data sets that describe themselves.

The archives are as untrusted as CIFAR-10's (components/data/archive.py): nothing is unpacked before the checksum is
right, only the expected files are, each of exactly its size, and the data set appears complete or not at all.
"""

import dataclasses
import pathlib
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from components import staging
from components.data import archive, cifar10, dataset
from components.data.dataset import DataSet

_AT_ONCE = 1000  # images converted at once: 28 MB of STL-10
_FILE_IMAGES = 10_000  # in a record file
_MAX_NAMES_BYTES = 16 * 1024
_CHUNK_BYTES = 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Source:
    """An official archive.

    Attributes:
        url: http or https.
        md5: of the archive, hexadecimal.
        folder: of its members.
        files: exact sizes in bytes of those that are taken; 0 for a short text.
        max_bytes: of the archive, at the most.
    """

    url: str
    md5: str
    folder: str
    files: Mapping[str, int]
    max_bytes: int


# Address and checksum as https://www.cs.toronto.edu/~kriz/cifar.html states them.
CIFAR100 = Source(
    url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    md5="03b5dce01913d631647c71ecec9e9cb8",
    folder="cifar-100-binary",
    files={
        "train.bin": 50_000 * 3074,
        "test.bin": 10_000 * 3074,
        "fine_label_names.txt": 0,
        "coarse_label_names.txt": 0,
    },
    max_bytes=256 * 1024 * 1024,
)
# https://cs.stanford.edu/~acoates/stl10/ states no checksum; this one is torchvision's (datasets/stl10.py).
STL10 = Source(
    url="http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
    md5="91f7769df0f17e558f3565bffb0c7dfb",
    folder="stl10_binary",
    files={
        "train_X.bin": 5_000 * 27_648,
        "train_y.bin": 5_000,
        "test_X.bin": 8_000 * 27_648,
        "test_y.bin": 8_000,
        "unlabeled_X.bin": 100_000 * 27_648,
        "class_names.txt": 0,
    },
    max_bytes=3 * 1024 * 1024 * 1024,
)


def download_cifar100(
    out_dir: pathlib.Path,
    coarse: bool = False,
    source: Source = CIFAR100,
    progress: archive.Progress | None = None,
) -> pathlib.Path:
    """Makes `out_dir` a data set of CIFAR-100: 100 fine classes, or the 20 coarse ones.

    Args:
        out_dir: made; a complete data set there is left alone.
        coarse: takes the first label of each record instead of the second.
        source: the archive.
        progress: called with the bytes received and the bytes in all.

    Raises:
        archive.DownloadError: network or server failed; calling again resumes.
        archive.ArchiveError: wrong checksum or content.
        ValueError: the folder holds something else.
        OSError: no permission, or a full disk.
    """

    def convert(files: pathlib.Path, staged: pathlib.Path) -> None:
        names = _names(files / f"{'coarse' if coarse else 'fine'}_label_names.txt")
        described = DataSet(
            f"CIFAR-100, {'coarse' if coarse else 'fine'} labels",
            f"natural images of {len(names)} classes, reduced to 32x32 pixels",
            names,
            32,
            32,
        )
        for split, stem in (("train", "data_batch"), ("test", "test_batch")):
            _write(staged, stem, described, _cifar100_images(files / f"{split}.bin", int(not coarse)))
        (staged / dataset.FILE).write_text(described.to_json() + "\n", encoding="utf-8")

    return _make(out_dir, source, convert, progress)


def download_stl10(
    out_dir: pathlib.Path, source: Source = STL10, progress: archive.Progress | None = None
) -> pathlib.Path:
    """Makes `out_dir` a data set of STL-10: 96x96 pixels, 5,000 labelled, 100,000 unlabelled and 8,000 test images.

    Arguments and errors as of `download_cifar100`.
    """

    def convert(files: pathlib.Path, staged: pathlib.Path) -> None:
        described = DataSet(
            "STL-10",
            "natural images at 96x96 pixels, ten classes among the labelled ones",
            _names(files / "class_names.txt"),
            96,
            96,
            unlabelled=True,
        )
        for split, stem in (("train", "data_batch_labelled"), ("test", "test_batch")):
            # Labels count from 1.
            labels = np.frombuffer((files / f"{split}_y.bin").read_bytes(), np.uint8).astype(np.int64) - 1
            _write(staged, stem, described, _stl10_images(files / f"{split}_X.bin", labels))
        count = (files / "unlabeled_X.bin").stat().st_size // described.image_bytes
        none = np.full(count, dataset.UNLABELLED)
        _write(staged, "data_batch_unlabelled", described, _stl10_images(files / "unlabeled_X.bin", none))
        (staged / dataset.FILE).write_text(described.to_json() + "\n", encoding="utf-8")

    return _make(out_dir, source, convert, progress)


def _make(
    out_dir: pathlib.Path,
    source: Source,
    convert: Callable[[pathlib.Path, pathlib.Path], None],
    progress: archive.Progress | None,
) -> pathlib.Path:
    target = pathlib.Path(out_dir)
    if (target / dataset.FILE).is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f"{source.folder}.tar.gz.part"
    archive.fetch(source.url, partial, progress, source.max_bytes)
    archive.verify(partial, source.md5)
    with (
        tempfile.TemporaryDirectory(prefix=f".{source.folder}-", dir=target.parent) as unpacked,
        staging.staged_folder(target) as staged,
    ):
        _unpack(partial, pathlib.Path(unpacked), source)
        convert(pathlib.Path(unpacked), staged)
    partial.unlink()
    return target


def _unpack(path: pathlib.Path, folder: pathlib.Path, source: Source) -> None:
    """Copies the expected members by their own names; all others are left in the archive."""
    try:
        with tarfile.open(path, "r|gz") as tar:
            for member in tar:
                place, _, name = member.name.removeprefix("./").partition("/")
                if place == source.folder and name in source.files:
                    _copy(tar, member, folder / name, source.files[name])
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's fault
        raise archive.ArchiveError(f"{path} is damaged, or no gzipped tar archive: {error}.") from error
    missing = [name for name in source.files if not (folder / name).is_file()]
    if missing:
        raise archive.ArchiveError(
            f"{path} lacks {', '.join(missing)}. Expected the official binary version."
        )


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, target: pathlib.Path, size: int) -> None:
    if not member.isreg() or target.exists():
        raise archive.ArchiveError(f"{member.name!r} is no regular file, or twice in the archive.")
    if (size and member.size != size) or (not size and member.size > _MAX_NAMES_BYTES):
        expected = size or f"at most {_MAX_NAMES_BYTES}"
        raise archive.ArchiveError(f"{member.name!r} has {member.size} bytes, expected {expected}.")
    content = tar.extractfile(member)
    if content is None:
        raise archive.ArchiveError(f"{member.name!r} has no content.")
    with target.open("wb") as file:
        while chunk := content.read(_CHUNK_BYTES):
            file.write(chunk)


def _names(path: pathlib.Path) -> tuple[str, ...]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def _cifar100_images(path: pathlib.Path, label_byte: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images uint8 [n, 32, 32, 3] and labels: two label bytes, the coarse one first, then three planes row by row."""
    with path.open("rb") as file:
        while block := file.read(_AT_ONCE * 3074):
            records = np.frombuffer(block, np.uint8).reshape(-1, 3074)
            images = records[:, 2:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            yield images, records[:, label_byte].astype(np.int64)


def _stl10_images(path: pathlib.Path, labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images uint8 [n, 96, 96, 3] and their labels: three planes, each column by column."""
    first = 0
    with path.open("rb") as file:
        while block := file.read(_AT_ONCE * 27_648):
            images = np.frombuffer(block, np.uint8).reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)
            yield images, labels[first : first + len(images)]
            first += len(images)


def _write(
    folder: pathlib.Path, stem: str, data_set: DataSet, blocks: Iterator[tuple[np.ndarray, np.ndarray]]
) -> None:
    """Record files of at most 10,000 images."""
    per_file = _FILE_IMAGES // _AT_ONCE
    for number, (images, labels) in enumerate(blocks):
        path = folder / f"{stem}_{number // per_file + 1}.bin"
        with path.open("ab") as file:
            file.write(cifar10.encode_records(images, labels, data_set))
