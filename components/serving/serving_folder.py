"""The versions of one model in the folder that TensorFlow Serving watches: push, list, roll back.

    FOLDER/1763940000/            one version: a SavedModel and, beside its `saved_model.pb`, a `serving.json`,
                                  the model card and the verdict
    FOLDER/.staging-<random>/     a version being written; a killed push leaves one, the next removes it
    FOLDER/.retired-<random>/     a version being removed
    FOLDER/.record-N.json         a second copy of version N's `serving.json`, read where a power cut took the first
    FOLDER/.highest_version       the highest number ever given, so that none is given twice
    FOLDER/.push.lock             held by the one process that changes the folder

TensorFlow Serving takes the sub-folders whose name is an integer for versions, ignores all others, and serves
the highest. So a version is written under a name it ignores, on the same file system, and appears by one
rename, its `serving.json` with it: whoever sees a version sees all of it. Nothing is ever changed inside a
version; a rollback publishes an older model again, under a new highest number.

Nothing of TensorFlow is imported: the command line lists versions without waiting for it.
"""

import contextlib
import dataclasses
import datetime as dt
import hashlib
import itertools
import json
import os
import pathlib
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from components.staging import make_folder, move, read_either, sync_tree, write_atomically

if TYPE_CHECKING:
    from components.data.dataset import DataSet

RECORD_FILE = "serving.json"
SAVED_MODEL_FILE = "saved_model.pb"
CARD_MARKDOWN_FILE = "MODEL_CARD.md"
CARD_HTML_FILE = "MODEL_CARD.html"
VERDICT_FILE = "verdict.json"
# What is said about the model lies beside it and is not of it: its digest is the one that was judged.
DOCUMENTS = (CARD_MARKDOWN_FILE, CARD_HTML_FILE, VERDICT_FILE)
KEEP_VERSIONS = 3
RETIRE_AFTER_SECONDS = 60.0
LOCK_TIMEOUT_SECONDS = 600.0
# Of what is pushed: a server of another user reads it, and nobody else changes it. KFP's launcher starts steps with
# an umask of 0 (backend/src/v2/component/launcher_v2.go), a person's may be 0o077.
FOLDER_MODE, FILE_MODE = 0o755, 0o644
_LOCK_MODE = 0o664  # less the umask: whoever pushes to the folder opens it for writing
ROLLBACK = "rollback"  # the `action` of a version that a rollback published

_RECORD_FORMAT = 1
# Of the lineage's inputs: the Examples, and what ExampleGen noted of them.
_EXAMPLES, _DATA_SET = "examples", "data_set"
_ACCURACY = "sparse_categorical_accuracy"  # TFMA's name, in the lineage that the Pusher writes
_PUSH = "push"
_STAGING_PREFIX = ".staging-"
_RETIRED_PREFIX = ".retired-"
_LOCK_FILE = ".push.lock"
_RECORD_PREFIX = ".record-"
_HIGHEST_FILE = ".highest_version"
_VERSION_NAME = re.compile(r"[0-9]+")
_LARGEST_VERSION = 2**63 - 1  # TensorFlow Serving's versions are int64
_LOCK_POLL_SECONDS = 0.05

Manifest = dict[str, dict[str, Any]]  # relative path -> {"sha256": hex digits, "bytes": size}


class WithdrawnModelError(ValueError):
    """The model was rolled back from; only a person may publish it again."""


class OvertakenError(ValueError):
    """Another model is served than the one that the new model was compared with."""


