"""Ten updates with all augmentations, by Keras' `fit` and by the scan, on one and on two virtual CPU devices.

KERAS_BACKEND=jax XLA_FLAGS=--xla_force_host_platform_device_count=2 python -m tests.unit.trainer.scanned OUT.npz
"""

import dataclasses
import pathlib
import sys
import tempfile
import unittest.mock

import keras
import numpy as np

from tests.unit.trainer.conftest import SETTINGS, TINY, coloured_images
from trainer.byol import jax_epoch
from trainer.byol.pretraining import PretrainingImages, pretrain

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
        found |= {f"streamed/{key}": value for key, value in trained(True).items()}
    np.savez(sys.argv[1], **found)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
