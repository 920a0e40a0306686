"""Kills a training by SIGKILL several times, goes on each time, and compares its end with that of one left alone.

KERAS_BACKEND=... .venv/bin/python -m tests.unit.trainer.killed_training FOLDER SEED KILLS

writes FOLDER/found.json. A process of its own, since it forks:
after Keras is imported and before the backend computes anything, so that no child pays for the import.
"""

import dataclasses
import json
import os
import pathlib
import signal
import sys
import time
import unittest.mock

from trainer.byol import jax_process

if os.environ["KERAS_BACKEND"] == "jax":
    sys.meta_path.insert(0, jax_process.NoTensorFlow())  # which each child would import for itself

import keras
import numpy as np

from tests.unit.trainer.conftest import SETTINGS, coloured_images
from trainer.architecture import EncoderConfig
from trainer.byol import checkpoint
from trainer.byol.pretraining import PretrainingImages, pretrain

# One block and the stem: most of a process' time is their compilation.
SMALL = EncoderConfig(widths=(8,), blocks=(1,), stem_stride=2)
# From the first checkpoint that a process writes until it is killed. The whole training takes a few of these.
LONGEST_SECONDS = 0.4


def train(folder, started):
    """The whole training, with a checkpoint after every call of two steps; tells `started` of the first."""
    images = coloured_images(16 * 30)
    data = PretrainingImages(images, np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32))
    settings = dataclasses.replace(
        SETTINGS, epochs=10, checkpoint_minutes=1e-9, steps_per_execution=2, checkpoints_kept=2
    )
    plain = checkpoint.CheckpointFolder.save

    def save(self, *arguments):
        os.write(started, b"!")
        return plain(self, *arguments)

    with unittest.mock.patch.object(checkpoint.CheckpointFolder, "save", save):
        result = pretrain(settings, SMALL, data, None, folder)
    variables = [*result.model.variables, *result.model.optimizer.variables]
    np.savez(folder / "end.npz", *[keras.ops.convert_to_numpy(v) for v in variables])


def fork(folder):
    """Starts the training in a child; returns its id and the pipe on which it tells of its checkpoints."""
    folder.mkdir(exist_ok=True)
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    os.close(reader)
    try:
        train(folder, writer)
    finally:
        os._exit(0 if (folder / "end.npz").exists() else 1)


def newest(folder):
    """The newest checkpoint's name."""
    return max((path.name for path in folder.glob("*/checkpoint-*.npz")), default="")


def main():
    folder, rng = pathlib.Path(sys.argv[1]), np.random.default_rng(int(sys.argv[2]))
    child, reader = fork(folder / "whole")
    os.waitpid(child, 0)
    os.close(reader)
    found = []
    for _ in range(int(sys.argv[3])):
        child, reader = fork(folder / "killed")
        os.read(reader, 1)
        time.sleep(rng.uniform(0, LONGEST_SECONDS))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(reader)
        found.append((os.WIFSIGNALED(status), newest(folder / "killed")))
    child, reader = fork(folder / "killed")
    os.waitpid(child, 0)
    ends = [dict(np.load(folder / which / "end.npz")) for which in ("whole", "killed")]
    same = len(ends[0]) == len(ends[1]) and all(np.array_equal(ends[0][k], ends[1][k]) for k in ends[0])
    json.dump({"kills": found, "arrays": len(ends[0]), "same": same}, (folder / "found.json").open("w"))


if __name__ == "__main__":
    main()
