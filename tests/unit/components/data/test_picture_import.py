"""Folders of pictures become data sets, whole or not at all."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from components.data import cifar10, dataset, decoded_parts, features, made_whole, picture_import, pictures
from components.data.picture_folders import find
from components.data.picture_import import ImportSettings, import_pictures

SETTINGS = ImportSettings(height=12, width=16, test_share=0.3, workers=1)


def _picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "PNG")
    return noise


@pytest.fixture
def source(tmp_path):
    """Two classes of 20, and 5 pictures without a label; a hidden file and a file manager's."""
    for number in range(45):
        folder = ("wool & silk", "été")[number % 2] if number < 40 else "."
        _picture(tmp_path / "photos" / folder / f"{number}.jpeg", number)
    (tmp_path / "photos" / "été" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "photos" / ".hidden").write_bytes(b"x")
    return tmp_path / "photos"


def test_every_picture_is_in_the_records_with_its_label(source, tmp_path):
    imported = import_pictures(source, tmp_path / "out", SETTINGS)
    found = cifar10.inspect_folder(tmp_path / "out")
    assert found.data_set.label_names == ("wool & silk", "été")
    assert (found.data_set.height, found.data_set.width) == (12, 16)
    assert (sum(found.train_label_counts) + found.test_records, found.train_unlabelled) == (40, 5)
    assert not imported.unreadable
    images, labels = cifar10.read_records(found.test_files[0], data_set=found.data_set)
    expected = {
        _picture(source / ("wool & silk", "été")[n % 2] / f"{n}.jpeg", n).tobytes(): n % 2 for n in range(40)
    }
    assert [expected[image.tobytes()] for image in images] == labels.tolist()


def test_what_is_held_out_depends_on_the_content_alone(source, tmp_path):
    import_pictures(source, tmp_path / "one", SETTINGS)
    for path in sorted((source / "été").glob("*.jpeg")):
        path.rename(path.with_name("new-" + path.name))
    import_pictures(source, tmp_path / "two", SETTINGS)
    hashes = []
    for name in ("one", "two"):
        images, _ = cifar10.read_records(
            tmp_path / name / "test_batch_1.bin", data_set=dataset.read(tmp_path / name)
        )
        hashes.append(sorted(features.content_hashes(images)))
    assert hashes[0] == hashes[1]


def test_processes_give_the_same_bytes(source, tmp_path):
    import_pictures(source, tmp_path / "one", SETTINGS)
    import_pictures(source, tmp_path / "two", ImportSettings(**{**vars(SETTINGS), "workers": 2}))
    for name in ("data_batch_1.bin", "test_batch_1.bin", dataset.FILE):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_equal_pictures_are_taken_once_and_the_labelled_one_stays(source, tmp_path):
    _picture(source / "été" / "again.png", 1)
    _picture(source / "free.png", 3)
    imported = import_pictures(source, tmp_path / "out", SETTINGS)
    assert (imported.repeats, imported.unlabelled) == (2, 5)
    assert sum(imported.train) + sum(imported.test) == 40


def test_one_picture_with_two_labels_is_an_error(source, tmp_path):
    _picture(source / "été" / "other.png", 0)
    with pytest.raises(ValueError, match="one picture with two labels"):
        import_pictures(source, tmp_path / "out", SETTINGS)
    assert not (tmp_path / "out").exists()


def test_a_picture_in_train_and_test_is_an_error(tmp_path):
    for split, first in (("train", 0), ("test", 5)):
        for number in range(first, first + 6):
            _picture(tmp_path / "photos" / split / "ab"[number % 2] / f"{number}.png", number)
    with pytest.raises(ValueError, match="are one picture, in train and in test"):
        import_pictures(tmp_path / "photos", tmp_path / "out", SETTINGS)


def test_unreadable_files_are_listed_and_too_many_stop(source, tmp_path):
    (source / "été" / "notes.txt").write_text("text")
    imported = import_pictures(source, tmp_path / "out", SETTINGS)
    ((path, reason),) = imported.unreadable.items()
    assert path.endswith("notes.txt")
    assert "no picture of a kind" in reason
    assert json.loads((tmp_path / "out" / "import.json").read_text())["unreadable"] == imported.unreadable
    for number in range(3):
        (source / "été" / f"{number}.txt").write_text("text")
    with pytest.raises(ValueError, match=r"4 of 49 files cannot be read, 8\.2%"):
        import_pictures(source, tmp_path / "more", SETTINGS)
    assert not (tmp_path / "more").exists()


def test_a_class_without_a_test_picture_is_an_error(source, tmp_path):
    _picture(source / "rare" / "0.png", 1000)
    with pytest.raises(ValueError, match="picture of rare: each class needs"):
        import_pictures(source, tmp_path / "out", SETTINGS)


