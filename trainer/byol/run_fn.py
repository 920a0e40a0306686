"""TFX entry point of the Pretrainer: transformed training Examples in, `encoder.keras` out."""

import json
import pathlib

import keras
import numpy as np
from tfx import v1 as tfx

from trainer import input_pipeline, settings
from trainer.architecture import EncoderConfig
from trainer.byol import monitors
from trainer.byol.config import PretrainingConfig
from trainer.byol.pretraining import PretrainingImages, pretrain, write_history
from trainer.devices import allow_memory_growth

ENCODER_FILE = "encoder.keras"
HISTORY_FILE = "history.csv"
# The bank of the kNN monitor, in multiples of its queries.
BANK_PER_QUERY = 5


def run_fn(fn_args: tfx.components.FnArgs) -> None:
    """Pretrains on the training split and saves the online encoder with its own batch-norm moments.

    `fn_args.custom_config` holds `pretraining` and `encoder` (their dataclasses as dicts) and `checkpoints`, a folder
    that outlives a killed run.
    """
    allow_memory_growth()
    config = settings.from_dict(PretrainingConfig, fn_args.custom_config["pretraining"], "pretraining.")
    encoder = settings.from_dict(EncoderConfig, fn_args.custom_config["encoder"], "encoder.")
    split = input_pipeline.read_images(fn_args.train_files)
    data = PretrainingImages(split.images, split.channel_mean, split.channel_std)
    logs = pathlib.Path(fn_args.model_run_dir)
    logs.mkdir(parents=True, exist_ok=True)
    result = pretrain(
        config,
        encoder,
        data,
        monitor_images(split, config.monitor_images),
        pathlib.Path(fn_args.custom_config["checkpoints"]),
    )
    write_history(result.history, logs / HISTORY_FILE)
    serving = pathlib.Path(fn_args.serving_model_dir)
    serving.mkdir(parents=True, exist_ok=True)
    result.encoder().save(serving / ENCODER_FILE)
    record = {
        "epochs": result.history,
        "backend": keras.backend.backend(),
        "images": len(split.images),
        "digest": split.digest,
    }
    (serving / "pretraining.json").write_text(json.dumps(record, indent=1))
    result.checkpoints.remove()


def monitor_images(split: input_pipeline.LabelledImages, queries: int) -> monitors.MonitorImages | None:
    """The first held-out images as queries and five times as many others as their bank; None for `queries` 0."""
    held = np.flatnonzero(split.holdout)[:queries]
    bank = np.flatnonzero(~split.holdout)[: BANK_PER_QUERY * queries]
    if len(held) == 0 or len(bank) == 0:
        return None
    return monitors.MonitorImages(
        bank=split.images[bank],
        bank_labels=split.labels[bank],
        queries=split.images[held],
        query_labels=split.labels[held],
    )
