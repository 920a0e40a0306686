"""LabelCheck: a span whose labels the served model does not recognise stops before it is trained on.

Permuted labels change neither the labels' distribution nor the pictures', so the AnomalyGate sees them only where
classes differ in brightness, contrast or colour. A model that is served knows the classes by what they show.
"""

import json
import pathlib
from typing import Any

import tensorflow as tf
from absl import logging
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import path_utils

from components.data import data_checks, data_limits, dataset, features
from components.data.anomaly_gate import DataAnomalyError, span_of
from components.data.dataset import CIFAR10, DataSet
from components.gate import gate_statistics
from components.gate.robustness import SIGNATURE, read_images, sample, served_classifier

REPORT_FILE = "agreement.json"
IMAGES = 2000  # of the training split; at 10% agreement the 95% interval is 1.3 points either way


@component
def LabelCheck(  # noqa: N802, PLR0913, PLR0917 - the name is the component's, and so are its inputs
    examples: InputArtifact[standard_artifacts.Examples],
    report: OutputArtifact[standard_artifacts.ExampleAnomalies],
    minimum_agreement: Parameter[float],
    allow_anomalies: Parameter[str],
    false_alarms: Parameter[float],
    model: InputArtifact[standard_artifacts.Model] = None,  # type: ignore[assignment]
    data_set: Parameter[str] = "",
    source_digest: Parameter[str] = "",
) -> None:
    """Compares the labels of a span with what the served model says of its training images.

    Args:
        examples: this run's Examples.
        report: gets `agreement.json` (share, 95% interval, images) and the float property `agreement`; without a model
            the file says so.
        minimum_agreement: share of the labels with which the model must agree, 0 to 1.
        allow_anomalies: with "labels" or "all" in it the run goes on; recorded in the output.
        false_alarms: of all checks on a span's data together; this one has its part of them.
        model: the served one; nothing is compared before the first push.
        data_set: of the examples, as `DataSet.to_json` writes it.
        source_digest: of this component's source files: part of the cache key, and nothing else.

    Raises:
        DataAnomalyError: the model agrees with less, beyond doubt.
    """
    del source_digest
    report.span = span_of(examples)
    report.split_names = artifact_utils.encode_split_names([features.TRAIN_SPLIT])
    folder = pathlib.Path(report.uri)
    folder.mkdir(parents=True, exist_ok=True)
    if model is None:
        (folder / REPORT_FILE).write_text(json.dumps({"model": None}) + "\n", encoding="utf-8")
        return
    train = artifact_utils.get_split_uri([examples], features.TRAIN_SPLIT)
    found = agreement(train, model.uri, dataset.from_json(data_set))
    if not found["images"]:
        (folder / REPORT_FILE).write_text(json.dumps({"model": model.uri} | found) + "\n", encoding="utf-8")
        return
    found |= {"model": model.uri, "minimum": minimum_agreement, "allow_anomalies": allow_anomalies}
    found["limit"] = data_checks.lowest_agreement(found["images"], minimum_agreement, false_alarms)
    (folder / REPORT_FILE).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    report.set_float_custom_property("agreement", found["agreement"])
    logging.info("The served model agrees with %.1f%% of the labels.", 100 * found["agreement"])
    allowed = data_limits.LABELS in data_limits.allowed_kinds(allow_anomalies)
    if found["agreement"] < found["limit"] and not allowed:
        raise DataAnomalyError(_message(span_of(examples), found, minimum_agreement))


def agreement(folder: str, model_uri: str, data_set: DataSet = CIFAR10) -> dict:
    """With which share of the labels of a split's labelled rows a model agrees.

    Args:
        folder: of the split's TFRecords.
        model_uri: a Model artifact with a SavedModel in Format-Serving.
        data_set: of the split.

    Returns:
        `agreement`, its 95% `interval`, and `images`: at most 2,000, those of the lowest content hashes. With no
        labelled row `agreement` is None and `images` 0.

    Raises:
        ValueError: the model is of other classes.
    """
    pixels, labels, hashes = read_images(folder, data_set.shape)
    labelled = labels != dataset.UNLABELLED
    if not labelled.any():
        return {"agreement": None, "images": 0}
    if not labelled.all():
        pixels, labels, hashes = pixels[labelled], labels[labelled], hashes[labelled]
    pixels, labels = sample(pixels, labels, hashes, min(IMAGES, len(labels)))
    saved_model = tf.saved_model.load(path_utils.serving_model_path(model_uri))
    _check_same_classes(saved_model, data_set)
    classify = served_classifier(saved_model)
    right = int((classify(pixels) == labels).sum())
    return {
        "agreement": right / len(labels),
        "interval": list(gate_statistics.accuracy_interval(right, len(labels))),
        "images": len(labels),
    }


def _check_same_classes(saved_model: Any, data_set: DataSet) -> None:
    """What is served answers with as many classes, or cannot be compared with anything that is trained here."""
    served = saved_model.signatures[SIGNATURE].structured_outputs["probabilities"].shape[-1]
    if served is not None and served != data_set.classes:
        raise ValueError(
            f"The served model knows {served} classes, {data_set.name} has {data_set.classes}: no baseline for it. "
            "Take a new --root for another data set."
        )


def _message(span: int, found: dict, minimum: float) -> str:
    return (
        f"span {span}, split train: the served model agrees with {found['agreement']:.1%} of the labels of "
        f"{found['images']} images, expected at least {minimum:.1%} (gate.minimum_label_agreement), which by chance "
        f"may be {found['limit']:.1%} here. Are the labels right? Repair the span, or let it through with "
        "allow_anomalies=labels, which is recorded."
    )
