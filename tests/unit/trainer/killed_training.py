"""Kills a training by SIGKILL several times, goes on each time, and compares its end with that of one left alone.

KERAS_BACKEND=... .venv/bin/python -m tests.unit.trainer.killed_training FOLDER SEED KILLS [--warm]

writes FOLDER/found.json. A process of its own, since it forks:
after Keras is imported and before the backend computes anything, so that no child pays for the import.

With --warm nothing is killed but the time of compiling: one training is stopped several times, its files are copied as
SIGKILL would leave them just then, and it goes on to its end. Then each copy is gone on with, by one compiled program.
"""

import dataclasses
import json
import os
import pathlib
import shutil
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
from trainer.byol import checkpoint, pretraining
from trainer.byol.pretraining import PretrainingImages, pretrain

# One block and the stem: most of a process' time is their compilation.
SMALL = EncoderConfig(widths=(8,), blocks=(1,), stem_stride=2)
# From the first checkpoint that a process writes until it is killed. The whole training takes a few of these.
LONGEST_SECONDS = 0.4
# Of the training's 150 checkpoints, at most so many from one stop to the next; and from a checkpoint's beginning on.
MOST_CHECKPOINTS, MOST_SECONDS = 14, 0.01


def train(folder, started):
    """The whole training, with a checkpoint after every call of two steps; tells `started` of the first."""
    settings, data = what()
    plain = checkpoint.CheckpointFolder.save

    def save(self, *arguments):
        os.write(started, b"!")
        return plain(self, *arguments)

    with unittest.mock.patch.object(checkpoint.CheckpointFolder, "save", save):
        result = pretrain(settings, SMALL, data, None, folder)
    save_end(result.model, folder)


def what():
    """Settings and images of the training."""
    images = coloured_images(16 * 30)
    data = PretrainingImages(images, np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32))
    settings = dataclasses.replace(
        SETTINGS, epochs=10, checkpoint_minutes=1e-9, steps_per_execution=2, checkpoints_kept=2
    )
    return settings, data


def stop(folder, rng, count):
    """Trains once and copies its files at so many moments; returns what `main` writes of them."""
    child, reader = fork(folder / "whole")
    found = []
    for number in range(count):
        for _ in range(1 + rng.integers(MOST_CHECKPOINTS)):
            os.read(reader, 1)
        time.sleep(rng.uniform(0, MOST_SECONDS))
        os.kill(child, signal.SIGSTOP)
        _, status = os.waitpid(child, os.WUNTRACED)
        copy = folder / f"stopped-{number}"
        shutil.copytree(folder / "whole", copy)
        found.append((os.WIFSTOPPED(status), newest(copy)))
        os.kill(child, signal.SIGCONT)
    os.waitpid(child, 0)
    return found


def go_on(folder, count):
    """Ends each copied training by one compiled model, whose every variable comes from its checkpoint."""
    settings, data = what()
    model = pretraining.build_model(settings, SMALL, data)
    with unittest.mock.patch.object(pretraining, "build_model", return_value=model):
        for number in range(count):
            copy = folder / f"stopped-{number}"
            pretrain(dataclasses.replace(settings, checkpoint_minutes=1000), SMALL, data, None, copy)
            save_end(model, copy)


def save_end(model, folder):
    """Every variable at the end."""
    variables = [*model.variables, *model.optimizer.variables]
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


def kill(folder, rng, count):
    """Kills a training so many times before it ends; returns what `main` writes of them."""
    child, reader = fork(folder / "whole")
    os.waitpid(child, 0)
    os.close(reader)
    found = []
    for _ in range(count):
        child, reader = fork(folder / "killed")
        os.read(reader, 1)
        time.sleep(rng.uniform(0, LONGEST_SECONDS))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(reader)
        found.append((os.WIFSIGNALED(status), newest(folder / "killed")))
    child, reader = fork(folder / "killed")
    os.waitpid(child, 0)
    return found


def main():
    folder, rng, count = pathlib.Path(sys.argv[1]), np.random.default_rng(int(sys.argv[2])), int(sys.argv[3])
    if "--warm" in sys.argv:
        found = stop(folder, rng, count)
        go_on(folder, count)
    else:
        found = kill(folder, rng, count)
    whole, *others = [dict(np.load(path)) for path in sorted(folder.glob("*/end.npz"), reverse=True)]
    same = [len(end) == len(whole) and all(np.array_equal(end[k], whole[k]) for k in whole) for end in others]
    json.dump({"kills": found, "arrays": len(whole), "same": same}, (folder / "found.json").open("w"))


if __name__ == "__main__":
    main()
