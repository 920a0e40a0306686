"""The scan over many updates gives what Keras' `fit` gives update by update."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from trainer.byol import jax_epoch

ROOT = pathlib.Path(__file__).parents[3]

if importlib.util.find_spec("jax") is None:
    pytest.skip("JAX is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("scanned") / "out.npz"
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.trainer.scanned", str(out)],
        cwd=ROOT,
        env=os.environ
        | {
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(np.load(out))


@pytest.mark.parametrize(("which", "devices"), [("scan", 1), ("streamed", 2), ("two", 2)])
def test_ten_updates_end_like_those_of_fit(found, which, devices):
    """An order, a draw or a step count that is another would be off by 1e-3 and more."""
    assert int(found[f"{which}/devices"]) == devices
    names = [name[4:] for name in found if name.startswith("fit/") and name != "fit/devices"]
    assert len(names) > 60
    for name in names:
        np.testing.assert_allclose(
            found[f"{which}/{name}"], found[f"fit/{name}"], atol=5e-5, rtol=5e-5, err_msg=name
        )


def test_a_model_has_one_program_for_all_its_epochs(monkeypatch, shared_model, images):
    """A second one would put all images on the device again."""
    made = []

    class Counted:
        def __init__(self, model, images):
            made.append(model)

        def run(self, order):
            return [1.0] * len(order)

    monkeypatch.setattr(jax_epoch, "_Program", Counted)
    for _ in range(3):
        assert jax_epoch.fit(shared_model, images, np.zeros((5, 2), int), 4, []) == 1.0
    assert len(made) == 1


def test_the_monitors_as_one_program_are_those_batch_by_batch(found):
    """Neighbours, spread, ranks and the cosine with the target; a network of NaN makes all of them NaN."""
    assert np.isfinite(found["monitors/batches"]).all()
    np.testing.assert_allclose(found["monitors/one"], found["monitors/batches"], rtol=1e-3)
    assert np.isnan(found["monitors/broken"]).all()
