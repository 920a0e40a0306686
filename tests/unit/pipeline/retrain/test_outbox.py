"""An event is read as it was put, whatever is in it, and waits for a hook of its kind."""

import dataclasses
import pathlib

import pytest

from pipeline.retrain import outbox
from pipeline.retrain.hooks import HookConfig
from pipeline.retrain.outbox import Outbox
from tests.unit.pipeline.retrain.test_hooks import EVENT


def test_an_event_comes_back_as_it_was(tmp_path: pathlib.Path) -> None:
    box = Outbox(tmp_path / "outbox")
    assert box.waiting() == []
    box.put(EVENT)
    (path,) = box.waiting()
    assert box.read(path) == EVENT
    path.write_text("")  # as a power cut may leave it
    assert box.read(path) == EVENT
    path.write_text("{}")
    with pytest.raises(ValueError, match="is no event: expected JSON with kind"):
        box.read(path)
    box.arrived(path)
    assert box.waiting() == []


def test_an_event_waits_for_a_hook_of_its_kind_and_a_server_that_is_down_bounds_the_call(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Outbox(tmp_path / "outbox")
    for name in "ab":
        box.put(dataclasses.replace(EVENT, kind="rollback", id=name))
    box.put(dataclasses.replace(EVENT, kind="rollback", id="a"))  # kept already
    assert len(box.waiting()) == 2
    assert box.deliver(HookConfig(on_pushed="true")) == []
    assert len(box.waiting()) == 2
    monkeypatch.setattr(outbox, "_SECONDS_FOR_EARLIER", -1.0)
    assert box.deliver(HookConfig(on_rollback="true"), own={"b"}) == []
    assert [box.read(path).id for path in box.waiting()] == ["a"]
