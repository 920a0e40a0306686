"""What a data set says of itself: its classes and the size of its pictures, in `dataset.json` beside the records.

CIFAR-10's official folder has no such file, and needs none: what is not described is 32x32 pixels, and its classes are
those of `batches.meta.txt`, the official list of names, or CIFAR-10's. Both files come from outside, so they are read
strictly. No TensorFlow.
"""

import dataclasses
import json
from typing import Any

from components.data import features
from components.data.beam_path import Place

FILE = "dataset.json"
NAMES_FILE = "batches.meta.txt"  # a name a line, as in CIFAR-10's binary version
DESCRIPTIONS = (FILE, NAMES_FILE)
UNFINISHED_FILE = "_UNFINISHED"  # beside records that are still being written where no folder can be renamed
UNLABELLED = -1  # the label of a row that has none

_MAX_FILE_BYTES = 4 * 1024 * 1024
_MAX_CLASSES = 10_000
_MAX_NAME = 200  # characters
_MAX_TEXT = 2000
_SIDES = (8, 1024)  # pixels
_SHOWN_NAMES = 10
_FILE_HELP = "`byol data import` writes such a file."
_NAMES_HELP = "It is a name a line; correct it, or remove it if the classes are CIFAR-10's."
_ONE_BYTE_CLASSES = 255  # the byte 255 is left for "no label"


@dataclasses.dataclass(frozen=True)
class DataSet:
    """The classes and the pictures of a data set.

    Attributes:
        name: in reports.
        pictures: what they are, in words.
        label_names: at least two different ones, a label is a place among them; none where nothing is labelled.
        height, width: of every picture, in pixels.
        unlabelled: whether pictures without a label occur: among those for training, or everywhere.
    """

    name: str
    pictures: str
    label_names: tuple[str, ...]
    height: int
    width: int
    unlabelled: bool = False

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= _MAX_NAME or not self.name.isprintable():
            raise ValueError(f"name is 1 to {_MAX_NAME} printable characters; received {self.name[:50]!r}")
        if len(self.pictures) > _MAX_TEXT:
            raise ValueError(f"pictures is at most {_MAX_TEXT} characters; received {len(self.pictures)}")
        if len(self.label_names) == 1 or len(self.label_names) > _MAX_CLASSES:
            raise ValueError(
                f"label_names are none, or 2 to {_MAX_CLASSES}; received {len(self.label_names)}"
            )
        if not self.label_names and not self.unlabelled:
            raise ValueError("without label_names no picture has a label: expected unlabelled to be true")
        for name in self.label_names:
            if not 0 < len(name) <= _MAX_NAME or not name.isprintable():
                raise ValueError(
                    f"a label name is 1 to {_MAX_NAME} printable characters; received {name[:50]!r}"
                )
        if len(set(self.label_names)) != len(self.label_names):
            twice = next(name for name in self.label_names if self.label_names.count(name) > 1)
            raise ValueError(f"label_names are all different; {twice!r} is there twice")
        for key in ("height", "width"):
            if not _SIDES[0] <= getattr(self, key) <= _SIDES[1]:
                raise ValueError(f"{key} is {_SIDES[0]} to {_SIDES[1]} pixels; received {getattr(self, key)}")

    @property
    def classes(self) -> int:
        """Their number; 0 where nothing is labelled."""
        return len(self.label_names)

    @property
    def side(self) -> int:
        """Pixels of the shorter side of its pictures."""
        return min(self.height, self.width)

    def fits(self, other: "DataSet") -> bool:
        """Whether a model of one can be judged on pictures of the other: the same classes in order, the same size."""
        return (self.label_names, self.shape) == (other.label_names, other.shape)

    @property
    def in_words(self) -> str:
        """Its classes and the size of its pictures, in words."""
        classes = f"{self.classes} classes" if self.label_names else "no labels"
        return f"{classes} at {self.height}x{self.width} pixels"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a picture: height, width, channels."""
        return self.height, self.width, 3

    @property
    def image_bytes(self) -> int:
        """Of a picture's pixels."""
        return self.height * self.width * 3

    @property
    def label_bytes(self) -> int:
        """Of a record's label: one, or two (the high one first) for more than 255 classes."""
        return 1 if self.classes <= _ONE_BYTE_CLASSES else 2

    @property
    def no_label(self) -> int:
        """What a record has in the place of a label that is missing: all bits set."""
        return 256**self.label_bytes - 1

    @property
    def record_bytes(self) -> int:
        """Of a label and the pixels after it."""
        return self.label_bytes + self.image_bytes

    def told(self) -> str:
        """Name, classes and size in words; of many names the first."""
        shown = ", ".join(self.label_names[:_SHOWN_NAMES]) + (", ..." if self.classes > _SHOWN_NAMES else "")
        unlabelled = ", some without a label" if self.unlabelled else ""
        return f"{self.name} ({self.classes} classes: {shown}; {self.height}x{self.width} pixels{unlabelled})"

    def label_name(self, label: int) -> str:
        """The name of a label; the one of no label in words."""
        return "no label" if label == UNLABELLED else self.label_names[label]

    def to_json(self) -> str:
        """As `from_json` reads it."""
        return json.dumps(dataclasses.asdict(self))


