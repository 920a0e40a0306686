"""An event is read as it was put, whatever is in it."""

import pathlib

import pytest

from pipeline.retrain.outbox import Outbox
from tests.unit.pipeline.retrain.test_hooks import EVENT


def test_an_event_comes_back_as_it_was(tmp_path: pathlib.Path) -> None:
    box = Outbox(tmp_path / "outbox")
    assert box.waiting() == []
    box.put(EVENT)
    (path,) = box.waiting()
    assert box.read(path) == EVENT
    path.write_text("")
    with pytest.raises(ValueError, match="is no event: expected JSON with kind"):
        box.read(path)
    box.arrived(path)
    assert box.waiting() == []
