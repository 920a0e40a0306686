"""One training step of a tiny BYOL model with known weights and views, in a process of its own.

.venv/bin/python -m tests.unit.trainer.one_step OUT.npz [--without-tensorflow]; KERAS_BACKEND chooses the backend.
"""

import argparse
import dataclasses
import importlib.abc
import sys


class NoTensorFlow(importlib.abc.MetaPathFinder):
    """Makes `import tensorflow` fail as on a machine that has none."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in {"tensorflow", "tfx"}:
            raise ImportError(f"{fullname} is made unimportable by this test")


def known_weights(variables):
    """Values that depend on names' order and shapes alone; moving variances are positive."""
    import numpy as np

    rng = np.random.default_rng(11)
    values = []
    for v in variables:
        noise = rng.normal(size=v.shape)
        if v.name in {"gamma", "moving_variance"}:
            values.append(1.0 + 0.2 * np.abs(noise))
        else:
            fan_in = int(np.prod(v.shape[:-1])) if len(v.shape) > 1 else 25
            values.append(noise / np.sqrt(fan_in))
    return [value.astype(np.float32) for value in values]


def build(optimizer="sgd", weight_decay=0.0, base_learning_rate=1.6):
    """The tiny model with known weights, and its 16 images."""
    import numpy as np

    from tests.unit.trainer.conftest import AS_IS, MIRRORED, SETTINGS, TINY, coloured_images
    from trainer.byol.config import OptimizerConfig
    from trainer.byol.pretraining import PretrainingImages, build_model

    images = coloured_images(16)
    settings = dataclasses.replace(
        SETTINGS,
        view_1=AS_IS,
        view_2=MIRRORED,
        optimizer=OptimizerConfig(
            name=optimizer,
            base_learning_rate=base_learning_rate,
            warmup_steps=0,
            weight_decay=weight_decay,
            eta=0.02,
        ),
    )
    model = build_model(settings, TINY, PretrainingImages(images, np.full(3, 0.5), np.full(3, 0.25)))
    variables = [v for v in model.variables if "seed" not in v.path]
    for v, value in zip(variables, known_weights(variables), strict=True):
        v.assign(value)
    return model, images, variables


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--without-tensorflow", action="store_true")
    options = parser.parse_args()
    if options.without_tensorflow:
        sys.meta_path.insert(0, NoTensorFlow())

    import keras
    import numpy as np

    from trainer import representations
    from trainer.probe import probe
    from trainer.probe.config import ProbeConfig

    model, images, variables = build()
    loss = float(model.train_on_batch(images))
    features = representations.embed(model.online_encoder, images)
    labels = np.arange(16) % 3
    fitted = probe.fit_probe(
        features, labels, np.arange(16) % 4 == 0, ProbeConfig(learning_rates=(0.1,), epochs=1)
    )
    np.savez(
        options.out,
        loss=loss,
        kernel=fitted.classifier.kernel,
        features=features,
        backend=keras.backend.backend(),
        tensorflow="tensorflow" in sys.modules,
        **{f"v{i:03d}": keras.ops.convert_to_numpy(v) for i, v in enumerate(variables)},
    )


if __name__ == "__main__":
    main()
