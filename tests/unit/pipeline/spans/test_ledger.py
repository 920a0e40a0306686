"""The ledger survives processes, and never silently forgets."""

import json

import pytest

from pipeline.spans import ledger
from pipeline.spans.ledger import Ledger, Training


def _training(window, outcome, new=None):
    return Training(
        window=window, new=new or window, warm_start="never", parent=None, parent_version=None, baseline=None,
        outcome=outcome,
    )  # fmt: skip


@pytest.fixture
def known(tmp_path):
    return Ledger.load(tmp_path / "retraining" / "ledger.json")


def test_it_is_read_back_as_it_was_written(known):
    known.mark(3, ledger.ACCEPTED, "abc", compared=[1, 2])
    known.mark(4, ledger.REFUSED, "def", "labels")
    known.trainings.append(_training([3], ledger.PUSHED))
    known.save()
    assert Ledger.load(known.path) == known
    assert json.loads(known.path.read_text())["spans"]["4"]["reason"] == "labels"


def test_what_is_untrained_and_what_nobody_began(known):
    for span in range(1, 7):
        known.mark(span, ledger.REFUSED if span == 5 else ledger.ACCEPTED, "")
    known.trainings = [_training([1, 2], ledger.PUSHED), _training([2, 3], ledger.NOT_PUSHED)]
    assert known.untrained() == [4, 6]
    known.trainings.append(_training([3, 4], ledger.FAILED))
    assert known.untrained() == [4, 6]
    assert known.unheard() == [6]


@pytest.mark.parametrize(
    "content", ["", "[]", '{"format": 2}', '{"format": 1, "spans": {"1": {"x": 1}}, "runs": []}']
)
def test_another_file_is_refused_and_left_alone(known, content):
    known.path.parent.mkdir()
    known.path.write_text(content)
    with pytest.raises(ValueError, match=r"is not a ledger of `byol retrain`.*move it away"):
        Ledger.load(known.path)
    assert known.path.read_text() == content


@pytest.mark.parametrize(
    "cut", [lambda text: "", lambda text: "\0" * len(text), lambda text: text[: len(text) // 2]]
)
def test_a_ledger_that_a_power_cut_took_is_read_from_its_copy(tmp_path, cut):
    path = tmp_path / "ledger.json"
    known = Ledger(path)
    for number in (1, 2, 3):
        known.mark(number, ledger.ACCEPTED, f"fingerprint {number}")
    path.write_text(cut(path.read_text()))
    again = Ledger.load(path)
    assert again.accepted() == [1, 2, 3]
    again.mark(3, ledger.EXCLUDED, "")
    path.write_text("")  # and again
    assert Ledger.load(path).accepted() == [1, 2]


def test_a_ledger_that_somebody_spoilt_is_not_replaced_silently(tmp_path):
    known = Ledger(tmp_path / "ledger.json")
    for number in (1, 2):
        known.mark(number, ledger.ACCEPTED, "")
    (tmp_path / "ledger.json").write_text('{"format": 1, "spans": }')
    with pytest.raises(ValueError, match="is not a ledger"):
        Ledger.load(tmp_path / "ledger.json")


def test_a_ledger_that_was_moved_away_begins_anew_for_good(tmp_path):
    path = tmp_path / "ledger.json"
    known = Ledger(path)
    for number in (1, 2):
        known.mark(number, ledger.ACCEPTED, "")
    path.unlink()
    Ledger.load(path).mark(7, ledger.ACCEPTED, "")
    assert Ledger.load(path).accepted() == [7]
    path.write_text("")
    assert Ledger.load(path).accepted() == [7]
