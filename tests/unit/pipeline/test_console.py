"""What reaches a person while something takes long, and what `--verbose` lets through."""

import io
import os

import pytest
from rich.console import Console
from typer.testing import CliRunner

from components.data import cifar10
from pipeline import cli, console


def test_loading_is_one_line_without_a_terminal(monkeypatch):
    monkeypatch.setattr(console, "_LIBRARIES", {"no_such_module": "TFX"})
    out = io.StringIO()
    with console.loading(Console(file=out, width=100)):
        pass
    assert out.getvalue() == "Loading TFX; nothing else happens meanwhile.\n"


def test_loading_moves_on_a_terminal_and_leaves_nothing(monkeypatch):
    monkeypatch.setattr(console, "_LIBRARIES", {"no_such_module": "TFX"})
    out = io.StringIO()
    screen = Console(file=out, width=100, force_terminal=True, _environ={"TERM": "xterm"})
    with console.loading(screen):
        pass
    assert "Loading TFX" in out.getvalue()
    assert out.getvalue().endswith("\x1b[2K")  # the line is taken away again


def test_loading_says_nothing_of_what_is_there(monkeypatch):
    monkeypatch.setattr(console, "_LIBRARIES", {"os": "TFX"})
    out = io.StringIO()
    with console.loading(Console(file=out)):
        pass
    assert out.getvalue() == ""
    assert console.loading_words(7.4, {"os"}) == "Loading TFX ✓ 7 s"


@pytest.mark.parametrize("shown", [False, True])
def test_what_goes_to_the_log_is_shown_if_asked(tmp_path, capfd, shown):
    console.show_progress(True, with_log=shown)
    log = tmp_path / "log"
    log.write_text("of before\n")
    try:
        with console.quiet(log) as person:
            os.write(1, b"a library speaks\n")
            assert not person.is_terminal
    finally:
        console.show_progress(True)
    assert log.read_text() == "of before\na library speaks\n"
    assert capfd.readouterr().err == ("a library speaks\n" if shown else "")


def test_quiet_and_verbose_exclude_each_other():
    result = CliRunner().invoke(cli.app, ["--quiet", "--verbose", "versions", "--root", "nowhere"])
    assert result.exit_code == 2
    assert "exclude each other" in result.output


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0.0 kB"), (4_321, "4.3 kB"), (2_500_000, "2.5 MB"), (1_234_567_890, "1,234.6 MB")],
)
def test_sizes(size, words):
    assert console.size_words(size) == words


def test_a_span_of_drawn_images_is_complete_and_other_than_the_first(tmp_path):
    for number in ("1", "2"):
        result = CliRunner().invoke(cli.app, ["data", "demo", str(tmp_path), "--span", number])
        assert result.exit_code == 0, result.output
    assert cifar10.span_numbers(tmp_path) == [1, 2]
    assert (tmp_path / "span-2" / "_SUCCESS").read_bytes() == b""
    first, second = ((tmp_path / f"span-{n}" / "test_batch.bin").read_bytes() for n in (1, 2))
    assert first != second
