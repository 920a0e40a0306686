"""The pages keep to the program: commands exist with their options, settings are all there, code in guides runs."""

import itertools
import pathlib
import re
import shlex
import shutil
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

from components import cifar10
from kubeflow import commands  # noqa: F401 - it completes the command line
from pipeline import cli, settings_page
from pipeline.config import PRESETS
from trainer import settings

PROJECT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]
# Typer brings its own Click in newer releases, so nothing here is compared with Click's classes.
ROOT: Any = typer.main.get_command(cli.app)
RETRAIN = ROOT.commands["retrain"]
# What stands for something else in a usage line, such as DIR or [VERSION]: such a line is not a whole command.
PLACEHOLDER = re.compile(r"[\[\]|]|\.\.\.|\b[A-Z]{2,}\b|\b[A-Z]\b")


def fenced(text: str) -> list[str]:
    """The commands in shell blocks, one a line, comments and continued lines taken care of."""
    blocks = re.findall(r"```(?:sh|bash|console)?\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        parts = [part.strip() for part in re.split(r"\s\|\s(?=\.?\S*byol )", line.split("  #")[0])]
        found += [re.sub(r"^\S*/byol ", "byol ", part) for part in parts if re.match(r"(\S*/)?byol ", part)]
    return found


def inline(text: str) -> list[str]:
    """The commands between single backquotes in running text."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [" ".join(found.split()) for found in re.findall(r"`(byol [^`]+)`", prose)]


COMMANDS = sorted(
    {
        (str(page.relative_to(PROJECT)), command)
        for page in PAGES
        for command in [*fenced(page.read_text()), *inline(page.read_text())]
    }
)


def _named(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words begin with, and the rest of them."""
    command, rest = ROOT, list(words)
    while hasattr(command, "commands"):
        assert rest, f"{words} names a group, not a command"
        assert rest[0] in command.commands, f"no command {rest[:1]} in {sorted(command.commands)}"
        command = command.commands[rest.pop(0)]
    return command, rest


def test_there_are_commands_to_check():
    assert len(COMMANDS) > 25
    assert any(page == "README.md" for page, _ in COMMANDS)


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_commands_named_in_pages_exist(page, command):
    found, rest = _named(shlex.split(re.sub(r"[\[\]]", " ", command))[1:])
    options = {option for parameter in found.params for option in parameter.opts} | {"--help"}
    if found.name == "schedule" and "--install" in options:
        # What it does not know, it hands on to `byol retrain`.
        options |= {option for parameter in RETRAIN.params for option in parameter.opts}
    assert {word.split("=")[0] for word in rest if re.match(r"--?[a-z]", word)} <= options
    for before, value in itertools.pairwise(rest):
        if before == "--preset" and not PLACEHOLDER.search(value):
            assert set(value.split("|")) <= set(PRESETS)
        if before == "--set" and not PLACEHOLDER.search(value):
            settings.override(PRESETS["demo"], [value])


@pytest.mark.parametrize(
    ("page", "command"),
    [found for found in COMMANDS if not PLACEHOLDER.search(found[1]) and " --" in found[1]],
)
def test_whole_commands_are_complete(page, command):
    """A command that can be copied has every argument that it needs, each of the right type."""
    found, rest = _named(shlex.split(command)[1:])
    with found.make_context(found.name, rest) as context:
        if context.args:
            RETRAIN.make_context("retrain", list(context.args))


def test_a_wrong_command_would_be_noticed():
    with pytest.raises(AssertionError):
        test_commands_named_in_pages_exist("", "byol walk --root x")
    with pytest.raises(AssertionError):
        test_commands_named_in_pages_exist("", "byol run --presets demo")
    with pytest.raises(AssertionError):
        test_commands_named_in_pages_exist("", "byol schedule --cron '0 3 * * *' --windows 4")
    with pytest.raises(ValueError, match="no setting"):
        test_commands_named_in_pages_exist("", "byol run --set gate.minimum=1")
    with pytest.raises(Exception, match="Missing"):
        test_whole_commands_are_complete("", "byol search --in x.npz")
    with pytest.raises(Exception, match="Missing.*preset"):
        test_whole_commands_are_complete("", "byol schedule --every 60 --data spans --root runs/nightly")


def test_the_page_of_settings_is_up_to_date():
    assert (PROJECT / "docs" / "settings.md").read_text() == settings_page.page(), "run: make docs"


def test_the_page_of_settings_names_every_setting():
    page = settings_page.page()
    for name in settings.names(PRESETS["demo"]):
        assert f"| `{name}` |" in page
    assert (
        "| `encoder.widths` | `(32, 64, 128)` | `(32, 64, 128, 256)` | `(64, 128, 256, 512)` | channels of"
        in page
    )


def test_every_page_is_reached_from_another():
    """No page is left where nobody finds it."""
    linked = {
        (page.parent / link).resolve()
        for page in PAGES
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    }
    start = {PROJECT / "README.md", PROJECT / "docs" / "index.md"}
    in_folders = {path for path in PAGES if path.parent in linked or path.parent.name == "decisions"}
    assert {path for path in PAGES if path not in linked | start | in_folders} == set()


def test_the_guide_to_own_images_writes_records_that_a_run_takes(tmp_path, monkeypatch):
    """Runs the guide's own code on drawn photographs of odd sizes."""
    guide = (PROJECT / "docs" / "guides" / "own-images.md").read_text()
    code = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert len(code) == 1
    generator = np.random.default_rng(0)
    for split, count in (("train", 3), ("test", 2)):
        for label in range(10):
            folder = tmp_path / "photos" / split / f"class-{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                picture = generator.integers(0, 256, (40 + number, 50, 3), dtype=np.uint8)
                Image.fromarray(picture).save(folder / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    exec(compile(code[0], "own-images.md", "exec"), {})  # noqa: S102 - the guide's code, as a reader runs it
    found = cifar10.inspect_folder(tmp_path / "data")
    assert (found.train_records, found.test_records) == (30, 20)
    _, labels = cifar10.read_records(tmp_path / "data" / "data_batch_1.bin")
    assert labels.tolist() == np.repeat(np.arange(10), 3).tolist()
    shutil.rmtree(tmp_path / "photos")
