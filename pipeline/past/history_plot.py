"""The accuracy over the runs of a root as one SVG: what was pushed, is served, was refused or failed."""

import xml.etree.ElementTree as ET
from collections.abc import Iterable

from pipeline.past import history
from pipeline.past.history import History, RunEntry
from pipeline.report.charts import nice_ticks

WIDTH, HEIGHT = 860.0, 380.0
LEFT, RIGHT, TOP, BOTTOM = 60.0, 20.0, 40.0, 74.0
_PUSHED, _REFUSED, _FAILED, _RANDOM, _INK, _GRID = (
    "#1b7837",
    "#b2182b",
    "#7f7f7f",
    "#8c6bb1",
    "#222222",
    "#dddddd",
)
_STYLE = "font: 12px system-ui, sans-serif; background: #ffffff"
_TITLE = "Accuracy of the linear probe on the test split, by run"
_LABELS = 12  # about as many runs are named below the axis
_SHIPPED = (history.PUSHED, history.SERVED_ALREADY)


def plot(past: History) -> str:
    """The picture as SVG text: a place on the x axis for each run, the oldest on the left.

    Runs that only looked at data are left out.
    """
    runs = [run for run in past.runs if run.outcome != history.LOOKED_AT]
    picture = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {WIDTH:g} {HEIGHT:g}",
            "style": _STYLE,
            "role": "img",
        },
    )
    ET.SubElement(picture, "title").text = _TITLE
    ET.SubElement(picture, "desc").text = description(past)
    ticks = _ticks(runs)
    _axes(picture, runs, ticks)
    _line(picture, runs, [run.random_encoder_accuracy for run in runs], ticks, _RANDOM, "5 4")
    shipped = [run.accuracy if run.outcome in _SHIPPED else None for run in runs]
    _line(picture, runs, shipped, ticks, _PUSHED, "none")
    served = next((version.origin for version in past.versions if version.served), None)
    for place, run in enumerate(runs):
        height = HEIGHT - BOTTOM if run.accuracy is None else y(run.accuracy, ticks)
        is_served = run.outcome == history.PUSHED and run.version == served
        _mark(picture, run, (x(place, len(runs)), height), is_served)
        if is_served or (run.outcome == history.PUSHED and len(runs) <= _LABELS):
            _text(picture, x(place, len(runs)), height - 14, str(run.version), "middle")
    _text(picture, LEFT, 22, _TITLE, "start")
    _legend(picture)
    return ET.tostring(picture, encoding="unicode") + "\n"


def description(past: History) -> str:
    """The picture in a sentence, for those who do not see it."""
    counts = {
        outcome: sum(run.outcome == outcome for run in past.runs)
        for outcome in dict.fromkeys(r.outcome for r in past.runs)
    }
    best = max((run.accuracy for run in past.runs if run.accuracy is not None), default=None)
    told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) or "none"
    return (
        f"{len(past.runs)} runs: {told}; highest accuracy {'not known' if best is None else f'{best:.2%}'}."
    )


def x(place: int, count: int) -> float:
    """Where run number `place` of `count` stands."""
    return LEFT + (place + 0.5) / max(count, 1) * (WIDTH - LEFT - RIGHT)


def y(value: float, ticks: list[float]) -> float:
    """Where an accuracy stands between the outer ticks."""
    return HEIGHT - BOTTOM - (value - ticks[0]) / (ticks[-1] - ticks[0]) * (HEIGHT - TOP - BOTTOM)


def _ticks(runs: Iterable[RunEntry]) -> list[float]:
    values = [v for run in runs for v in (run.accuracy, run.random_encoder_accuracy) if v is not None]
    return nice_ticks(min(values), max(values), 6) if values else [0.0, 0.5, 1.0]


def _axes(picture: ET.Element, runs: list[RunEntry], ticks: list[float]) -> None:
    for tick in ticks:
        height = y(tick, ticks)
        ends = {"x1": f"{LEFT:g}", "x2": f"{WIDTH - RIGHT:g}", "y1": f"{height:.1f}", "y2": f"{height:.1f}"}
        ET.SubElement(picture, "line", {**ends, "stroke": _GRID})
        _text(picture, LEFT - 8, height + 4, f"{tick:.4g}", "end")
    every = -(-len(runs) // _LABELS) or 1
    for place, run in list(enumerate(runs))[::every]:
        across = x(place, len(runs))
        span = "" if run.newest_span is None else f"span {run.newest_span}"
        _text(picture, across, HEIGHT - BOTTOM + 18, (run.started or "")[:10], "middle")
        _text(picture, across, HEIGHT - BOTTOM + 33, span, "middle")


def _line(
    picture: ET.Element,
    runs: list[RunEntry],
    values: list[float | None],
    ticks: list[float],
    colour: str,
    dash: str,
) -> None:
    points = [f"{x(i, len(runs)):.1f},{y(v, ticks):.1f}" for i, v in enumerate(values) if v is not None]
    if len(points) > 1:
        ET.SubElement(
            picture,
            "polyline",
            {"points": " ".join(points), "fill": "none", "stroke": colour, "stroke-dasharray": dash},
        )


def _mark(picture: ET.Element, run: RunEntry, place: tuple[float, float], is_served: bool) -> None:
    """A dot for a pushed model, with a ring if it is served; a hollow one for a refused; a cross for a failure."""
    across, height = place
    group = ET.SubElement(picture, "g", {"class": run.outcome.replace(" ", "-")})
    ET.SubElement(group, "title").text = _told(run)
    if run.outcome not in (*_SHIPPED, history.REFUSED):
        arms = f"M{across - 5:.1f} {height - 5:.1f}l10 10m0 -10l-10 10"
        ET.SubElement(group, "path", {"d": arms, "stroke": _FAILED, "stroke-width": "2", "fill": "none"})
        return
    shipped = run.outcome in _SHIPPED
    colour = _PUSHED if shipped else _REFUSED
    circle = {"cx": f"{across:.1f}", "cy": f"{height:.1f}", "stroke": colour, "stroke-width": "2"}
    ET.SubElement(group, "circle", {**circle, "r": "5", "fill": colour if shipped else "#ffffff"})
    if is_served:
        ET.SubElement(group, "circle", {**circle, "r": "10", "fill": "none", "class": "served"})


def _told(run: RunEntry) -> str:
    """What a pointer on the mark shows."""
    accuracy = "no accuracy" if run.accuracy is None else f"accuracy {run.accuracy:.2%}"
    parts = [
        run.run_id or "no run",
        f"spans {', '.join(map(str, run.spans)) or 'none'}",
        accuracy,
        run.outcome,
    ]
    return "; ".join(
        [*parts, *([str(run.version)] if run.version else []), *([run.reason] if run.reason else [])]
    )


def _legend(picture: ET.Element) -> None:
    entries = [
        (_PUSHED, "● pushed (◎ served now)"),
        (_REFUSED, "○ refused"),
        (_FAILED, "✕ failed or unfinished"),
        (_RANDOM, "┅ untrained encoder"),
    ]
    for place, (colour, words) in enumerate(entries):
        _text(picture, LEFT + 190 * place, HEIGHT - 14, words, "start", colour)


def _text(parent: ET.Element, at_x: float, at_y: float, words: str, anchor: str, colour: str = _INK) -> None:
    ET.SubElement(
        parent, "text", {"x": f"{at_x:.1f}", "y": f"{at_y:.1f}", "text-anchor": anchor, "fill": colour}
    ).text = words
