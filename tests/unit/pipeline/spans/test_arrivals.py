"""A span counts when its writer has said that it is complete, and is told from a repaired one by its content."""

import os
import pathlib

import pytest

from components.data import file_digest
from pipeline.spans import arrivals, ledger


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
        "'span-07'", "'span-5' (a link to nothing)", "'span-99999999999'", "'span-x'", r"'span-\udcff'",
    ]  # fmt: skip
    assert all("rename it" in sentence for sentence in told)


@pytest.mark.parametrize("name", ["Span-4", "span_4", "spans-4", "span4", "SPAN 4", "span-4.tmp", "week-4"])
def test_a_name_that_is_nearly_a_spans_is_told_and_whatever_has_a_marker(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / arrivals.COMPLETE_MARKER).touch()
    assert [sentence.split(" in ")[0] for sentence in arrivals.odd_folders(tmp_path)] == [repr(name)]
    assert arrivals.complete_spans(tmp_path) == {}


def test_a_file_with_a_spans_name_is_told_and_what_is_no_span_is_left_alone(tmp_path):
    _span(tmp_path, 3, "data_batch_1.bin")
    for name in ("test", "spanish", "raw", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "test" / arrivals.COMPLETE_MARKER).touch()
    assert arrivals.odd_folders(tmp_path) == []
    (tmp_path / "span-4").touch()
    (tmp_path / "span-5.tar").touch()
    told = arrivals.odd_folders(tmp_path)
    assert [sentence.split(" in ")[0] for sentence in told] == ["'span-4' (a file)", "'span-5.tar' (a file)"]


def test_a_link_to_nothing_and_a_name_that_is_no_text_inside_a_span_stop_none_beside_it(tmp_path):
    good = _span(tmp_path, 3, "data_batch_1.bin")
    bad = _span(tmp_path, 4)
    (bad / "data_batch_1.bin").symlink_to(tmp_path / "gone")
    (bad / "loop.bin").symlink_to(bad / "loop.bin")
    (_span(tmp_path, 5) / os.fsdecode(b"data_batch_\xff.bin")).touch()
    found = arrivals.complete_spans(tmp_path)
    assert list(found) == [3, 4, 5]
    assert found[3] == arrivals.fingerprint(good)
    (tmp_path / "gone").write_bytes(b"\0" * 3073)
    assert arrivals.fingerprint(bad) != found[4]  # mended, it is another delivery


def test_a_span_that_may_not_be_looked_into_is_told_and_stops_none_beside_it(tmp_path, monkeypatch):
    _span(tmp_path, 3, "data_batch_1.bin")
    closed = _span(tmp_path, 4, "data_batch_1.bin")
    is_file, iterdir = pathlib.Path.is_file, pathlib.Path.iterdir

    def refusing(function):
        def call(path):
            if closed in (path, path.parent):
                raise PermissionError(13, "Permission denied")
            return function(path)

        return call

    monkeypatch.setattr(pathlib.Path, "is_file", refusing(is_file))
    monkeypatch.setattr(pathlib.Path, "iterdir", refusing(iterdir))
    assert list(arrivals.complete_spans(tmp_path)) == [3]
    (told,) = arrivals.without_marker(tmp_path, 1.0)
    assert told.startswith(f"span 4 in {tmp_path} cannot be looked into (Permission denied)")


def test_the_fingerprint_changes_with_name_size_and_time(tmp_path):
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


def _relabel(file):
    """Changes a label where it stands and puts the old times back, as `sed -i` with `touch -r` does."""
    before = file.stat()
    with file.open("r+b") as stream:
        stream.write(b"\7")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def _record(span, **told):
    return ledger.SpanRecord(ledger.ACCEPTED, "", arrivals.fingerprint(span), ledger.now(), **told)


def test_a_span_relabelled_in_place_with_its_old_times_is_another_delivery(tmp_path):
    path = _span(tmp_path, 1, "data_batch_1.bin")
    known = {1: _record(path, seal=arrivals.seal(path))}
    assert arrivals.complete_spans(tmp_path, known) == {1: known[1].fingerprint}
    _relabel(path / "data_batch_1.bin")
    assert arrivals.complete_spans(tmp_path, known) != {1: known[1].fingerprint}


@pytest.mark.parametrize("description", ["dataset.json", "batches.meta.txt"])
def test_other_label_names_are_another_delivery(description, tmp_path):
    path = _span(tmp_path, 1, "data_batch_1.bin", description)
    first = arrivals.fingerprint(path)
    _relabel(path / description)
    assert arrivals.fingerprint(path) != first


def test_what_was_not_written_to_is_not_read_again(tmp_path, monkeypatch):
    path = _span(tmp_path, 1, "data_batch_1.bin")
    known = {1: _record(path, seal=arrivals.seal(path))}
    monkeypatch.setattr(file_digest, "sha256", lambda path: pytest.fail(f"{path} was read"))
    assert arrivals.complete_spans(tmp_path, known) == {1: known[1].fingerprint}


def test_other_permissions_are_no_other_delivery(tmp_path):
    path = _span(tmp_path, 1, "data_batch_1.bin")
    known = {1: _record(path, seal=arrivals.seal(path))}
    (path / "data_batch_1.bin").chmod(0o600)
    assert arrivals.seal(path) != known[1].seal
    assert arrivals.complete_spans(tmp_path, known) == {1: known[1].fingerprint}


def test_what_an_earlier_release_noted_goes_on_counting(tmp_path):
    path = _span(tmp_path, 1, "data_batch_1.bin")
    earlier = arrivals.fingerprint(path).partition(":")[0]
    known = {1: ledger.SpanRecord(ledger.ACCEPTED, "", earlier, ledger.now())}
    assert arrivals.complete_spans(tmp_path, known) == {1: earlier}
    os.utime(path / "data_batch_1.bin", ns=(0, 1))
    assert arrivals.complete_spans(tmp_path, known) != {1: earlier}


def test_a_file_that_cannot_be_read_keeps_no_other_span_waiting(tmp_path, monkeypatch):
    for number in (1, 2):
        _span(tmp_path, number, "data_batch_1.bin")
    whole = arrivals.complete_spans(tmp_path)

    def sha256(path):
        if "span-1" in str(path):
            raise OSError(5, "Input/output error")
        return read(path)

    read = file_digest.sha256
    monkeypatch.setattr(file_digest, "sha256", sha256)
    found = arrivals.complete_spans(tmp_path)
    assert found[2] == whole[2]
    assert found[1] != whole[1]
