"""Blessed models that wait for a person's word, beside the versions and under a name that no server takes for one.

    FOLDER/.candidates/3f1c.../        the candidate: `model/`, a SavedModel with its documents, and `candidate.json`
    FOLDER/.candidates/decisions.json  what became of each: who, when, why
    FOLDER/.candidates/.lock           held by the one process that changes this folder

There is one at a time: a newer candidate replaces the one that waits. It appears by one rename. Nothing of TensorFlow
is imported.
"""

import contextlib
import dataclasses
import datetime as dt
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from components.serving import serving_folder
from components.serving.serving_folder import Publication
from components.staging import copy_of, make_folder, read_either, staged_folder, write_twice

APPROVED, REJECTED, REPLACED = "approved", "rejected", "replaced"
_FOLDER = ".candidates"
_MODEL = "model"
_RECORD_FILE = "candidate.json"
_DECISIONS_FILE = "decisions.json"
_LOCK_FILE = ".lock"
_NAME_LENGTH = 16  # hex digits of the digest


class RejectedModelError(ValueError):
    """The model was a candidate before, and a person has rejected it."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A model that waits.

    Attributes:
        name: by which a person names it: the first digits of its digest.
        path: its folder.
        record: what `candidate.json` says: `digest`, `held_at`, `replaces` (digest of the version that it was compared
            with; None asks nothing), `lineage`, and `keep_versions` and `retire_after_seconds` for its push.
    """

    name: str
    path: pathlib.Path
    record: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Of its files, as its version will have."""
        return self.record["digest"]

    @property
    def model(self) -> pathlib.Path:
        """Its SavedModel, with the documents beside it."""
        return self.path / _MODEL

    @property
    def run_id(self) -> str | None:
        """The run that made it."""
        return self.record["lineage"].get("run_id")

    @property
    def accuracy(self) -> float | None:
        """Of the classifier on the test images, 0 to 1; None if nothing is recorded."""
        return serving_folder.recorded_accuracy(self.record)


@dataclasses.dataclass(frozen=True)
class Decision:
    """What became of a candidate.

    Attributes:
        name, digest, run_id, accuracy: of the candidate.
        decision: APPROVED, REJECTED or REPLACED.
        by: who decided; "" where a newer candidate did.
        at: when, ISO 8601 in UTC.
        reason: why, in the person's words.
        version: as which an approved one was pushed.
    """

    name: str
    digest: str
    run_id: str | None
    accuracy: float | None
    decision: str
    by: str
    at: str
    reason: str
    version: int | None = None


def waiting(folder: str | os.PathLike[str]) -> Candidate | None:
    """The candidate that waits in a serving folder; None if there is none.

    Raises:
        ValueError: its record cannot be read as one.
    """
    return next(iter(_held(serving_folder.local_folder(folder))), None)


def decisions(folder: str | os.PathLike[str]) -> list[Decision]:
    """What became of earlier candidates, the oldest first.

    Raises:
        ValueError: the file is none of these.
    """
    path = serving_folder.local_folder(folder) / _FOLDER / _DECISIONS_FILE
    try:
        return [Decision(**one) for one in json.loads(read_either(path))]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"Expected a list of decisions on candidates in {path}, received {error}. Restore it from a backup, or "
            "move it away."
        ) from error


def hold(  # noqa: PLR0913 - all but three are settings, by keyword
    model: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    lineage: Mapping[str, Any],
    *,
    documents: str | os.PathLike[str] | None = None,
    expected_digest: str | None = None,
    replaces: str | None = None,
    keep_versions: int = serving_folder.KEEP_VERSIONS,
    retire_after_seconds: float = serving_folder.RETIRE_AFTER_SECONDS,
) -> Candidate:
    """Keeps a blessed model until a person decides; the one that waited is replaced.

    Args:
        model, folder, lineage, documents, expected_digest, replaces, keep_versions, retire_after_seconds: as in
            `serving_folder.publish`, for the push that may come.

    Raises:
        RejectedModelError: the same model was rejected.
        ValueError: the model is none, or not the expected one.
        serving_folder.WithdrawnModelError, serving_folder.OvertakenError: as in `serving_folder.publish`.
        OSError: it cannot be written; what waited still waits.
    """
    source, root = serving_folder.local_folder(model), serving_folder.local_folder(folder)
    digest = serving_folder.model_digest(source)
    if expected_digest is not None and digest != expected_digest:
        raise ValueError(
            f"The model at {source} is not the one that was judged: its digest is {digest}, expected "
            f"{expected_digest}. Its files have changed since; judge it again."
        )
    record = {
        "digest": digest,
        "held_at": _now(),
        "replaces": replaces,
        "lineage": dict(lineage),
        "keep_versions": keep_versions,
        "retire_after_seconds": retire_after_seconds,
    }
    with _locked(root):
        rejected = [one for one in decisions(root) if one.digest == digest and one.decision == REJECTED]
        if rejected:
            raise RejectedModelError(
                f"{rejected[-1].by} rejected this model on {rejected[-1].at[:10]}: {rejected[-1].reason}"
            )
        serving_folder.check_wanted(root, source, digest, replaces)
        target = root / _FOLDER / digest.removeprefix("sha256:")[:_NAME_LENGTH]
        if not target.exists():
            _write(source, target, record, documents)
        for older in _held(root):
            if older.path != target:
                _decide(root, older, REPLACED, "", f"{target.name} is newer")
        return _candidate(target / _RECORD_FILE)


def approve(
    folder: str | os.PathLike[str], by: str, reason: str = "", name: str | None = None, at: str = ""
) -> Publication:
    """Pushes the candidate; who decided, when and why stays in the version's lineage.

    Args:
        folder: the serving folder.
        by, reason: who decided, and why.
        name: the candidate that is meant; whatever waits if None.
        at: when, ISO 8601 in UTC; now if "".

    Raises:
        ValueError: nothing waits, or another one than `name`, or its files are not those that were judged.
        serving_folder.WithdrawnModelError, serving_folder.OvertakenError: what is served is another version than the
            one that it was compared with.
        OSError, TimeoutError: as in `serving_folder.publish`; the candidate still waits.
    """
    root, at = serving_folder.local_folder(folder), at or _now()
    with _locked(root):
        candidate = _named(root, name)
        record = candidate.record
        publication = serving_folder.publish(
            candidate.path / _MODEL,
            root,
            {**record["lineage"], "approval": {"by": by, "at": at, "reason": reason}},
            documents=candidate.path / _MODEL,
            expected_digest=record["digest"],
            replaces=record["replaces"],
            keep_versions=record["keep_versions"],
            retire_after_seconds=record["retire_after_seconds"],
        )
        _decide(root, candidate, APPROVED, by, reason, publication.version, at)
    return publication


def reject(
    folder: str | os.PathLike[str], by: str, reason: str, name: str | None = None, at: str = ""
) -> Decision:
    """Removes the candidate; the same model is not held again.

    Args:
        folder, by, reason, name, at: as in `approve`; the reason is asked for.

    Raises:
        ValueError: nothing waits, or another one than `name`; or there is no reason.
    """
    if not reason.strip():
        raise ValueError("Expected a reason for whoever reads the lineage later, received none.")
    root = serving_folder.local_folder(folder)
    with _locked(root):
        return _decide(root, _named(root, name), REJECTED, by, reason, at=at)


def _held(root: pathlib.Path) -> list[Candidate]:
    """The newest first; more than one only where a process was killed while it replaced one."""
    paths = (root / _FOLDER).glob(f"*/{_RECORD_FILE}")
    found = [_candidate(path) for path in paths if not path.parent.name.startswith(".")]
    decided = {(one.name, one.at) for one in decisions(root)}
    waits = [
        candidate
        for candidate in found
        if not any(name == candidate.name and at >= candidate.record["held_at"] for name, at in decided)
    ]
    return sorted(waits, key=lambda candidate: candidate.record["held_at"], reverse=True)


def _sweep(root: pathlib.Path) -> None:
    """Removes what a killed process left: half a candidate, or one that was decided on already."""
    waits = {candidate.path for candidate in _held(root)}
    for path in (root / _FOLDER).iterdir():
        if path.is_dir() and path not in waits:
            shutil.rmtree(path)


def _named(root: pathlib.Path, name: str | None) -> Candidate:
    for replaced in _held(root)[1:]:
        _decide(root, replaced, REPLACED, "", "a newer one was held")
    candidate = waiting(root)
    if candidate is None:
        raise ValueError(
            f"No candidate waits in {root}; with gate.approval=manual a blessed model becomes one."
        )
    if name is not None and name != candidate.name:
        raise ValueError(
            f"Expected the candidate that waits, {candidate.name}, received {name}. Was it replaced?"
        )
    return candidate


def _decide(
    root: pathlib.Path,
    candidate: Candidate,
    decision: str,
    by: str,
    reason: str,
    version: int | None = None,
    at: str = "",
) -> Decision:
    """Remembers what became of a candidate, then removes it; killed between, it waits no more."""
    made = Decision(
        candidate.name, candidate.record["digest"], candidate.run_id, candidate.accuracy, decision, by,
        at or _now(), reason, version,
    )  # fmt: skip
    told = [dataclasses.asdict(one) for one in [*decisions(root), made]]
    write_twice(root / _FOLDER / _DECISIONS_FILE, json.dumps(told, indent=1) + "\n")
    shutil.rmtree(candidate.path)
    return made


def _write(
    source: pathlib.Path,
    target: pathlib.Path,
    record: Mapping[str, Any],
    documents: str | os.PathLike[str] | None,
) -> None:
    with staged_folder(target) as staging:
        model = staging / _MODEL
        shutil.copytree(source, model)
        for name in serving_folder.DOCUMENTS if documents is not None else ():
            path = pathlib.Path(os.fspath(documents)) / name  # type: ignore[arg-type] # asked above
            if path.is_file():
                shutil.copyfile(path, model / name)
        copied = serving_folder.model_digest(model)
        if copied != record["digest"]:
            raise OSError(f"The copy of {source} differs from it. Was it written meanwhile?")
        for path in (copy_of(staging / _RECORD_FILE), staging / _RECORD_FILE):
            path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _candidate(path: pathlib.Path) -> Candidate:
    try:
        record = json.loads(read_either(path))
        whole = isinstance(record["lineage"], dict) and isinstance(record["held_at"], str)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(_no_record(path)) from error
    if not whole:
        raise ValueError(_no_record(path))
    return Candidate(path.parent.name, path.parent, record)


def _no_record(path: pathlib.Path) -> str:
    return (
        f"Expected the record of a candidate in {path}, received something else. Remove {path.parent}; the next "
        "training makes a candidate again."
    )


@contextlib.contextmanager
def _locked(root: pathlib.Path) -> Iterator[None]:
    """Holds the candidates' lock, the kernel's, which ends with its holder.

    Raises:
        TimeoutError: another process holds it.
    """
    home = root / _FOLDER
    make_folder(home, mode=0o775)
    import portalocker  # imports Redis' client and all of its own, which readers need not wait for

    lock = portalocker.Lock(home / _LOCK_FILE, mode="a+", timeout=serving_folder.LOCK_TIMEOUT_SECONDS)
    try:
        lock.acquire()
    except portalocker.LockException as error:
        raise TimeoutError(
            f"Another process decides on the candidates in {root}. Wait for its end."
        ) from error
    try:
        _sweep(root)
        yield
    finally:
        lock.release()


def _now() -> str:
    return dt.datetime.now(dt.timezone.utc).isoformat(timespec="microseconds")
