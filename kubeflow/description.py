"""The data set that a pipeline is compiled for: names and size make the graph, and the data lie on a cluster's volume.

So whoever compiles says it, by the description or by a local copy of the data; the first step on the cluster compares
it with what lies there. No TFX.
"""

import pathlib
from typing import Literal

from components.data import cifar10, dataset
from components.data.dataset import CIFAR10, DataSet

_EXPECTED = (
    f"Expected a {dataset.FILE}, as `byol data import` writes it, or a local copy of the data, which holds one; "
    "leave it out for CIFAR-10."
)


def described(path: pathlib.Path | None, span: int | Literal["latest"] | None) -> DataSet:
    """The data set of a description, or of a local copy of the data.

    Args:
        path: a `dataset.json` or `batches.meta.txt`, a folder of records or one of `span-N` folders; None for
            CIFAR-10.
        span: which of these, as `compile_pipeline` takes it.

    Raises:
        ValueError: nothing is described there.
        OSError: it cannot be read.
    """
    if path is None:
        return CIFAR10
    return dataset.read(_records(path, span)) if path.is_dir() else _of_file(path)


def _of_file(path: pathlib.Path) -> DataSet:
    if not path.exists():
        raise ValueError(f"--data-set: there is no {path}. {_EXPECTED}")
    return dataset.read_file(path)


def _records(folder: pathlib.Path, span: int | Literal["latest"] | None) -> pathlib.Path:
    """The folder of records that a run of this span would read, were it here."""
    numbers = [] if span is None else cifar10.span_numbers(folder)
    if isinstance(span, int) and numbers and span not in numbers:
        there = ", ".join(map(str, numbers))
        raise ValueError(f"{folder} has no {cifar10.SPAN_FOLDER}{span}. Spans there: {there}.")
    number = span if isinstance(span, int) else max(numbers, default=None)
    place = cifar10.location(folder / f"{cifar10.SPAN_FOLDER}{number}" if numbers else folder)
    if not any((place / name).exists() for name in dataset.DESCRIPTIONS) and not any(
        place.glob("*_batch*.bin")
    ):
        raise ValueError(f"--data-set: {place} holds neither records nor a description. {_EXPECTED}")
    return place
