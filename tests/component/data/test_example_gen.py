import hashlib
import json
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from apache_beam.io.filesystems import FileSystems
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tfx.proto import range_config_pb2

from components.data import cifar10, example_files, example_gen, features, preprocessing
from pipeline.past.store_graph import StoreGraph
from tests.component import data_plane


@pytest.fixture
def records(tmp_path):
    """A folder with 70 training and 20 test images."""
    return data_plane.write_folder(tmp_path / "records", *data_plane.demo_images(1, 70, 20))


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _spoil(folder, record, value):
    path = folder / "data_batch_1.bin"
    data = bytearray(path.read_bytes())
    data[record * cifar10.RECORD_BYTES] = value
    path.write_bytes(data)


@given(
    images=hnp.arrays(np.uint8, st.tuples(st.integers(1, 4), st.just(32), st.just(32), st.just(3))),
    data=st.data(),
)
def test_records_come_back_through_examples_and_the_models_decoder(images, data):
    """bytes -> arrays -> tf.Example -> Transform's parser -> decode_raw, for any pixels and labels."""
    labels = np.array(data.draw(st.lists(st.integers(0, 9), min_size=len(images), max_size=len(images))))
    decoded = cifar10.decode_records(cifar10.encode_records(images, labels))
    parsed = tf.io.parse_example(
        list(example_gen.serialized_examples(*decoded)),
        {
            features.IMAGE: tf.io.FixedLenFeature([1], tf.string),
            features.LABEL: tf.io.FixedLenFeature([1], tf.int64),
        },
    )
    np.testing.assert_array_equal(preprocessing.decode_pixels(parsed[features.IMAGE]), images)
    np.testing.assert_array_equal(parsed[features.LABEL][:, 0], labels)


def test_ranges_cover_each_record_once(records):
    ranges = example_gen.record_ranges(f"{records}/data_batch*.bin", records_per_range=30)
    path = str(records / "data_batch_1.bin")
    assert ranges == [(path, 0, 30), (path, 30, 30), (path, 60, 10)]
    images = np.concatenate([example_gen.read_range(x)[0] for x in ranges])
    np.testing.assert_array_equal(images, cifar10.read_records(path)[0])


def test_no_more_than_a_range_is_read(records, monkeypatch):
    sizes = []

    class Spy:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def seek(self, position):
            self.file.seek(position)

        def read(self, size):
            sizes.append(size)
            return self.file.read(size)

    def spy_on(path, compression_type):
        del compression_type
        return Spy(pathlib.Path(path).open("rb"))

    monkeypatch.setattr(FileSystems, "open", spy_on)
    for record_range in example_gen.record_ranges(f"{records}/*.bin", records_per_range=8):
        example_gen.read_range(record_range)
    assert max(sizes) == 8 * cifar10.RECORD_BYTES
    assert sum(sizes) == 90 * cifar10.RECORD_BYTES


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "has 0 bytes"), (bytes(3072), "has 3072 bytes"), (bytes(6147), "has 6147 bytes")],
)
def test_a_truncated_or_empty_file_is_named_before_any_worker_starts(records, content, message):
    (records / "data_batch_1.bin").write_bytes(content)
    with pytest.raises(ValueError, match=rf"data_batch_1\.bin {message}.*truncated"):
        example_gen.record_ranges(f"{records}/data_batch*.bin")


def test_no_matching_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"No file matches .*/test_batch\*\.bin"):
        example_gen.record_ranges(f"{tmp_path}/test_batch*.bin")


def test_a_file_that_shrinks_meanwhile_is_noticed(records):
    record_range = example_gen.record_ranges(f"{records}/data_batch*.bin")[0]
    (records / "data_batch_1.bin").write_bytes(bytes(3073))
    with pytest.raises(ValueError, match="3073 bytes from record 0 on, expected 215110"):
        example_gen.read_range(record_range)


def test_a_label_of_200_fails_the_component_by_file_and_record(records, tmp_path):
    _spoil(records, 42, 200)
    with pytest.raises(Exception, match=r"data_batch_1\.bin: record 42 has label 200; expected 0 to 9"):
        data_plane.run(tmp_path / "root", [example_gen.Cifar10ExampleGen(input_base=str(records))])


def test_any_beam_file_system_will_do(records, monkeypatch):
    """Reads through a file system of Beam's own that is not the local one: the registry decides by scheme."""
    from tests.component.memory_filesystem import FILES

    FILES.clear()
    FILES["mem://bucket/data_batch_1.bin"] = (records / "data_batch_1.bin").read_bytes()
    (found,) = example_gen.record_ranges("mem://bucket/data_batch*.bin")
    assert found == ("mem://bucket/data_batch_1.bin", 0, 70)
    np.testing.assert_array_equal(
        example_gen.read_range(found)[0], cifar10.read_records(records / "data_batch_1.bin")[0]
    )
    digests = example_files.file_digests("mem://bucket/", ["data_batch*.bin", "test_batch*.bin", "data*.bin"])
    assert digests == {"data_batch_1.bin": _sha256(records / "data_batch_1.bin")}


