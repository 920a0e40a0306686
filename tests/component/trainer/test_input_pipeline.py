"""The Trainers' input: the same images in memory and streamed, shuffled alike in each run, without labels."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from components.data import features
from tests.component import data_plane
from tests.unit.trainer.conftest import SETTINGS, TINY
from trainer import input_pipeline
from trainer.byol import run_fn
from trainer.byol.checkpoint import CheckpointFolder
from trainer.byol.pretraining import pretrain
from trainer.byol.run_fn import StreamedImages, image_source, monitor_images

ROWS, FILES = 230, 3


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """(patterns, images, labels) of transformed Examples in three gzipped files of different length."""
    folder = tmp_path_factory.mktemp("transformed")
    (images, labels), _ = data_plane.demo_images(6, ROWS, 10)
    for number, chosen in enumerate(np.split(np.arange(ROWS), [40, 130])):
        path = folder / f"transformed_examples-{number:05d}-of-{FILES:05d}.gz"
        write_rows(path, images[chosen], labels[chosen])
    return [str(folder / "*")], images, labels


def write_rows(path, images, labels):
    """A file as Transform writes it."""
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for image, label, name in zip(images, labels, features.content_hashes(images), strict=True):
            example = tf.train.Example()
            feature = example.features.feature
            feature[features.IMAGE].bytes_list.value.append(image.tobytes())
            feature[features.LABEL].int64_list.value.append(label)
            feature[features.CONTENT_HASH].bytes_list.value.append(name)
            feature[features.CHANNEL_MEAN].float_list.value.extend([0.1, 0.2, 0.3])
            feature[features.CHANNEL_STD].float_list.value.extend([0.4, 0.5, 0.6])
            writer.write(example.SerializeToString())


@pytest.fixture(scope="module")
def in_memory(split):
    return input_pipeline.open_split(split[0], memory_bytes=ROWS * features.IMAGE_BYTES)


@pytest.fixture(scope="module")
def on_disk(split):
    return input_pipeline.open_split(split[0], memory_bytes=ROWS * features.IMAGE_BYTES - 1)


def _named(images, labels, holdout):
    return {
        name: (label, held)
        for name, label, held in zip(features.content_hashes(images), labels, holdout, strict=True)
    }


def _batches(stream, epoch=0, first_step=0, seed=0, batch_size=16):
    return list(stream.shuffled(batch_size, seed, epoch, first_step).as_numpy_iterator())


def test_a_split_that_fits_is_held_in_memory_and_a_larger_one_is_not(in_memory, on_disk):
    assert isinstance(in_memory, input_pipeline.ImagesInMemory)
    assert isinstance(on_disk, input_pipeline.ImagesOnDisk)
    assert isinstance(image_source(on_disk), StreamedImages)
    assert len(on_disk.files) == FILES


@pytest.mark.parametrize("where", ["in_memory", "on_disk"])
def test_rows_and_images_belong_together(where, split, request):
    opened, (_, images, labels) = request.getfixturevalue(where), split
    read = np.concatenate(list(opened.batches(64)))
    expected = _named(images, labels, features.holdout_mask(features.content_hashes(images)))
    assert _named(read, opened.rows.labels, opened.rows.holdout) == expected
    np.testing.assert_allclose(opened.rows.channel_mean, [0.1, 0.2, 0.3])
    np.testing.assert_allclose(opened.rows.channel_std, [0.4, 0.5, 0.6])
    chosen = np.array([0, 3, 64, 65, ROWS - 1])
    np.testing.assert_array_equal(opened.take(chosen), read[chosen])


def test_both_name_the_data_alike_and_memory_does_not_depend_on_the_files_order(split, in_memory, on_disk):
    assert in_memory.rows.digest == on_disk.rows.digest
    (files,) = split[0]
    found = sorted(tf.io.gfile.glob(files), reverse=True)
    again = input_pipeline.open_split(found, memory_bytes=ROWS * features.IMAGE_BYTES)
    assert isinstance(again, input_pipeline.ImagesInMemory)
    np.testing.assert_array_equal(again.images, in_memory.images)


def test_a_streamed_epoch_has_every_image_at_most_once_in_whole_batches(on_disk, split):
    batches = _batches(on_disk)
    assert [batch.shape for batch in batches] == [(16, 32, 32, 3)] * (ROWS // 16)
    seen = features.content_hashes(np.concatenate(batches))
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(features.content_hashes(split[1]))


def test_a_streamed_order_is_decided_by_seed_and_epoch_and_resumes(on_disk):
    first = _batches(on_disk)
    np.testing.assert_array_equal(_batches(on_disk), first)
    np.testing.assert_array_equal(_batches(on_disk, first_step=5), first[5:])
    for other in (_batches(on_disk, epoch=1), _batches(on_disk, seed=1)):
        assert not np.array_equal(other, first)
    # Rows of all files are mixed: no batch comes from one of them alone.
    (unshuffled,) = [np.concatenate(list(on_disk.batches(ROWS)))]
    position = {name: i for i, name in enumerate(features.content_hashes(unshuffled))}
    spread = [np.ptp([position[name] for name in features.content_hashes(batch)]) for batch in first]
    assert min(spread) > ROWS / 3


def test_labels_never_enter_a_pretraining_batch(on_disk, in_memory):
    streamed = on_disk.shuffled(16, 0, 0, 0).element_spec
    assert isinstance(streamed, tf.TensorSpec)
    assert (streamed.dtype, streamed.shape[1:]) == (tf.uint8, (32, 32, 3))
    arguments = image_source(in_memory).epoch(SETTINGS, 0, 0)
    assert set(arguments) == {"x", "batch_size", "shuffle"}
    assert arguments["x"].dtype == np.uint8


class _Stop(Exception):  # noqa: N818, no error but a kill
    """Ends a training after its first epoch."""


def test_a_streamed_pretraining_resumes_to_the_same_weights(on_disk, tmp_path):
    source = image_source(on_disk)
    whole = pretrain(SETTINGS, TINY, source, None, tmp_path / "whole").model

    def stop(_):
        raise _Stop

    settings = dataclasses.replace(SETTINGS, checkpoint_minutes=1e-9)
    with pytest.raises(_Stop):
        pretrain(settings, TINY, source, None, tmp_path / "halves", on_epoch=stop)
    (folder,) = (tmp_path / "halves").iterdir()
    assert CheckpointFolder(folder, folder.name).paths()
    resumed = pretrain(settings, TINY, source, None, tmp_path / "halves").model
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_monitors_are_given_held_out_images_apart_from_their_bank(on_disk, in_memory):
    for opened in (on_disk, in_memory):
        watched = monitor_images(opened, queries=10)
        assert watched is not None
        queries, bank = features.content_hashes(watched.queries), features.content_hashes(watched.bank)
        assert features.holdout_mask(queries).all()
        assert not features.holdout_mask(bank).any()
        assert len(queries) == 10
        assert len(bank) == 50


def test_memory_is_counted_in_bytes_whatever_the_pictures_size(tmp_path):
    """The same bytes as pictures of 64x48 and as CIFAR-10's: what is held, parsed at once and mixed has one size."""
    large = np.random.default_rng(0).integers(0, 256, (20, 64, 48, 3), dtype=np.uint8)
    write_rows(tmp_path / "rows.gz", large, np.zeros(20, np.int64))
    patterns = [str(tmp_path / "rows.gz")]
    held = input_pipeline.open_split(patterns, large.nbytes, (64, 48, 3))
    streamed = input_pipeline.open_split(patterns, large.nbytes - 1, (64, 48, 3))
    assert isinstance(held, input_pipeline.ImagesInMemory)
    assert isinstance(streamed, input_pipeline.ImagesOnDisk)
    hashes = features.content_hashes(large)
    assert features.content_hashes(held.images) == sorted(hashes)
    np.testing.assert_array_equal(streamed.take(np.array([0, 7, 19])), large[[0, 7, 19]])
    (batch,) = streamed.shuffled(20, 0, 0, 0).as_numpy_iterator()
    assert sorted(features.content_hashes(batch)) == sorted(hashes)


def test_monitors_take_fewer_pictures_where_these_are_large(in_memory, monkeypatch):
    monkeypatch.setattr(run_fn, "MONITOR_BYTES", 6 * 3 * features.IMAGE_BYTES + 1)
    watched = monitor_images(in_memory, queries=10)
    assert watched is not None
    assert (len(watched.queries), len(watched.bank)) == (3, 15)


def test_monitors_without_labels_are_given_held_out_images_and_no_classes(in_memory):
    none = dataclasses.replace(in_memory.rows, labels=np.full(len(in_memory.rows.labels), -1))
    watched = monitor_images(dataclasses.replace(in_memory, rows=none), queries=10)
    assert watched is not None
    assert (len(watched.queries), watched.classes) == (10, 0)
    assert features.holdout_mask(features.content_hashes(watched.queries)).all()


def test_no_file_and_no_row_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"No transformed Examples at .*nothing"):
        input_pipeline.open_split([str(tmp_path / "nothing*")], memory_bytes=1)
    with tf.io.TFRecordWriter(str(tmp_path / "empty.gz"), "GZIP"):
        pass
    with pytest.raises(ValueError, match="are empty; expected at least one image"):
        input_pipeline.open_split([str(tmp_path / "empty.gz")], memory_bytes=1)
