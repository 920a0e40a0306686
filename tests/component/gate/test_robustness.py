"""Robustness asks the exported model about corrupted images and counts every one."""

import json

import numpy as np
import pytest
import tensorflow as tf
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components.data import features
from components.gate import corruptions, robustness
from tests.component import gate_models


@pytest.fixture(scope="module")
def data():
    """60 noisy images with the labels that model 0 gives them, 12 of them wrong."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    images.reshape(60, -1)[:, 10] = 128  # how sure the model is
    labels = images.reshape(60, -1)[:, 0] % 10
    return images, np.where(np.arange(60) < 12, (labels + 1) % 10, labels).astype(np.int64)


def test_the_component_reports_the_accuracy_under_each_corruption(data, tmp_path):
    images, labels = data
    model = gate_models.export(tmp_path / "model", 0, 7)
    examples = gate_models.write_examples(tmp_path / "examples", images, labels)
    out = gate_models.artifact(standard_artifacts.ModelEvaluation, tmp_path / "out", 9)
    robustness.Robustness.test_call(model=model, examples=examples, evaluation=out, images=60, severity=3)
    report = json.loads((tmp_path / "out" / robustness.REPORT_FILE).read_text())
    assert report["right"]["clean"] == 48
    assert report["accuracy"]["clean"] == 0.8
    assert report["accuracy"].keys() == {"clean", *corruptions.CORRUPTIONS}
    for name in corruptions.CORRUPTIONS:
        corrupted = corruptions.corrupt(name, images, 3).reshape(60, -1)
        assert report["right"][name] == (corrupted[:, 0] % 10 == labels).sum()
    assert (report["images"], report["severity"]) == (60, 3)
    assert out.get_string_custom_property("current_model") == model.uri
    assert out.get_int_custom_property("current_model_id") == 7


def test_a_sample_is_the_same_in_any_order(data):
    images, labels = data
    hashes = np.array(features.content_hashes(images), dtype="S32")
    order = np.random.default_rng(1).permutation(60)
    first = robustness.sample(images, labels, hashes, 20)
    second = robustness.sample(images[order], labels[order], hashes[order], 20)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    with pytest.raises(ValueError, match="Expected 1 to 60 images, as the test split has, received 61"):
        robustness.sample(images, labels, hashes, 61)


def test_a_model_that_answers_nan_is_right_about_nothing(data, tmp_path):
    images, _ = data
    model = gate_models.export(tmp_path / "model", 0, 7, scale=float("nan"))
    classify = robustness.served_classifier(tf.saved_model.load(path_utils.serving_model_path(model.uri)))
    np.testing.assert_array_equal(classify(images), np.full(60, -1))
