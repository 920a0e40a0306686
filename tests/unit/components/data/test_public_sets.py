"""CIFAR-100 and STL-10, from small archives of the official layout."""

import dataclasses
import hashlib
import io
import tarfile

import numpy as np
import pytest

from components.data import archive, cifar10, dataset, public_sets

RNG = np.random.default_rng(0)
SMALL_100 = RNG.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
COARSE, FINE = np.array([0, 1, 0, 1, 0, 1]), np.array([0, 1, 2, 0, 1, 2])
SMALL_10 = RNG.integers(0, 256, (7, 96, 96, 3), dtype=np.uint8)


def _cifar100_files():
    planes = SMALL_100.transpose(0, 3, 1, 2).reshape(6, -1)
    records = np.concatenate([COARSE[:, None], FINE[:, None], planes], axis=1).astype(np.uint8)
    return {
        "train.bin": records[:4].tobytes(),
        "test.bin": records[4:].tobytes(),
        "fine_label_names.txt": b"apple\nbear\nbee\n",
        "coarse_label_names.txt": b"fruit\nanimals\n\n",
    }


def _stl10_files():
    planes = SMALL_10.transpose(0, 3, 2, 1).reshape(7, -1)  # column by column
    return {
        "test_X.bin": planes[:2].tobytes(),
        "test_y.bin": bytes([1, 2]),
        "train_X.bin": planes[2:5].tobytes(),
        "train_y.bin": bytes([2, 1, 2]),
        "unlabeled_X.bin": planes[5:].tobytes(),
        "class_names.txt": b"airplane\nbird\n",
    }


@pytest.fixture
def served(monkeypatch):
    """Makes a Source of files, and what fetching it gives."""

    def serve(source, content_of, **changes):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name, content in (content_of | {"fold_indices.txt": b"0 1"}).items():
                info = tarfile.TarInfo(f"{source.folder}/{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        body = buffer.getvalue()
        monkeypatch.setattr(archive, "fetch", lambda url, path, *_: path.write_bytes(body))
        sizes = {name: 0 if name.endswith(".txt") else len(content) for name, content in content_of.items()}
        md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
        return dataclasses.replace(source, **{"files": sizes, "md5": md5, **changes})

    return serve


@pytest.mark.parametrize(("coarse", "labels", "names"), [(False, FINE, 3), (True, COARSE, 2)])
def test_cifar100_takes_the_fine_or_the_coarse_label(tmp_path, served, coarse, labels, names):
    source = served(public_sets.CIFAR100, _cifar100_files())
    folder = public_sets.download_cifar100(tmp_path / "out", coarse, source)
    found = cifar10.inspect_folder(folder)
    assert (found.data_set.classes, found.train_records, found.test_records) == (names, 4, 2)
    images, read = cifar10.read_records(found.train_files[0], data_set=found.data_set)
    np.testing.assert_array_equal(images, SMALL_100[:4])
    assert read.tolist() == labels[:4].tolist()


def test_stl10_has_labelled_unlabelled_and_test_images(tmp_path, served):
    source = served(public_sets.STL10, _stl10_files())
    found = cifar10.inspect_folder(public_sets.download_stl10(tmp_path / "out", source))
    assert found.data_set.shape == (96, 96, 3)
    assert (found.train_label_counts, found.train_unlabelled, found.test_records) == ((1, 2), 2, 2)
    images, labels = cifar10.read_records(found.train_files[0], data_set=found.data_set)
    np.testing.assert_array_equal(images, SMALL_10[2:5])
    assert labels.tolist() == [1, 0, 1]
    _, labels = cifar10.read_records(found.train_files[1], data_set=found.data_set)
    assert set(labels.tolist()) == {dataset.UNLABELLED}


def test_a_wrong_checksum_leaves_nothing(tmp_path, served):
    source = served(public_sets.STL10, _stl10_files(), md5="0" * 32)
    with pytest.raises(archive.ArchiveError, match="has MD5"):
        public_sets.download_stl10(tmp_path / "out", source)
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_size_is_refused(tmp_path, served):
    files = _stl10_files()
    sizes = {name: 0 if name.endswith(".txt") else len(content) + 1 for name, content in files.items()}
    source = served(public_sets.STL10, files, files=sizes)
    with pytest.raises(archive.ArchiveError, match=r"test_X\.bin' has 55296 bytes, expected 55297"):
        public_sets.download_stl10(tmp_path / "out", source)
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_named(tmp_path, served):
    files = _cifar100_files()
    del files["test.bin"]
    source = served(public_sets.CIFAR100, files, files={**public_sets.CIFAR100.files, "train.bin": 4 * 3074})
    with pytest.raises(archive.ArchiveError, match=r"lacks test\.bin"):
        public_sets.download_cifar100(tmp_path / "out", source=source)


def test_the_official_sizes_are_those_of_the_documented_counts():
    assert public_sets.CIFAR100.files["train.bin"] == 153_700_000
    assert public_sets.STL10.files["unlabeled_X.bin"] == 2_764_800_000
