import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from components.data import cifar10, features


@given(
    images=hnp.arrays(np.uint8, st.tuples(st.integers(0, 3), st.just(32), st.just(32), st.just(3))),
    data=st.data(),
)
def test_records_round_trip(images, data):
    labels = np.array(
        data.draw(st.lists(st.integers(0, 9), min_size=len(images), max_size=len(images))), np.int64
    )
    decoded_images, decoded_labels = cifar10.decode_records(cifar10.encode_records(images, labels))
    np.testing.assert_array_equal(decoded_images, images)
    np.testing.assert_array_equal(decoded_labels, labels)


def test_a_record_is_label_then_red_green_blue_planes():
    record = bytes([3]) + bytes([10]) * 1024 + bytes([20]) * 1024 + bytes([30]) * 1023 + bytes([31])
    images, labels = cifar10.decode_records(record)
    assert labels.tolist() == [3]
    assert images[0, 0, 0].tolist() == [10, 20, 30]
    assert images[0, 31, 31].tolist() == [10, 20, 31]
    assert images.flags.c_contiguous


def test_rows_of_a_plane_are_rows_of_the_image():
    plane = np.arange(1024) // 32
    images, _ = cifar10.decode_records(bytes([0]) + plane.astype(np.uint8).tobytes() * 3)
    assert images[0, :, 0, 0].tolist() == list(range(32))


def test_a_range_of_records_is_read(record_folder):
    path = record_folder / "data_batch_1.bin"
    images, labels = cifar10.read_records(path)
    some_images, some_labels = cifar10.read_records(path, start=5, count=4)
    np.testing.assert_array_equal(some_images, images[5:9])
    np.testing.assert_array_equal(some_labels, labels[5:9])
    assert len(cifar10.read_records(path, start=18, count=4)[0]) == 2


@pytest.mark.parametrize("nested", [False, True])
def test_a_good_folder_is_described(record_folder, nested):
    if nested:
        inner = record_folder / "cifar-10-batches-bin"
        inner.mkdir()
        for path in record_folder.glob("*.bin"):
            path.rename(inner / path.name)
    found = cifar10.inspect_folder(record_folder)
    assert found.path == (record_folder / "cifar-10-batches-bin" if nested else record_folder)
    assert [path.name for path in found.train_files] == ["data_batch_1.bin", "data_batch_2.bin"]
    assert (found.train_records, found.test_records) == (40, 20)
    assert found.train_label_counts == (4,) * 10
    assert found.test_label_counts == (2,) * 10


def _truncate(folder):
    path = folder / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-100])


def _oversize(folder):
    with open(folder / "test_batch.bin", "ab") as file:
        file.write(b"\0")


def _label_200(folder):
    data = bytearray((folder / "data_batch_1.bin").read_bytes())
    data[13 * 3073] = 200
    (folder / "data_batch_1.bin").write_bytes(data)


def _replace(content):
    return lambda folder: (folder / "data_batch_1.bin").write_bytes(content)


def _without(pattern):
    return lambda folder: [path.unlink() for path in folder.glob(pattern)]


def _python_version(folder):
    _without("*.bin")(folder)
    (folder / "data_batch_1").write_bytes(pickle.dumps({b"data": b""}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_truncate, r"data_batch_2\.bin has 61360 bytes, 2973 more than 19 records of 3073.*truncated"),
        (_oversize, r"test_batch\.bin has 61461 bytes, 1 more than 20 records"),
        (_label_200, r"data_batch_1\.bin: record 13 has label 200; expected 0 to 9"),
        (_replace(b""), r"data_batch_1\.bin is empty"),
        (_replace(pickle.dumps({b"data": b"x" * 5000})), r"a Python pickle, which is never unpickled"),
        (_replace(b"\x1f\x8b" + b"\0" * 99), r"a gzip archive; unpack it first"),
        (_without("data_batch*"), r"no train file\. Expected data_batch"),
        (_without("test_batch*"), r"no test file\. Expected test_batch"),
        (_python_version, r"pickled Python version, which is never unpickled here"),
    ],
)
def test_a_spoilt_folder_gives_one_clear_line(record_folder, spoil, message):
    spoil(record_folder)
    with pytest.raises(ValueError, match=message) as caught:
        cifar10.inspect_folder(record_folder)
    assert "\n" not in str(caught.value)


def test_a_label_above_9_beyond_the_first_block_is_numbered_within_its_file(tmp_path):
    records = np.zeros((5000, 3073), np.uint8)
    records[4500, 0] = 10
    (tmp_path / "data_batch_1.bin").write_bytes(records.tobytes())
    (tmp_path / "test_batch.bin").write_bytes(bytes(3073))
    with pytest.raises(ValueError, match="record 4500 has label 10"):
        cifar10.inspect_folder(tmp_path)


def test_a_missing_folder_and_a_file_in_its_place(tmp_path):
    with pytest.raises(ValueError, match=r"No such folder: .*nowhere"):
        cifar10.inspect_folder(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        cifar10.inspect_folder(tmp_path / "file")
    (tmp_path / "data_batch_1.bin").mkdir()
    (tmp_path / "test_batch.bin").mkdir()
    with pytest.raises(ValueError, match="not a regular file"):
        cifar10.inspect_folder(tmp_path)


def test_an_unreadable_file_is_named(record_folder, monkeypatch):
    def refuse(path, _mode):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ValueError, match=r"Cannot read .*data_batch_1\.bin: Permission denied"):
        cifar10.inspect_folder(record_folder)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((2, 32, 32, 3), np.uint8), np.array([0, 10])),
        (np.zeros((2, 32, 32, 3), np.uint8), np.array([0, -1])),
        (np.zeros((2, 3, 32, 32), np.uint8), np.array([0, 1])),
        (np.zeros((2, 32, 32, 3), np.float32), np.array([0, 1])),
        (np.zeros((2, 32, 32, 3), np.uint8), np.array([0])),
    ],
)
def test_what_is_no_record_is_not_written(images, labels):
    with pytest.raises(ValueError, match="received"):
        cifar10.encode_records(images, labels)


def test_decoding_names_the_place_of_a_fault():
    with pytest.raises(ValueError, match=r"part\.bin: 3074 bytes from record 7 on"):
        cifar10.decode_records(bytes(3074), "part.bin", 7)
    with pytest.raises(ValueError, match=r"part\.bin: record 8 has label 255"):
        cifar10.decode_records(bytes(3073) + b"\xff" + bytes(3072), "part.bin", 7)


def test_label_names_are_the_official_ones_in_order():
    assert features.LABEL_NAMES[0] == "airplane"
    assert features.LABEL_NAMES[3] == "cat"
    assert features.LABEL_NAMES[9] == "truck"
    assert len(set(features.LABEL_NAMES)) == 10
