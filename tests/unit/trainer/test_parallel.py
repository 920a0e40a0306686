"""Two devices give the one-device result on the same global batch, on both backends; each in a process of its own."""

import contextlib
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from trainer import parallel

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture(scope="module", params=["jax", "tensorflow"])
def trained(request, tmp_path_factory):
    """Everything after an epoch of two steps with all augmentations, on one and on two devices."""
    if request.param == "jax":
        pytest.importorskip("jax")
    out = tmp_path_factory.mktemp(request.param) / "out.npz"
    environment = os.environ | {
        "KERAS_BACKEND": request.param,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.trainer.two_devices", str(out)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(np.load(out))


def test_two_devices_give_the_result_of_one_on_the_same_batch(trained):
    """Batch norm of a half batch, another draw or a gradient counted twice would each be off by 1e-3 and more."""
    assert (int(trained["1/devices"]), int(trained["2/devices"])) == (1, 2)
    names = [name[2:] for name in trained if name.startswith("1/v")]
    assert len(names) > 50
    for name in ("loss", "rank", *names):
        np.testing.assert_allclose(trained[f"2/{name}"], trained[f"1/{name}"], atol=2e-5, err_msg=name)
    moved = [np.abs(trained[f"1/{n}"] - trained[f"1/s{n[1:]}"]).max() for n in names]
    assert np.median(moved) > 1e-3


def test_the_product_of_two_devices_is_a_network_for_one(trained):
    assert not trained["2/synchronized"]
    for name in [name[2:] for name in trained if name.startswith("1/p")]:
        np.testing.assert_allclose(trained[f"2/{name}"], trained[f"1/{name}"], atol=2e-5, err_msg=name)


def test_one_device_changes_nothing():
    with parallel.divided(1, 15) as scope:
        assert isinstance(scope, contextlib.nullcontext)
        assert parallel.replicas() == 1


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"pretraining.devices=99 asks for more devices.*Lower it"):
        parallel.divided(99, 198).__enter__()


def test_a_batch_that_cannot_be_divided_is_refused(monkeypatch):
    monkeypatch.setattr(parallel, "_devices", lambda: ["gpu:0", "gpu:1"])
    for devices in (0, 2):
        with pytest.raises(ValueError, match=r"batch of 15 cannot be divided equally among 2 devices"):
            parallel.divided(devices, 15).__enter__()
