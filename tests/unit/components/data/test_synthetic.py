import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from components.data import cifar10, dataset, features, synthetic


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = synthetic.write(tmp_path_factory.mktemp("demo") / "data", train=3000, test=1000, seed=5)
    found = cifar10.inspect_folder(folder)
    train = [np.concatenate(x) for x in zip(*map(cifar10.read_records, found.train_files), strict=True)]
    return folder, train, cifar10.read_records(found.test_files[0])


def _score(train_rows, train_labels, test_rows, test_labels):
    model = LogisticRegression(C=1e-3, max_iter=50).fit(train_rows, train_labels)
    return model.score(test_rows, test_labels)


def test_layout_is_cifars_and_classes_are_balanced(demo):
    folder, _, _ = demo
    found = cifar10.inspect_folder(folder)
    assert [path.name for path in found.train_files] == [f"data_batch_{i}.bin" for i in range(1, 6)]
    assert found.train_label_counts == (300,) * 10
    assert found.test_label_counts == (100,) * 10
    assert found.data_set == dataset.read(folder) == synthetic.DRAWN
    drawn_by = [f"_{name.replace(' ', '_')}" for name in synthetic.DRAWN.label_names]
    assert drawn_by == [texture.__name__ for texture in synthetic.TEXTURES]


def test_a_folder_of_an_earlier_release_is_left_as_it_is(tmp_path):
    """It has no description, so its classes have CIFAR-10's names, and its root goes on with them."""
    folder = synthetic.write(tmp_path / "data", train=10, test=10)
    (folder / dataset.FILE).unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert synthetic.write(folder, train=10, test=10) == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert dataset.read(folder) == dataset.CIFAR10


def test_no_image_occurs_twice(demo):
    _, (train_images, _), (test_images, _) = demo
    assert len(set(features.content_hashes(np.concatenate([train_images, test_images])))) == 4000


def test_pixels_and_colours_do_not_give_the_class_away(demo):
    _, (train_images, train_labels), (test_images, test_labels) = demo
    flat = [images.reshape(len(images), -1) / 255 - 0.5 for images in (train_images, test_images)]
    assert _score(flat[0], train_labels, flat[1], test_labels) < 0.45
    colours = [images.mean(axis=(1, 2)) / 25 for images in (train_images, test_images)]
    assert _score(colours[0], train_labels, colours[1], test_labels) < 0.25


def test_the_class_is_in_the_texture_even_without_colour(demo):
    """Spatial frequencies in grey say nothing of colour and position, as BYOL's features should not."""

    def spectra(images):
        grey = images.mean(axis=-1) / 255
        amplitudes = np.abs(np.fft.rfft2(grey - grey.mean(axis=(1, 2), keepdims=True)))
        return np.log1p(amplitudes).reshape(len(images), -1)

    _, (train_images, train_labels), (test_images, test_labels) = demo
    assert _score(spectra(train_images), train_labels, spectra(test_images), test_labels) > 0.6


def test_same_seed_same_bytes_and_another_seed_others(tmp_path):
    first = synthetic.write(tmp_path / "a", train=50, test=20, seed=1)
    again = synthetic.write(tmp_path / "b", train=50, test=20, seed=1)
    other = synthetic.write(tmp_path / "c", train=50, test=20, seed=2)
    for name in ("data_batch_1.bin", "data_batch_5.bin", "test_batch.bin"):
        assert (first / name).read_bytes() == (again / name).read_bytes()
        assert (first / name).read_bytes() != (other / name).read_bytes()


def test_writing_again_leaves_the_files_alone(tmp_path):
    folder = synthetic.write(tmp_path / "a", train=50, test=20)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    synthetic.write(folder, train=50, test=20)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    with pytest.raises(ValueError, match="not an empty folder"):
        synthetic.write(folder, train=60, test=20)


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(_path, _content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        synthetic.write(tmp_path / "a", train=50, test=20)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"train": 9}, {"test": 0}, {"seed": -1}])
def test_sizes_and_seed_are_checked(tmp_path, wrong):
    with pytest.raises(ValueError, match="received"):
        synthetic.write(tmp_path / "a", **{"train": 50, "test": 20, **wrong})
