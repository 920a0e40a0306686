"""What the gate makes of ExampleValidator's output, of statistics, and of spans."""

import json

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2
from tfx import types
from tfx.types import artifact_utils, standard_artifacts

from components.data import anomaly_gate, example_gen, features
from components.data.anomaly_gate import DataAnomalyError
from components.data.data_limits import DataLimits
from tests.component import data_plane

_ERROR, _WARNING = anomalies_pb2.AnomalyInfo.ERROR, anomalies_pb2.AnomalyInfo.WARNING


def _artifact(kind, folder):
    artifact = kind()
    artifact.uri = str(folder)
    artifact.split_names = artifact_utils.encode_split_names(["train", "test"])
    return artifact


def _write(folder, split, name, content):
    (folder / f"Split-{split}").mkdir(parents=True, exist_ok=True)
    (folder / f"Split-{split}" / name).write_bytes(content)


def _write_rows(folder, split, images, labels):
    path = folder / f"Split-{split}" / "data_tfrecord-00000-of-00001"
    path.parent.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in example_gen.serialized_examples(images, labels):
            writer.write(row)


@pytest.fixture
def inputs(tmp_path):
    """The gate's inputs for 60 training and 20 test images without a fault, in span 5."""
    examples = _artifact(standard_artifacts.Examples, tmp_path / "examples")
    examples.set_int_custom_property("span", 5)
    statistics = _artifact(standard_artifacts.ExampleStatistics, tmp_path / "statistics")
    anomalies = _artifact(standard_artifacts.ExampleAnomalies, tmp_path / "anomalies")
    for split, (images, labels) in zip(("train", "test"), data_plane.demo_images(8, 60, 20), strict=True):
        _write_rows(tmp_path / "examples", split, images, labels)
        described = statistics_pb2.DatasetFeatureStatisticsList()
        described.datasets.add(num_examples=len(labels))
        _write(tmp_path / "statistics", split, "FeatureStats.pb", described.SerializeToString())
        _write(tmp_path / "anomalies", split, "SchemaDiff.pb", b"")
    return {"examples": [examples], "statistics": [statistics], "anomalies": [anomalies]}


def _run(inputs, tmp_path, allow="", **limits):
    report = standard_artifacts.ExampleAnomalies()
    report.uri = str(tmp_path / "report")
    properties = {"allow_anomalies": allow, **vars(DataLimits()), **limits}
    anomaly_gate.Executor().Do(inputs, {"report": [report]}, properties)
    return report, json.loads((tmp_path / "report" / "findings.json").read_text())


def _plant(tmp_path, feature, severity):
    found = anomalies_pb2.Anomalies()
    found.anomaly_info[feature].severity = severity
    found.anomaly_info[feature].short_description = "Out-of-range values"
    found.anomaly_info[feature].description = "Unexpectedly high value: 1.5."
    _write(tmp_path / "anomalies", "test", "SchemaDiff.pb", found.SerializeToString())


def test_good_rows_pass(inputs, tmp_path):
    report, written = _run(inputs, tmp_path)
    seen = written.pop("can_see")
    assert written == {"allow_anomalies": "", "span": 5, "findings": []}
    assert seen["test"] == {"missing_class_from": 228.0}
    assert report.get_int_custom_property("errors") == 0
    assert report.span == 5


def test_an_error_of_the_validator_stops_with_feature_split_span_and_reason(inputs, tmp_path):
    _plant(tmp_path, features.BRIGHTNESS, _ERROR)
    with pytest.raises(DataAnomalyError) as caught:
        _run(inputs, tmp_path)
    assert (
        "error: span 5, split test, feature brightness: Out-of-range values: Unexpectedly high value: 1.5."
        in str(caught.value)
    )
    assert "allow_anomalies=schema," in str(caught.value)


def test_an_allowed_error_is_recorded(inputs, tmp_path):
    _plant(tmp_path, features.BRIGHTNESS, _ERROR)
    report, written = _run(inputs, tmp_path, allow="all")
    assert report.get_int_custom_property("allow_anomalies") == 1
    assert report.get_int_custom_property("errors") == 1
    assert written["findings"][0]["feature"] == features.BRIGHTNESS


def test_a_warning_is_reported_only(inputs, tmp_path):
    _plant(tmp_path, features.BRIGHTNESS, _WARNING)
    report, written = _run(inputs, tmp_path)
    assert report.get_int_custom_property("warnings") == 1
    assert written["findings"][0]["severity"] == "warning"


def test_an_anomaly_of_the_whole_data_set_counts(inputs, tmp_path):
    found = anomalies_pb2.Anomalies()
    found.dataset_anomaly_info.severity = _ERROR
    found.dataset_anomaly_info.short_description = "Low num examples in dataset."
    _write(tmp_path / "anomalies", "train", "SchemaDiff.pb", found.SerializeToString())
    with pytest.raises(DataAnomalyError, match="split train, feature all: Low num examples"):
        _run(inputs, tmp_path)


def test_statistics_of_other_rows_are_refused(inputs, tmp_path):
    described = statistics_pb2.DatasetFeatureStatisticsList()
    described.datasets.add(num_examples=59)
    _write(tmp_path / "statistics", "train", "FeatureStats.pb", described.SerializeToString())
    with pytest.raises(DataAnomalyError, match="split train, feature all: statistics describe 59 rows of 60"):
        _run(inputs, tmp_path)
    inputs["statistics"][0].split_names = artifact_utils.encode_split_names(["train"])
    with pytest.raises(DataAnomalyError, match="split test, feature all: statistics describe 0 rows of 20"):
        _run(inputs, tmp_path)


