import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[3]
SEED = 4


def test_a_training_killed_ten_times_ends_in_the_same_bits(tmp_path):
    """SIGKILL at ten random moments, inside checkpoints too; about a minute, most of it ten times compiling."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.trainer.killed_training", str(tmp_path), str(SEED)],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["kills"]) == 10
    assert all(killed for killed, _ in found["kills"])
    reached = [name for _, name in found["kills"]]
    assert reached == sorted(reached)
    assert len(set(reached)) > 5  # it went on in between
    assert found["same"]
    assert found["arrays"] > 60
