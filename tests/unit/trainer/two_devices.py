"""Trains the same tiny model on one and on two virtual CPU devices, in a process of its own.

.venv/bin/python -m tests.unit.trainer.two_devices OUT.npz; KERAS_BACKEND chooses the backend.
"""

import dataclasses
import pathlib
import sys
import tempfile


def train(devices, **changes):
    import keras
    import numpy as np

    from tests.unit.trainer.conftest import SETTINGS, TINY, coloured_images
    from trainer.byol.config import OptimizerConfig
    from trainer.byol.monitors import MonitorImages
    from trainer.byol.pretraining import PretrainingImages, build_model, pretrain

    images = coloured_images(40)
    settings = dataclasses.replace(
        SETTINGS,
        epochs=1,
        devices=devices,
        optimizer=OptimizerConfig(base_learning_rate=1.6, warmup_steps=0, **changes),
    )
    pixels = images / 255.0
    data = PretrainingImages(images, pixels.mean((0, 1, 2)), pixels.std((0, 1, 2)))
    labels = np.arange(40) % 4
    watched = MonitorImages(images[:27], labels[:27], images[27:], labels[27:])
    start = build_model(dataclasses.replace(settings, devices=1), TINY, data)
    result = pretrain(settings, TINY, data, watched, pathlib.Path(tempfile.mkdtemp()))
    product = result.encoder()
    found = {"loss": result.history[0]["loss"], "rank": result.history[0]["rank_me"]}
    found |= {f"v{i:03d}": keras.ops.convert_to_numpy(v) for i, v in enumerate(result.model.variables)}
    found |= {f"p{i:03d}": keras.ops.convert_to_numpy(v) for i, v in enumerate(product.variables)}
    found |= {f"s{i:03d}": keras.ops.convert_to_numpy(v) for i, v in enumerate(start.variables)}
    found["devices"] = count(result.model)
    found["synchronized"] = any(getattr(layer, "synchronized", False) for layer in product.layers)
    return found


def count(model):
    """On how many devices the model's first variable has a copy."""
    value = model.variables[0].value
    if hasattr(value, "sharding"):
        return len(value.sharding.device_set)
    return len(getattr(value, "values", [value]))


def main():
    import keras
    import numpy as np

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    found = {}
    for devices in (1, 2):
        for name, value in train(devices, name="lars", eta=0.02).items():
            found[f"{devices}/{name}"] = value
    np.savez(sys.argv[1], **found)


if __name__ == "__main__":
    main()