def test_a_chosen_span_is_taken_instead_of_the_latest(tmp_path):
    for span in (1, 2):
        data_plane.write_folder(tmp_path / f"data/span-{span}", *data_plane.demo_images(span, 20, 10))
    chosen = range_config_pb2.RangeConfig(
        static_range=range_config_pb2.StaticRange(start_span_number=1, end_span_number=1)
    )
    node = example_gen.Cifar10ExampleGen(str(tmp_path / "data"), data_plane.SPANS, chosen)
    data_plane.run(tmp_path / "root", [node])
    folder = data_plane.artifact(tmp_path / "root", "Cifar10ExampleGen", "examples")
    found = {row[features.CONTENT_HASH] for row in data_plane.read_examples(folder / "Split-test")}
    assert found == set(features.content_hashes(data_plane.demo_images(1, 20, 10)[1][0]))
    (examples,) = StoreGraph(tmp_path / "root" / "metadata.db").artifacts.values()
    assert examples.properties["span"] == 1
    assert json.loads(examples.properties["files"]) == {
        f"span-1/{name}": _sha256(tmp_path / "data" / "span-1" / name)
        for name in ("data_batch_1.bin", "test_batch.bin")
    }


def test_the_fixed_tenth_of_training_images_is_held_apart_when_asked(records, tmp_path):
    node = example_gen.Cifar10ExampleGen(str(records), holdout=True)
    data_plane.run(tmp_path / "root", [node])
    folder = data_plane.artifact(tmp_path / "root", "Cifar10ExampleGen", "examples")
    found = {
        split: {row[features.CONTENT_HASH] for row in data_plane.read_examples(folder / f"Split-{split}")}
        for split in ("train", "holdout", "test")
    }
    hashes = features.content_hashes(cifar10.read_records(records / "data_batch_1.bin")[0])
    held = {name for name, is_held in zip(hashes, features.holdout_mask(hashes), strict=True) if is_held}
    assert found["holdout"] == held
    assert 0 < len(held) < len(hashes) / 4
    assert found["train"] == set(hashes) - held
    assert len(found["test"]) == 20


def test_pixels_of_another_length_are_refused():
    for images in ([b"x" * 3071], [b"x" * 3072, b"x" * 3071], [b"x" * 6144]):
        with pytest.raises(tf.errors.InvalidArgumentError):
            preprocessing.decode_pixels(tf.constant(images))


def test_records_relabelled_in_place_with_their_old_times_do_not_come_from_the_cache(records, tmp_path):
    def labels():
        node = example_gen.Cifar10ExampleGen(input_base=str(records))
        data_plane.run(tmp_path / "root", [node], cache=True)
        folder = data_plane.artifact(tmp_path / "root", "Cifar10ExampleGen", "examples")
        return sorted(row[features.LABEL] for row in data_plane.read_examples(folder / "Split-train"))

    first = labels()
    file = records / "data_batch_1.bin"
    before, content = file.stat(), bytearray(file.read_bytes())
    content[0] = (content[0] + 1) % 10
    with file.open("r+b") as stream:
        stream.write(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert labels() != first
    executions = list(StoreGraph(tmp_path / "root" / "metadata.db").executions.values())
    assert [execution.state for execution in executions] == ["COMPLETE", "COMPLETE"]
    labels()
    executions = list(StoreGraph(tmp_path / "root" / "metadata.db").executions.values())
    assert [execution.state for execution in executions] == ["COMPLETE", "COMPLETE", "CACHED"]


def test_the_digests_are_of_the_bytes_that_were_read(records, tmp_path, monkeypatch):
    """Files that are written to between the digest and the end of reading fail the node."""

    def generate(self, pipeline, properties):
        found = whole(self, pipeline, properties)
        content = bytearray((records / "test_batch.bin").read_bytes())
        content[0] = (content[0] + 1) % 10
        (records / "test_batch.bin").write_bytes(content)
        return found

    whole = example_gen.Executor.GenerateExamplesByBeam
    monkeypatch.setattr(example_gen.Executor, "GenerateExamplesByBeam", generate)
    with pytest.raises(Exception, match="was changed while it was being read"):
        data_plane.run(tmp_path / "root", [example_gen.Cifar10ExampleGen(input_base=str(records))])
