"""Push, versions and rollback on the file system, and what faults leave behind: no TensorFlow, no TFX."""

import datetime
import errno
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from components.serving import serving_folder

ROOT = pathlib.Path(__file__).parents[4]


def _model(folder: pathlib.Path, content: str, size: int = 100) -> pathlib.Path:
    """What a SavedModel looks like to a push: nested files, an empty folder."""
    (folder / "variables").mkdir(parents=True)
    (folder / "assets").mkdir()
    (folder / "saved_model.pb").write_text(f"graph {content}")
    (folder / "variables" / "variables.index").write_text("index")
    (folder / "variables" / "variables.data-00000-of-00001").write_text(content * size)
    return folder


@pytest.fixture
def models(tmp_path: pathlib.Path) -> dict[str, pathlib.Path]:
    return {name: _model(tmp_path / "models" / name, name) for name in "ABCDEF"}


@pytest.fixture
def serving(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "serving"


def _seen(serving: pathlib.Path) -> list[int]:
    """What a server sees: the integers among the names, as TensorFlow Serving parses them."""
    if not serving.exists():
        return []
    return sorted(int(name) for name in os.listdir(serving) if re.fullmatch(r"[0-9]+", name))


def _content(serving: pathlib.Path, version: int) -> str:
    """Reads a version as a server does, and fails if it is not whole."""
    folder = serving / str(version)
    record = json.loads((folder / "serving.json").read_text())
    assert record["version"] == version
    assert serving_folder.model_digest(folder) == record["digest"]
    return (folder / "saved_model.pb").read_text().removeprefix("graph ")


def _contents(serving: pathlib.Path) -> list[str]:
    return [_content(serving, version) for version in _seen(serving)]


def _leftovers(serving: pathlib.Path) -> list[str]:
    return [name for name in os.listdir(serving) if name.startswith((".staging-", ".retired-"))]


def test_a_push_publishes_the_whole_model_and_its_record(
    models: dict[str, pathlib.Path], serving: pathlib.Path
) -> None:
    before = int(time.time())
    first = serving_folder.publish(models["A"], serving, {"run_id": "run-1"})
    second = serving_folder.publish(models["B"], serving)
    assert before <= first.version < second.version
    assert first.is_new
    copied = {path.relative_to(first.path).as_posix() for path in first.path.rglob("*")}
    original = {path.relative_to(models["A"]).as_posix() for path in models["A"].rglob("*")}
    assert copied == original | {"serving.json"}
    assert _contents(serving) == ["A", "B"]
    record = json.loads((second.path / "serving.json").read_text())
    assert record["parent"] == {"version": first.version, "digest": first.digest}
    assert record["action"] == "push"
    assert record["files"]["variables/variables.index"]["bytes"] == len("index")
    assert json.loads((first.path / "serving.json").read_text())["lineage"] == {"run_id": "run-1"}
    assert [(v.number, v.served) for v in serving_folder.versions(serving)] == [
        (first.version, False),
        (second.version, True),
    ]


def test_documents_are_published_beside_the_model_and_follow_it_through_a_rollback(
    models: dict[str, pathlib.Path], serving: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for name in "AB":
        folder = tmp_path / f"card-{name}"
        folder.mkdir()
        for document in ("MODEL_CARD.md", "MODEL_CARD.html", "verdict.json"):
            (folder / document).write_text(f"{document} of {name}")
        (folder / "draft.txt").write_text("not a document")
        published = serving_folder.publish(models[name], serving, documents=folder)
        assert (published.path / "MODEL_CARD.md").read_text() == f"MODEL_CARD.md of {name}"
        assert not (published.path / "draft.txt").exists()
        assert published.digest == serving_folder.model_digest(models[name])
    restored = serving_folder.rollback(serving)
    assert {path.name for path in restored.path.iterdir() if path.is_file()} == {
        "saved_model.pb",
        "serving.json",
        "MODEL_CARD.md",
        "MODEL_CARD.html",
        "verdict.json",
    }
    assert (restored.path / "verdict.json").read_text() == "verdict.json of A"
    assert serving_folder.model_digest(restored.path) == serving_folder.model_digest(models["A"])


def test_a_disk_that_fills_while_a_document_is_written_changes_nothing(
    models: dict[str, pathlib.Path],
    serving: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serving_folder.publish(models["A"], serving)
    (tmp_path / "card").mkdir()
    (tmp_path / "card" / "MODEL_CARD.md").write_text("card")
    write = pathlib.Path.write_text

    def full(path: pathlib.Path, text: str, **settings: str) -> int:
        if path.name == "MODEL_CARD.md":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, text, **settings)

    monkeypatch.setattr(pathlib.Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        serving_folder.publish(models["B"], serving, documents=tmp_path / "card")
    assert _contents(serving) == ["A"]
    assert _leftovers(serving) == []


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])  # KFP's launcher, most people, the careful
def test_what_is_pushed_is_read_by_a_server_of_another_user_and_changed_by_nobody_else(
    models: dict[str, pathlib.Path], serving: pathlib.Path, mask: int
) -> None:
    (models["A"] / "saved_model.pb").chmod(0o600)
    (models["A"] / "variables").chmod(0o777)
    before = os.umask(mask)
    try:
        published = serving_folder.publish(models["A"], serving)
    finally:
        os.umask(before)
    for name in (".", ".push.lock", ".highest_version"):
        assert stat.S_IMODE((serving / name).stat().st_mode) & 0o002 == 0
    below = [published.path, *published.path.rglob("*")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in below if path.is_dir()} == {0o755}
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in below if path.is_file()}
    assert set(files.values()) == {0o644}
    assert {"saved_model.pb", serving_folder.RECORD_FILE} <= files.keys()


