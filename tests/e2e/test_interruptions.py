"""A disk that fills up and a Ctrl-C in the middle of pretraining: one clear line each, and the same command finishes.

The faults are those of the first run, on whose result the other files' tests look: each proves that the one before it
left the root whole.
"""

import pytest

pytestmark = pytest.mark.timeout(900)  # the first test that asks for it waits for the first run


def test_a_full_disk_is_one_clear_line(first_run):
    if first_run.full_disk is None:
        pytest.skip("mounting a small tmpfs needs root")
    full = first_run.full_disk
    assert full.returncode == 1, full.stdout + full.stderr
    assert "failed:" in full.stderr
    assert "No space left on device" in full.stderr or "the disk is full" in full.stderr
    assert "Traceback" not in full.stderr


def test_ctrl_c_is_one_clear_line_and_pushes_nothing(first_run):
    assert "Interrupted. The same command goes on from the last checkpoint." in first_run.interrupted
    assert "Traceback" not in first_run.interrupted
    assert not first_run.served_early


def test_the_same_command_finishes_after_both(first_run):
    assert "Resuming pretraining at epoch" in first_run.process.stdout
    assert "epoch 1/4" not in first_run.process.stdout
    assert "Transform: from cache" in first_run.process.stdout
    assert first_run.summary["pushed_version"]
    assert not list((first_run.root / "checkpoints").glob("*/*.npz"))