@dataclasses.dataclass(frozen=True)
class Version:
    """One version folder.

    Attributes:
        number: the folder's name.
        path: the folder.
        served: whether it is the highest, which TensorFlow Serving serves.
        complete: whether it holds a `saved_model.pb`. Only a foreign writer leaves a version that does not.
        record: what `serving.json` says; empty for a version that another tool pushed, and where `fault` is not "".
        fault: why the version's `serving.json` cannot be taken for one, and the way out; "" for all others.
    """

    number: int
    path: pathlib.Path
    served: bool
    complete: bool
    record: Mapping[str, Any]
    fault: str = ""

    @property
    def origin(self) -> int:
        """The version as which this model was first pushed: lower than `number` after a rollback."""
        return int(self.record.get("origin_version", self.number))

    @property
    def published_at(self) -> float:
        """When, in seconds since 1970; the folder's own time for a version that another tool pushed."""
        if self.record:
            return dt.datetime.fromisoformat(self.record["published_at"]).timestamp()
        return self.path.stat().st_mtime

    @property
    def accuracy(self) -> float | None:
        """Of the classifier on the test images when the model was judged, 0 to 1; None if nothing is recorded."""
        return recorded_accuracy(self.record)

    @property
    def judged(self) -> bool:
        """Whether the model was measured on labelled pictures; one of a data set without labels was not."""
        return bool(self.record.get("lineage", {}).get("judged", True))

    @property
    def data_set(self) -> "DataSet | None":
        """What the model was trained on, which its signatures speak of; None if nothing is recorded."""
        return recorded_data_set(self.record)

    @property
    def digest(self) -> str:
        """The recorded digest of the model's files, or theirs if nothing is recorded; "" if incomplete."""
        if self.record:
            return str(self.record["digest"])
        return model_digest(self.path) if self.complete else ""


@dataclasses.dataclass(frozen=True)
class Publication:
    """What `publish` or `rollback` did.

    Attributes:
        version: the version that is served now.
        path: its folder.
        digest: the digest of the model in it.
        is_new: false if the same model was served already, and nothing was written.
    """

    version: int
    path: pathlib.Path
    digest: str
    is_new: bool


def recorded_accuracy(record: Mapping[str, Any]) -> float | None:
    """The classifier's accuracy on the test images in the lineage of a record, 0 to 1; None if there is none."""
    value = record.get("lineage", {}).get("metrics", {}).get(_ACCURACY)
    return float(value) if isinstance(value, int | float) else None


def recorded_data_set(record: Mapping[str, Any]) -> "DataSet | None":
    """The data set in the lineage of a record; None if there is none, or none that can be read."""
    for examples in record.get("lineage", {}).get("inputs", {}).get(_EXAMPLES, []):
        told = examples.get("properties", {}).get(_DATA_SET)
        if told:
            from components.data import dataset  # NumPy comes with it, which listing versions needs not

            try:
                return dataset.from_json(told)
            except ValueError:
                return None
    return None


def versions(folder: str | os.PathLike[str]) -> list[Version]:
    """Lists the versions in a serving folder, the oldest first; none if the folder does not exist.

    A `serving.json` that is none is told in its version's `fault`, so that it hides no other version.

    Raises:
        ValueError: the folder is remote.
    """
    root = local_folder(folder)
    numbered = {int(path.name): path for path in _numbered_folders(root)}
    listed = [_version(path, served=number == max(numbered)) for number, path in sorted(numbered.items())]
    return [version for version in listed if version.path.exists()]  # a push may have retired one meanwhile


def served(folder: str | os.PathLike[str]) -> Version | None:
    """The version that is served; None for none."""
    return next((version for version in versions(folder) if version.served), None)


def last_push(folder: str | os.PathLike[str]) -> float | None:
    """When the newest version was pushed that no rollback made, in seconds since 1970; None for none."""
    pushes = [one.published_at for one in versions(folder) if one.record.get("action") != ROLLBACK]
    return pushes[-1] if pushes else None