def test_the_same_model_is_not_published_twice(
    models: dict[str, pathlib.Path], serving: pathlib.Path
) -> None:
    first = serving_folder.publish(models["A"], serving)
    again = serving_folder.publish(shutil.copytree(models["A"], models["A"].parent / "copy"), serving)
    assert (again.version, again.is_new) == (first.version, False)
    assert _seen(serving) == [first.version]
    serving_folder.publish(models["B"], serving)
    assert serving_folder.publish(models["A"], serving).is_new  # served no more, so this is a change
    assert _contents(serving) == ["A", "B", "A"]


def test_a_served_version_that_was_damaged_is_published_anew(
    models: dict[str, pathlib.Path], serving: pathlib.Path
) -> None:
    first = serving_folder.publish(models["A"], serving)
    (first.path / "variables" / "variables.index").write_text("rot")
    assert serving_folder.publish(models["A"], serving).is_new


def test_digests_see_names_contents_and_nothing_else(models: dict[str, pathlib.Path]) -> None:
    digest = serving_folder.model_digest(models["A"])
    (models["A"] / "serving.json").write_text("{}")
    os.utime(models["A"] / "saved_model.pb", (1, 1))
    assert serving_folder.model_digest(models["A"]) == digest
    (models["A"] / "variables" / "variables.index").rename(models["A"] / "variables" / "other.index")
    assert serving_folder.model_digest(models["A"]) != digest
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", digest)


@pytest.mark.parametrize("clock", [5.0, 4e9], ids=["jumped back", "jumped ahead"])
def test_versions_rise_whatever_the_clock_says(
    models: dict[str, pathlib.Path], serving: pathlib.Path, monkeypatch: pytest.MonkeyPatch, clock: float
) -> None:
    numbers = [serving_folder.publish(models["A"], serving).version]
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: clock)
        numbers.append(serving_folder.publish(models["B"], serving).version)
    numbers.append(serving_folder.publish(models["C"], serving).version)
    assert numbers == sorted(set(numbers))