def test_limits_are_parameters(inputs, tmp_path):
    earlier = {"earlier_examples": [_of_span(4, tmp_path / "darker")]}
    for split, (images, labels) in zip(("train", "test"), data_plane.demo_images(9, 60, 20), strict=True):
        _write_rows(tmp_path / "darker", split, (images * 0.5).astype("uint8"), labels)
    _run({**inputs, **earlier}, tmp_path, drift=1.0, class_drift=99.0)
    with pytest.raises(DataAnomalyError, match=r"split train, feature brightness: .* with 60 and 60 images"):
        _run({**inputs, **earlier}, tmp_path)


def test_a_kind_that_is_let_through_lets_no_other_through(inputs, tmp_path):
    _plant(tmp_path, features.BRIGHTNESS, _ERROR)
    with pytest.raises(DataAnomalyError, match="allow_anomalies=schema,"):
        _run(inputs, tmp_path, allow="class_balance,leak")
    report, written = _run(inputs, tmp_path, allow="schema")
    assert report.get_int_custom_property("allow_anomalies") == 1
    assert (written["allow_anomalies"], written["findings"][0]["kind"]) == ("schema", "schema")


def _of_span(span, uri=""):
    artifact = _artifact(standard_artifacts.Examples, uri)
    artifact.set_int_custom_property("span", span)
    return artifact


def test_the_spans_before_this_one_come_latest_first_and_each_once():
    artifacts = [_of_span(span) for span in (1, 3, 3, 5, 7)]
    for number, artifact in enumerate(artifacts):
        artifact.id = 10 - number
    assert anomaly_gate.newest_before(5, artifacts) == [artifacts[1], artifacts[0]]
    assert anomaly_gate.newest_before(1, artifacts) == []


def test_every_span_before_is_looked_through_for_repeats(inputs, tmp_path):
    # The same rows under earlier numbers: the images repeat, which is reported, and nothing drifts.
    uri = inputs["examples"][0].uri
    earlier = [*inputs["examples"], _of_span(2, uri), _of_span(4, uri)]
    _, written = _run({**inputs, "earlier_examples": earlier}, tmp_path)
    assert [finding["reason"] for finding in written["findings"]] == [
        "60 images were in span 4 already",
        "60 images were in span 2 already",
    ]


def test_a_test_image_of_any_earlier_span_in_training_stops_the_run(inputs, tmp_path):
    (train, test) = data_plane.demo_images(8, 60, 20)
    swapped = tmp_path / "swapped"
    for split, (images, labels) in (("test", (train[0][:5], train[1][:5])), ("train", test)):
        _write_rows(swapped, split, images, labels)
    other = tmp_path / "other"
    for split, (images, labels) in zip(("train", "test"), data_plane.demo_images(9, 60, 20), strict=True):
        _write_rows(other, split, images, labels)
    limits = {"drift": 1.0, "class_drift": 9.0, "class_share_change": 1.0}
    earlier = [_of_span(1, swapped), _of_span(4, other)]
    with pytest.raises(DataAnomalyError, match="5 images are in the test split of span 1"):
        _run({**inputs, "earlier_examples": earlier}, tmp_path, **limits)


def test_rows_are_read_as_they_were_written(inputs):
    (images, labels), _ = data_plane.demo_images(8, 60, 20)
    rows = anomaly_gate.read_splits(inputs["examples"][0])["train"]
    assert rows.hashes.tolist() == features.content_hashes(images)
    np.testing.assert_array_equal(rows.labels, labels)
    contrast = features.image_figures(images)[features.CONTRAST]
    np.testing.assert_array_equal(rows.figures[features.CONTRAST], contrast)


def test_no_row_at_all_is_named(tmp_path):
    (tmp_path / "data_tfrecord-00000-of-00001").write_bytes(b"")
    with pytest.raises(DataAnomalyError, match="No rows in"):
        anomaly_gate.read_rows(str(tmp_path))


def test_the_permission_is_part_of_the_component_and_so_of_the_cache_key():
    gate = anomaly_gate.AnomalyGate(
        examples=types.Channel(type=standard_artifacts.Examples),
        statistics=types.Channel(type=standard_artifacts.ExampleStatistics),
        anomalies=types.Channel(type=standard_artifacts.ExampleAnomalies),
        allow_anomalies=True,
        limits=DataLimits(drift=0.2),
    )
    assert gate.exec_properties["allow_anomalies"] == "all"
    assert gate.exec_properties["drift"] == 0.2


def test_training_on_images_of_the_fixed_test_set_stops(inputs, tmp_path):
    images, labels = data_plane.demo_images(8, 60, 20)[0]
    fixed = _artifact(standard_artifacts.Examples, tmp_path / "fixed")
    fixed.split_names = artifact_utils.encode_split_names(["test"])
    _write_rows(tmp_path / "fixed", "test", images[:3], labels[:3])
    with pytest.raises(
        DataAnomalyError, match=r"split train, .* 3 images are in the fixed test set; expected none"
    ):
        _run({**inputs, "fixed_test": [fixed]}, tmp_path)


def test_another_fixed_test_set_passes(inputs, tmp_path):
    images, labels = data_plane.demo_images(9, 10, 20)[1]
    fixed = _artifact(standard_artifacts.Examples, tmp_path / "fixed")
    fixed.split_names = artifact_utils.encode_split_names(["test"])
    _write_rows(tmp_path / "fixed", "test", images, labels)
    assert _run({**inputs, "fixed_test": [fixed]}, tmp_path)[1]["findings"] == []