def publish(  # noqa: PLR0913 - all but two are settings, by keyword
    model: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    lineage: Mapping[str, Any] | None = None,
    *,
    documents: str | os.PathLike[str] | None = None,
    expected_digest: str | None = None,
    replaces: str | None = None,
    keep_versions: int = KEEP_VERSIONS,
    retire_after_seconds: float = RETIRE_AFTER_SECONDS,
    lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS,
) -> Publication:
    """Publishes a SavedModel as the new highest version, all at once or not at all.

    The same model as the served one is not published twice, so that a retry changes nothing. A version's
    number is the time in seconds, as with the stock Pusher, or one above the highest ever used if that is
    more.

    Args:
        model: the SavedModel's folder.
        folder: the serving folder; made if it does not exist.
        lineage: what `serving.json` shall say about where the model comes from; anything JSON can hold.
        documents: a folder whose `DOCUMENTS` are published beside the model; those it lacks are left out.
        expected_digest: what `model_digest(model)` was when the model was judged.
        replaces: digest of the served model that it was compared with, "" for none; None asks nothing. A rollback, or
            another push, during a training makes it another one.
        keep_versions: how many versions stay, the new one included. What a rollback would restore stays as
            well.
        retire_after_seconds: how long a version stays after a newer one took its place, whatever
            `keep_versions` says, so that a server that has just begun to load it can finish.
        lock_timeout_seconds: how long to wait for another push to the same folder.

    Raises:
        WithdrawnModelError: the model was rolled back from.
        OvertakenError: another model than `replaces` is served.
        ValueError: the model is none, or not the expected one; a remote folder; a setting out of range; the served
            version's `serving.json`, which knows the withdrawn models, cannot be read.
        TimeoutError: another process held the folder for too long.
        OSError: no permission, a full disk, or a copy that differs from the original.
    """
    if keep_versions < 1:
        raise ValueError(
            f"Expected keep_versions of at least 1, received {keep_versions}. The served one has to stay."
        )
    root = local_folder(folder)
    source = local_folder(model)
    manifest = model_manifest(source)
    digest = _digest(manifest)
    if expected_digest is not None and digest != expected_digest:
        raise ValueError(
            f"The model at {source} is not the one that was judged: its digest is {digest}, expected "
            f"{expected_digest}. Its files have changed since; judge it again."
        )
    with _locked(root, lock_timeout_seconds):
        present = versions(root)
        served = _readable(present[-1]) if present else None
        if served is not None and _holds(served, digest):
            publication = Publication(served.number, served.path, digest, is_new=False)
        else:
            withdrawn = _wanted(served, source, digest, replaces)
            record = {"action": _PUSH, "withdrawn": withdrawn, "lineage": dict(lineage or {})}
            documented = None if documents is None else local_folder(documents)
            publication = _publish_as_new(source, root, manifest, record, documented)
        _retire(root, keep_versions, retire_after_seconds)
    return publication


def rollback(
    folder: str | os.PathLike[str],
    version: int | None = None,
    *,
    told: Mapping[str, str] | None = None,
    lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS,
) -> Publication:
    """Serves an older model again, by publishing it as a new highest version.

    The models that were pushed after it are withdrawn: neither `publish` nor a further `rollback` without a
    version brings one back, but `rollback` to its version does.

    Args:
        folder: the serving folder.
        version: the version to restore; None is the one before, in the order in which the models were first
            pushed. The served version itself is left as it is.
        told: who rolled back and why, for the version's lineage.
        lock_timeout_seconds: how long to wait for a push to the same folder.

    Raises:
        ValueError: there is no such version, it is damaged, or there is none before; the served version's
            `serving.json` cannot be read.
        TimeoutError, OSError: as in `publish`.
    """
    root = local_folder(folder)
    if not versions(root):  # asked before the lock, which would make the folder
        raise ValueError(f"There is nothing to roll back: {root} holds no version. Push a model first.")
    with _locked(root, lock_timeout_seconds):
        present = versions(root)
        served = _readable(present[-1])
        target = _chosen_target(present, version, root)
        manifest = model_manifest(target.path)
        digest = _digest(manifest)
        if digest != target.digest:
            raise ValueError(
                f"Version {target.number} in {root} is damaged: its files give the digest {digest}, its "
                f"{RECORD_FILE} says {target.digest}. Roll back to another version."
            )
        if _holds(served, digest):
            return Publication(served.number, served.path, digest, is_new=False)
        record = {
            "action": ROLLBACK,
            "origin_version": target.origin,
            "restored_version": target.number,
            "withdrawn": _withdrawn_by_restoring(target, present),
            "lineage": {**target.record.get("lineage", {}), **({"rollback": dict(told)} if told else {})},
        }
        return _publish_as_new(target.path, root, manifest, record, target.path)


def rollback_target(present: list[Version]) -> Version | None:
    """The version that `rollback` without a version restores, or None.

    It is the model pushed last before the served one, leaving out the withdrawn ones and those whose `serving.json`
    cannot be read.

    Args:
        present: what `versions` lists.
    """
    if not present:
        return None
    served = present[-1]
    withdrawn = served.record.get("withdrawn", [])
    known = [v for v in present if v.complete and not v.fault and v.origin < served.origin]
    earlier = [v for v in known if v.digest not in withdrawn]
    return max(earlier, key=lambda v: (v.origin, v.number), default=None)


def model_digest(model: str | os.PathLike[str]) -> str:
    """Returns "sha256:..." over the paths, sizes and contents of a SavedModel's files.

    A `serving.json` and the `DOCUMENTS` at the top are left out: they are about the model, not of it.

    Raises:
        ValueError: the folder holds no SavedModel, or something that is neither a file nor a folder.
    """
    return _digest(model_manifest(pathlib.Path(model)))


