"""What a Beam worker answers before a run begins; imports neither Beam nor TensorFlow, so that it starts fast."""

import hashlib
import importlib.metadata
import json
import pathlib
import platform
import socket
from typing import Any

from pipeline.source_digest import source_digest

# Around what the worker found wrong, in the error that the engine hands back among its own words.
PROBLEM, END = "<<byol: ", " :byol>>"
TOKEN_FILE, ANSWER_FILE = "question", "answer"
HEAD_BYTES = 4096
_CODE = ("components/**", "trainer/**", "pipeline/**")


def code_digest() -> str:
    """The digest of this project's files as they lie on this machine's disk."""
    return source_digest(_CODE)


# A worker that stays warm goes on with the code that it once imported, whatever lies on the disk by now.
LOADED_DIGEST = code_digest()


def facts() -> dict[str, str]:
    """What this process is: the release of Beam, of Python ("3.10"), and the digest of the code it imported."""
    return {
        "Beam": importlib.metadata.version("apache-beam"),
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "code": LOADED_DIGEST,
    }


def head_digest(path: pathlib.Path) -> str:
    """The hex digest of a file's size and its first bytes."""
    with path.open("rb") as file:
        return hashlib.sha256(f"{path.stat().st_size}\0".encode() + file.read(HEAD_BYTES)).hexdigest()


def answer(question: dict[str, Any]) -> str:
    """Compares this worker with what is expected of it, and writes one file beside the question.

    Args:
        question: "facts", those of the submitting process; "folder", where the file `TOKEN_FILE` holds "token", below
            the root; "data" and "data_digest", a file of the data and its `head_digest`, or "" for none.

    Returns:
        The name of the worker's host.

    Raises:
        RuntimeError: with the problem between `PROBLEM` and `END`; the engine's error is the only way back when the
            worker does not see the root.
    """
    host = socket.gethostname()
    problem = _problem(question)
    if problem:
        raise RuntimeError(f"{PROBLEM}The worker on {host} {problem}{END}")
    folder = pathlib.Path(question["folder"])
    written = {"token": question["token"], "host": host}
    try:
        (folder / ANSWER_FILE).write_text(json.dumps(written))
    except OSError as error:
        problem = f"cannot write to {folder.parent}: {error.strerror}. Let the worker's user write there."
        raise RuntimeError(f"{PROBLEM}The worker on {host} {problem}{END}") from error
    return host


def _problem(question: dict[str, Any]) -> str:
    for name, expected in question["facts"].items():
        received = facts()[name]
        if received != expected:
            return _other_environment(name, received, expected)
    folder = pathlib.Path(question["folder"])
    if not _seen(folder / TOKEN_FILE, head_of=question["token_digest"]):
        return (
            f"does not see --root: {folder.parent} is not there, or is another folder than here. "
            "Put --root on storage that every worker mounts at the same path."
        )
    if question["data"] and not _seen(pathlib.Path(question["data"]), head_of=question["data_digest"]):
        return (
            f"does not see the data: {question['data']} is not there, or is another file than here. "
            "Put --data on storage that every worker mounts at the same path."
        )
    return ""


def _other_environment(name: str, received: str, expected: str) -> str:
    if name != "code":
        return f"has {name} {received}; expected {expected}. Start the workers from this environment."
    on_disk = " (its files are the same by now: it imported older ones)" if code_digest() == expected else ""
    return (
        f"imported other code of this project than is here{on_disk}: digest {received[:10]}, expected "
        f"{expected[:10]}. Bring its files up to date and start the worker pool again."
    )


def _seen(path: pathlib.Path, head_of: str) -> bool:
    try:
        return head_digest(path) == head_of
    except OSError:
        return False