CIFAR10 = DataSet(
    name="CIFAR-10",
    pictures="natural images of ten classes, reduced to 32x32 pixels",
    label_names=features.LABEL_NAMES,
    height=features.IMAGE_SHAPE[0],
    width=features.IMAGE_SHAPE[1],
)


def from_json(text: str | bytes) -> DataSet:
    """Reads a description; of no text at all, CIFAR-10's.

    Raises:
        ValueError: it is not JSON, or says too little, too much or something impossible.
    """
    if not text:
        return CIFAR10
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}") from error
    fields = {field.name: field for field in dataclasses.fields(DataSet)}
    if not isinstance(values, dict) or values.keys() - fields.keys():
        given = sorted(map(str, values)) if isinstance(values, dict) else type(values).__name__
        raise ValueError(f"expected the keys {', '.join(fields)}; received {str(given)[:200]}")
    missing = [
        name for name, field in fields.items() if name not in values and field.default is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    for name, kind in (
        ("name", str),
        ("pictures", str),
        ("height", int),
        ("width", int),
        ("unlabelled", bool),
    ):
        _check_kind(name, values.get(name, False), kind)
    names = values["label_names"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("label_names is a list of texts")
    return DataSet(**{**values, "label_names": tuple(names)})


def from_names(text: bytes) -> DataSet:
    """CIFAR-10's, with the classes of a list of names, one a line; blank lines are none: the official file ends in one.

    Raises:
        ValueError: it is no such list.
    """
    names = tuple(name for line in text.decode("utf-8").splitlines() if (name := line.strip()))
    if names in ((), CIFAR10.label_names):
        return CIFAR10
    return DataSet(
        name=f"{len(names)} classes of {NAMES_FILE}",
        pictures="",
        label_names=names,
        height=CIFAR10.height,
        width=CIFAR10.width,
    )


def read(folder: Place) -> DataSet:
    """The data set whose records lie in `folder`: by `dataset.json` there, else by `batches.meta.txt`, else CIFAR-10.

    Raises:
        ValueError: the file is none that describes a data set, or not all of the records are there yet.
        OSError: it cannot be read.
    """
    if (folder / UNFINISHED_FILE).exists():
        raise ValueError(unfinished(str(folder)))
    path = next((folder / name for name in DESCRIPTIONS if (folder / name).exists()), None)
    return read_file(path) if path else CIFAR10


def read_file(path: Place) -> DataSet:
    """The data set that a file describes: a list of names by its name, else JSON.

    Raises:
        ValueError: the file is none that describes a data set.
        OSError: it cannot be read.
    """
    if not path.is_file() or path.stat().st_size > _MAX_FILE_BYTES:
        raise ValueError(f"{path} describes no data set: expected a file of at most {_MAX_FILE_BYTES} bytes.")
    text, is_list = path.read_bytes(), path.name == NAMES_FILE
    try:
        return from_names(text) if is_list else from_json(text or b" ")
    except ValueError as error:
        help_ = _NAMES_HELP if is_list else _FILE_HELP
        raise ValueError(f"{path} describes no data set: {error}. {help_}") from error


def check_same(found: DataSet, wanted: DataSet, folder: str) -> None:
    """Whether the records in a folder are those that a pipeline was made for.

    Names and size decide, and whether labels may be missing; words for people may be others from span to span.

    Raises:
        ValueError: they are others; it names both.
    """
    if found.fits(wanted) and found.unlabelled <= wanted.unlabelled:
        return
    pairs = enumerate(zip(found.label_names, wanted.label_names, strict=False))
    other = next(
        (f" Label {n} is {one!r} there and {two!r} here." for n, (one, two) in pairs if one != two), ""
    )
    raise ValueError(
        f"{folder} holds {found.told()}; this pipeline was made for {wanted.told()}.{other} Make it anew for this "
        f"data: `byol run` reads {FILE} beside the records, and `byol kubeflow` takes it by --data-set."
    )


def unfinished(folder: str) -> str:
    """What is said of a folder in which there is an UNFINISHED_FILE."""
    return (
        f"{folder} is a data set that is not whole: its import is at work, or was ended. Wait for it, or give the same "
        "command again."
    )


def _check_kind(name: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise ValueError(f"{name} must be {kind.__name__}; received {str(value)[:50]!r}")
