"""The spans of a simulated year: light that changes, faults, and what only looks like a span."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import time
from collections.abc import Iterator

import numpy as np

from components.data import cifar10, synthetic
from pipeline.spans import arrivals

DAMAGED, EMPTY, POISONED, SMALL = "damaged", "empty", "poisoned", "small"
SMALL_SPAN = (50, 20)  # training and test images of one whose own steps would be fewer than the warm-up
DRIFT = 0.05  # of the brightness, over the year; the AnomalyGate refuses more from one span to the next
_DAYS_WITHOUT_MARKER = 2


@dataclasses.dataclass(frozen=True)
class Spans:
    """A folder of spans.

    Attributes:
        folder: holds them, and the fixed test set.
        train: training images of a usual span; it has a third as many test images.
    """

    folder: pathlib.Path
    train: int

    def deliver_test(self, images: int) -> None:
        """Writes the fixed test set."""
        synthetic.write(self.folder / arrivals.TEST_FOLDER, train=10, test=images, seed=1000)

    def deliver(self, week: int, kind: str) -> None:
        """Writes a span and says that it is complete."""
        path = self._path(week)
        train, test = SMALL_SPAN if kind == SMALL else (self.train, self.train // 3)
        synthetic.write(path, train=train, test=test, seed=week)
        light = 1.0 - DRIFT * np.sin(2 * np.pi * week / 52)
        for file in path.glob("*.bin"):
            images, labels = cifar10.read_records(file)
            if kind == POISONED:
                labels = np.roll(np.arange(10), 3)[labels]
            file.write_bytes(cifar10.encode_records(np.clip(images * light, 0, 255).astype(np.uint8), labels))
            if kind == DAMAGED:
                file.write_bytes(file.read_bytes()[:-7])
            if kind == EMPTY:
                file.unlink()
        (path / arrivals.COMPLETE_MARKER).touch()

    @contextlib.contextmanager
    def unreadable(self, week: int) -> Iterator[None]:
        """Nobody may read a file of a span meanwhile."""
        file = self._path(week) / "data_batch_1.bin"
        mode = file.stat().st_mode
        file.chmod(0)
        try:
            yield
        finally:
            file.chmod(mode)

    @contextlib.contextmanager
    def odd_things(self, week: int) -> Iterator[list[str]]:
        """What looks like spans lies among them meanwhile; yields the words by which each has to be named."""
        silent = self._path(week + 500)
        folders = [self.folder / f"span_{week}", self.folder / f"span-0{week}", silent]
        for folder in [*folders, pathlib.Path(os.fsdecode(os.fsencode(self.folder) + b"/span-\xff"))]:
            folder.mkdir()
        archive, link = self.folder / f"span-{week}.tar", self.folder / "span-900"
        archive.touch()
        link.symlink_to("nowhere")
        then = time.time() - _DAYS_WITHOUT_MARKER * 86400
        os.utime(silent, (then, then))
        try:
            yield [
                f"span_{week}",
                f"span-0{week}",
                r"span-\udcff",
                archive.name,
                link.name,
                f"span {week + 500}",
            ]
        finally:
            archive.unlink()
            link.unlink()
            for folder in [*folders, pathlib.Path(os.fsdecode(os.fsencode(self.folder) + b"/span-\xff"))]:
                shutil.rmtree(folder)

    def _path(self, number: int) -> pathlib.Path:
        return self.folder / f"{cifar10.SPAN_FOLDER}{number}"
