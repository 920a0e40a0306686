"""TFX entry point of the LinearProbe and of its control: an encoder and training Examples in, the SavedModel out."""

import json
import pathlib

import keras
import numpy as np
from tfx import v1 as tfx

from trainer import input_pipeline, networks, representations, settings
from trainer.architecture import EncoderConfig
from trainer.devices import allow_memory_growth, exact_float32
from trainer.probe import crops, serving
from trainer.probe.config import ProbeConfig
from trainer.probe.probe import fit_probe

RESULT_FILE = "probe.json"
REFERENCE_FILE = "serving_reference.npz"
REFERENCE_IMAGES = 64
# Images read at once; a multiple of what the encoder takes.
READ_BATCH = 10_000


def run_fn(fn_args: tfx.components.FnArgs) -> None:
    """Probes a frozen encoder on every training image and exports encoder and probe as one SavedModel.

    `fn_args.custom_config` holds `probe` (ProbeConfig as a dict), `memory_images`, as `input_pipeline.open_split`
    takes it, and `encoder`, the file of the encoder in the base model's folder. Without a base model the encoder is
    the untrained one of `random_encoder` (EncoderConfig as a dict) and `seed`: the control that a pretrained encoder
    has to beat.
    """
    allow_memory_growth()
    exact_float32()
    config = settings.from_dict(ProbeConfig, fn_args.custom_config["probe"], "probe.")
    split = input_pipeline.open_split(fn_args.train_files, fn_args.custom_config["memory_images"])
    rows = split.rows
    encoder = _encoder(fn_args, rows)
    encoder.trainable = False
    features = np.concatenate(
        [representations.embed(encoder, images) for images in split.batches(READ_BATCH)]
    )
    cropped = crops.cropped_features(encoder, lambda: split.batches(READ_BATCH), config)
    result = fit_probe(features, rows.labels, rows.holdout, config, cropped)
    serving.export(encoder, result.classifier, fn_args.serving_model_dir)
    logs = pathlib.Path(fn_args.model_run_dir)
    logs.mkdir(parents=True, exist_ok=True)
    record = {
        "learning_rate": result.learning_rate,
        "weight_decay": result.weight_decay,
        "holdout_accuracies": dict(
            zip(map(_named, config.candidates()), result.holdout_accuracies, strict=True)
        ),
        "knn_accuracy": result.knn_accuracy,
        "train_accuracy": result.classifier.accuracy(features, rows.labels),
        "images": len(rows.labels),
        "digest": rows.digest,
    }
    (logs / RESULT_FILE).write_text(json.dumps(record, indent=1))
    sample = slice(0, REFERENCE_IMAGES)
    np.savez(
        logs / REFERENCE_FILE,
        pixels=split.take(np.arange(len(features))[sample]),
        embedding=features[sample],
        probabilities=keras.ops.convert_to_numpy(
            keras.ops.softmax(result.classifier.logits(features[sample]))
        ),
    )


def _named(candidate: tuple[float, float]) -> str:
    """A pair of rate and decay as the record names it."""
    rate, decay = candidate
    return f"{rate}, weight decay {decay}" if decay else str(rate)


def _encoder(fn_args: tfx.components.FnArgs, rows: input_pipeline.Rows) -> keras.Model:
    if fn_args.base_model:
        return keras.models.load_model(
            pathlib.Path(fn_args.base_model) / fn_args.custom_config["encoder"], compile=False
        )
    architecture = settings.from_dict(EncoderConfig, fn_args.custom_config["random_encoder"], "encoder.")
    return networks.build_encoder(
        architecture, rows.channel_mean, rows.channel_std, fn_args.custom_config["seed"]
    )
