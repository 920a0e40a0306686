"""The training core on JAX, without TensorFlow anywhere, and the same step on both backends."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[3]

if importlib.util.find_spec("jax") is None:
    pytest.skip("JAX is not installed", allow_module_level=True)


def one_step(backend, out, *options):
    command = [sys.executable, "-m", "tests.unit.trainer.one_step", str(out), *options]
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "JAX_PLATFORMS": "cpu",
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(np.load(out))


@pytest.fixture(scope="module")
def on_jax(tmp_path_factory):
    return one_step("jax", tmp_path_factory.mktemp("jax") / "step.npz", "--without-tensorflow")


@pytest.fixture(scope="module")
def on_tensorflow(tmp_path_factory):
    return one_step("tensorflow", tmp_path_factory.mktemp("tensorflow") / "step.npz")


def test_jax_trains_and_probes_where_tensorflow_cannot_be_imported(on_jax):
    assert str(on_jax["backend"]) == "jax"
    assert not on_jax["tensorflow"]
    assert 0 < on_jax["loss"] < 8
    assert np.isfinite(on_jax["features"]).all()
    assert np.abs(on_jax["kernel"]).max() > 0


def test_the_block_itself_works(tmp_path):
    command = "import sys; sys.argv.append('x')\nfrom tests.unit.trainer.one_step import NoTensorFlow\n"
    command += "sys.meta_path.insert(0, NoTensorFlow())\nimport tensorflow"
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "tensorflow is made unimportable by this test" in done.stderr


def test_one_sgd_step_on_jax_equals_one_on_tensorflow(on_jax, on_tensorflow):
    assert str(on_tensorflow["backend"]) == "tensorflow"
    assert float(on_jax["loss"]) == pytest.approx(float(on_tensorflow["loss"]), abs=1e-5)
    names = [name for name in on_jax if name.startswith("v")]
    assert len(names) == len([name for name in on_tensorflow if name.startswith("v")]) > 50
    for name in names:
        np.testing.assert_allclose(on_jax[name], on_tensorflow[name], atol=1e-4, rtol=0, err_msg=name)
    np.testing.assert_allclose(on_jax["features"], on_tensorflow["features"], atol=1e-4)
