"""The pages keep to the program: commands exist with their options, settings are all there, code in guides runs."""

import itertools
import pathlib
import re
import shlex
import shutil
import sys
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from components.data import cifar10
from kubeflow import commands  # noqa: F401 - it completes the command line
from pipeline import cli, settings_page
from pipeline.config import PRESETS
from tests import docs_commands
from trainer import settings

PROJECT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]
# Typer brings its own Click in newer releases, so nothing here is compared with Click's classes.
ROOT: Any = typer.main.get_command(cli.app)
RETRAIN = ROOT.commands["retrain"]
# What stands for something else in a usage line, such as DIR or [VERSION]: such a line is not a whole command.
PLACEHOLDER = re.compile(r"[\[\]|]|\.\.\.|\b[A-Z]{2,}\b|\b[A-Z]\b")


# Not a path, and not in one, with what an interpreter is given after it.
BARE_PYTHON = re.compile(r"(?<![\w./-])python3?(?= +(?:-[a-zA-Z]\b|[\w/.-]+\.py\b))")


SAMPLE = r"""
```sh
make run     # makes the environment

# only a remark
byol embed IMAGES --root DIR
byol run --preset demo|cpu [--data DIR]
printf '{"a": "%s"}' \
    "$(base64 x)" | curl -d @- localhost:1/v1
```
```
make what a program says
```
```python
import numpy
```
"""


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


def test_no_page_calls_an_interpreter_by_a_bare_name():
    """Debian 13 has no `python`, and its `python3` has none of our packages: from a clone, `.venv/bin/python` works."""
    bare = "python -m x, `python3 -c 1`, KERAS_BACKEND=jax python a/b.py"
    assert len(BARE_PYTHON.findall(bare)) == 3
    assert not BARE_PYTHON.search(
        ".venv/bin/python -m x; PYTHON a.py; Python 3.10; /usr/bin/python3 x.py; in python code"
    )
    written = [*PAGES, PROJECT / "CHANGELOG.md", PROJECT / "Makefile"]
    found = {
        f"{path.relative_to(PROJECT)}: {line.strip()[:80]}"
        for path in written
        for line in path.read_text().splitlines()
        if BARE_PYTHON.search(line)
    }
    assert found == set()


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
    # Together, since one may need another: an engine, its endpoint.
    pairs = itertools.pairwise(rest)
    assignments = [value for before, value in pairs if before == "--set" and not PLACEHOLDER.search(value)]
    settings.override(PRESETS["demo"], assignments)


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
    with pytest.raises(Exception, match=r"Missing.*preset"):
        test_whole_commands_are_complete("", "byol schedule --every 60 --data spans --root runs/nightly")


def test_the_page_of_settings_is_up_to_date():
    assert (PROJECT / "docs" / "settings.md").read_text() == settings_page.page(), "run: make docs"


def test_the_page_of_settings_names_every_setting():
    page = settings_page.page()
    for name in settings.names(PRESETS["demo"]):
        assert f"| `{name}` |" in page
    assert re.findall(r"^\|.*\|  \|$", page, re.MULTILINE) == [], "a setting without a meaning"
    assert (
        "| `encoder.widths` | `(32, 64, 128)` | `(48, 96, 192, 512)` | `(64, 128, 256, 512)` | `(64, 128, 256, 512)` |"
        in page
    )


def test_every_decision_has_its_own_number_which_its_title_says():
    notes = [page for page in PAGES if page.parent.name == "decisions"]
    numbers = [page.name[:4] for page in notes]
    assert sorted(set(numbers)) == sorted(numbers)
    titles = [page.read_text().split(maxsplit=2)[1] for page in notes]
    assert [title.strip(".:").zfill(4) for title in titles] == numbers


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
    """Runs the guide's own import on drawn photographs of odd sizes."""
    guide = (PROJECT / "docs" / "guides" / "own-images.md").read_text()
    command = re.search(r"^byol (data import .*)$", guide, re.MULTILINE)
    assert command is not None
    generator = np.random.default_rng(0)
    for split, count in (("train", 3), ("test", 2)):
        for label in range(4):
            folder = tmp_path / "photos" / split / f"class-{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                picture = generator.integers(0, 256, (40 + number, 50, 3), dtype=np.uint8)
                Image.fromarray(picture).save(folder / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(cli.app, command[1].split())
    assert said.exit_code == 0, said.output
    found = cifar10.inspect_folder(tmp_path / "my-data")
    assert found.train_label_counts == (3,) * 4
    assert found.test_label_counts == (2,) * 4
    assert "--set gate.minimum_test_images=8" in said.output.replace("\n", " ")


def test_commands_are_taken_from_pages_as_a_shell_takes_them():
    found = docs_commands.commands("README.md", SAMPLE)
    assert [(command.language, command.shown) for command in found] == [
        ("sh", "make run"),
        ("sh", r"""printf '{"a": "%s"}' \ "$(base64 x)" | curl -d @- localhost:1/v1"""),
        ("python", "import numpy"),
    ]
    with pytest.raises(ValueError, match="does not understand"):
        docs_commands.commands("README.md", "```sh\nbyol 'x\n```")


def test_all_but_a_few_commands_of_the_pages_are_run():
    """`make docs-check` runs what these pages tell a reader to type; what it leaves out is known here."""
    found = [
        command
        for page in docs_commands.PAGES
        for command in docs_commands.commands(page, (PROJECT / page).read_text())
    ]
    left_out = {command.text for command in found if command.rule.left_out}
    # What changes the reader's own schedules, or runs until it is ended.
    schedules = {text for text in left_out if text.startswith("byol schedule ")}
    assert len(schedules) == 5
    assert left_out - schedules == {
        "make test",
        "byol run --preset gpu --data data --root runs/cifar10-gpu",
        "rm -r runs/demo pictures pictures.parquet",
    }
    assert len({command.text for command in found}) > 25
    assert set(docs_commands.PAGES) >= {"README.md", "docs/index.md"} | {
        str(page.relative_to(PROJECT))
        for page in PAGES
        if page.name.startswith("tutorial") or page.parent.name == "guides"
    }


def test_a_reader_notices_what_fails(tmp_path, monkeypatch):
    """The check itself: a command that fails, or ends otherwise than its page says, is reported."""
    interpreter = tmp_path / ".venv" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    interpreter.symlink_to(sys.executable)
    (tmp_path / "README.md").write_text(
        "```sh\ntrue\nfalse\nexit 3\necho 'Traceback'\n```\n```python\nraise SystemExit(4)\n```\n"
    )
    # Debian 13 has `python3` and no `python`.
    bash = tmp_path / "bin" / "bash"
    bash.parent.mkdir()
    bash.symlink_to(str(shutil.which("bash")))
    monkeypatch.setenv("PATH", str(bash.parent))
    wrong = docs_commands.Reader(tmp_path).read("README.md")
    assert [re.sub(r":\n.*", "", problem, flags=re.DOTALL) for problem in wrong] == [
        "README.md: false: exit status 1, expected 0",
        "README.md: exit 3: exit status 3, expected 0",
        "README.md: echo 'Traceback': exit status 0, expected 0",
        "README.md: raise SystemExit(4): exit status 4, expected 0",
    ]


def test_links_lead_somewhere():
    """What `mkdocs build --strict` asks of these pages, and of the README, without MkDocs."""
    lost = [
        (str(page.relative_to(PROJECT)), link)
        for page in PAGES
        for link in re.findall(
            r"\]\((?!https?:|#)([^)#\s]+)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        )
        if not (page.parent / link).exists()
    ]
    assert lost == []
