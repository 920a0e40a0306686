"""A data set's description: strict reading, and records of any classes, size and missing labels."""

import dataclasses
import json

import numpy as np
import pytest

from components.data import cifar10, dataset, features
from components.data.dataset import CIFAR10, DataSet

FABRICS = DataSet("fabrics", "swatches", ("wool & silk", "<script>", "été"), 24, 40, unlabelled=True)


def test_a_description_survives_json():
    assert dataset.from_json(FABRICS.to_json()) == FABRICS


def test_no_description_is_cifar10_s(tmp_path):
    assert dataset.read(tmp_path) == CIFAR10
    assert (CIFAR10.classes, CIFAR10.record_bytes, CIFAR10.label_bytes) == (10, 3073, 1)


def test_the_official_list_of_names_names_the_classes(tmp_path):
    (tmp_path / dataset.NAMES_FILE).write_text("\n".join(features.LABEL_NAMES) + "\n\n")
    assert dataset.read(tmp_path) == CIFAR10
    (tmp_path / dataset.NAMES_FILE).write_bytes("sea ice\r\nété\n\n".encode())
    found = dataset.read(tmp_path)
    assert (found.label_names, found.shape) == (("sea ice", "été"), (32, 32, 3))
    (tmp_path / dataset.FILE).write_text(FABRICS.to_json())
    assert dataset.read(tmp_path) == FABRICS


@pytest.mark.parametrize("text", [b"one\n", b"a\na\n", b"\xff\n\xfe\n", b"a\nb\tc\n"])
def test_a_list_of_names_that_is_none(tmp_path, text):
    (tmp_path / dataset.NAMES_FILE).write_bytes(text)
    with pytest.raises(ValueError, match=r"batches\.meta\.txt describes no data set: .* a name a line"):
        dataset.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"height": 4}, "height is 8 to 1024 pixels; received 4"),
        ({"width": True}, "width must be int"),
        ({"height": "24"}, "height must be int"),
        ({"label_names": ["one"]}, "none, or 2 to 10000; received 1"),
        ({"label_names": [], "unlabelled": False}, "expected unlabelled to be true"),
        ({"label_names": ["a", "a"]}, "'a' is there twice"),
        ({"label_names": ["a", "b\n"]}, "printable characters"),
        ({"label_names": "ab"}, "a list of texts"),
        ({"pixels": 3}, "expected the keys"),
    ],
)
def test_what_a_description_cannot_say(tmp_path, change, reason):
    (tmp_path / dataset.FILE).write_text(json.dumps(json.loads(FABRICS.to_json()) | change))
    with pytest.raises(ValueError, match=rf"dataset\.json describes no data set: .*{reason}"):
        dataset.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label_names": ("wool & silk", "silk", "été")}, "Label 1 is 'silk' there and '<script>' here."),
        ({"label_names": ("wool & silk", "<script>")}, "(2 classes: wool & silk, <script>; 24x40 pixels,"),
        ({"height": 40, "width": 24}, "40x24 pixels"),
    ],
)
def test_records_of_another_data_set_are_refused_and_both_are_named(change, said):
    other = dataclasses.replace(FABRICS, name="leather", **change)
    with pytest.raises(ValueError, match=r"data/span-3 holds leather \(") as error:
        dataset.check_same(other, FABRICS, "data/span-3")
    assert said in str(error.value)
    assert (
        "made for fabrics (3 classes: wool & silk, <script>, été; 24x40 pixels, some without a label)."
        in str(error.value)
    )


def test_words_may_differ_and_labels_be_missing_where_they_may():
    labelled = dataclasses.replace(FABRICS, name="November", pictures="", unlabelled=False)
    dataset.check_same(labelled, FABRICS, "data")
    with pytest.raises(ValueError, match=r"holds fabrics .*, some without a label.* made for November"):
        dataset.check_same(FABRICS, labelled, "data")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"name": "x"}'])
def test_a_file_that_is_no_description(tmp_path, text):
    (tmp_path / dataset.FILE).write_text(text)
    with pytest.raises(ValueError, match="describes no data set"):
        dataset.read(tmp_path)


@pytest.mark.parametrize("classes", [2, 255, 256, 1000])
def test_records_of_any_classes_and_size_come_back(classes):
    described = DataSet("some", "", tuple(map(str, range(classes))), 8, 9, unlabelled=True)
    rng = np.random.default_rng(classes)
    images = rng.integers(0, 256, (5, 8, 9, 3), dtype=np.uint8)
    labels = np.array([0, classes - 1, dataset.UNLABELLED, classes // 2, 1])
    written = cifar10.encode_records(images, labels, described)
    assert len(written) == 5 * ((1 if classes <= 255 else 2) + 8 * 9 * 3)
    read, found = cifar10.decode_records(written, data_set=described)
    np.testing.assert_array_equal(read, images)
    assert found.tolist() == labels.tolist()


def test_the_first_plane_of_a_record_is_red_row_by_row():
    image = np.arange(24 * 40 * 3, dtype=np.uint32).reshape(1, 24, 40, 3).astype(np.uint8)
    written = cifar10.encode_records(image, np.array([2]), FABRICS)
    assert written[0] == 2
    assert written[1:41] == image[0, 0, :, 0].tobytes()


def test_a_missing_label_is_refused_where_none_may_be_missing():
    with pytest.raises(ValueError, match=r"labels in 0\.\.9, received -1"):
        cifar10.encode_records(np.zeros((1, 32, 32, 3), np.uint8), np.array([-1]))
    with pytest.raises(ValueError, match="record 0 has label 255; expected 0 to 9"):
        cifar10.decode_records(b"\xff" + bytes(3072))


def _folder(path, train, test):
    rng = np.random.default_rng(0)
    path.mkdir()
    for name, labels in (("data_batch_1.bin", train), ("test_batch.bin", test)):
        images = rng.integers(0, 256, (len(labels), *FABRICS.shape), dtype=np.uint8)
        (path / name).write_bytes(cifar10.encode_records(images, np.array(labels), FABRICS))
    (path / dataset.FILE).write_text(FABRICS.to_json())
    return path


def test_inspection_counts_labelled_and_unlabelled_records(tmp_path):
    found = cifar10.inspect_folder(_folder(tmp_path / "data", [0, 1, -1, 2, 2, -1, -1], [0, 1, 2]))
    assert found.data_set == FABRICS
    assert found.train_label_counts == (1, 1, 2)
    assert (found.train_unlabelled, found.train_records, found.test_records) == (3, 7, 3)


def test_a_test_record_needs_its_label(tmp_path):
    with pytest.raises(ValueError, match=r"test_batch\.bin has 1 records without a label"):
        cifar10.inspect_folder(_folder(tmp_path / "data", [0, 1, 2], [0, -1]))


def test_figures_of_another_size_are_those_of_its_pixels():
    image = np.zeros((1, 24, 40, 3), np.uint8)
    image[:, :12] = 255
    found = features.image_figures(image)
    assert found[features.BRIGHTNESS][0] == pytest.approx(0.5, abs=1e-6)
    assert found[features.SATURATED_SHARE][0] == 1.0
