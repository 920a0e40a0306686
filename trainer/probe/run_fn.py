"""TFX entry point of the LinearProbe and of its control: an encoder and training Examples in, the SavedModel out."""

import json
import pathlib

import keras
import numpy as np
from tfx import v1 as tfx

from trainer import input_pipeline, networks, representations, settings
from trainer.architecture import EncoderConfig
from trainer.devices import allow_memory_growth, exact_float32
from trainer.probe import serving
from trainer.probe.config import ProbeConfig
from trainer.probe.probe import fit_probe

RESULT_FILE = "probe.json"
REFERENCE_FILE = "serving_reference.npz"
REFERENCE_IMAGES = 64


def run_fn(fn_args: tfx.components.FnArgs) -> None:
    """Probes a frozen encoder on every training image and exports encoder and probe as one SavedModel.

    `fn_args.custom_config` holds `probe` (ProbeConfig as a dict) and `encoder`, the file of the encoder in the base
    model's folder. Without a base model the encoder is the untrained one of `random_encoder` (EncoderConfig as a
    dict) and `seed`: the control that a pretrained encoder has to beat.
    """
    allow_memory_growth()
    exact_float32()
    config = settings.from_dict(ProbeConfig, fn_args.custom_config["probe"], "probe.")
    split = input_pipeline.read_images(fn_args.train_files)
    encoder = _encoder(fn_args, split)
    encoder.trainable = False
    features = representations.embed(encoder, split.images)
    result = fit_probe(features, split.labels, split.holdout, config)
    serving.export(encoder, result.classifier, fn_args.serving_model_dir)
    logs = pathlib.Path(fn_args.model_run_dir)
    logs.mkdir(parents=True, exist_ok=True)
    record = {
        "learning_rate": result.learning_rate,
        "holdout_accuracies": dict(
            zip(map(str, config.learning_rates), result.holdout_accuracies, strict=True)
        ),
        "knn_accuracy": result.knn_accuracy,
        "train_accuracy": result.classifier.accuracy(features, split.labels),
        "images": len(split.images),
        "digest": split.digest,
    }
    (logs / RESULT_FILE).write_text(json.dumps(record, indent=1))
    sample = slice(0, REFERENCE_IMAGES)
    np.savez(
        logs / REFERENCE_FILE,
        pixels=split.images[sample],
        embedding=features[sample],
        probabilities=keras.ops.convert_to_numpy(
            keras.ops.softmax(result.classifier.logits(features[sample]))
        ),
    )


def _encoder(fn_args: tfx.components.FnArgs, split: input_pipeline.LabelledImages) -> keras.Model:
    if fn_args.base_model:
        return keras.models.load_model(
            pathlib.Path(fn_args.base_model) / fn_args.custom_config["encoder"], compile=False
        )
    architecture = settings.from_dict(EncoderConfig, fn_args.custom_config["random_encoder"], "encoder.")
    return networks.build_encoder(
        architecture, split.channel_mean, split.channel_std, fn_args.custom_config["seed"]
    )
