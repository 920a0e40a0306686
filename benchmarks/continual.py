"""What a warm start keeps of old spans and gains on new ones: the core of retraining, without the pipeline around it.

    .venv/bin/python -m benchmarks.continual --data DIR --preset cpu --spans 4 --epochs 4

cuts the training images into spans whose light drifts from warm to cold, trains on one after the other with each
policy, and probes each model on the test images under the light of the first span (old) and of its own (new). The probe
is fitted on the same span that pretraining saw; the warm-up is a tenth of its steps. Prints a table and one JSON line.
"""

import dataclasses
import json
import pathlib
import tempfile
import time
from typing import Annotated

import numpy as np
import typer

from benchmarks.pretrain import read
from components.data import cifar10, features
from pipeline.config import PRESETS, PipelineConfig
from trainer import representations
from trainer.byol import warm_start
from trainer.byol.config import WARM_STARTS
from trainer.byol.pretraining import PretrainingImages, PretrainingResult, pretrain
from trainer.probe.probe import fit_probe

# Gains of red, green and blue: the light of the first span and of the last one.
FIRST_LIGHT, LAST_LIGHT = np.array([1.0, 0.85, 0.6]), np.array([0.5, 0.75, 1.0])


@dataclasses.dataclass(frozen=True)
class Span:
    """Images under one light.

    Attributes:
        images, labels: for training: [n, 32, 32, 3] uint8 and [n] int64.
        test: all test images under the same light.
    """

    images: np.ndarray
    labels: np.ndarray
    test: np.ndarray


def main(
    data: Annotated[pathlib.Path, typer.Option(help="Folder with CIFAR-10's binary files.")],
    preset: Annotated[str, typer.Option(help="Encoder, pretraining and probe.")] = "cpu",
    spans: Annotated[int, typer.Option(min=2)] = 4,
    train: Annotated[int, typer.Option(help="Training images of a span.")] = 10_000,
    epochs: Annotated[int, typer.Option(help="Of each pretraining.")] = 4,
    seed: Annotated[int, typer.Option(help="Of networks and augmentations.")] = 0,
) -> None:
    """Trains every policy on every span."""
    found = cifar10.inspect_folder(data)
    images, labels = read(found.train_files)
    test, test_labels = read(found.test_files)
    config = PRESETS[preset]
    warmup = (
        epochs * (train // config.pretraining.batch_size) // 10
    )  # the preset's is longer than a short training
    optimizer = dataclasses.replace(config.pretraining.optimizer, warmup_steps=warmup)
    pretraining = dataclasses.replace(config.pretraining, epochs=epochs, seed=seed, optimizer=optimizer)
    config = dataclasses.replace(config, pretraining=pretraining)
    made = [_span(images, labels, test, number, spans, train) for number in range(spans)]
    typer.echo(
        "| warm start | span | old light | new light | kNN | pretraining, s |\n|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        course = _Course(config, made, test_labels, pathlib.Path(folder))
        rows = [course.train("any", 0)]  # nothing to start from: the same for every policy
        rows += [course.train(policy, number) for policy in WARM_STARTS for number in range(1, spans)]
    typer.echo(json.dumps({"preset": preset, "epochs": epochs, "train": train, "seed": seed, "rows": rows}))


def _span(
    images: np.ndarray, labels: np.ndarray, test: np.ndarray, number: int, spans: int, train: int
) -> Span:
    share = number / (spans - 1)
    light = (1 - share) * FIRST_LIGHT + share * LAST_LIGHT
    chosen = slice(number * train, (number + 1) * train)
    if len(labels[chosen]) < train:
        raise typer.BadParameter(f"{spans} spans of {train} images need more than {len(labels)}.")
    return Span((images[chosen] * light).astype(np.uint8), labels[chosen], (test * light).astype(np.uint8))


@dataclasses.dataclass(frozen=True)
class _Course:
    """Spans that are trained on one after the other; what each training leaves lies in `folder`."""

    config: PipelineConfig
    spans: list[Span]
    labels: np.ndarray
    folder: pathlib.Path

    def train(self, policy: str, number: int) -> dict:
        """Trains on a span from what was left of the one before; returns accuracies on the test images, 0 to 1."""
        span = self.spans[number]
        earlier = self._left(policy, number - 1) if number else None
        started = time.perf_counter()
        result = _pretrain(policy, self.config, span, earlier, self.folder)
        seconds = time.perf_counter() - started
        _save(result, self._left(policy, number))
        row = {
            "warm_start": policy,
            "span": number,
            **_probed(result, self.config, span, self.spans[0], self.labels),
        }
        numbers = [f"{row[name]:.1%}" for name in ("old", "new", "knn")]
        typer.echo(f"| {policy} | {number} | {' | '.join(numbers)} | {seconds:.0f} |")
        return {**row, "seconds": round(seconds, 1)}

    def _left(self, policy: str, number: int) -> pathlib.Path:
        """Where the networks of a span's training lie."""
        return self.folder / ("first" if number == 0 else f"{policy}-{number}")


def _pretrain(
    policy: str, config: PipelineConfig, span: Span, earlier: pathlib.Path | None, folder: pathlib.Path
) -> PretrainingResult:
    scaled = span.images.astype(np.float32) / 255.0
    split = PretrainingImages(span.images, scaled.mean((0, 1, 2)), scaled.std((0, 1, 2)))
    start = warm_start.read_warm_start(policy, str(earlier)) if earlier else None
    return pretrain(config.pretraining, config.encoder, split, None, folder / "checkpoints", start=start)


def _save(result: PretrainingResult, folder: pathlib.Path) -> None:
    folder.mkdir()
    result.encoder().save(folder / warm_start.ENCODER_FILE)
    warm_start.save_networks(result.model, folder / warm_start.NETWORKS_FILE)
    result.checkpoints.remove()


def _probed(
    result: PretrainingResult, config: PipelineConfig, span: Span, first: Span, labels: np.ndarray
) -> dict[str, float]:
    encoder = result.encoder()
    holdout = features.holdout_mask(features.content_hashes(span.images))
    probe = fit_probe(representations.embed(encoder, span.images), span.labels, holdout, config.probe)
    return {
        "old": probe.classifier.accuracy(representations.embed(encoder, first.test), labels),
        "new": probe.classifier.accuracy(representations.embed(encoder, span.test), labels),
        "knn": probe.knn_accuracy,
    }


if __name__ == "__main__":
    typer.run(main)
