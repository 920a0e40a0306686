import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[3]
SEED = 4


@pytest.mark.parametrize(("backend", "options"), [("tensorflow", []), ("jax", ["--warm"])])
def test_a_training_killed_again_and_again_ends_in_the_same_bits(tmp_path, backend, options):
    """SIGKILL at ten random moments, inside checkpoints too; on JAX, which compiles for seconds, without the death."""
    if backend == "jax":
        pytest.importorskip("jax")
    kills = 10
    command = [
        sys.executable,
        "-m",
        "tests.unit.trainer.killed_training",
        str(tmp_path),
        str(SEED),
        str(kills),
    ]
    done = subprocess.run(
        [*command, *options],
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
    assert found["same"] == [True] * (kills if options else 1)
    assert found["arrays"] > 60