def model_manifest(model: pathlib.Path) -> Manifest:
    """Lists a SavedModel's files with their SHA-256 and size; `model_digest` says what is left out."""
    if not (model / SAVED_MODEL_FILE).is_file():
        raise ValueError(
            f"Expected a SavedModel, received {model}, which has no {SAVED_MODEL_FILE}. Pass the folder that "
            "tf.saved_model.save wrote."
        )
    manifest: Manifest = {}
    for path in sorted(model.rglob("*")):
        mode = path.lstat().st_mode
        relative = path.relative_to(model).as_posix()
        if stat.S_ISDIR(mode) or relative in (RECORD_FILE, *DOCUMENTS):
            continue
        if not stat.S_ISREG(mode):
            raise ValueError(
                f"Expected files and folders in {model}, received {relative}, a link or device. Remove it."
            )
        with path.open("rb") as file:
            manifest[relative] = {"sha256": _sha256(file), "bytes": path.stat().st_size}
    return manifest


def local_folder(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the path as a local one.

    Raises:
        ValueError: it names an object store. Those have no rename, so that a half-copied version would be
            seen.
    """
    text = os.fspath(path)
    if "://" in text:
        raise ValueError(
            f"Expected a folder of a local or mounted file system, received {text}. A push needs an atomic "
            "rename, which object stores lack. Push to a local folder and synchronise that one, or mount a "
            "file system."
        )
    return pathlib.Path(text)


def check_wanted(root: pathlib.Path, source: pathlib.Path, digest: str, replaces: str | None) -> None:
    """Asks what `publish` asks of a model before it publishes it.

    Raises:
        WithdrawnModelError, OvertakenError, ValueError: as in `publish`.
    """
    present = versions(root)
    _wanted(_readable(present[-1]) if present else None, source, digest, replaces)


def _wanted(served: Version | None, source: pathlib.Path, digest: str, replaces: str | None) -> list[str]:
    """Returns the digests of the withdrawn models, of which the new one is none."""
    withdrawn = list(served.record.get("withdrawn", [])) if served is not None else []
    if digest in withdrawn:
        raise WithdrawnModelError(
            f"The model at {source} was rolled back from and is not published again by a push. If it "
            "shall be served after all, roll back to its version, or train a new one."
        )
    if replaces is not None and replaces != (served.digest if served is not None else ""):
        raise OvertakenError(
            f"Since the training began, what is served became {_named(served)}; the model at {source} was "
            "compared with another one. It is not pushed over it; the next run is compared with what is served "
            "then."
        )
    return withdrawn


def _named(served: Version | None) -> str:
    if served is None:
        return "nothing"
    return f"version {served.number}{', a rollback' if served.record.get('action') == ROLLBACK else ''}"


def _chosen_target(present: list[Version], version: int | None, root: pathlib.Path) -> Version:
    if version is None:
        target = rollback_target(present)
        if target is None:
            raise ValueError(
                f"There is nothing to roll back to in {root}: no model was pushed before the served version "
                f"{present[-1].number} that is not withdrawn. Name a version to restore a withdrawn one."
            )
        return target
    named = [v for v in present if v.number == version]
    if not named:
        known = ", ".join(str(v.number) for v in present)
        raise ValueError(f"Expected one of the versions {known} in {root}, received {version}.")
    return named[0]


def _withdrawn_by_restoring(target: Version, present: list[Version]) -> list[str]:
    """The digests of all models that stay out of service once `target` is back."""
    served = present[-1]
    withdrawn = set(served.record.get("withdrawn", []))
    if target.origin < served.origin:
        withdrawn |= {v.digest for v in present if v.complete and v.origin > target.origin}
    return sorted(withdrawn - {target.digest})


def _publish_as_new(
    source: pathlib.Path,
    root: pathlib.Path,
    manifest: Manifest,
    record: dict[str, Any],
    documents: pathlib.Path | None,
) -> Publication:
    """Stages, verifies, numbers and renames. The caller holds the lock."""
    staging = root / f"{_STAGING_PREFIX}{secrets.token_hex(8)}"
    try:
        _copy(source, staging, manifest)
        if documents is not None:
            for path in [documents / name for name in DOCUMENTS if (documents / name).is_file()]:
                (staging / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
        present = versions(root)
        number = _next_number(root)
        parent = (
            {"version": present[-1].number, "digest": present[-1].record.get("digest")} if present else None
        )
        digest = _digest(manifest)
        heading = {
            "format": _RECORD_FORMAT,
            "version": number,
            "origin_version": number,
            "published_at": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
            "digest": digest,
            "parent": parent,
        }
        text = json.dumps({**heading, **record, "files": manifest}, indent=2) + "\n"
        (staging / RECORD_FILE).write_text(text, encoding="utf-8")
        _set_modes(staging)
        sync_tree(staging)
        target = root / str(number)
        write_atomically(_copied_record(target), text, FILE_MODE)
        move(staging, target)  # the moment from which the version exists
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Publication(number, target, digest, is_new=True)


def _copy(source: pathlib.Path, target: pathlib.Path, manifest: Manifest) -> None:
    """Copies a model to the new folder `target`, onto the disk, and compares what arrived with `manifest`."""
    target.mkdir()
    for path in sorted(source.rglob("*")):
        copied = target / path.relative_to(source)
        if path.is_dir():
            copied.mkdir()
        elif copied.relative_to(target).as_posix() in manifest:
            shutil.copyfile(path, copied)
    sync_tree(target)
    arrived = model_manifest(target)
    if arrived != manifest:
        differing = sorted(
            name for name in arrived.keys() | manifest.keys() if arrived.get(name) != manifest.get(name)
        )
        raise OSError(
            f"The copy of {source} differs from it in {', '.join(differing)}. Was it written meanwhile?"
        )


def _set_modes(folder: pathlib.Path) -> None:
    """Gives files and folders their modes whatever the process's mask, where they differ: not every disk has modes."""
    for path in [folder, *folder.rglob("*")]:
        mode = FOLDER_MODE if path.is_dir() else FILE_MODE
        if stat.S_IMODE(path.stat().st_mode) != mode:
            path.chmod(mode)


def _next_number(root: pathlib.Path) -> int:
    """Gives a number above all that exist and all that were ever given, whatever the clock says."""
    memory = root / _HIGHEST_FILE
    used = [int(path.name) for path in root.iterdir() if _VERSION_NAME.fullmatch(path.name)]
    if memory.exists():
        used += _read_highest(memory)
    number = max(int(time.time()), max(used, default=0) + 1)
    if number > _LARGEST_VERSION:
        raise ValueError(
            f"Cannot number a version above {max(used)} in {root}: TensorFlow Serving's versions end at "
            f"{_LARGEST_VERSION}. Remove what has that name."
        )
    write_atomically(memory, f"{number}\n", FILE_MODE)
    return number


def _read_highest(memory: pathlib.Path) -> list[int]:
    """The number in the file; where a power cut emptied it, those of the copied records."""
    text = memory.read_text(encoding="utf-8").strip("\0\n ")
    if not text:
        copies = memory.parent.glob(f"{_RECORD_PREFIX}[0-9]*.json")
        return [int(path.stem.removeprefix(_RECORD_PREFIX)) for path in copies]
    if not _VERSION_NAME.fullmatch(text):
        raise ValueError(
            f"Expected one number in {memory}, received {text!r}. Write the highest version used into it."
        )
    return [int(text)]


def _retire(root: pathlib.Path, keep_versions: int, retire_after_seconds: float) -> None:
    """Removes versions beyond the newest `keep_versions`, but never what a rollback would restore."""
    present = versions(root)
    target = rollback_target(present)
    now = time.time()
    beyond = max(len(present) - keep_versions, 0)
    for version, successor in list(itertools.pairwise(present))[:beyond]:
        # A time that lies ahead is of a clock that was mended since, and says nothing of how long ago that was.
        superseded = abs(now - successor.published_at)
        if version == target or superseded < retire_after_seconds:
            continue
        retired = root / f"{_RETIRED_PREFIX}{secrets.token_hex(8)}"
        move(version.path, retired)  # a server sees all of it or nothing
        shutil.rmtree(retired)
        _copied_record(version.path).unlink(missing_ok=True)


def _holds(version: Version, digest: str) -> bool:
    """Whether the version's files, not only its record, have the digest."""
    return version.complete and model_digest(version.path) == digest


def _numbered_folders(root: pathlib.Path) -> list[pathlib.Path]:
    if not root.exists():
        return []
    return [path for path in root.iterdir() if _VERSION_NAME.fullmatch(path.name) and path.is_dir()]


def _version(path: pathlib.Path, served: bool) -> Version:
    record: Mapping[str, Any] = {}
    fault, complete = "", False
    try:
        complete = (path / SAVED_MODEL_FILE).is_file()
        record = _read_record(path)
    except (ValueError, RecursionError, OSError) as error:
        fault = (
            f"Expected the record of a push in {path / RECORD_FILE}, received {error}. Remove or repair it."
        )
    return Version(int(path.name), path, served, complete, record, fault)


def _readable(served: Version) -> Version:
    """The served version; its record alone knows all the withdrawn models, so nothing is published without it."""
    if served.fault:
        raise ValueError(served.fault)
    return served


def _read_record(version: pathlib.Path) -> Mapping[str, Any]:
    """The record, empty if there is none; what the code here goes by has the types that it relies on.

    Raises:
        ValueError, RecursionError, OSError: there is a file that is no record.
    """
    try:
        record = json.loads(read_either(version / RECORD_FILE, _copied_record(version)))
    except FileNotFoundError:
        return {}
    if flaw := _flaw(record):
        raise ValueError(flaw)
    dt.datetime.fromisoformat(record["published_at"])
    return record


def _copied_record(version: pathlib.Path) -> pathlib.Path:
    return version.with_name(f"{_RECORD_PREFIX}{version.name}.json")


def _flaw(record: Any) -> str:
    """What about the JSON is not as the code here and the readers of the lineage need it; "" if nothing."""
    if not isinstance(record, dict):
        return "JSON that is no object"
    lineage = record.get("lineage", {})
    needed = {
        "digest": (record, str),
        "origin_version": (record, int),
        "published_at": (record, str),
    }
    wanted = {
        "action": (record, str),
        "withdrawn": (record, list),
        "files": (record, dict),
        "lineage": (record, dict),
        "metrics": (lineage, dict),
        "inputs": (lineage, dict),
    }
    for name, (place, kind) in (needed | wanted).items():
        if not isinstance(place, dict) or (name not in place and name in wanted):
            continue
        if not isinstance(place.get(name), kind):
            return f"JSON whose {name} is {json.dumps(place.get(name))[:40]}"
    return ""


@contextlib.contextmanager
def _locked(root: pathlib.Path, timeout_seconds: float) -> Iterator[None]:
    """Holds the folder's lock and removes what killed pushes left in it.

    The lock is the kernel's (flock): it ends with the process that holds it, so a lock is never stale, and
    what the file says is only for the message. The file itself stays: removing it would give two processes
    two locks.

    Raises:
        TimeoutError: another process holds it; the message names it and since when.
    """
    make_folder(root, mode=0o775)
    path = root / _LOCK_FILE
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, _LOCK_MODE))
    import portalocker  # imports Redis' client and all of its own, which readers need not wait for

    lock = portalocker.Lock(path, mode="a+", timeout=timeout_seconds, check_interval=_LOCK_POLL_SECONDS)
    try:
        file = lock.acquire()
    except portalocker.LockException as error:
        raise TimeoutError(
            f"{root} is being changed by another process ({_owner(path)}), and was not released within "
            f"{timeout_seconds:g} s. Wait for that process, or end it: its lock ends with it."
        ) from error
    try:
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}))
        file.flush()
        for leftover in root.iterdir():
            # Whoever stages holds the lock, so these are of a process that no longer lives.
            is_number = leftover.name.endswith(_HIGHEST_FILE) and leftover.name != _HIGHEST_FILE
            if is_number or leftover.name.startswith((_STAGING_PREFIX, _RETIRED_PREFIX)):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        yield
    finally:
        lock.release()


def _owner(path: pathlib.Path) -> str:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        age = max(time.time() - owner["since"], 0)
        return f"process {owner['pid']} on {owner['host']}, for {age:.0f} s"
    except (ValueError, KeyError):
        return "which has not yet written its name"


def _digest(manifest: Manifest) -> str:
    lines = [f"{name}\0{entry['bytes']}\0{entry['sha256']}\n" for name, entry in sorted(manifest.items())]
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256(file: BinaryIO) -> str:
    # hashlib.file_digest would do, from Python 3.11 on.
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
