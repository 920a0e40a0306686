"""What TFX's local runner keeps to itself: nodes that it skipped, and a clock that ML Metadata cannot live with."""

import contextlib
import shlex
import sqlite3
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline import cli, store_file
from pipeline.root import Root
from pipeline.run.run_record import RunRecord
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
    store_file.check_clock(root.metadata)
    small_root.run(root, tmp_path / "data", small_root.Plan(span=1))
    root.check()
    for seconds, refused in ((30, False), (600, True)):
        with sqlite3.connect(root.metadata) as store:
            store.execute(
                "UPDATE Execution SET create_time_since_epoch = (strftime('%s', 'now') + ?) * 1000",
                (seconds,),
            )
        if refused:
            with pytest.raises(ValueError, match=r"The clock says .* has a run of .* Set the clock right"):
                root.check()
        else:
            root.check()


def times(root):
    """Of every execution in the order of their ids, in seconds: begun, ended."""
    with contextlib.closing(sqlite3.connect(root.metadata)) as store:
        found = store.execute(
            "SELECT create_time_since_epoch, last_update_time_since_epoch FROM Execution ORDER BY id"
        ).fetchall()
    return np.array(found) / 1000


def test_after_a_clock_that_was_ahead_is_mended_everything_goes_on(root, tmp_path):
    data = tmp_path / "data"
    small_root.run(root, data, small_root.Plan(span=1))
    right = times(root)
    small_root.run(root, data, small_root.Plan(span=2))
    year = 365 * 86400
    tables = {"Execution": True, "Artifact": True, "Context": True, "Event": False}
    with contextlib.closing(sqlite3.connect(root.metadata)) as store, store:
        for table, has_two in tables.items():
            first = "create_time_since_epoch" if has_two else "milliseconds_since_epoch"
            last = int(right.max() * 1000)
            for column in (first, "last_update_time_since_epoch") if has_two else (first,):
                change = f"UPDATE {table} SET {column} = {column} + ? WHERE {column} > ?"  # noqa: S608
                store.execute(change, (1000 * year, last))
    ahead = times(root)
    assert ahead.max() > right.max() + year
    command = shlex.split(refusal(root).split("run `")[1].split("`")[0])
    result = CliRunner().invoke(cli.app, command[1:])
    assert result.exit_code == 0, result.output
    assert " times in " in result.output
    mended = times(root)
    assert (mended[: len(right)] == right).all()
    assert mended.max() <= time.time()
    assert (np.diff(mended[:, 0]) >= 0).all()
    # Durations stay, but for what was written at the very end of the time before.
    durations = np.diff(mended[len(right) + 1 :], axis=1)
    np.testing.assert_allclose(durations, np.diff(ahead[len(right) + 1 :], axis=1), atol=0.002)
    small_root.run(root, data, small_root.Plan(span=3, window=(1, 2, 3)))
    assert RunRecord(root.metadata).not_done(NODES) == {}
    again = CliRunner().invoke(cli.app, command[1:])
    assert "nothing was changed" in again.output


def refusal(root):
    with pytest.raises(ValueError, match="mend-clock") as error:
        root.check()
    return str(error.value)
