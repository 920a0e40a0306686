"""Pretrains and probes on record files without TFX, on whichever backend Keras uses: for tuning and for accelerators.

    .venv/bin/python -m benchmarks.pretrain --data DIR --preset cpu --set pretraining.epochs=3
    KERAS_BACKEND=jax .venv/bin/python -m benchmarks.pretrain --data DIR --preset gpu --checkpoints DIR --test

prints one line an epoch and, at the end, one JSON line: the settings that differ from the preset, kNN and linear
accuracy on held-out *training* images of the pretrained and of the untrained encoder, both in float32. The test split
is read with `--test` alone, once, after everything else. An interrupted run goes on from `--checkpoints`. The recipe
`garder14` is measured by its own linear evaluation as well.
"""

import contextlib
import dataclasses
import json
import logging
import pathlib
import tempfile
import time
from typing import Annotated

import keras
import numpy as np
import typer

from benchmarks import garder14_probe
from components.data import cifar10, features
from pipeline.config import PRESETS, PipelineConfig
from trainer import networks, representations, settings
from trainer.byol.monitors import MonitorImages
from trainer.byol.pretraining import PretrainingImages, pretrain
from trainer.byol.recipes import RECIPES
from trainer.probe import crops
from trainer.probe.probe import ProbeResult, fit_probe

# All else of a recipe is the largest preset's.
KNOWN = PRESETS | {
    name: dataclasses.replace(PRESETS["gpu"], encoder=recipe.encoder, pretraining=recipe.pretraining)
    for name, recipe in RECIPES.items()
}

Split = tuple[np.ndarray, np.ndarray]


def main(
    data: Annotated[pathlib.Path, typer.Option(help="Folder with CIFAR-10's binary files.")],
    preset: Annotated[str, typer.Option(help=f"A preset or a published recipe: {', '.join(KNOWN)}.")],
    assignments: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE")] = None,
    checkpoints: Annotated[pathlib.Path | None, typer.Option(help="Kept between runs when given.")] = None,
    test: Annotated[bool, typer.Option(help="Also read the test split.")] = False,
) -> None:
    """Trains one preset and prints what it reached."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if preset not in KNOWN:
        raise typer.BadParameter(f"There is no preset {preset!r}. Known: {', '.join(KNOWN)}.")
    config = settings.override(KNOWN[preset], assignments or [])
    found = cifar10.inspect_folder(data)
    images, labels = read(found.train_files)
    holdout = features.holdout_mask(features.content_hashes(images))
    split = PretrainingImages(images, *_normalisation(preset, images))
    queries = np.flatnonzero(holdout)[: config.pretraining.monitor_images]
    bank = np.flatnonzero(~holdout)[: 5 * len(queries)]
    monitor = None
    if len(queries):
        monitor = MonitorImages(images[bank], labels[bank], images[queries], labels[queries])
    started = time.perf_counter()
    folder = checkpoints or pathlib.Path(tempfile.mkdtemp())
    trained = pretrain(config.pretraining, config.encoder, split, monitor, folder).encoder()
    seconds = time.perf_counter() - started
    untrained = networks.build_encoder(
        config.encoder, split.channel_mean, split.channel_std, config.pretraining.seed
    )
    outcome = {"preset": preset, "set": assignments or [], "pretraining_seconds": round(seconds, 1)}
    test_split = None
    with _exact():
        for name, encoder in (("byol", trained), ("untrained", untrained)):
            result = _probe(encoder, images, labels, holdout, config)
            outcome[f"{name}_knn"] = round(result.knn_accuracy, 4)
            outcome[f"{name}_linear_holdout"] = round(max(result.holdout_accuracies), 4)
            if test:
                test_split = read(found.test_files)
                embedded = representations.embed(encoder, test_split[0])
                outcome[f"{name}_linear_test"] = round(result.classifier.accuracy(embedded, test_split[1]), 4)
        if preset == "garder14":
            outcome |= _published(trained, images, labels, holdout, test_split)
    typer.echo(json.dumps(outcome))


def _normalisation(preset: str, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the channels, [3] float32 each; 0 and 1 for a recipe that does not normalise."""
    if preset in RECIPES and not RECIPES[preset].normalised:
        return np.zeros(3, np.float32), np.ones(3, np.float32)
    scaled = images.astype(np.float32) / 255.0
    return scaled.mean((0, 1, 2)), scaled.std((0, 1, 2))


def read(files: tuple[pathlib.Path, ...]) -> Split:
    """All records of the files: images [n, 32, 32, 3] uint8 and labels [n] int64."""
    parts = [cifar10.read_records(file) for file in files]
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def _probe(encoder, images, labels, holdout, config: PipelineConfig) -> ProbeResult:
    cropped = crops.cropped_features(encoder, lambda: iter([images]), config.probe)
    return fit_probe(representations.embed(encoder, images), labels, holdout, config.probe, cropped)


def _published(
    encoder: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    holdout: np.ndarray,
    test_split: Split | None,
) -> dict[str, float]:
    """garder14's linear evaluation: fitted on all images and judged on the test split, or else on the held-out ones."""
    fitted = holdout if test_split is None else np.zeros_like(holdout)
    judged = test_split or (images[holdout], labels[holdout])
    classifier = garder14_probe.fit(encoder, images[~fitted], labels[~fitted], seed=0)
    accuracy = classifier.accuracy(representations.embed(encoder, judged[0]), judged[1])
    return {"byol_published_test" if test_split else "byol_published_holdout": round(accuracy, 4)}


def _exact() -> contextlib.AbstractContextManager:
    """Float32 products that are: by default JAX rounds their factors on GPUs and TPUs."""
    if keras.backend.backend() != "jax":
        return contextlib.nullcontext()
    import jax

    return jax.default_matmul_precision("highest")


if __name__ == "__main__":
    typer.run(main)
