"""What the host spends on one update beside the device: a preset's training loop around a program that does nothing.

    .venv/bin/python -m benchmarks.host_cost --preset gpu

puts, in the place of the compiled scan of `trainer/byol/jax_epoch.py`, one that takes and gives back as many arrays and
computes nothing, and prints the microseconds of an update: order of the images, dispatch, new values of every variable,
losses and callbacks. It is CPU time of all threads, so that other work on the machine counts little. Needs no device,
and no TensorFlow.
"""

import argparse
import dataclasses
import os
import statistics
import sys
import time
import unittest.mock

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from trainer.byol.jax_process import NoTensorFlow

if __name__ == "__main__":
    sys.meta_path.insert(0, NoTensorFlow())

import jax
import jax.numpy as jnp
import keras
import numpy as np

from pipeline.config import PRESETS, PipelineConfig
from trainer import settings
from trainer.byol import jax_epoch, pretraining
from trainer.byol.pretraining import PretrainingImages

CIFAR10_IMAGES = 50_000


def microseconds(config: PipelineConfig, rounds: int) -> tuple[list[float], int]:
    """Of one update in each of `rounds` epochs of 50,000 images, and the number of arrays in the state."""
    pretrain = dataclasses.replace(config.pretraining, epochs=1000)
    images = np.broadcast_to(np.uint8(0), (CIFAR10_IMAGES, 32, 32, 3))
    data = PretrainingImages(images, np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32))
    model = pretraining.build_model(pretrain, config.encoder, data)
    arrays = sum(
        map(len, (model.trainable_variables, model.non_trainable_variables, model.optimizer.variables))
    )
    found = []
    with unittest.mock.patch.object(jax_epoch, "scanned", return_value=_nothing):
        for epoch in range(rounds + 1):
            started = time.process_time()
            order = data.order(pretrain, epoch, 0)
            jax_epoch.fit(
                model, images[:1], order, pretrain.steps_per_execution, [keras.callbacks.Callback()]
            )
            found.append((time.process_time() - started) / len(order) * 1e6)
    return found[1:], arrays  # the first one compiles


def _nothing(state, _images, order):
    return state, jnp.zeros(len(order))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="gpu")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="assignments")
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    config = settings.override(PRESETS[given.preset], given.assignments)
    found, arrays = microseconds(config, given.rounds)
    calls = config.pretraining.steps_per_execution
    print(
        f"{statistics.median(found):.1f} microseconds of the host for an update (least {min(found):.1f}, most "
        f"{max(found):.1f}), {arrays} arrays, {calls} updates a call, JAX {jax.__version__}, Keras {keras.__version__}"
    )


if __name__ == "__main__":
    main()
