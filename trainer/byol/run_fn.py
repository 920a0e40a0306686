"""TFX entry point of the Pretrainer: transformed training Examples in, `encoder.keras` and the other networks out."""

import dataclasses
import json
import logging
import math
import pathlib
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tfx.components.trainer.fn_args_utils import FnArgs

from components import staging
from components.data import dataset
from trainer import input_pipeline, settings
from trainer.architecture import EncoderConfig
from trainer.byol import choice, engine, job, monitors, warm_start
from trainer.byol.config import PretrainingConfig
from trainer.byol.pretraining import ImageSource, PretrainingImages, pretrain, write_history
from trainer.devices import allow_memory_growth

ENCODER_FILE = warm_start.ENCODER_FILE
HISTORY_FILE = "history.csv"
EVENTS_FOLDER = "tensorboard"
# The bank of the kNN monitor, in multiples of its queries.
BANK_PER_QUERY = 5
# Of the pixels of queries and bank, which are held beside the split.
MONITOR_BYTES = 256_000_000
logger = logging.getLogger("byol.pretraining")
OnEpoch = Callable[[dict[str, float]], None]


@dataclasses.dataclass(frozen=True)
class StreamedImages:
    """An ImageSource that reads its files in each epoch; the labels in them are never parsed."""

    split: input_pipeline.ImagesOnDisk

    @property
    def channel_mean(self) -> np.ndarray:
        """[3] float32, of the training pixels in [0, 1]."""
        return self.split.rows.channel_mean

    @property
    def channel_std(self) -> np.ndarray:
        """[3] float32, likewise."""
        return self.split.rows.channel_std

    def __len__(self) -> int:
        """The number of images."""
        return len(self.split.rows.labels)

    def digest(self) -> str:
        """Of all content hashes."""
        return self.split.rows.digest

    def epoch(self, config: PretrainingConfig, epoch: int, first_step: int) -> dict[str, Any]:
        """Returns the epoch as a tf.data.Dataset."""
        return {"x": self.split.shuffled(config.batch_size, config.seed, epoch, first_step)}


def run_fn(fn_args: FnArgs) -> None:
    """Pretrains on the training split and saves the online encoder with its own batch-norm moments.

    The monitors' values are in `model_run` after each epoch: as CSV and as TensorBoard events.

    `fn_args.custom_config` holds `pretraining` and `encoder` (their dataclasses as dicts) and `checkpoints`, a folder
    that outlives a killed run, and `memory_bytes`, as `input_pipeline.open_split` takes it. `data_set` is
    a DataSet as JSON, CIFAR-10 when absent. `warm_start`, "never" when
    absent, says what is taken over from the earlier Pretrainer's model in `fn_args.base_model`.
    """
    allow_memory_growth()
    start = warm_start.read_warm_start(fn_args.custom_config.get("warm_start", "never"), fn_args.base_model)
    config = settings.from_dict(PretrainingConfig, fn_args.custom_config["pretraining"], "pretraining.")
    encoder = settings.from_dict(EncoderConfig, fn_args.custom_config["encoder"], "encoder.")
    chosen = choice.choose(config.engine)
    config = choice.settled(config, chosen)
    logger.info("Pretraining by %s, its products in %s.", chosen, config.precision)
    described = dataset.from_json(fn_args.custom_config.get("data_set", ""))
    split = input_pipeline.open_split(
        fn_args.train_files, fn_args.custom_config["memory_bytes"], described.shape
    )
    data = image_source(split)
    logs = pathlib.Path(fn_args.model_run_dir)
    logs.mkdir(parents=True, exist_ok=True)
    writer = tf.summary.create_file_writer(str(logs / EVENTS_FOLDER))
    told: list[dict[str, float]] = []

    def on_epoch(values: dict[str, float]) -> None:
        told.append(values)
        write_history(told, logs / HISTORY_FILE)
        write_summaries(values, writer)

    serving = pathlib.Path(fn_args.serving_model_dir)
    serving.mkdir(parents=True, exist_ok=True)
    work = job.Job(
        config=config,
        encoder=encoder,
        data=data,
        monitor=monitor_images(split, config.monitor_images, described.classes),
        checkpoints=pathlib.Path(fn_args.custom_config["checkpoints"]),
        result=serving,
        start=start,
    )
    history, checkpoints = (
        _train_on_jax(work, split, logs, on_epoch) if chosen == "jax" else _train_here(work, on_epoch)
    )
    writer.close()
    record = {
        "epochs": history,
        "backend": "jax" if chosen == "jax" else keras.backend.backend(),
        "precision": config.precision,
        "images": len(data),
        "labelled": int((split.rows.labels != dataset.UNLABELLED).sum()),
        "digest": split.rows.digest,
        "warm_start": {"policy": start.policy, "weights": start.digest()} if start else {"policy": "never"},
    }
    (serving / "pretraining.json").write_text(json.dumps(record, indent=1))
    for folder in (serving, logs):  # hours of training: they are on the disk before the checkpoints are gone
        staging.sync_tree(folder)
    shutil.rmtree(checkpoints, ignore_errors=True)


