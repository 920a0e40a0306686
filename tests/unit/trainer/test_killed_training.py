import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[3]
SEED = 4


# Most of the time is compiling, once a kill; ten on JAX ended in the same bits, too.
@pytest.mark.parametrize(("backend", "kills"), [("tensorflow", 10), ("jax", 3)])
def test_a_training_killed_again_and_again_ends_in_the_same_bits(tmp_path, backend, kills):
    """SIGKILL at random moments, inside checkpoints too."""
    if backend == "jax":
        pytest.importorskip("jax")
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.trainer.killed_training", str(tmp_path), str(SEED), str(kills)],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["kills"]) == kills
    assert all(killed for killed, _ in found["kills"])
    reached = [name for _, name in found["kills"]]
    assert reached == sorted(reached)
    assert len(set(reached)) > kills / 2  # it went on in between
    assert found["same"]
    assert found["arrays"] > 60