def test_spans_keep_classes_and_size(source, tmp_path):
    out = tmp_path / "spans"
    import_pictures(source, out, SETTINGS, span=1)
    assert (out / "span-1" / "_SUCCESS").exists()
    for path in (source / "wool & silk").iterdir():
        path.unlink()
    (source / "wool & silk").rmdir()
    import_pictures(source, out, SETTINGS, span=2)
    assert dataset.read(out / "span-2").label_names == ("wool & silk", "été")
    _picture(source / "linen" / "0.png", 1000)
    with pytest.raises(ValueError, match="new classes linen"):
        import_pictures(source, out, SETTINGS, span=3)
    with pytest.raises(ValueError, match="at 12x16 pixels; received 32x32"):
        import_pictures(source, out, ImportSettings(workers=1), span=3)
    assert not (out / "span-3").exists()


@pytest.mark.parametrize("table", ["csv", "jsonl", "parquet"])
def test_a_table_names_the_labels(tmp_path, table):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[dict[str, str | None]] = [
        {"file_name": "0.png", "label": "a"},
        {"file_name": "deep/1.png", "label": None},
    ]
    for number, name in enumerate(("0.png", "deep/1.png")):
        _picture(tmp_path / name, number)
    if table == "csv":
        (tmp_path / "metadata.csv").write_text("file_name,label\n0.png,a\ndeep/1.png,\n")
    elif table == "jsonl":
        (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    else:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "metadata.parquet")
    assert [(file.path.name, file.label) for file in find(tmp_path)] == [("0.png", "a"), ("1.png", None)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("file_name,label\nmissing.png,a\n", "names missing.png, which is not there"),
        ("file_name,label\n../x.png,a\n", "outside of its folder"),
        ("file,label\n0.png,a\n", "has no file_name"),
        ("file_name,label\n0.png,a\n0.png,b\n", "two labels, a and b"),
    ],
)
def test_a_table_that_does_not_fit_is_an_error(tmp_path, text, reason):
    _picture(tmp_path / "0.png", 0)
    (tmp_path / "metadata.csv").write_text(text)
    with pytest.raises(ValueError, match=reason):
        find(tmp_path)


def test_an_empty_class_folder_is_an_error(source):
    (source / "linen").mkdir()
    with pytest.raises(ValueError, match="linen holds no picture"):
        find(source)


def test_a_share_of_the_hashes_is_held_out():
    rng = np.random.default_rng(0)
    hashes = features.content_hashes(rng.integers(0, 256, (2000, 8, 8, 3), dtype=np.uint8))
    held = [picture_import.is_test(name, 0.25) for name in hashes]
    assert np.mean(held) == pytest.approx(0.25, abs=0.04)
    within = [features.is_holdout(name) for name, out in zip(hashes, held, strict=True) if out]
    assert np.mean(within) == pytest.approx(0.1, abs=0.04)


_KILLED = """
import os, pathlib, signal, sys
from components.data import decoded_parts
from components.data.picture_import import ImportSettings, import_pictures
decoded_parts.PART_FILES = 8
kill = lambda done, total: done == 21 and os.kill(os.getpid(), signal.SIGKILL)
settings = ImportSettings(height=12, width=16, test_share=0.3, workers=1)
import_pictures(*map(pathlib.Path, sys.argv[1:3]), settings, progress=kill)
"""


@pytest.fixture
def decoding(monkeypatch):
    """The files that are decoded, in parts of eight."""
    seen = []

    def read(path, *how):
        seen.append(path)
        return pictures.read_picture(path, *how)

    monkeypatch.setattr(decoded_parts, "PART_FILES", 8)
    monkeypatch.setattr(decoded_parts, "read_picture", read)
    return seen


def test_a_killed_import_goes_on_and_decodes_nothing_twice(source, tmp_path, decoding):
    import_pictures(source, tmp_path / "whole", SETTINGS)
    assert len(decoding) == 45
    decoding.clear()
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(source), str(tmp_path / "out")],
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()  # half a data set is none
    kept = list((tmp_path / ".out.import").glob("*.npz"))
    assert len(kept) == 2
    kept[0].write_bytes(kept[0].read_bytes()[:-30])  # the machine died while this one was written
    import_pictures(source, tmp_path / "out", SETTINGS)
    assert len(decoding) == 45 - 8
    for path in (tmp_path / "whole").iterdir():
        if path.name != dataset.FILE:  # the name of the data set is in it
            assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_mended_source_is_decoded_again_only_near_what_changed(source, tmp_path, decoding, monkeypatch):
    monkeypatch.setattr(decoded_parts, "PART_FILES", 1000)
    monkeypatch.setattr(decoded_parts, "_ENDS_ONE_IN", 4)
    _picture(source / "été" / "other.png", 0)
    with pytest.raises(ValueError, match="one picture with two labels"):
        import_pictures(source, tmp_path / "out", SETTINGS)
    before = len(decoding)
    (source / "été" / "other.png").unlink()
    import_pictures(source, tmp_path / "out", SETTINGS)
    assert len(decoding) - before < 45
    assert not made_whole.work_folder(tmp_path / "out").exists()


