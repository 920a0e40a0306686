r"""Ten updates with all augmentations, by Keras' `fit` and by the scan, on one and on two virtual CPU devices; and the
monitors of a model, batch by batch and as one program.

    KERAS_BACKEND=jax XLA_FLAGS=--xla_force_host_platform_device_count=2 \
        .venv/bin/python -m tests.unit.trainer.scanned OUT.npz
"""

import dataclasses
import pathlib
import sys
import tempfile
import unittest.mock

import keras
import numpy as np

from tests.unit.trainer.conftest import SETTINGS, TINY, coloured_images
from trainer.byol import jax_epoch, monitors
from trainer.byol.pretraining import PretrainingImages, build_model, pretrain

UPDATES = 10


def trained(scan, **changes):
    """Loss and variables after an epoch of ten updates, in calls of 4, 4 and 2."""
    images = coloured_images(16 * UPDATES)
    data = PretrainingImages(images, np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32))
    config = dataclasses.replace(SETTINGS, epochs=1, steps_per_execution=4, **changes)
    with unittest.mock.patch.object(jax_epoch, "applies", return_value=scan):
        result = pretrain(config, TINY, data, None, pathlib.Path(tempfile.mkdtemp()))
    variables = [*result.model.variables, *result.model.optimizer.variables]
    found = {f"v{i:03d}": keras.ops.convert_to_numpy(v) for i, v in enumerate(variables)}
    devices = len(result.model.variables[0].value.sharding.device_set)
    return found | {"loss": result.history[0]["loss"], "devices": devices}


def measured(in_one, broken=False):
    """What the monitors find; 1,100 images of the bank and 23 queries make chunks that are not full."""
    bank, queries = coloured_images(1100), coloured_images(1123)[1100:]
    data = PretrainingImages(bank, np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32))
    images = monitors.MonitorImages(bank, np.arange(1100) % 10, queries, np.arange(23) % 10)
    model = build_model(SETTINGS, TINY, data)
    if broken:
        model.target_projector.variables[0].assign(np.full(model.target_projector.variables[0].shape, np.nan))
    with (
        unittest.mock.patch.object(jax_epoch, "applies", return_value=in_one),
        unittest.mock.patch.object(monitors, "_outputs", None if in_one else monitors._outputs),
    ):
        return list(monitors.measure(model, images).values())


def main():
    """Writes all of it."""
    found: dict[str, object] = {}
    for name, values in {
        "fit": trained(False),
        "scan": trained(True),
        "two": trained(True, devices=2),
    }.items():
        found |= {f"{name}/{key}": value for key, value in values.items()}
    with unittest.mock.patch.object(jax_epoch, "_fits", return_value=False):
        found |= {f"streamed/{key}": value for key, value in trained(True, devices=2).items()}
    found |= {"monitors/batches": measured(False), "monitors/one": measured(True)}
    found |= {"monitors/broken": measured(True, broken=True)}
    np.savez(sys.argv[1], **found)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
