"""A disk that is full wherever a command writes: status 1 and one line, for nothing is wrong with what was asked."""

import errno
import os
import pathlib

import pytest
from typer.testing import CliRunner

from components import staging
from components.serving import candidates, serving_folder
from pipeline import cli, console
from pipeline.root import Root

WRITES = ("write_text", "write_bytes", "mkdir", "touch", "open")


@pytest.fixture
def root(tmp_path: pathlib.Path) -> Root:
    """A root with two versions and a candidate."""
    place = Root(tmp_path / "root")
    for name in "ABC":
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").write_text(name)
    for name in "AB":
        serving_folder.publish(tmp_path / name, place.serving)
    candidates.hold(tmp_path / "C", place.serving, {})
    return place


@pytest.fixture
def full(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file or folder is made any more once the root is there; what is there can be read, written to and removed."""
    del root

    def refuses(name: str):
        before = getattr(pathlib.Path, name)

        def write(self: pathlib.Path, *arguments: object, **named: object):
            mode = str(arguments[0] if arguments else named.get("mode", "r"))
            if self.exists() or (name == "open" and not set(mode) & set("wax+")):
                return before(self, *arguments, **named)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

        return write

    for name in WRITES:
        monkeypatch.setattr(pathlib.Path, name, refuses(name))


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize(
    "words",
    [
        ("approve", "--root", "ROOT"),
        ("reject", "--root", "ROOT", "--reason", "cats"),
        ("rollback", "--root", "ROOT"),
        ("retrain", "--data", "DATA", "--root", "ROOT", "--preset", "demo"),
        ("run", "--preset", "demo", "--root", "ROOT"),
        ("run", "--preset", "demo", "--root", "NEW"),
        ("data", "demo", "NEW"),
        ("schedule", "--every", "60", "--install", "systemd", "--unit-dir", "NEW", "--data", "DATA", "--root", "ROOT",
         "--preset", "demo"),
    ],
    ids=lambda words: f"{words[0]} {words[-1]}",
)  # fmt: skip
def test_a_full_disk_is_one_line_and_status_1_and_what_is_served_stays(
    words: tuple[str, ...], root: Root, tmp_path: pathlib.Path
) -> None:
    before = [version.number for version in serving_folder.versions(root.serving)]
    places = {"ROOT": root.path, "NEW": tmp_path / "new", "DATA": root.serving}
    result = CliRunner().invoke(cli.app, [str(places.get(word, word)) for word in words])
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 1, result.output
    assert result.output.count("the disk is full") == 1, result.output
    assert result.output.count("\n") == 1
    assert [version.number for version in serving_folder.versions(root.serving)] == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE])
def test_what_the_machine_lacks_is_no_fault_of_the_words_though_another_error_tells_of_it(
    number: int,
) -> None:
    lack = OSError(number, os.strerror(number), "x")
    told = ValueError("Cannot write x: choose another --out.")
    told.__cause__ = lack
    assert [console.status(error) for error in (lack, told)] == [1, 1]
    assert console.reason(told) == str(told)
    assert ("free some space" in console.reason(lack)) == (number in (errno.ENOSPC, errno.EDQUOT))
    for error in (ValueError("x"), FileNotFoundError(errno.ENOENT, "x"), PermissionError(errno.EACCES, "x")):
        assert (console.status(error), console.reason(error)) == (2, str(error))


def test_a_file_that_was_there_outlives_a_disk_that_fills_while_it_is_replaced(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    staging.write_atomically(path, "before")

    def fills(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fills)
    with pytest.raises(OSError, match="No space left"):
        staging.write_atomically(path, "after")
    assert [one.read_text() for one in tmp_path.iterdir()] == ["before"]
