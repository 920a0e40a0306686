"""A file or a folder is there whole after a power cut, or as it was before."""

import errno
import os
import pathlib
import stat

import pytest

from components import staging
from tests.power_cut import Power


@pytest.fixture
def power(monkeypatch: pytest.MonkeyPatch) -> Power:
    return Power(monkeypatch)


def test_a_power_cut_takes_what_was_only_renamed(power: Power, tmp_path: pathlib.Path) -> None:
    (tmp_path / "part").write_text("all of it")
    (tmp_path / "part").replace(tmp_path / "record.json")
    assert power.cut(tmp_path) == [tmp_path / "record.json"]  # the play itself


def test_a_file_is_on_the_disk_before_its_name_and_its_name_before_the_end(
    power: Power, tmp_path: pathlib.Path
) -> None:
    target = tmp_path / "new" / "record.json"
    staging.write_atomically(target, "once")
    staging.write_atomically(target, "twice")
    assert power.cut(tmp_path) == []
    assert target.read_text() == "twice"
    temporary = str(target.parent / f".{os.getpid()}.record.json")
    made = ("sync", str(tmp_path))  # the new folder's own name
    assert power.events == [made, *[("sync", temporary), ("sync", str(target.parent))] * 2]


def test_a_folder_is_on_the_disk_before_its_name(power: Power, tmp_path: pathlib.Path) -> None:
    with staging.staged_folder(tmp_path / "data") as staged:
        (staged / "inner").mkdir()
        (staged / "inner" / "batch.bin").write_bytes(b"\1" * 10)
        (staged / "marker").write_text("done")
    assert power.cut(tmp_path) == []
    assert power.events[-1] == ("sync", str(tmp_path))
    assert len(power.events) == 5  # two files, two folders, and the folder above


def test_a_disk_that_is_full_at_the_sync_leaves_the_old_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging.write_atomically(tmp_path / "record.json", "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        staging.write_atomically(tmp_path / "record.json", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]
    assert (tmp_path / "record.json").read_text() == "old"


def test_a_secret_is_never_readable_by_others(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "unit"
    with staging.written_whole(path) as temporary:
        temporary.touch(mode=0o600)
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
    staging.write_atomically(path, "secret", mode=0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
