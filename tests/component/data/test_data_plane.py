"""ExampleGen, StatisticsGen, ExampleValidator, AnomalyGate and Transform, wired as in the pipeline."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
import tensorflow_transform as tft
from tfx.orchestration import metadata

from components.data import features
from components.data.anomaly_gate import DataAnomalyError
from components.data.preprocessing import decode_pixels
from tests.component import data_plane


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(root, train, test) after two runs: the images are those of span 2, and span 1 was like it."""
    base = tmp_path_factory.mktemp("data_plane")
    data_plane.write_folder(base / "data/span-1", *data_plane.demo_images(1))
    data_plane.run(base / "root", data_plane.data_nodes(base / "data", data_plane.SPANS, transform=False))
    train, test = data_plane.demo_images(2)
    data_plane.write_folder(base / "data/span-2", train, test)
    data_plane.run(base / "root", data_plane.data_nodes(base / "data", data_plane.SPANS))
    return base / "root", train, test


def _by_hash(rows):
    return {row[features.CONTENT_HASH]: row for row in rows}


def test_examples_hold_every_record_of_the_latest_span(finished):
    root, *splits = finished
    examples = data_plane.artifact(root, "Cifar10ExampleGen", "examples")
    for name, (images, labels) in zip(("train", "test"), splits, strict=True):
        rows = _by_hash(data_plane.read_examples(examples / f"Split-{name}"))
        assert len(rows) == len(images)
        figures = features.image_figures(images)
        for i, content_hash in enumerate(features.content_hashes(images)):
            row = rows[content_hash]
            assert row[features.IMAGE] == images[i].tobytes()
            assert row[features.LABEL] == labels[i]
            for key in features.IMAGE_FIGURES:
                assert row[key] == figures[key][i]
        assert set(row) == {features.IMAGE, features.LABEL, features.CONTENT_HASH, *features.IMAGE_FIGURES}


def test_statistics_see_pictures_and_count_no_bytes(finished):
    root, train, _ = finished
    folder = data_plane.artifact(root, "StatisticsGen", "statistics")
    statistics = tfdv.load_stats_binary(str(folder / "Split-train/FeatureStats.pb")).datasets[0]
    by_name = {feature.path.step[0]: feature for feature in statistics.features}
    assert statistics.num_examples == len(train[0])
    figures = features.image_figures(train[0])
    for key in features.IMAGE_FIGURES:
        assert by_name[key].num_stats.mean == pytest.approx(figures[key].mean(), rel=1e-4)
    counts = {
        bucket.label: bucket.sample_count for bucket in by_name["label"].string_stats.rank_histogram.buckets
    }
    assert counts == {str(label): 60 for label in range(10)}
    for key in (features.IMAGE, features.CONTENT_HASH):
        assert by_name[key].WhichOneof("stats") == "bytes_stats"
    assert by_name[features.IMAGE].bytes_stats.min_num_bytes == features.IMAGE_BYTES


def test_transform_keeps_rows_and_adds_the_moments_of_training_pixels(finished):
    root, train, test = finished
    transformed = data_plane.artifact(root, "Transform", "transformed_examples")
    pixels = train[0].reshape(-1, 3) / 255
    mean, std = pixels.mean(axis=0), pixels.std(axis=0)
    for name, (images, labels) in (("train", train), ("test", test)):
        rows = _by_hash(data_plane.read_examples(transformed / f"Split-{name}"))
        for i, content_hash in enumerate(features.content_hashes(images)):
            row = rows[content_hash]
            assert row[features.IMAGE] == images[i].tobytes()
            assert row[features.LABEL] == labels[i]
            np.testing.assert_allclose(row[features.CHANNEL_MEAN], mean, atol=1e-5)
            np.testing.assert_allclose(row[features.CHANNEL_STD], std, atol=1e-5)
            for moments in (row[features.CHANNEL_MEAN], row[features.CHANNEL_STD]):
                np.testing.assert_allclose(moments, np.round(moments, 5), rtol=0, atol=1e-7)


def test_serving_graph_gives_the_numbers_of_training(finished):
    root, _, _ = finished
    output = tft.TFTransformOutput(str(data_plane.artifact(root, "Transform", "transform_graph")))
    stored = data_plane.read_examples(
        data_plane.artifact(root, "Transform", "transformed_examples") / "Split-train"
    )[0]
    raw = {
        features.IMAGE: tf.constant([[stored[features.IMAGE]]]),
        features.LABEL: tf.constant([[3]], tf.int64),
        features.CONTENT_HASH: tf.constant([[b"0" * 32]]),
        **{key: tf.constant([[0.5]]) for key in features.IMAGE_FIGURES},
    }
    served = output.transform_features_layer()(raw)
    np.testing.assert_array_equal(served[features.CHANNEL_MEAN][0], np.float32(stored[features.CHANNEL_MEAN]))
    np.testing.assert_array_equal(served[features.CHANNEL_STD][0], np.float32(stored[features.CHANNEL_STD]))
    decoded = decode_pixels(served[features.IMAGE]).numpy()
    assert decoded.tobytes() == stored[features.IMAGE]
    assert decoded.shape == (1, 32, 32, 3)


def test_a_good_span_passes_the_gate_and_is_recorded(finished):
    root, _, _ = finished
    report = json.loads((data_plane.artifact(root, "AnomalyGate", "report") / "findings.json").read_text())
    assert (report["allow_anomalies"], report["span"], report["findings"]) == ("", 2, [])
    assert {"figures", "class_shares", "missing_class_from"} == set(report["can_see"]["train"])


def test_the_gate_stops_a_darkened_span_unless_it_is_allowed(finished, tmp_path):
    root, _, _ = finished
    new_root = tmp_path / "root"
    new_root.mkdir()
    shutil.copy(root / "metadata.db", new_root)
    (images, labels), test = data_plane.demo_images(3)
    darkened = (images * 0.7).astype(np.uint8)
    data_plane.write_folder(tmp_path / "data/span-3", (darkened, labels), test)
    with pytest.raises(
        DataAnomalyError,
        match=r"span 3, split train, feature brightness: mean went from 0\.\d+ in span 2 to 0\.3",
    ):
        data_plane.run(new_root, data_plane.data_nodes(tmp_path / "data", data_plane.SPANS))
    assert not (new_root / "Transform").exists()

    nodes = data_plane.data_nodes(tmp_path / "data", data_plane.SPANS, allow_anomalies=True, transform=False)
    data_plane.run(new_root, nodes)
    with metadata.Metadata(metadata.sqlite_metadata_connection_config(f"{new_root}/metadata.db")) as store:
        reports = store.store.get_artifacts_by_type("ExampleAnomalies")
    report = max((x for x in reports if "AnomalyGate" in x.uri), key=lambda x: x.id)
    assert report.custom_properties["allow_anomalies"].int_value == 1
    assert report.custom_properties["errors"].int_value >= 5
    written = json.loads(
        (data_plane.artifact(new_root, "AnomalyGate", "report") / "findings.json").read_text()
    )
    assert written["span"] == 3
    assert len(written["findings"]) == report.custom_properties["errors"].int_value
