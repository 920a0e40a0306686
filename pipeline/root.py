"""The record files a run takes, the layout of its root folder, and the lock that keeps it to one run at a time."""

import contextlib
import dataclasses
import errno
import fcntl
import os
import pathlib
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from components import path_names
from pipeline import store_file

if TYPE_CHECKING:
    from components.data.dataset import DataSet

REPORT_FILE = "report.html"


class RootInUseError(RuntimeError):
    """Another process is running in the same root."""


@dataclasses.dataclass(frozen=True)
class Records:
    """The record files of one run, checked.

    Attributes:
        folder: where they lie.
        span: the number in the folder's name, `span-N`; None for a plain folder.
        test: folder of a test set that stays the same from span to span; None takes the test files beside the others.
        data_set: what they hold; None for CIFAR-10.
        test_labelled: whether the test files beside the others have labels; a span may be without beside a test set of
            its own.
    """

    folder: pathlib.Path
    span: int | None = None
    test: pathlib.Path | None = None
    data_set: "DataSet | None" = None
    test_labelled: bool = True

    @property
    def input_base(self) -> pathlib.Path:
        """What Cifar10ExampleGen is given: the folder, or the one that holds the spans."""
        return self.folder if self.span is None else self.folder.parent


@dataclasses.dataclass(frozen=True)
class Root:
    """Everything a run leaves behind is below `path`."""

    path: pathlib.Path

    @property
    def artifacts(self) -> pathlib.Path:
        """TFX's pipeline root."""
        return self.path / "tfx"

    @property
    def metadata(self) -> pathlib.Path:
        """The MLMD database."""
        return self.path / "metadata.sqlite"

    @property
    def checkpoints(self) -> pathlib.Path:
        """Checkpoints of unfinished pretraining."""
        return self.path / "checkpoints"

    @property
    def serving(self) -> pathlib.Path:
        """The folder TensorFlow Serving watches: a folder a version."""
        return self.path / "serving"

    @property
    def demo_data(self) -> pathlib.Path:
        """The embedded data set of the demo."""
        return self.path / "data"

    @property
    def beam_package(self) -> pathlib.Path:
        """What TFX packs for Beam's workers while a run is at work."""
        return self.path / ".beam"

    @property
    def tensorboard(self) -> pathlib.Path:
        """Links to the runs' curves under readable names, while TensorBoard shows them and after."""
        return self.path / ".tensorboard"

    @property
    def logs(self) -> pathlib.Path:
        """A log file a run."""
        return self.path / "logs"

    @property
    def latest_summary(self) -> pathlib.Path:
        """Summary of the last finished run."""
        return self.path / "latest" / "summary.json"

    @property
    def latest_report(self) -> pathlib.Path:
        """Report of the last finished run."""
        return self.path / "latest" / REPORT_FILE

    @property
    def schema(self) -> pathlib.Path:
        """The schema of a data set other than CIFAR-10, whose own is reviewed and part of the code."""
        return self.path / "schema.pbtxt"

    @property
    def ledger(self) -> pathlib.Path:
        """What scheduled retraining remembers."""
        return self.path / "retraining" / "ledger.json"

    def summary(self, run_id: str) -> pathlib.Path:
        """Summary of one run."""
        return self.path / "runs" / run_id.replace(":", "-") / "summary.json"

    def report(self, run_id: str) -> pathlib.Path:
        """Report of one run."""
        return self.summary(run_id).with_name(REPORT_FILE)

    def report_address(self, run_id: str | None) -> str:
        """Where the report of a run lies, as an address; "" where there is none."""
        if run_id is None:
            return ""
        report = self.report(run_id).absolute()
        return report.as_uri() if report.is_file() else ""

    def check(self) -> None:
        """Proves, without writing anything, that a run could work here: before anything that takes long.

        Raises:
            OSError: the folder cannot be written, or is an object store.
            ValueError: what ML Metadata keeps there cannot be used, or is of a clock ahead of this one, or TFX would
                take the folder's name for something else.
        """
        _check_name(self.path)
        there = next(place for place in (self.path, *self.path.parents) if place.exists())
        _check_folder(there, os.W_OK | os.X_OK)
        # What an earlier run wrote as another user, such as with sudo, is told now and not after the training.
        ours = (self.artifacts, self.serving, self.checkpoints, self.logs, self.ledger.parent)
        for folder in (*ours, self.path / "runs", self.latest_summary.parent):
            if os.path.lexists(folder):
                _check_folder(folder, os.R_OK | os.W_OK | os.X_OK)
        store_file.check(self.metadata)
        store_file.check_clock(self.metadata)
        if self.metadata.exists() and not os.access(self.metadata, os.W_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.metadata))

    def prepare(self) -> None:
        """Makes the folder and proves that it can be written.

        Raises:
            OSError, ValueError: as `check`.
        """
        self.check()
        self.logs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.path) as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
            os.fsync(probe.fileno())

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the root for this process; the system frees it when the process ends, however it ends.

        Raises:
            RootInUseError: when another process holds it.
        """
        with (self.path / ".lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.seek(0)
                raise RootInUseError(
                    f"Another run ({_owner(lock.read())}) is at work in {self.path}. "
                    "Wait for it to end, or choose another --root."
                ) from error
            lock.truncate(0)
            lock.write(f"{os.getpid()} {socket.gethostname()} {time.time():.0f}")
            lock.flush()
            yield


def existing(path: pathlib.Path) -> Root:
    """The root of earlier runs at `path`, for what reads there.

    Raises:
        ValueError: there is none, or it or its serving folder cannot be read.
    """
    root = Root(path.absolute())
    try:
        if not root.path.is_dir():
            raise ValueError(f"There is no folder {path}; --root is the folder that `byol run` was given.")
        for folder in (root.path, root.serving):
            if os.path.lexists(folder):
                _check_folder(folder, os.R_OK | os.X_OK)
    except OSError as error:
        raise ValueError(
            f"{error.filename} cannot be read: {error.strerror}. Expected a folder that this user may read."
        ) from error
    return root


def _check_folder(folder: pathlib.Path, mode: int) -> None:
    """Raises OSError where it is no folder, or this user may not do with it what `os.access` calls `mode`."""
    if not folder.is_dir():
        number = errno.ENOTDIR if folder.exists() else errno.ENOENT
    elif not os.access(folder, mode, effective_ids=True):
        number = errno.EACCES
    else:
        return
    raise OSError(number, os.strerror(number), str(folder))


def _check_name(path: pathlib.Path) -> None:
    """Refuses an object store, which would be a local folder named `gs:`, and what TFX would misread."""
    store = next((part for part in path.parts if re.fullmatch(r"[a-z][a-z0-9+.-]+:", part)), None)
    if store is not None:
        raise OSError(f"{store}// is no folder of this machine; runs need a local or mounted file system")
    path_names.check(path)


def _owner(written: str) -> str:
    """Who holds the lock, from what it wrote into it."""
    words = written.split()
    if len(words) != 3:
        return "which has not yet written its name"
    process, host, since = words
    return f"process {process} on {host}, for {max(time.time() - float(since), 0) / 60:.0f} min"
