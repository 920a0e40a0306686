"""A span counts when its writer has said that it is complete, and is told from a repaired one without being read."""

import os

import pytest

from pipeline.spans import arrivals


def _span(folder, number, *files, complete=True):
    path = folder / f"span-{number}"
    path.mkdir(parents=True)
    for name in files:
        (path / name).write_bytes(b"\0" * 3073)
    if complete:
        (path / arrivals.COMPLETE_MARKER).touch()
    return path


def test_only_complete_spans_count_and_numbers_ascend(tmp_path):
    for number in (10, 9, 2):
        _span(tmp_path, number, "data_batch_1.bin")
    _span(tmp_path, 11, "data_batch_1.bin", complete=False)
    (tmp_path / "test").mkdir()
    assert list(arrivals.complete_spans(tmp_path)) == [2, 9, 10]


def test_an_empty_folder_has_none(tmp_path):
    assert arrivals.complete_spans(tmp_path) == {}


def test_no_folder_says_what_belongs_there(tmp_path):
    with pytest.raises(
        ValueError, match=r"No such folder: .*spans\. Expected one that holds span-N folders.*_SUCCESS"
    ):
        arrivals.complete_spans(tmp_path / "spans")


def test_odd_folders_are_told_and_do_not_stop_the_good_span_beside_them(tmp_path):
    for name in ("07", "x", "99999999999", 3):
        _span(tmp_path, name, "data_batch_1.bin")
    (tmp_path / "span-5").symlink_to(tmp_path / "gone")
    os.mkdir(os.fsencode(tmp_path) + b"/span-\xff")
    assert list(arrivals.complete_spans(tmp_path)) == [3]
    told = arrivals.odd_folders(tmp_path)
    assert [sentence.split(" in ")[0] for sentence in told] == [
        "'span-07'", "'span-5 (a link to nothing)'", "'span-99999999999'", "'span-x'", r"'span-\udcff'",
    ]  # fmt: skip
    assert all("rename it" in sentence for sentence in told)


def test_the_fingerprint_changes_with_name_size_and_time_and_with_nothing_else(tmp_path):
    path = _span(tmp_path, 1, "data_batch_1.bin")
    file = path / "data_batch_1.bin"
    first = arrivals.fingerprint(path)
    (path / "notes.txt").write_text("not data")
    assert arrivals.fingerprint(path) == first
    os.utime(file, ns=(0, 1))
    touched = arrivals.fingerprint(path)
    file.write_bytes(b"\0" * 6146)
    os.utime(file, ns=(0, 1))
    longer = arrivals.fingerprint(path)
    file.rename(path / "data_batch_2.bin")
    assert len({first, touched, longer, arrivals.fingerprint(path)}) == 4
