"""Three classes at 24x40 pixels, many of them without a label, through the data nodes and into a served model."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tfx import v1 as tfx

from components.data import cifar10, dataset, features
from components.data.dataset import DataSet
from components.data.example_gen import Cifar10ExampleGen
from components.data.pictures import fit
from components.data.schema import schema_text
from components.serving import warm_up
from tests.component import data_plane
from trainer import architecture
from trainer.probe import image_decoding
from trainer.probe import run_fn as probe
from trainer.probe.config import ProbeConfig

FABRICS = DataSet("fabrics", "stripes", ("wool & silk", "<script>", "été"), 24, 40, unlabelled=True)


def _stripes(count, seed, unlabelled=0):
    """Stripes along, across and aslant, of one class each; the last ones' labels are missing."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    row, column = np.mgrid[:24, :40]
    waves = np.stack([np.sin(row), np.sin(column), np.sin(row + column)])[labels]
    images = 128 + 80 * waves[..., None] + rng.normal(0, 30, (count, 24, 40, 3))
    labels[count - unlabelled :] = dataset.UNLABELLED
    return np.clip(images, 0, 255).astype(np.uint8), labels


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    """The root of a run of the data nodes."""
    root = tmp_path_factory.mktemp("plane")
    data = data_plane.write_folder(root / "data", _stripes(240, 0, unlabelled=60), _stripes(30, 1), FABRICS)
    (data / dataset.FILE).write_text(FABRICS.to_json())
    (root / "schema.pbtxt").write_text(schema_text(FABRICS))
    nodes = data_plane.data_nodes(data, data_set=FABRICS, schema=root / "schema.pbtxt")
    data_plane.run(root / "tfx", nodes)
    return root


def test_rows_hold_the_pixels_and_labels_of_the_records(plane):
    images, labels = _stripes(240, 0, unlabelled=60)
    rows = data_plane.read_examples(
        data_plane.artifact(plane / "tfx", "Cifar10ExampleGen", "examples") / "Split-train"
    )
    expected = dict(zip((image.tobytes() for image in images), labels.tolist(), strict=True))
    assert {row[features.IMAGE]: row[features.LABEL] for row in rows} == expected
    assert sum(label == dataset.UNLABELLED for label in expected.values()) == 60


def _probe(plane, folder, config, data_set, memory_bytes):
    """Probes an untrained encoder on the rows of the fabrics."""
    examples = data_plane.artifact(plane / "tfx", "Transform", "transformed_examples")
    probe.run_fn(
        tfx.components.FnArgs(
            train_files=[str(examples / "Split-train" / "*")],
            serving_model_dir=str(folder / "model"),
            model_run_dir=str(folder / "run"),
            custom_config={
                "probe": vars(config),
                "memory_bytes": memory_bytes,
                "data_set": data_set.to_json(),
                "random_encoder": vars(architecture.RESNET8_TINY),
                "seed": 0,
            },
        )
    )


def test_a_probe_of_the_labelled_rows_is_exported_with_names_and_size(plane, tmp_path):
    _probe(plane, tmp_path, ProbeConfig(epochs=2, knn_neighbors=5), FABRICS, memory_bytes=4_000_000)
    record = json.loads((tmp_path / "run" / probe.RESULT_FILE).read_text())
    assert (record["images"], record["unlabelled"]) == (180, 60)
    served = tf.saved_model.load(str(tmp_path / "model"))
    picture = np.random.default_rng(2).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    answer = served.signatures["classify"](image_bytes=tf.constant([tf.io.encode_png(picture).numpy()]))
    assert [name.decode() for name in answer["label_names"].numpy()[0]] == list(FABRICS.label_names)
    assert answer["probabilities"].shape == (1, 3)
    assert served.signatures["embed_pixels"].structured_input_signature[1]["pixels"].shape == (
        None,
        24,
        40,
        3,
    )
    keras.backend.clear_session()


def test_few_labelled_images_are_on_both_sides_of_the_hold_out():
    for fixed in (np.zeros(3, bool), np.ones(3, bool)):
        np.testing.assert_array_equal(probe._both_sides(fixed), [True, False, False])
    fixed = np.array([False, True, False])
    assert probe._both_sides(fixed) is fixed


def test_without_classes_the_encoder_is_exported_by_itself(plane, tmp_path):
    unlabelled = dataclasses.replace(FABRICS, label_names=())
    _probe(plane, tmp_path, ProbeConfig(), unlabelled, memory_bytes=100_000_000)
    record = json.loads((tmp_path / "run" / probe.RESULT_FILE).read_text())
    assert (record["knn_accuracy"], record["images"], record["unlabelled"]) == (None, 0, 240)
    served = tf.saved_model.load(str(tmp_path / "model"))
    assert set(served.signatures) == {"serving_default", "embed_pixels"}
    assert not hasattr(served, "kernel")
    assert {name for name, _ in warm_up.read(tmp_path / "model")} == {"serving_default", "embed_pixels"}
    with np.load(tmp_path / "run" / probe.REFERENCE_FILE) as reference:
        assert set(reference.files) == {"pixels", "embedding"}
        answer = served.signatures["embed_pixels"](pixels=tf.constant(reference["pixels"]))
        np.testing.assert_allclose(answer["embedding"], reference["embedding"], atol=1e-5)
    keras.backend.clear_session()


def test_records_of_another_data_set_stop_the_reader(tmp_path):
    data = data_plane.write_folder(tmp_path / "data", _stripes(30, 0), _stripes(9, 1), FABRICS)
    (data / dataset.FILE).write_text(FABRICS.to_json())
    with pytest.raises(
        Exception, match=r"holds fabrics \(3 classes: .*; 24x40 pixels.* was made for CIFAR-10"
    ):
        data_plane.run(tmp_path / "tfx", [Cifar10ExampleGen(input_base=str(data))])


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 40), (96, 64)])
def test_importing_resizes_as_serving_does(height, width):
    """One filter, two implementations: no pixel differs by more than the rounding between the two axes."""
    row, column = np.mgrid[:150, :211]
    smooth = np.stack([np.sin(row / 9), np.cos(column / 7), np.sin((row + column) / 5)], axis=-1)
    picture = np.clip(128 + 120 * smooth, 0, 255).astype(np.uint8)
    imported = fit(Image.fromarray(picture), height, width)
    served = image_decoding.decode_images(
        tf.constant([tf.io.encode_png(picture).numpy()]), shape=(height, width, 3)
    )[0].numpy()
    assert imported.shape == served.shape == (height, width, 3)
    assert np.abs(imported.astype(int) - served).max() <= 1


def test_a_description_and_its_records_are_a_pair(tmp_path):
    data = data_plane.write_folder(tmp_path / "data", _stripes(30, 0), _stripes(9, 1), FABRICS)
    with pytest.raises(ValueError, match=r"more than .* records of 3073"):
        cifar10.inspect_folder(data)
