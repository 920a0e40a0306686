"""What a refused model missed: one sentence, and a table of what was asked and what was measured. No TensorFlow here.

The verdict's criteria are the one source. Terminal, history, report, `verdict.md` and hooks say the same from it.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from components.gate import markdown_table

HEADINGS = ("what", "on which pictures", "asked", "measured", "short by")
SHOWN = 20  # that a person is shown at once; of a thousand classes as many may be missed
SHARE, POINTS, COUNT = "share", "points", "count"
_POINTS = 100.0  # percentage points in a share of 1
_LEAST_SHOWN = 0.005  # points; less would be written as 0.00
# Metric -> its name in words and the unit of its numbers; other metrics are shares, by their own name.
_NAMES = {
    "sparse_categorical_accuracy": ("accuracy", SHARE),
    "accuracy_under_corruption": ("accuracy when corrupted", SHARE),
    "paired_accuracy_change_upper": ("change against the served model, at best", POINTS),
    "paired_accuracy_change_lower": ("gain over an untrained encoder, at least", POINTS),
    "example_count": ("number of pictures", COUNT),
}


@dataclasses.dataclass(frozen=True)
class Miss:
    """One criterion that was not met.

    Attributes:
        what: the metric in words.
        pictures: on which it was measured.
        asked: the least that is good enough; None for what is no number.
        measured: None if it was not measured, or is no number.
        unit: "share" in [0, 1], "points" for a difference of two shares, or "count".
        note: what was wrong where there are no numbers.
    """

    what: str
    pictures: str
    asked: float | None
    measured: float | None
    unit: str = SHARE
    note: str = ""

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """The row of the table, under `HEADINGS`."""
        if self.asked is None or self.measured is None:
            asked = "" if self.asked is None else _text(self.asked, self.unit)
            return self.what, self.pictures, asked, self.note or "not measured", ""
        short = self.asked - self.measured
        return (
            self.what,
            self.pictures,
            _text(self.asked, self.unit),
            _text(self.measured, self.unit),
            _gap(short, self.unit),
        )

    @property
    def words(self) -> str:
        """The same in one clause."""
        _, _, asked, measured, short = self.cells
        where = f" on {self.pictures}" if self.pictures else ""
        if self.asked is None or self.measured is None:
            return f"{self.what}{where}: {measured}"
        return f"{self.what}{where}: {measured}, {short} short of the {asked} that was asked"


def misses(criteria: Sequence[Mapping[str, Any]]) -> list[Miss]:
    """Those of a verdict's criteria that were not met, in their order."""
    return [_miss(criterion) for criterion in criteria if not criterion["passed"]]


def sentence(criteria: Sequence[Mapping[str, Any]]) -> str:
    """Why the model was refused, in one sentence without its full stop; empty for one that met everything."""
    missed = misses(criteria)
    if not missed:
        return ""
    first = missed[0].words.rstrip(".")
    if len(missed) == 1:
        return f"1 of {len(criteria)} criteria was missed, {first}"
    return f"{len(missed)} of {len(criteria)} criteria were missed, the first being {first}"


def markdown(missed: Sequence[Miss]) -> list[str]:
    """The table as lines of Markdown; none without a row."""
    return markdown_table.lines(HEADINGS, [miss.cells for miss in missed]) if missed else []


def _miss(criterion: Mapping[str, Any]) -> Miss:
    what, unit = _NAMES.get(criterion["metric"], (criterion["metric"], SHARE))
    has_numbers = criterion["threshold"] is not None
    pictures = criterion["slice"].replace("label=", "")
    return Miss(
        what,
        pictures if has_numbers else "",
        criterion["threshold"],
        criterion["value"],
        unit,
        "" if has_numbers else criterion.get("remark", ""),
    )


def _text(value: float, unit: str) -> str:
    if unit == COUNT:
        return f"{value:,.0f}"
    return f"{_POINTS * value:+.2f} points" if unit == POINTS else f"{value:.2%}"


def _gap(value: float, unit: str) -> str:
    if unit == COUNT:
        return f"{math.ceil(value):,}"
    points = _POINTS * value
    return f"{points:.2f} points" if points >= _LEAST_SHOWN else "under 0.01 points"
