"""Markdown that says what the values say: names of classes come from strangers, and may hold anything printable."""

from collections.abc import Sequence

# Backslash first. An underscore between letters is no emphasis, and metrics' names are full of them.
_MEANT = "\\`*[]<>|"


def escaped(text: str) -> str:
    """Text that a Markdown reader shows as it is: no tag, no link, no emphasis, no new cell, on one line."""
    text = text.replace("&", "&amp;")
    for character in _MEANT:
        text = text.replace(character, f"\\{character}" if character != "<" else "&lt;")
    return " ".join(text.splitlines())


def lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table, a line a row; cells are shown as they are."""
    cells = [" | ".join(map(escaped, row)) for row in (header, *rows)]
    return [f"| {cells[0]} |", f"|{'---|' * len(header)}", *(f"| {row} |" for row in cells[1:])]
