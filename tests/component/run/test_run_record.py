"""What TFX's local runner keeps to itself: nodes that it skipped, and a clock that ML Metadata cannot live with."""

import sqlite3

import pytest

from pipeline.root import Root
from pipeline.run.run_record import RunRecord, check_clock
from tests.component import small_root

NODES = ["Cifar10ExampleGen", "Window", "Transform", "Pretrainer"]


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path / "root")


def test_every_node_of_a_good_run_is_done_from_the_cache_as_well(root, tmp_path):
    for _ in range(2):
        small_root.run(root, tmp_path / "data", small_root.Plan(span=1, window=(1,)))
        assert RunRecord(root.metadata).not_done(NODES) == {}


def test_a_resolver_that_failed_and_what_was_skipped_after_it_are_named(root, tmp_path):
    small_root.run(root, tmp_path / "data", small_root.Plan(span=1, window=(77,)))
    missing = RunRecord(root.metadata).not_done([*NODES, "Nobody"])
    assert list(missing) == ["Window", "Transform", "Pretrainer", "Nobody"]
    assert "no Examples of span 77" in missing["Window"]
    assert missing["Nobody"] == "it was not run"


def test_a_clock_that_was_set_back_is_refused_and_a_correction_is_not(root, tmp_path):
    check_clock(root.metadata)
    small_root.run(root, tmp_path / "data", small_root.Plan(span=1))
    check_clock(root.metadata)
    for seconds, refused in ((30, False), (600, True)):
        with sqlite3.connect(root.metadata) as store:
            store.execute(
                "UPDATE Execution SET create_time_since_epoch = (strftime('%s', 'now') + ?) * 1000",
                (seconds,),
            )
        if refused:
            with pytest.raises(
                ValueError, match=r"The clock says .* but .* has a run of .* Set the clock right"
            ):
                check_clock(root.metadata)
        else:
            check_clock(root.metadata)
