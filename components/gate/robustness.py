"""Robustness: the exported model's accuracy on corrupted test images, which the verdict compares with its floors.

The model is asked through its signature `evaluate`, as TFMA asks it, so what is measured is what is pushed.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import path_utils

from components.data import dataset, features
from components.data.rows import read_columns
from components.gate import corruptions

REPORT_FILE = "robustness.json"
SIGNATURE = "evaluate"
CLEAN = "clean"
CURRENT_MODEL_PROPERTY = "current_model"
CURRENT_MODEL_ID_PROPERTY = "current_model_id"
_BATCH = 256

Classifier = Callable[[np.ndarray], np.ndarray]


@component
def Robustness(  # noqa: N802 - the name is the component's
    model: InputArtifact[standard_artifacts.Model],
    examples: InputArtifact[standard_artifacts.Examples],
    evaluation: OutputArtifact[standard_artifacts.ModelEvaluation],
    images: Parameter[int],
    severity: Parameter[int],
    data_set: Parameter[str] = "",
    source_digest: Parameter[str] = "",
) -> None:
    """Measures accuracy on corrupted images of the test split.

    Args:
        model: the exported model, in Format-Serving.
        examples: with the test split.
        evaluation: gets `robustness.json` (accuracy, right answers and images, clean and of each corruption) and the
            properties `current_model` and `current_model_id`, which say which model it is about.
        images: how many test images, those with the lowest content hashes: a sample that is the same in every run.
        severity: of the corruptions, 1 to 5.
        data_set: of the examples, as `DataSet.to_json` writes it.
        source_digest: of this component's source files: part of the cache key, and nothing else.

    Raises:
        ValueError: fewer test images than asked for.
    """
    del source_digest
    folder = artifact_utils.get_split_uri([examples], features.TEST_SPLIT)
    pixels, labels = sample(*read_images(folder, dataset.from_json(data_set).shape), images)
    saved_model = tf.saved_model.load(path_utils.serving_model_path(model.uri))
    report = measure(served_classifier(saved_model), pixels, labels, severity)
    out = pathlib.Path(evaluation.uri)
    out.mkdir(parents=True, exist_ok=True)
    (out / REPORT_FILE).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    evaluation.set_string_custom_property(CURRENT_MODEL_PROPERTY, model.uri)
    evaluation.set_int_custom_property(CURRENT_MODEL_ID_PROPERTY, int(model.id))
    logging.info("Accuracy on corrupted images: %s", report["accuracy"])


def measure(classify: Classifier, pixels: np.ndarray, labels: np.ndarray, severity: int) -> dict[str, Any]:
    """Accuracy on the images as they are and under each corruption.

    Args:
        classify: `[batch, 32, 32, 3]` uint8 -> `[batch]` predicted labels.
        pixels: `[n, 32, 32, 3]` uint8.
        labels: `[n]` integers.
        severity: 1 to 5.

    Returns:
        `accuracy` and `right` by name, `clean` among them; `images`, `severity`.
    """
    right = {CLEAN: int((classify(pixels) == labels).sum())}
    for name in corruptions.CORRUPTIONS:
        corrupted = corruptions.corrupt(name, pixels, severity)
        right[name] = int((classify(corrupted) == labels).sum())
    return {
        "accuracy": {name: count / len(labels) for name, count in right.items()},
        "right": right,
        "images": len(labels),
        "severity": severity,
    }


def served_classifier(saved_model: Any) -> Classifier:
    """The predicted labels of a SavedModel's signature `evaluate`; a NaN counts as no class."""
    evaluate = saved_model.signatures[SIGNATURE]

    def classify(pixels: np.ndarray) -> np.ndarray:
        predicted = []
        for start in range(0, len(pixels), _BATCH):
            rows = [_example(image) for image in pixels[start : start + _BATCH]]
            probabilities = evaluate(examples=tf.constant(rows))["probabilities"].numpy()
            finite = np.isfinite(probabilities).all(axis=1)
            predicted.append(np.where(finite, probabilities.argmax(axis=1), -1))
        return np.concatenate(predicted)

    return classify


def read_images(
    folder: str, shape: tuple[int, int, int] = features.IMAGE_SHAPE
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads a split's TFRecords.

    Returns:
        pixels `[n, *shape]` uint8, labels `[n]` int64, content hashes `[n]` of 32 bytes.

    Raises:
        ValueError: there is no row.
    """
    spec = {
        features.IMAGE: tf.io.FixedLenFeature([], tf.string),
        features.LABEL: tf.io.FixedLenFeature([], tf.int64),
        features.CONTENT_HASH: tf.io.FixedLenFeature([], tf.string),
    }
    rows = read_columns(folder, spec)
    pixels = np.frombuffer(b"".join(rows[features.IMAGE]), np.uint8).reshape(-1, *shape)
    return pixels, rows[features.LABEL], rows[features.CONTENT_HASH].astype("S32")


def sample(
    pixels: np.ndarray, labels: np.ndarray, hashes: np.ndarray, images: int
) -> tuple[np.ndarray, np.ndarray]:
    """The `images` rows with the lowest content hashes.

    Raises:
        ValueError: there are fewer.
    """
    if not 1 <= images <= len(labels):
        raise ValueError(
            f"Expected 1 to {len(labels)} images, as the test split has, received {images}. "
            "Lower gate.robustness_images."
        )
    chosen = np.argsort(hashes, kind="stable")[:images]
    return pixels[chosen], labels[chosen]


def _example(image: np.ndarray) -> bytes:
    value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image.tobytes()]))
    return tf.train.Example(features=tf.train.Features(feature={features.IMAGE: value})).SerializeToString()
