"""Every command whose root, served folder or data cannot be used: one line with the way out, before anything heavy."""

import contextlib
import os
import pathlib
import subprocess
import sys
import traceback
from collections.abc import Iterator

import prometheus_client  # noqa: F401 - whose folder the second user may not read
import pytest
from typer.testing import CliRunner

from components import path_names
from components.data import cifar10, example_gen
from pipeline import cli
from pipeline.root import Root
from pipeline.spans import arrivals
from tests.component import every_command

SOMEBODY = 1000
# Reads no run's leftovers: the encoder's commands take any folder with a version.
OF_ENCODERS = {"embed", "search", "serve"}
UNREADABLE = "unreadable"
READING = [words for words in every_command.WITH_ROOT if words[0] not in {*OF_ENCODERS, "kubeflow"}]


@contextlib.contextmanager
def nobody_special() -> Iterator[None]:
    """As a user whom permissions bind; a second one where the tests are root's."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(SOMEBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def root(tmp_path: pathlib.Path) -> Iterator[Root]:
    """A root with a store and a finished run, of somebody's; and data beside it."""
    place = Root(tmp_path / "root")
    for folder in (place.serving, place.logs, place.latest_summary.parent):
        folder.mkdir(parents=True)
    place.latest_summary.write_text('{"run_id": "2026"}')
    (tmp_path / "data" / "span-1").mkdir(parents=True)
    (tmp_path / "data" / "span-1" / "_SUCCESS").touch()
    above = [tmp_path, *tmp_path.parents]
    for path in (one for one in above if one.is_relative_to(tmp_path.parents[1])):
        path.chmod(0o755)
    for path in [tmp_path, *tmp_path.rglob("*")]:
        if os.geteuid() == 0:
            os.chown(path, SOMEBODY, SOMEBODY)
    yield place
    for path in (place.path, place.serving):
        if path.is_dir():
            path.chmod(0o755)


def said(words: tuple[str, ...], root: Root, monkeypatch: pytest.MonkeyPatch, **places: pathlib.Path) -> str:
    """What the command says; it must end with status 2, and without what takes long to import."""
    command = every_command.arguments(words, root.path, **places)
    CliRunner().invoke(cli.app, [*words, "--help"])
    with monkeypatch.context() as patched:
        for heavy in ("tensorflow", "tfx", "apache_beam"):
            patched.setitem(sys.modules, heavy, None)  # importing it is an error
        with nobody_special():
            result = CliRunner().invoke(cli.app, command)
    assert isinstance(result.exception, SystemExit), traceback.format_exception(
        *result.exc_info or (None,) * 3
    )
    assert result.exit_code == 2, result.output
    assert result.output.count("\n") == 1
    return result.output


def shut(folder: pathlib.Path) -> None:
    folder.chmod(0)


def made_a_file(folder: pathlib.Path) -> None:
    if folder.is_dir():
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()
    folder.write_text("")


def made_a_loop(folder: pathlib.Path) -> None:
    folder.rmdir()
    folder.symlink_to(folder.name)