def _train_here(work: job.Job, on_epoch: OnEpoch) -> tuple[list[dict[str, float]], pathlib.Path]:
    """Trains in this process, on its backend; returns the history and the folder of the training's checkpoints."""
    result = pretrain(
        work.config, work.encoder, work.data, work.monitor, work.checkpoints, on_epoch, work.start
    )
    job.write_result(work, result)
    return result.history, result.checkpoints.folder


def _train_on_jax(
    work: job.Job, split: input_pipeline.Split, scratch: pathlib.Path, on_epoch: OnEpoch
) -> tuple[list[dict[str, float]], pathlib.Path]:
    """The same in a process of its own, which finds the decoded images below `scratch`."""
    with tempfile.TemporaryDirectory(prefix="job-", dir=scratch) as name:
        folder = pathlib.Path(name)
        batches = split.batches(input_pipeline.rows_in(input_pipeline.PARSE_BYTES, split.shape))
        job.write_images(folder, len(work.data), batches, split.shape)
        job.write_job(folder, work)
        return engine.train_on_jax(folder, on_epoch)


def write_summaries(values: dict[str, float], writer: tf.summary.SummaryWriter) -> None:
    """Writes an epoch's values as TensorBoard scalars at the number of that epoch, on disk when it returns."""
    with writer.as_default(step=int(values["epoch"])):
        for name, value in values.items():
            if name != "epoch":
                tf.summary.scalar(f"pretraining/{name}", value)
    writer.flush()


def image_source(split: input_pipeline.ImagesInMemory | input_pipeline.ImagesOnDisk) -> ImageSource:
    """The images of a split, without its labels."""
    if isinstance(split, input_pipeline.ImagesOnDisk):
        return StreamedImages(split)
    return PretrainingImages(split.images, split.rows.channel_mean, split.rows.channel_std)


def monitor_images(
    split: input_pipeline.Split, queries: int, classes: int = dataset.CIFAR10.classes
) -> monitors.MonitorImages | None:
    """The first held-out images as queries and five times as many others as their bank; None for `queries` 0.

    Images without a label are neither, unless nothing is labelled on one of the two sides: then the queries are any
    held-out images, and there is no kNN classifier.
    Fewer are taken where all of them would take more than MONITOR_BYTES.
    """
    queries = min(queries, MONITOR_BYTES // (math.prod(split.shape) * (1 + BANK_PER_QUERY)))
    labelled = split.rows.labels != dataset.UNLABELLED
    held = np.flatnonzero(split.rows.holdout & labelled)[:queries]
    bank = np.flatnonzero(~split.rows.holdout & labelled)[: BANK_PER_QUERY * queries]
    if len(held) == 0 or len(bank) == 0:
        return _unlabelled_monitor_images(split, queries)
    return monitors.MonitorImages(
        bank=split.take(bank),
        bank_labels=split.rows.labels[bank],
        queries=split.take(held),
        query_labels=split.rows.labels[held],
        classes=classes,
    )


def _unlabelled_monitor_images(split: input_pipeline.Split, queries: int) -> monitors.MonitorImages | None:
    """The first held-out images, to tell a collapse by; None without any."""
    held = np.flatnonzero(split.rows.holdout)[:queries]
    if len(held) == 0:
        return None
    images, none = split.take(held), np.zeros(len(held), np.int64)
    return monitors.MonitorImages(images[:1], none[:1], images, none, classes=0)
