"""One training step equals an independent PyTorch implementation's: loss, gradients, parameters, EMA and moments.

torch is in neither lock. Where the tests' own interpreter has none, BYOL_TORCH_PYTHON may name one that has.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from tests.unit.trainer import one_step
from tests.unit.trainer.conftest import AS_IS, MIRRORED, SETTINGS, TINY
from trainer.byol import augmentations

PYTHON = os.environ.get("BYOL_TORCH_PYTHON") or (
    sys.executable if importlib.util.find_spec("torch") else None
)
SCRIPT = pathlib.Path(__file__).with_name("torch_step.py")
CASES = {
    "sgd": {"base": 1.6, "decay": 0.0, "eta": 0.02},
    "sgd with decay": {"base": 1.6, "decay": 0.1, "eta": 0.02},
    "adamw": {"base": 0.016, "decay": 0.1, "eta": 0.02},
    "lars": {"base": 1.6, "decay": 0.1, "eta": 0.02},
}

if PYTHON is None:
    pytest.skip(
        "torch is not installed; BYOL_TORCH_PYTHON=PYTHON names one that has it", allow_module_level=True
    )


def by_name(model):
    networks = ("online_encoder", "online_projector", "predictor", "target_encoder", "target_projector")
    return {
        f"{network}/{layer.name}/{v.name}": keras.ops.convert_to_numpy(v).copy()
        for network in networks
        for layer in getattr(model, network).layers
        if layer.name != "normalization"
        for v in layer.weights
    }


@pytest.fixture(scope="module", params=list(CASES))
def step(request, tmp_path_factory):
    """The same update by Keras and by PyTorch: (before, ours, theirs, rate)."""
    case, optimizer = CASES[request.param], request.param.split()[0]
    model, images, _ = one_step.build(optimizer, case["decay"], case["base"])
    rng = np.random.default_rng(5)
    # A target of its own: one equal to the online network would not show which of the two was taken.
    for network in (model.target_encoder, model.target_projector):
        for layer in network.layers:
            for v in layer.weights:
                if v.name in {"kernel", "gamma"}:
                    v.assign(v * rng.uniform(0.5, 1.5, v.shape).astype(np.float32))
    before = by_name(model)
    views = {
        f"view_{i}": keras.ops.convert_to_numpy(
            augmentations.make_view(images, np.full((16, augmentations.DRAWS), 0.5, np.float32), view)
        )
        for i, view in ((1, AS_IS), (2, MIRRORED))
    }
    rate = case["base"] * 16 / 256
    settings = {
        "optimizer": optimizer,
        "rate": rate,
        "decay": case["decay"],
        "eta": case["eta"],
        "tau": SETTINGS.base_tau,
        "network": {
            "widths": TINY.widths,
            "blocks": TINY.blocks,
            "stem_stride": TINY.stem_stride,
            "hidden_dim": SETTINGS.head.hidden_dim,
            "output_dim": SETTINGS.head.output_dim,
            "mean": [0.5] * 3,
            "std": [0.25] * 3,
        },
    }
    folder = tmp_path_factory.mktemp("torch")
    np.savez(folder / "in.npz", settings=json.dumps(settings), **views, **before)
    command = [str(PYTHON), str(SCRIPT), str(folder / "in.npz"), str(folder / "out.npz")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = dict(np.load(folder / "out.npz"))
    ours = {"loss": float(model.train_on_batch(images))} | by_name(model)
    return before, ours, theirs, rate


def trained(before):
    """Names of what the optimizer trains."""
    return [n for n in before if not n.startswith("target") and "moving" not in n]


def test_the_loss_is_the_same(step):
    _, ours, theirs, *_ = step
    assert ours["loss"] == pytest.approx(float(theirs["loss"]), abs=1e-5)


@pytest.mark.parametrize("step", ["sgd"], indirect=True)
def test_the_gradients_are_the_same(step):
    """An SGD step from rest is the rate times the gradient."""
    before, ours, theirs, rate = step
    for name in trained(before):
        gradient = (before[name] - ours[name]) / rate
        expected = theirs[f"gradient/{name}"]
        if name != "online_projector/output/bias":  # the predictor's batch norm cancels it
            assert np.abs(expected).max() > 1e-4, name
        np.testing.assert_allclose(gradient, expected, atol=1e-4, err_msg=name)


def test_every_parameter_after_the_update_is_the_same(step):
    before, ours, theirs, *_ = step
    errors, updates = [], []
    for name in trained(before):
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-4, err_msg=name)
        errors.append(np.abs(ours[name] - theirs[name]).ravel())
        updates.append(np.abs(theirs[name] - before[name]).ravel())
    # 1e-4 alone would not tell a small update from none.
    assert np.median(np.concatenate(errors)) < 1e-3 * np.median(np.concatenate(updates))


def test_the_targets_average_and_all_moments_are_the_same(step):
    before, ours, theirs, *_ = step
    names = [n for n in before if n.startswith("target") or "moving" in n]
    for name in names:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-4, err_msg=name)
    moments = [n for n in names if "moving" in n]
    assert min(np.abs(theirs[n] - before[n]).max() for n in moments) > 1e-3