FAULTS = {
    "root shut": ("path", shut, "Permission denied"),
    "root a file": ("path", made_a_file, ""),
    "serving shut": ("serving", shut, "Permission denied"),
    "serving a file": ("serving", made_a_file, "Not a directory"),
    "serving a loop": ("serving", made_a_loop, ""),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_a_folder_of_the_root_that_cannot_be_read_is_one_line(
    words: tuple[str, ...], fault: str, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, spoil, reason = FAULTS[fault]
    spoil(getattr(root, name))
    told = said(words, root, monkeypatch)
    assert str(getattr(root, name)) in told
    assert reason in told


@pytest.mark.parametrize("fault", ["root shut", "serving shut"])
@pytest.mark.parametrize("word", sorted(OF_ENCODERS - {"search"}))
def test_an_encoder_that_may_not_be_read_is_one_line(
    word: str, fault: str, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = root.path.parent / "picture.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    name, spoil, _ = FAULTS[fault]
    spoil(getattr(root, name))
    assert "Permission denied" in said((word,), root, monkeypatch, images=picture)


@pytest.mark.parametrize("name", ["a [1]", "a*", "a?", "a\\b", os.fsdecode(b"a\xff")])
@pytest.mark.parametrize("word", ["run", "retrain"])
def test_a_root_or_data_that_tfx_would_misread_is_one_line(
    word: str, name: str, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = root.path.parent / name
    (root.path.parent / "data").rename(there)
    for place, data in ((root, there), (Root(there), root.path)):
        told = said((word,), place, monkeypatch, data=data)
        assert "Rename it, or give a link to it" in told
        before = {"span-1"} if place.path == there else {"serving", "logs", "latest"}
        assert {path.name for path in place.path.iterdir()} - before <= {".lock", "retraining"}


@pytest.mark.parametrize("character", "^$|{}")
def test_what_tfx_reads_in_the_name_of_a_folder_with_spans_is_refused_for_data_alone(character: str) -> None:
    place = pathlib.Path(f"/a{character}b")
    path_names.check(place)
    with pytest.raises(ValueError, match="as a pattern"):
        path_names.check(place, is_data=True)


def test_a_link_is_the_way_out_and_other_odd_names_need_none(tmp_path: pathlib.Path) -> None:
    """`(`, `)`, `+`, `.` are quoted by TFX (tfx/components/example_gen/utils.py, `_glob_to_regex`)."""
    from tfx.components.example_gen import utils

    there = tmp_path / "a [1]"
    for name in ("span-1", "span-20"):
        (there / name).mkdir(parents=True)
        for pattern in ("data_batch_1.bin", "test_batch.bin"):
            (there / name / pattern).write_bytes(bytes(cifar10.RECORD_BYTES))
    for name in ("data", "a b (c) +d.é ~#%,;=@!&'"):
        link = tmp_path / name
        link.symlink_to(there)
        assert list(arrivals.complete_spans(link)) == []
        splits = example_gen.input_config("span-{SPAN}").splits
        _, span, _ = utils.calculate_splits_fingerprint_span_and_version(str(link), splits)
        assert span == 20
        assert len(example_gen.record_ranges(f"{link}/{splits[0].pattern}")) == 1


def test_what_another_user_wrote_into_a_root_is_told_before_a_run(root: Root) -> None:
    for folder in (root.artifacts, root.checkpoints, root.ledger.parent, root.path / "runs"):
        folder.mkdir()
        folder.chmod(0o555)
        with nobody_special(), pytest.raises(PermissionError) as error:
            root.check()
        assert error.value.filename == str(folder)
        folder.rmdir()
    with nobody_special():
        root.check()


def test_one_version_that_may_not_be_read_hides_no_other(root: Root) -> None:
    for number in "12":
        (root.serving / number).mkdir()
        (root.serving / number / "saved_model.pb").write_text("model")
    (root.serving / "2").chmod(0)
    with nobody_special():
        result = CliRunner().invoke(cli.app, ["versions", "--root", str(root.path), "--json"])
    (root.serving / "2").chmod(0o755)
    assert result.exit_code == 0, result.output
    assert '"version": 1' in result.output
    assert '"version": 2' in result.output


def test_a_command_line_with_a_name_that_is_no_text_ends_as_others_do(tmp_path: pathlib.Path) -> None:
    """As the shell gives it, and printed to a stream that takes UTF-8 alone."""
    root = str(tmp_path / os.fsdecode(b"a\xff"))
    command = [sys.executable, "-m", "pipeline.cli", "versions", "--root", root]
    done = subprocess.run(command, capture_output=True, check=False, timeout=120)
    assert done.returncode == 2
    assert b"There is no folder" in done.stderr
    assert b"Traceback" not in done.stderr
