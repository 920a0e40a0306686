"""How a terminal shows what a refused model missed; the words and numbers are those of `components.gate.misses`."""

import dataclasses
import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.gate.misses import HEADINGS, SHOWN, Miss
from components.staging import is_cut, read_either
from pipeline.root import Root


def table(missed: Sequence[Miss]) -> Table:
    """A row a miss, for 80 columns: numbers stay whole, words are wrapped."""
    found = Table(box=None, pad_edge=False)
    for place, heading in enumerate(HEADINGS):
        is_number = place >= 2
        found.add_column(heading, justify="right" if is_number else "left", no_wrap=is_number)
    for miss in missed:
        if miss.asked is not None and miss.measured is not None:
            found.add_row(*map(Text, miss.cells))  # a class may be called [bold]
    return found


def recorded(root: Root, run_id: str | None) -> tuple[Miss, ...]:
    """What a finished run's summary says was missed; nothing for a run without a whole summary, or an older one.

    Raises:
        ValueError: the summary is no JSON.
    """
    if run_id is None or not root.summary(run_id).is_file():
        return ()
    names = {field.name for field in dataclasses.fields(Miss)}
    text = read_either(root.summary(run_id))
    found = [] if is_cut(text) else json.loads(text).get("missed", [])
    return tuple(Miss(**{name: value for name, value in row.items() if name in names}) for row in found)


def tell(missed: Sequence[Miss], screen: Console) -> None:
    """Prints the table, and a line for each miss that is no number."""
    numbers = table(missed[:SHOWN])
    if numbers.row_count:
        screen.print(numbers, highlight=False)
    for miss in missed[:SHOWN]:
        if miss.asked is None or miss.measured is None:
            screen.print(miss.words, highlight=False, markup=False, soft_wrap=True)
    if len(missed) > SHOWN:
        screen.print(f"And {len(missed) - SHOWN} more, which the run's report lists.", highlight=False)