def test_versions_of_a_clock_that_was_ahead_are_retired_as_others_are(
    models: dict[str, pathlib.Path], serving: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ahead(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "Ahead":
            return super().now(tz) + datetime.timedelta(days=1000)

    ahead = time.time() + 1000 * 86400
    with monkeypatch.context() as patched:
        patched.setattr("components.serving.serving_folder.dt.datetime", Ahead)
        patched.setattr(time, "time", lambda: ahead)
        for name in "ABC":
            serving_folder.publish(models[name], serving, keep_versions=2)
    assert len(serving_folder.versions(serving)) == 3  # a minute has not passed
    serving_folder.publish(models["D"], serving, keep_versions=2)
    assert len(serving_folder.versions(serving)) == 2


def test_a_number_is_never_given_twice(models: dict[str, pathlib.Path], serving: pathlib.Path) -> None:
    numbers = [serving_folder.publish(models[name], serving).version for name in "AB"]
    shutil.rmtree(serving / str(numbers[1]))
    assert serving_folder.publish(models["C"], serving).version > numbers[1]
    (serving / "9000000000").mkdir()  # another tool's
    assert serving_folder.publish(models["D"], serving).version == 9000000001
    (serving / str(2**63 - 1)).mkdir()
    with pytest.raises(ValueError, match="versions end at 9223372036854775807"):
        serving_folder.publish(models["E"], serving)
    assert _leftovers(serving) == []


def test_versions_of_another_pusher_are_listed_and_can_be_restored(
    models: dict[str, pathlib.Path], serving: pathlib.Path
) -> None:
    shutil.copytree(models["A"], serving / "17")
    published = serving_folder.publish(models["B"], serving)
    assert [(v.number, v.complete, dict(v.record) == {}) for v in serving_folder.versions(serving)] == [
        (17, True, True),
        (published.version, True, False),
    ]
    restored = serving_folder.rollback(serving)
    assert _content(serving, restored.version) == "A"
    record = json.loads((restored.path / "serving.json").read_text())
    assert (record["origin_version"], record["restored_version"]) == (17, 17)


def test_a_version_that_another_tool_left_half_copied_is_listed_and_passed_over(
    models: dict[str, pathlib.Path], serving: pathlib.Path
) -> None:
    serving_folder.publish(models["A"], serving)
    second = serving_folder.publish(models["B"], serving)
    (serving / str(second.version + 1)).mkdir()
    broken = serving_folder.versions(serving)[-1]
    assert (broken.served, broken.complete, broken.digest) == (True, False, "")
    restored = serving_folder.rollback(serving)
    assert restored.version > broken.number
    assert _content(serving, restored.version) == "B"
    with pytest.raises(ValueError, match=r"which has no saved_model\.pb"):
        serving_folder.rollback(serving, broken.number)


def test_the_last_versions_are_kept(models: dict[str, pathlib.Path], serving: pathlib.Path) -> None:
    for name in "ABCDEF":
        serving_folder.publish(models[name], serving, keep_versions=3, retire_after_seconds=0)
        assert _contents(serving) == list("ABCDEF"[: "ABCDEF".index(name) + 1])[-3:]
    assert _leftovers(serving) == []


def test_what_a_rollback_would_restore_is_kept(
    models: dict[str, pathlib.Path], serving: pathlib.Path
) -> None:
    for name in "AB":
        serving_folder.publish(models[name], serving)
    assert serving_folder.rollback(serving).is_new  # serves A; B is withdrawn
    serving_folder.publish(models["C"], serving, keep_versions=1, retire_after_seconds=0)
    assert _contents(serving) == ["A", "C"]
    serving_folder.rollback(serving)
    assert _contents(serving)[-1] == "A"


def test_a_version_stays_while_a_server_may_still_be_loading_it(
    models: dict[str, pathlib.Path], serving: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ABCD":
        serving_folder.publish(models[name], serving, keep_versions=1, retire_after_seconds=60)
    assert _contents(serving) == ["A", "B", "C", "D"]
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    serving_folder.publish(models["D"], serving, keep_versions=1, retire_after_seconds=60)
    assert _contents(serving) == ["C", "D"]  # the served one, and what a rollback would restore


def test_rollback_serves_the_model_before_under_a_new_highest_version(
    models: dict[str, pathlib.Path], serving: pathlib.Path
) -> None:
    accuracies = {"A": 0.9, "B": 0.95, "C": None}
    numbers = [
        serving_folder.publish(
            models[name],
            serving,
            {"model": name, "metrics": {} if accuracy is None else {"sparse_categorical_accuracy": accuracy}},
        ).version
        for name, accuracy in accuracies.items()
    ]
    back = serving_folder.rollback(serving)
    listed = serving_folder.versions(serving)
    assert [v.accuracy for v in listed] == [0.9, 0.95, None, 0.95]
    assert back.version > numbers[-1]
    assert _contents(serving) == ["A", "B", "C", "B"]
    record = json.loads((back.path / "serving.json").read_text())
    assert record["action"] == "rollback"
    assert record["restored_version"] == record["origin_version"] == numbers[1]
    assert record["parent"]["version"] == numbers[2]
    assert record["lineage"]["model"] == "B"
    assert serving_folder.rollback(serving).is_new
    assert _contents(serving)[-1] == "A"
    with pytest.raises(ValueError, match="There is nothing to roll back to"):
        serving_folder.rollback(serving)


def test_rollback_to_a_version_goes_back_and_forth(
    models: dict[str, pathlib.Path], serving: pathlib.Path
) -> None:
    numbers = [serving_folder.publish(models[name], serving).version for name in "ABC"]
    served = []
    for target in (numbers[0], numbers[2], numbers[0], numbers[1]):
        serving_folder.rollback(serving, target)
        served.append(_contents(serving)[-1])
    assert served == ["A", "C", "A", "B"]
    count = len(_seen(serving))
    assert not serving_folder.rollback(serving, numbers[1]).is_new
    assert len(_seen(serving)) == count


def test_a_retry_does_not_undo_a_rollback(models: dict[str, pathlib.Path], serving: pathlib.Path) -> None:
    numbers = [serving_folder.publish(models[name], serving).version for name in "AB"]
    serving_folder.rollback(serving)
    with pytest.raises(serving_folder.WithdrawnModelError, match="was rolled back from"):
        serving_folder.publish(models["B"], serving)
    serving_folder.publish(models["C"], serving)
    with pytest.raises(serving_folder.WithdrawnModelError):
        serving_folder.publish(models["B"], serving)  # still withdrawn
    serving_folder.rollback(serving)
    assert _contents(serving)[-1] == "A"  # not B, though it was pushed last before C
    serving_folder.rollback(serving, numbers[1])  # a person decides
    assert _contents(serving)[-1] == "B"
    assert not serving_folder.publish(models["B"], serving).is_new


def test_bad_rollbacks_change_nothing(models: dict[str, pathlib.Path], serving: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="holds no version"):
        serving_folder.rollback(serving)
    assert not serving.exists()
    numbers = [serving_folder.publish(models[name], serving).version for name in "AB"]
    with pytest.raises(ValueError, match=f"one of the versions {numbers[0]}, {numbers[1]} .*received 12"):
        serving_folder.rollback(serving, 12)
    (serving / str(numbers[0]) / "variables" / "variables.index").write_text("rot")
    with pytest.raises(ValueError, match=f"Version {numbers[0]} .* is damaged"):
        serving_folder.rollback(serving)
    assert _seen(serving) == numbers


def test_what_is_no_model_is_refused(models: dict[str, pathlib.Path], serving: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"which has no saved_model\.pb"):
        serving_folder.publish(models["A"] / "variables", serving)
    (models["A"] / "variables" / "link").symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match="received variables/link, a link or device"):
        serving_folder.publish(models["A"], serving)
    with pytest.raises(ValueError, match="is not the one that was judged"):
        serving_folder.publish(models["B"], serving, expected_digest=serving_folder.model_digest(models["C"]))
    with pytest.raises(ValueError, match="keep_versions of at least 1, received 0"):
        serving_folder.publish(models["B"], serving, keep_versions=0)
    with pytest.raises(ValueError, match="received gs://bucket/model"):
        serving_folder.publish(models["B"], "gs://bucket/model")
    assert _seen(serving) == []


BROKEN_RECORDS = (
    "{",
    "[]",
    "[" * 100_000,
    '{"digest": 1}',
    '{"digest": "sha256:0", "origin_version": "x", "published_at": "2025-01-01"}',
    '{"digest": "sha256:0", "origin_version": 1, "published_at": "yesterday"}',
    '{"digest": "sha256:0", "origin_version": 1, "published_at": "2025-01-01", "lineage": []}',
    '{"digest": "sha256:0", "origin_version": 1, "published_at": "2025-01-01", "lineage": {"metrics": 1}}',
    '{"digest": "sha256:0", "origin_version": 1, "published_at": "2025-01-01", "withdrawn": 3}',
)


@pytest.mark.parametrize("text", BROKEN_RECORDS)
def test_a_broken_record_of_an_old_version_stops_no_push_and_no_rollback(
    models: dict[str, pathlib.Path], serving: pathlib.Path, text: str
) -> None:
    first, second, third = (serving_folder.publish(models[name], serving) for name in "ABC")
    (second.path / "serving.json").write_text(text)
    (serving / f".record-{second.version}.json").unlink()  # an older release kept no copies
    listed = serving_folder.versions(serving)
    assert [bool(version.fault) for version in listed] == [False, True, False]
    assert "Remove or repair it." in listed[1].fault
    assert (listed[1].digest, listed[1].origin, listed[1].accuracy) == (second.digest, second.version, None)
    assert (
        serving_folder.rollback(serving).digest == first.digest
    )  # passes over the version that cannot be read
    with pytest.raises(serving_folder.WithdrawnModelError):
        serving_folder.publish(models["C"], serving)
    assert serving_folder.rollback(serving, third.version).digest == third.digest
    assert serving_folder.rollback(serving, second.version).digest == second.digest
    last = serving_folder.publish(models["A"], serving, keep_versions=1, retire_after_seconds=0.0)
    assert serving_folder.versions(serving)[-1].number == last.version


def test_without_the_served_versions_record_nothing_is_published(
    models: dict[str, pathlib.Path], serving: pathlib.Path
) -> None:
    """It alone knows the withdrawn models. Once it is removed, as the message says, all goes on."""
    serving_folder.publish(models["A"], serving)
    served = serving_folder.publish(models["B"], serving)
    (served.path / "serving.json").write_text("{")
    (serving / f".record-{served.version}.json").unlink()
    before = _seen(serving)
    for change in (
        lambda: serving_folder.publish(models["C"], serving),
        lambda: serving_folder.rollback(serving),
    ):
        with pytest.raises(ValueError, match=r"serving\.json, received .* Remove or repair it\."):
            change()
    assert _seen(serving) == before
    (served.path / "serving.json").unlink()
    assert serving_folder.publish(models["C"], serving).is_new


# Faults. A program pushes in a process of its own and dies at a given moment of its work on the file system,
# counted by Python's audit events: it is killed before, between and after all that a push does.
PROGRAM = """
import os, signal, sys
sys.path.insert(0, {root!r})
import portalocker  # a push imports it, and the files of an import are no moments of a push
from components.serving import serving_folder
events, copying, die_at, armed = [0], [], int(sys.argv[1]), [False]

def hook(event, arguments):
    if armed[0] and event in ("open", "os.mkdir", "os.rename", "os.remove", "os.listdir", "shutil.copyfile",
                              "shutil.rmtree", "os.scandir", "os.truncate"):
        events[0] += 1
        if ".staging-" in str(arguments):
            copying.append(events[0])
        if events[0] == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
armed[0] = True
serving_folder.publish(sys.argv[2], sys.argv[3], keep_versions=2, retire_after_seconds=0)
armed[0] = False
print(events[0], *copying)
"""

HALF_A_FILE = """
import os, pathlib, shutil, signal, sys
sys.path.insert(0, {root!r})
from components.serving import serving_folder
copy, name = shutil.copyfile, sys.argv[1]

def half(source, target):
    if source.name != name:
        return copy(source, target)
    data = source.read_bytes()
    target.write_bytes(data[: len(data) // 2])
    os.kill(os.getpid(), signal.SIGKILL)

shutil.copyfile = half
serving_folder.publish(sys.argv[2], sys.argv[3])
"""


def _push_in_a_process(
    model: pathlib.Path, serving: pathlib.Path, when: int | str, program: str = PROGRAM
) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-I",
        "-c",
        program.format(root=str(ROOT)),
        str(when),
        str(model),
        str(serving),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _two_served(models: dict[str, pathlib.Path], folder: pathlib.Path) -> pathlib.Path:
    for model in "AB":
        serving_folder.publish(models[model], folder)
    return folder


def _spread(moments: list[int], count: int) -> set[int]:
    """So many of the moments, the first and the last among them."""
    return {moments[round(i * (len(moments) - 1) / (count - 1))] for i in range(count)}


def test_a_push_killed_at_any_moment_leaves_nothing_half_visible(
    models: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    complete = _push_in_a_process(models["C"], _two_served(models, tmp_path / "complete"), 0)
    moments, *copying = map(int, complete.stdout.split())
    during_copy = _spread(copying, 10)
    chosen = sorted(during_copy | _spread(list(range(1, moments + 1)), 6))
    before, after = 0, 0
    for moment in chosen:
        serving = _two_served(models, tmp_path / f"killed-at-{moment}")
        killed = _push_in_a_process(models["C"], serving, moment)
        assert killed.returncode == -signal.SIGKILL
        assert _contents(serving) in (["A", "B"], ["A", "B", "C"], ["B", "C"])
        before += _contents(serving) == ["A", "B"]
        after += "C" in _contents(serving)
        published = serving_folder.publish(models["D"], serving, keep_versions=9)
        assert _contents(serving)[-1] == "D"
        assert published.version == max(_seen(serving))
        assert _leftovers(serving) == []
    assert len(during_copy) == 10
    assert after >= 1
    assert before + after == len(chosen)


@pytest.mark.parametrize("name", ["saved_model.pb", "variables.index", "variables.data-00000-of-00001"])
def test_a_push_killed_in_the_middle_of_a_file_leaves_nothing_half_visible(
    models: dict[str, pathlib.Path], serving: pathlib.Path, name: str
) -> None:
    _two_served(models, serving)
    killed = _push_in_a_process(models["C"], serving, name, HALF_A_FILE)
    assert killed.returncode == -signal.SIGKILL
    (half,) = serving.glob(f".staging-*/**/{name}")
    whole = next(models["C"].rglob(name))
    assert 0 < half.stat().st_size < whole.stat().st_size
    assert _contents(serving) == ["A", "B"]
    serving_folder.publish(models["C"], serving)
    assert _contents(serving) == ["A", "B", "C"]
    assert _leftovers(serving) == []


def test_a_killed_holder_does_not_keep_the_lock(
    models: dict[str, pathlib.Path], serving: pathlib.Path
) -> None:
    holder = _hold_lock(serving)
    with pytest.raises(TimeoutError, match=rf"another process \(process {holder.pid} on .*, for \d+ s\)"):
        serving_folder.publish(models["A"], serving, lock_timeout_seconds=0.2)
    assert _seen(serving) == []
    holder.kill()
    holder.wait()
    assert (serving / ".push.lock").read_text().startswith("{")  # what it wrote is still there
    start = time.monotonic()
    assert serving_folder.publish(models["A"], serving, lock_timeout_seconds=5).is_new
    assert time.monotonic() - start < 4


def _hold_lock(serving: pathlib.Path) -> subprocess.Popen[str]:
    program = f"""
import sys, time, pathlib
sys.path.insert(0, {str(ROOT)!r})
from components.serving import serving_folder
with serving_folder._locked(pathlib.Path({str(serving)!r}), 5):
    print("held", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-I", "-c", program], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_pushes_at_once_all_arrive_and_equal_ones_once(
    models: dict[str, pathlib.Path], serving: pathlib.Path
) -> None:
    program = PROGRAM.format(root=str(ROOT))
    names = "AABBCC"
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-c",
                program.replace("keep_versions=2", "keep_versions=9"),
                "0",
                str(models[name]),
                str(serving),
            ]
        )
        for name in names
    ]
    assert [process.wait() for process in processes] == [0] * len(names)
    contents = _contents(serving)
    assert set(contents) == {"A", "B", "C"}
    assert all(first != second for first, second in itertools.pairwise(contents))
    assert _leftovers(serving) == []


def test_two_pushes_of_one_model_at_once_give_one_version(
    tmp_path: pathlib.Path, serving: pathlib.Path
) -> None:
    model = _model(tmp_path / "large", "L", size=2_000_000)
    published: list[serving_folder.Publication] = []
    threads = [
        threading.Thread(target=lambda: published.append(serving_folder.publish(model, serving)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(p.is_new for p in published) == [False, False, False, True]
    assert len({p.version for p in published}) == len(_seen(serving)) == 1


def test_a_reader_all_the_while_never_fails(tmp_path: pathlib.Path, serving: pathlib.Path) -> None:
    models = [_model(tmp_path / f"m{i}", f"model-{i} ", size=20_000) for i in range(12)]
    done = threading.Event()
    reads: list[str] = []
    failures: list[BaseException] = []

    def read() -> None:
        while not done.is_set():
            try:
                reads.extend(_contents(serving))
            except (AssertionError, OSError, ValueError) as error:
                failures.append(error)
                return

    reader = threading.Thread(target=read)
    reader.start()
    for index, model in enumerate(models):
        serving_folder.publish(model, serving, keep_versions=2)
        if index % 4 == 3:
            serving_folder.rollback(serving)
    done.set()
    reader.join()
    assert failures == []
    assert {f"model-{i} " for i in (0, 6)} <= set(reads)
    assert len(_seen(serving)) == 15


def test_a_reader_of_the_newest_never_fails_while_versions_are_retired(
    tmp_path: pathlib.Path, serving: pathlib.Path
) -> None:
    models = [_model(tmp_path / f"m{i}", f"model-{i} ", size=2_000) for i in range(10)]
    serving_folder.publish(models[0], serving)
    done = threading.Event()
    outcomes: list[str | BaseException] = []

    def read() -> None:
        while not done.is_set():
            try:
                outcomes.append(_content(serving, _seen(serving)[-1]))
            except (AssertionError, OSError, ValueError) as error:
                outcomes.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for model in models[1:]:
        serving_folder.publish(model, serving, keep_versions=3, retire_after_seconds=0)
        time.sleep(0.02)
    done.set()
    reader.join()
    assert [outcome for outcome in outcomes if not isinstance(outcome, str)] == []
    assert len(set(map(str, outcomes))) > 3
    assert len(_seen(serving)) == 3


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of one MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_changes_nothing(
    small_disk: pathlib.Path, models: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    serving = small_disk / "serving"
    first = serving_folder.publish(models["A"], serving)
    large = _model(tmp_path / "large", "x", size=3_000_000)
    with pytest.raises(OSError, match="No space left on device"):
        serving_folder.publish(large, serving)
    assert _contents(serving) == ["A"]
    assert _leftovers(serving) == []
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        _fill(filler)
    with pytest.raises(OSError, match="No space left"):
        serving_folder.publish(models["B"], serving)
    assert _contents(serving) == ["A"]
    filler.unlink()
    assert serving_folder.publish(models["B"], serving).version > first.version
    assert _contents(serving) == ["A", "B"]


def _fill(path: pathlib.Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.parametrize("write", range(8))
def test_a_disk_that_fills_at_any_write_changes_nothing(
    models: dict[str, pathlib.Path], serving: pathlib.Path, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    serving_folder.publish(models["A"], serving)
    synced = os.fsync
    calls = [0]

    def full(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] == write + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        synced(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            serving_folder.publish(models["B"], serving)
    assert _contents(serving) == ["A"]
    assert _leftovers(serving) == []
    serving_folder.publish(models["B"], serving)
    assert _contents(serving) == ["A", "B"]


def test_a_copy_that_differs_is_not_published(
    models: dict[str, pathlib.Path], serving: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copyfile

    def flip(source: pathlib.Path, target: pathlib.Path) -> None:
        copy(source, target)
        if target.name == "variables.index":
            target.write_text("indey")

    monkeypatch.setattr(shutil, "copyfile", flip)
    with pytest.raises(OSError, match=r"differs from it in variables/variables\.index"):
        serving_folder.publish(models["A"], serving)
    assert _seen(serving) == []
    assert _leftovers(serving) == []


def _as_nobody(work: Callable[[], None]) -> str:
    """Runs `work` in a forked process without privileges, and returns the name of what it raised."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        outcome = "nothing"
        try:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            work()
        except (OSError, ValueError) as error:
            outcome = type(error).__name__
        finally:
            os.write(writing, outcome.encode())
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as stream:
        return stream.read()


@pytest.fixture
def open_folder() -> Iterator[pathlib.Path]:
    """A folder that other users reach, unlike pytest's own."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="push-"))
    folder.chmod(0o777)
    yield folder
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o777)
    shutil.rmtree(folder)


def test_a_folder_without_permission_changes_nothing(open_folder: pathlib.Path) -> None:
    serving = open_folder / "serving"
    for name in "AB":
        _model(open_folder / name, name)
    serving_folder.publish(open_folder / "A", serving)
    serving.chmod(0o555)
    (serving / ".push.lock").chmod(0o666)
    assert (
        _as_nobody(lambda: _ignore(serving_folder.publish(open_folder / "B", serving))) == "PermissionError"
    )
    assert _contents(serving) == ["A"]
    serving.chmod(0o777)
    assert _as_nobody(lambda: _ignore(serving_folder.publish(open_folder / "B", serving))) == "nothing"
    assert _contents(serving) == ["A", "B"]


def test_permission_lost_in_the_middle_changes_nothing(
    open_folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = open_folder / "serving"
    serving.mkdir()
    serving.chmod(0o777)
    if os.getuid() == 0:
        os.chown(serving, 65534, 65534)
    for name in "AB":
        _model(open_folder / name, name)
    assert _as_nobody(lambda: _ignore(serving_folder.publish(open_folder / "A", serving))) == "nothing"

    def lose_permission() -> None:
        copy = serving_folder._copy

        def copy_and_lose(*arguments: Any) -> None:
            copy(*arguments)
            serving.chmod(0o555)

        monkeypatch.setattr(serving_folder, "_copy", copy_and_lose)  # in the forked process only
        serving_folder.publish(open_folder / "B", serving)

    assert _as_nobody(lose_permission) == "PermissionError"
    assert _contents(serving) == ["A"]
    assert len(_leftovers(serving)) == 1  # it could not be removed either
    serving.chmod(0o777)
    assert _as_nobody(lambda: _ignore(serving_folder.publish(open_folder / "B", serving))) == "nothing"
    assert _contents(serving) == ["A", "B"]
    assert _leftovers(serving) == []


def _ignore(_: object) -> None:
    pass


def test_listing_versions_imports_neither_tensorflow_nor_tfx() -> None:
    program = textwrap.dedent(f"""
        import sys; sys.path.insert(0, {str(ROOT)!r})
        from components.serving import serving_folder
        print([n for n in sys.modules if n.split(".")[0] in ("tensorflow", "tfx", "numpy")])
    """)
    result = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
