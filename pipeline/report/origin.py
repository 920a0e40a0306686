"""Where a run came from and what led to it: its pictures, command, code and neighbors in time."""

import dataclasses
import json
import os
import pathlib
import shlex
import subprocess
from collections.abc import Iterable
from typing import Any

from components.data import synthetic
from components.data.dataset import CIFAR10, DataSet
from components.staging import read_either
from pipeline.config import PRESETS, fitted
from trainer import settings

TREND_RUNS = 20
_PROJECT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Origin:
    """What it takes to make a run again, and to read on about it.

    Attributes:
        pictures: what was trained on, in words.
        command: that trains with these settings on these data.
        commit: of the code that ran; empty where it is not known.
        links: words -> file or folder, of what was written beside the report.
        earlier: summaries of the last runs of the root, this one included, the oldest first.
    """

    pictures: str = ""
    command: str = ""
    commit: str = ""
    links: dict[str, pathlib.Path] = dataclasses.field(default_factory=dict)
    earlier: tuple[dict[str, Any], ...] = ()


def pictures(folder: pathlib.Path, data_set: DataSet) -> str:
    """What the pictures are; drawn ones of an earlier release have CIFAR-10's names, and must not pass for more."""
    if data_set == CIFAR10 and (folder / synthetic.MARKER_FILE).is_file():
        return (
            f"drawn textures under the class names of {data_set.name}, "
            "not photographs: these numbers say nothing about photographs"
        )
    return f"{data_set.name}: {data_set.pictures}" if data_set.pictures else data_set.name


def command(preset: str, data: str, recorded: dict[str, Any], data_set: DataSet) -> str:
    """`byol run` with every setting that differs from the preset's for these; nothing if none were recorded."""
    if preset not in PRESETS or not recorded:
        return ""
    leaves = frozenset(settings.names(PRESETS[preset]))
    preset_values = fitted(PRESETS[preset], data_set.side)
    usual = _flat(json.loads(json.dumps(dataclasses.asdict(preset_values))), leaves)
    changed = {name: value for name, value in _flat(recorded, leaves).items() if usual.get(name) != value}
    words = ["byol", "run", "--preset", preset, "--data", data, "--root", "NEW_ROOT"]
    for name, value in sorted(changed.items()):
        words += ["--set", f"{name}={_tuples(value)}"]
    return shlex.join(words)


def commit(project: pathlib.Path = _PROJECT) -> str:
    """The commit that is checked out, `-dirty` where files differ from it; empty without git or repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(project), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40"],  # noqa: S607 - the reader's own git
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def last_runs(summaries: Iterable[pathlib.Path], run_id: str) -> tuple[dict[str, Any], ...]:
    """The summaries up to the run's, the oldest first; one that cannot be read is left out."""
    found = []
    for path in summaries:
        try:
            found.append(json.loads(read_either(path)))
        except (OSError, ValueError):
            continue  # only a point of a curve is lost
    known = [
        one for one in found if one.get("run_id", "") <= run_id and one.get("linear_accuracy") is not None
    ]
    return tuple(sorted(known, key=lambda one: str(one["run_id"]))[-TREND_RUNS:])


def relative(links: dict[str, pathlib.Path], folder: pathlib.Path) -> dict[str, str]:
    """The links as a page in `folder` has to write them, without what is not there."""
    return {words: os.path.relpath(path, folder) for words, path in links.items() if path.exists()}


def _flat(values: dict[str, Any], leaves: frozenset[str], prefix: str = "") -> dict[str, Any]:
    """By dotted name; a setting of `leaves` stays whole, also where its value is by name."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        whole = prefix + name in leaves or not isinstance(value, dict)
        found |= {prefix + name: value} if whole else _flat(value, leaves, f"{prefix}{name}.")
    return found


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that `--set` takes."""
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value