def test_two_imports_of_one_data_set_exclude_each_other(source, tmp_path):
    with made_whole.work(tmp_path / "out"), pytest.raises(ValueError, match="Another import is at work in"):
        import_pictures(source, tmp_path / "out", SETTINGS)


def test_records_beside_the_mark_of_an_unfinished_import_are_refused(source, tmp_path):
    import_pictures(source, tmp_path / "out", SETTINGS)
    (tmp_path / "out" / dataset.UNFINISHED_FILE).touch()
    with pytest.raises(ValueError, match="a data set that is not whole"):
        cifar10.inspect_folder(tmp_path / "out")


@pytest.fixture
def loose(tmp_path):
    """Forty pictures in one folder."""
    for number in range(40):
        _picture(tmp_path / "loose" / f"{number}.png", 500 + number)
    return tmp_path / "loose"


def test_one_flat_folder_is_a_data_set_without_labels(loose, tmp_path):
    imported = import_pictures(loose, tmp_path / "out", SETTINGS)
    found = cifar10.inspect_folder(tmp_path / "out")
    assert (found.data_set.label_names, found.data_set.unlabelled) == ((), True)
    assert (found.train_label_counts, found.test_label_counts) == ((), ())
    assert found.train_unlabelled + found.test_unlabelled == 40
    assert (imported.unlabelled, imported.test_unlabelled) == (found.train_unlabelled, found.test_unlabelled)
    images, labels = cifar10.read_records(found.test_files[0], data_set=found.data_set)
    held_out = {hash_ for hash_ in _hashes(loose) if picture_import.is_test(hash_, SETTINGS.test_share)}
    assert set(features.content_hashes(images)) == held_out
    assert set(labels) == {dataset.UNLABELLED}


def _hashes(folder):
    images = [np.asarray(Image.open(path)) for path in folder.iterdir()]
    return features.content_hashes(np.stack(images))


def test_given_splits_may_be_without_labels(loose, tmp_path):
    for split, numbers in (("train", range(30)), ("test", range(30, 40))):
        (tmp_path / "photos" / split).mkdir(parents=True)
        for number in numbers:
            (loose / f"{number}.png").rename(tmp_path / "photos" / split / f"{number}.png")
    imported = import_pictures(tmp_path / "photos", tmp_path / "out", SETTINGS)
    assert (imported.unlabelled, imported.test_unlabelled) == (30, 10)


def test_only_one_split_labelled_is_an_error(source, loose, tmp_path):
    (tmp_path / "splits").mkdir()
    source.rename(tmp_path / "splits" / "train")
    loose.rename(tmp_path / "splits" / "test")
    with pytest.raises(ValueError, match="is for testing and has no label"):
        import_pictures(tmp_path / "splits", tmp_path / "out", SETTINGS)
    (tmp_path / "splits" / "train").rename(tmp_path / "splits" / "labelled")
    (tmp_path / "splits" / "test").rename(tmp_path / "splits" / "train")
    (tmp_path / "splits" / "labelled").rename(tmp_path / "splits" / "test")
    for path in (tmp_path / "splits" / "test").glob("*.jpeg"):
        path.unlink()
    with pytest.raises(ValueError, match="No train picture of wool & silk, été: each class needs some"):
        import_pictures(tmp_path / "splits", tmp_path / "out", SETTINGS)
    assert not (tmp_path / "out").exists()


def test_a_span_without_labels_or_with_few_is_welcome_beside_labelled_ones(source, loose, tmp_path):
    out = tmp_path / "spans"
    import_pictures(source, out, SETTINGS, span=1)
    import_pictures(loose, out, SETTINGS, span=2)
    found = cifar10.inspect_folder(out / "span-2")
    assert found.data_set.label_names == ("wool & silk", "été")
    assert (found.train_label_counts, found.test_label_counts) == ((0, 0), (0, 0))
    assert found.test_unlabelled > 0
    # Two labelled pictures, both of them for training by their content.
    training = [n for n in range(100, 200) if not picture_import.is_test(_one_hash(n), SETTINGS.test_share)][
        :2
    ]
    for number in training:
        _picture(loose / "été" / f"{number}.png", number)
    import_pictures(loose, out, SETTINGS, span=3)
    found = cifar10.inspect_folder(out / "span-3")
    assert found.train_label_counts == (0, 2)
    assert (found.test_label_counts, found.test_unlabelled > 0) == ((0, 0), True)


def _one_hash(seed):
    noise = np.random.default_rng(seed).integers(0, 256, (1, 12, 16, 3), dtype=np.uint8)
    return features.content_hashes(noise)[0]
