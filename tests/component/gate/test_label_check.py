"""A span whose labels the served model does not recognise stops; noise and a missing model do not."""

import json

import numpy as np
import pytest
import tensorflow as tf
from tfx.types import artifact_utils, standard_artifacts

from components.data import example_gen
from components.data.anomaly_gate import DataAnomalyError
from components.gate import gate_statistics, label_check
from tests.component import gate_models

IMAGES = 200


@pytest.fixture(scope="module")
def images():
    """200 noisy images of which model 0 is sure."""
    made = np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    made.reshape(IMAGES, -1)[:, 10] = 255
    return made


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return gate_models.export(tmp_path_factory.mktemp("model"), 0, 7)


def _check(folder, images, labels, model, allow=""):
    """Runs the component on a span 5 with these training rows; returns its report's folder and artifact."""
    path = folder / "examples" / "Split-train" / "data_tfrecord-00000-of-00001"
    path.parent.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in example_gen.serialized_examples(images, labels):
            writer.write(row)
    examples = gate_models.artifact(standard_artifacts.Examples, folder / "examples", 3, span=5)
    examples.split_names = artifact_utils.encode_split_names(["train"])
    report = gate_models.artifact(standard_artifacts.ExampleAnomalies, folder / "report", 4)
    inputs = {} if model is None else {"model": model}
    label_check.LabelCheck.test_call(
        examples=examples,
        report=report,
        minimum_agreement=0.5,
        allow_anomalies=allow,
        false_alarms=0.001,
        **inputs,
    )
    return json.loads((folder / "report" / label_check.REPORT_FILE).read_text()), report


def _labels(images, wrong):
    """What model 0 says, but for the first `wrong`."""
    labels = (images.reshape(IMAGES, -1)[:, 0] % 10).astype(np.int64)
    return np.where(np.arange(IMAGES) < wrong, (labels + 1) % 10, labels)


def test_the_share_of_agreement_is_counted_with_its_interval(images, model, tmp_path):
    written, report = _check(tmp_path, images, _labels(images, wrong=40), model)
    assert (written["agreement"], written["images"]) == (0.8, IMAGES)
    assert written["interval"] == pytest.approx(gate_statistics.accuracy_interval(160, 200))
    assert report.get_float_custom_property("agreement") == 0.8
    assert report.span == 5


def test_permuted_labels_stop_the_run_with_span_share_and_floor(images, model, tmp_path):
    with pytest.raises(
        DataAnomalyError, match=r"span 5, split train: .* 0\.0% of the labels of 200 images.* 50\.0%"
    ):
        _check(tmp_path, images, _labels(images, wrong=IMAGES), model)


def test_a_miss_within_noise_does_not_stop_it(images, model, tmp_path):
    """Of 200 images 74 are what an agreement of 50% gives by chance, but for 1 time in 11,000."""
    written, _ = _check(tmp_path, images, _labels(images, wrong=126), model)
    assert (written["agreement"], written["limit"]) == (0.37, 0.37)


def test_a_miss_beyond_noise_stops_it_unless_labels_are_let_through(images, model, tmp_path):
    with pytest.raises(DataAnomalyError, match=r"agrees with 36\.5% .* by chance may be 37\.0% here"):
        _check(tmp_path, images, _labels(images, wrong=127), model, allow="leak,class_balance")


def test_permuted_labels_that_are_allowed_are_recorded(images, model, tmp_path):
    written, _ = _check(tmp_path, images, _labels(images, wrong=IMAGES), model, allow="labels")
    assert (written["agreement"], written["allow_anomalies"]) == (0.0, "labels")


def test_before_the_first_push_nothing_is_compared(images, tmp_path):
    assert _check(tmp_path, images, _labels(images, wrong=IMAGES), None)[0] == {"model": None}
