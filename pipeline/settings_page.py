"""Writes docs/settings.md: every setting with its meaning and its value in each preset, from the dataclasses.

.venv/bin/python -m pipeline.settings_page docs/settings.md
"""

import dataclasses
import inspect
import pathlib
import re
import sys
from typing import Any

from pipeline.config import PRESETS, PipelineConfig

_HEAD = """# Settings

Made from the dataclasses by `make docs`; a test keeps it up to date. Each setting is changed by
`byol run --preset PRESET --set NAME=VALUE`, several by repeating `--set`. `byol settings --preset PRESET`
lists the values as `--set` takes them.
"""


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(_sections("", list(PRESETS.values()), PipelineConfig.__name__))


def described(cls: type) -> dict[str, str]:
    """What the "Attributes:" of a dataclass say of each field; several may share one description."""
    text = inspect.getdoc(cls) or ""
    _, found, listed = text.partition("Attributes:\n")
    if not found:
        return {}
    entries: list[str] = []
    for line in listed.splitlines():
        if not line.strip() or not line.startswith("    "):
            break
        if line.startswith("     "):
            entries[-1] += " " + line.strip()
        else:
            entries.append(line.strip())
    meanings: dict[str, str] = {}
    for entry in entries:
        names, _, meaning = entry.partition(": ")
        meanings |= dict.fromkeys(re.split(r",\s*", names), meaning)
    return meanings


def _sections(prefix: str, values: list[Any], title: str) -> list[str]:
    """This dataclass as a table, then those inside it. `values` holds one instance for each preset."""
    meanings = described(type(values[0]))
    rows, below = [], []
    for field in dataclasses.fields(values[0]):
        inner = [getattr(value, field.name) for value in values]
        name = prefix + field.name
        if dataclasses.is_dataclass(inner[0]):
            below += _sections(f"{name}.", inner, name)
        else:
            cells = " | ".join(f"`{value!r}`" for value in inner)
            rows.append(f"| `{name}` | {cells} | {_cell(meanings.get(field.name, ''))} |\n")
    heading = "" if not prefix else f"\n## {title}\n\n{_summary(type(values[0]))}\n"
    presets = " | ".join(PRESETS)
    table = (
        f"\n| setting | {presets} | meaning |\n|---|{'---|' * len(PRESETS)}---|\n{''.join(rows)}"
        if rows
        else ""
    )
    return [heading + table, *below]


def _summary(cls: type) -> str:
    """The first paragraph of its docstring."""
    return " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "")


if __name__ == "__main__":
    pathlib.Path(sys.argv[1]).write_text(page())
