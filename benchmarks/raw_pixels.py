"""What a linear classifier reaches on raw pixels: the floor below every representation.

    .venv/bin/python -m benchmarks.raw_pixels DATA

prints the accuracy on the test split of the same probe that the pipeline puts on an encoder, here on the 3,072 pixel
values. DATA is a folder in CIFAR-10's binary layout.
"""

import pathlib
import sys

import numpy as np

from benchmarks.pretrain import read
from components.data import cifar10, features
from trainer.probe.config import ProbeConfig
from trainer.probe.probe import fit_probe


def raw_pixel_accuracy(folder: pathlib.Path) -> float:
    """Fits the probe on all training images' pixels and returns its accuracy on the test images."""
    found = cifar10.inspect_folder(folder)
    images, labels = read(found.train_files)
    test_images, test_labels = read(found.test_files)
    holdout = features.holdout_mask(features.content_hashes(images))
    # Smaller rates than for an encoder's features: there are more inputs, and they are more alike.
    config = ProbeConfig(learning_rates=(1e-4, 3e-4, 1e-3), epochs=20)
    result = fit_probe(_flat(images), labels, holdout, config)
    return result.classifier.accuracy(_flat(test_images), test_labels)


def _flat(images: np.ndarray) -> np.ndarray:
    """[n, 32, 32, 3] uint8 -> [n, 3072] float32 in [0, 1]."""
    return images.reshape(len(images), -1).astype(np.float32) / 255.0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(f"raw pixels, linear: {raw_pixel_accuracy(pathlib.Path(sys.argv[1])):.4f}")
