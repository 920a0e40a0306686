"""The served folder over power cuts: at every moment of a push, a rollback and a decision, and with emptied files."""

import os
import pathlib
import re
from collections.abc import Callable

import pytest

from components.serving import candidates, serving_folder
from components.staging import copy_of
from tests.power_cut import Disk

Cut = Callable[[str], str]
CUTS: tuple[Cut, ...] = (lambda text: "", lambda text: "\0" * len(text), lambda text: text[: len(text) // 2])


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def serving(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "serving"


@pytest.fixture
def model(tmp_path: pathlib.Path) -> Callable[[str], pathlib.Path]:
    def make(content: str) -> pathlib.Path:
        folder = tmp_path / f"model-{content}"
        (folder / "variables").mkdir(parents=True, exist_ok=True)
        (folder / "saved_model.pb").write_text(content)
        (folder / "variables" / "data").write_text(content * 3)
        return folder

    return make


def _push(folder: pathlib.Path, serving: pathlib.Path) -> serving_folder.Publication:
    lineage = {"metrics": {"sparse_categorical_accuracy": 0.75}}
    return serving_folder.publish(folder, serving, lineage, keep_versions=2, retire_after_seconds=0)


def _found(serving: pathlib.Path) -> tuple[object, ...]:
    """All that later pushes and rollbacks go by, without numbers and times."""
    waits = candidates.waiting(serving)
    return (
        [
            (v.digest, v.fault, v.record.get("action"), v.accuracy, v.complete)
            for v in serving_folder.versions(serving)
        ],
        serving_folder.versions(serving)[-1].record.get("withdrawn"),
        waits and waits.name,
        [(one.name, one.decision, one.by, one.reason) for one in candidates.decisions(serving)],
    )


def _again(act: Callable[[], object]) -> None:
    """The same command: where the cut came after the deed, there is nothing left to decide on."""
    try:
        act()
    except ValueError as error:
        if not re.search("No candidate waits|rejected this model", str(error)):
            raise


ACTS = ["push", "push that retires", "rollback", "hold", "approve", "reject"]


@pytest.mark.parametrize("name", ACTS)
def test_a_cut_at_every_moment_leaves_all_of_a_deed_or_nothing(
    name: str, serving: pathlib.Path, model: Callable[[str], pathlib.Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for content in "ABC" if name == "push that retires" else "AB":
        _push(model(content), serving)
    if name in ("approve", "reject"):
        candidates.hold(model("D"), serving, {})
    target = serving_folder.versions(serving)[0].number
    acts: dict[str, Callable[[], object]] = {
        "push": lambda: _push(model("D"), serving),
        "push that retires": lambda: _push(model("D"), serving),
        "rollback": lambda: serving_folder.rollback(serving, target),
        "hold": lambda: candidates.hold(model("D"), serving, {}),
        "approve": lambda: candidates.approve(serving, "ada", "fine"),
        "reject": lambda: candidates.reject(serving, "ada", "wrong colours"),
    }
    disk = Disk(serving, monkeypatch)
    with disk.followed():
        acts[name]()
    expected = _found(serving)
    moments = disk.different()
    assert len(moments) > 5
    for moment in moments:
        moment.put(serving)
        served = serving_folder.served(serving)
        assert served is not None
        assert served.fault == "", moment
        assert serving_folder.model_digest(served.path) == served.digest, moment
        _again(acts[name])
        assert _found(serving) == expected, moment


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("which", ["first", "copy"])
def test_a_file_that_a_cut_emptied_is_read_from_the_other_one(
    which: str, cut: Cut, serving: pathlib.Path, model: Callable[[str], pathlib.Path]
) -> None:
    for content in "AB":
        _push(model(content), serving)
    serving_folder.rollback(serving)
    candidates.hold(model("D"), serving, {})
    candidates.reject(serving, "ada", "wrong colours")
    candidates.hold(model("E"), serving, {})
    expected = _found(serving)
    candidate, decisions = (
        next(serving.glob(".candidates/*/candidate.json")),
        serving / ".candidates/decisions.json",
    )
    firsts = [*serving.glob("[0-9]*/serving.json"), candidate, decisions]
    copies = [*serving.glob(".record-*.json"), copy_of(candidate), copy_of(decisions)]
    assert len(firsts) == len(copies) == 5
    for path in firsts if which == "first" else copies:
        path.write_text(cut(path.read_text()))
    assert _found(serving) == expected
    with pytest.raises(serving_folder.WithdrawnModelError):
        _push(model("B"), serving)
    with pytest.raises(candidates.RejectedModelError):
        candidates.hold(model("D"), serving, {})
    assert _push(model("C"), serving).is_new


def test_without_the_highest_number_none_is_given_twice(
    serving: pathlib.Path, model: Callable[[str], pathlib.Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not that of a version that is gone, though the clock went back."""
    last = max(_push(model(content), serving).version for content in "ABC")
    (serving / str(last)).rename(serving.parent / "taken away")
    (serving / ".highest_version").write_text("")
    monkeypatch.setattr("time.time", lambda: 1000.0)
    assert _push(model("D"), serving).version == last + 1
