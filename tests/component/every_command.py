"""Every command that has a `--root`, with words that are good enough to reach its first look at the disk."""

import pathlib
from collections.abc import Iterator
from typing import Any

import typer

from pipeline import cli

VALUES = {
    "preset": "demo",
    "data": "DATA",
    "test": "DATA/test",
    "images": "picture.png",
    "image": "picture.png",
    "out": "OUT.npz",
    "source": "table.npz",
}


def _commands(group: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command that has a `--root`."""
    for name, command in group.commands.items():
        words = (*above, name)
        if hasattr(command, "commands"):
            yield from _commands(command, words)
        elif any(parameter.name == "root" for parameter in command.params):
            yield words


WITH_ROOT = sorted(_commands(typer.main.get_command(cli.app)))


def arguments(words: tuple[str, ...], root: pathlib.Path, **places: pathlib.Path) -> list[str]:
    """The words of a command in this root, with what it asks for; `places` are for its further arguments by name."""
    command: Any = typer.main.get_command(cli.app)
    for word in words:
        command = command.commands[word]
    found = ["--root", str(root)]
    for parameter in command.params:
        value = VALUES.get(str(parameter.name), "1").replace("DATA", str(root.parent / "data"))
        value = str(places.get(str(parameter.name), value))
        is_asked = parameter.required or parameter.name == "data" or parameter.name in places
        if parameter.name == "root" or not is_asked:
            continue
        found += [value] if parameter.param_type_name == "argument" else [parameter.opts[0], value]
    return [*words, *found]
