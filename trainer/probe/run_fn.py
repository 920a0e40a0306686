"""TFX entry point of the LinearProbe and of its control: an encoder and training Examples in, the SavedModel out."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from tfx.components.trainer.fn_args_utils import FnArgs

from components.data import dataset
from components.data.features import HOLDOUT_DENOMINATOR
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


def run_fn(fn_args: FnArgs) -> None:
    """Probes a frozen encoder on every labelled training image and exports encoder and probe as one SavedModel.

    Of a data set without classes nothing can be probed: the encoder is exported by itself.

    `fn_args.custom_config` holds `probe` (ProbeConfig as a dict), `memory_bytes`, as `input_pipeline.open_split`
    takes it, and `encoder`, the file of the encoder in the base model's folder. Without a base model the encoder is
    the untrained one of `random_encoder` (EncoderConfig as a dict) and `seed`: the control that a pretrained encoder
    has to beat. `data_set` is a DataSet as JSON, CIFAR-10 when absent.
    """
    allow_memory_growth()
    exact_float32()
    config = settings.from_dict(ProbeConfig, fn_args.custom_config["probe"], "probe.")
    described = dataset.from_json(fn_args.custom_config.get("data_set", ""))
    split = input_pipeline.open_split(
        fn_args.train_files, fn_args.custom_config["memory_bytes"], described.shape
    )
    rows = split.rows
    if not described.classes:
        _export_alone(fn_args, split, described)
        return
    labelled = rows.labels != dataset.UNLABELLED
    labels, holdout = rows.labels[labelled], _both_sides(rows.holdout[labelled])
    _check_labelled(labels, described)
    encoder = _encoder(fn_args, rows)
    encoder.trainable = False
    features = np.concatenate(
        [representations.embed(encoder, images) for images in labelled_batches(split, described)]
    )
    cropped = crops.cropped_features(encoder, lambda: labelled_batches(split, described), config)
    result = fit_probe(features, labels, holdout, config, cropped, described.classes)
    serving.export(encoder, result.classifier, fn_args.serving_model_dir, described)
    record = {
        "learning_rate": result.learning_rate,
        "weight_decay": result.weight_decay,
        "holdout_accuracies": dict(
            zip(map(_named, config.candidates()), result.holdout_accuracies, strict=True)
        ),
        "knn_accuracy": result.knn_accuracy,
        "train_accuracy": result.classifier.accuracy(features, labels),
        "images": len(labels),
        "unlabelled": int(len(rows.labels) - len(labels)),
        "digest": rows.digest,
    }
    sample = slice(0, REFERENCE_IMAGES)
    probabilities = keras.ops.softmax(result.classifier.logits(features[sample]))
    reference = {
        "pixels": split.take(np.flatnonzero(labelled)[sample]),
        "embedding": features[sample],
        "probabilities": keras.ops.convert_to_numpy(probabilities),
    }
    _write_logs(fn_args, record, reference)


def _export_alone(fn_args: FnArgs, split: input_pipeline.Split, described: dataset.DataSet) -> None:
    """Exports the encoder without a classifier, and notes that nothing was probed."""
    encoder = _encoder(fn_args, split.rows)
    encoder.trainable = False
    serving.export(encoder, None, fn_args.serving_model_dir, described)
    pixels = split.take(np.arange(min(REFERENCE_IMAGES, len(split.rows.labels))))
    record = {
        "knn_accuracy": None,
        "images": 0,
        "unlabelled": len(split.rows.labels),
        "digest": split.rows.digest,
    }
    _write_logs(fn_args, record, {"pixels": pixels, "embedding": representations.embed(encoder, pixels)})


def _write_logs(fn_args: FnArgs, record: dict[str, Any], reference: dict[str, np.ndarray]) -> None:
    """Writes what was found, and what the exported model has to answer."""
    logs = pathlib.Path(fn_args.model_run_dir)
    logs.mkdir(parents=True, exist_ok=True)
    (logs / RESULT_FILE).write_text(json.dumps(record, indent=1))
    np.savez(logs / REFERENCE_FILE, **reference)


def labelled_batches(split: input_pipeline.Split, data_set: dataset.DataSet) -> Iterator[np.ndarray]:
    """Yields the images that have a label, in order: uint8 [size or less, height, width, 3] each, none of them empty.

    At most as many bytes are read at once as READ_BATCH images of CIFAR-10 have.
    """
    size = max(1, READ_BATCH * dataset.CIFAR10.image_bytes // data_set.image_bytes)
    labelled, first = split.rows.labels != dataset.UNLABELLED, 0
    for images in split.batches(size):
        kept = labelled[first : first + len(images)]
        first += len(images)
        if kept.all():
            yield images
        elif kept.any():
            yield images[kept]


def _both_sides(holdout: np.ndarray) -> np.ndarray:
    """The hold-out [n] bool, or every tenth row where of few labelled ones the fixed tenth has none, or all."""
    if holdout.any() and not holdout.all():
        return holdout
    return np.arange(len(holdout)) % HOLDOUT_DENOMINATOR == 0


def _check_labelled(labels: np.ndarray, data_set: dataset.DataSet) -> None:
    """The exported classifier answers with one of the data set's classes, so it has to have seen each."""
    counts = np.bincount(labels, minlength=data_set.classes)
    missing = [data_set.label_names[label] for label in np.flatnonzero(counts == 0)]
    if missing:
        raise ValueError(
            f"The probe needs a labelled training image of each of {data_set.classes} classes; there is none of "
            f"{', '.join(missing[:10])}. Label some, or leave the class out of the data set."
        )


def _named(candidate: tuple[float, float]) -> str:
    """A pair of rate and decay as the record names it."""
    rate, decay = candidate
    return f"{rate}, weight decay {decay}" if decay else str(rate)


def _encoder(fn_args: FnArgs, rows: input_pipeline.Rows) -> keras.Model:
    if fn_args.base_model:
        return keras.models.load_model(
            pathlib.Path(fn_args.base_model) / fn_args.custom_config["encoder"], compile=False
        )
    architecture = settings.from_dict(EncoderConfig, fn_args.custom_config["random_encoder"], "encoder.")
    return networks.build_encoder(
        architecture, rows.channel_mean, rows.channel_std, fn_args.custom_config["seed"]
    )
