"""Geometry of the line charts: numbers to coordinates inside an SVG view box. Templates draw them."""

import dataclasses
import math
from collections.abc import Sequence

WIDTH, HEIGHT = 340.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 10.0, 12.0, 34.0


@dataclasses.dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    label: str


@dataclasses.dataclass(frozen=True)
class LineChart:
    """One line over epochs or runs.

    Attributes:
        name: the column.
        title: what it is, in words.
        points: "x,y x,y ..." of the polyline; values that are not finite are left out.
        x_ticks, y_ticks: of the axes.
        first, last: the values at both ends, as text.
        summary: the chart in one sentence, for those who do not see it.
    """

    name: str
    title: str
    points: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    first: str
    last: str
    summary: str


def line_chart(
    name: str,
    title: str,
    xs: Sequence[float],
    ys: Sequence[float],
    as_share: bool = False,
    axis: str = "epoch",
) -> LineChart | None:
    """The chart of finite values of `ys`, as percentages if they are shares, over `xs`; None when there is none.

    `axis` is what one of `xs` is, in words.
    """
    words = share if as_share else number
    pairs = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
    if not pairs:
        return None
    x_ticks = nice_ticks(min(xs), max(xs), 6, whole=True)
    y_ticks = nice_ticks(min(y for _, y in pairs), max(y for _, y in pairs), 5)
    x_low, x_high = min(xs), max(xs)
    y_low, y_high = y_ticks[0], y_ticks[-1]
    points = " ".join(f"{_x(x, x_low, x_high):.1f},{_y(y, y_low, y_high):.1f}" for x, y in pairs)
    first, last = words(pairs[0][1]), words(pairs[-1][1])
    extreme = f"lowest {words(min(y for _, y in pairs))}, highest {words(max(y for _, y in pairs))}"
    return LineChart(
        name=name,
        title=title,
        points=points,
        x_ticks=[Tick(_x(x, x_low, x_high), number(x)) for x in x_ticks if x_low <= x <= x_high],
        y_ticks=[Tick(_y(y, y_low, y_high), words(y)) for y in y_ticks],
        first=first,
        last=last,
        summary=f"{title}: {first} after {axis} {number(pairs[0][0])}, {last} after {axis} {number(pairs[-1][0])}; "
        f"{extreme}.",
    )


def nice_ticks(low: float, high: float, count: int, whole: bool = False) -> list[float]:
    """About `count` round numbers that enclose [low, high]: steps of 1, 2 or 5 times a power of ten."""
    if high <= low:
        reach = abs(low) * 0.1 or 1.0
        low, high = low - reach, low + reach
    raw = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= raw * (1 - 1e-9))
    if whole:
        step = max(1.0, round(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [place * step for place in range(first, last + 1)]


def number(value: float) -> str:
    """Three significant digits without noise: 0.0315, 12.3, 1,240."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def share(value: float) -> str:
    """A share as a percentage: 18%, 93.5%."""
    return f"{number(100.0 * value)}%"


def _x(value: float, low: float, high: float) -> float:
    share = (value - low) / (high - low) if high > low else 0.5
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _y(value: float, low: float, high: float) -> float:
    return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
