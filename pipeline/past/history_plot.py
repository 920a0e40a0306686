"""The accuracy over the runs of a root as one SVG: what was pushed, is served, was refused or failed."""

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping

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
# Colours are attributes, which every viewer reads; a dark screen overrides them by what each is for.
_STYLE = """
svg.runs{font:12px system-ui,sans-serif;background:#ffffff}
@media screen and (prefers-color-scheme:dark){
svg.runs{background:#14181c}
.runs .label{fill:#e6e9ec}.runs .tick{stroke:#39414a}.runs .hollow{fill:#14181c}
.runs text.pushed{fill:#58c68c;stroke:none}.runs .pushed,.runs .served{stroke:#58c68c}.runs .shipped{fill:#58c68c}
.runs text.refused{fill:#ff8f84;stroke:none}.runs .refused{stroke:#ff8f84}
.runs text.failed{fill:#a9b2bb;stroke:none}.runs .failed{stroke:#a9b2bb}
.runs text.random{fill:#b79fe0;stroke:none}.runs .random{stroke:#b79fe0}
}
"""
_WORDS = {"fill": _INK, "class": "label"}
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
            "class": "runs",
            "role": "img",
        },
    )
    ET.SubElement(picture, "title").text = _TITLE
    ET.SubElement(picture, "desc").text = description(past)
    ET.SubElement(picture, "style").text = _STYLE
    ticks = _ticks(runs)
    _axes(picture, runs, ticks)
    _line(picture, runs, [run.random_encoder_accuracy for run in runs], ticks, _RANDOM, "random")
    shipped = [run.accuracy if run.outcome in _SHIPPED else None for run in runs]
    _line(picture, runs, shipped, ticks, _PUSHED, "pushed")
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
        ET.SubElement(picture, "line", {**ends, "stroke": _GRID, "class": "tick"})
        _text(picture, LEFT - 8, height + 4, f"{100 * tick:.4g}%", "end")
    every = -(-len(runs) // _LABELS) or 1
    for place, run in list(enumerate(runs))[::every]:
        across = x(place, len(runs))
        span = f"span {run.newest_span}" if run.newest_span else ""  # 0 stands for data without spans
        _text(picture, across, HEIGHT - BOTTOM + 18, (run.started or "")[:10], "middle")
        _text(picture, across, HEIGHT - BOTTOM + 33, span, "middle")


def _line(
    picture: ET.Element,
    runs: list[RunEntry],
    values: list[float | None],
    ticks: list[float],
    colour: str,
    kind: str,
) -> None:
    points = [f"{x(i, len(runs)):.1f},{y(v, ticks):.1f}" for i, v in enumerate(values) if v is not None]
    if len(points) > 1:
        ET.SubElement(
            picture,
            "polyline",
            {
                "points": " ".join(points),
                "fill": "none",
                "stroke": colour,
                "stroke-dasharray": "5 4" if kind == "random" else "none",
                "class": kind,
            },
        )


def _mark(picture: ET.Element, run: RunEntry, place: tuple[float, float], is_served: bool) -> None:
    """A dot for a pushed model, with a ring if it is served; a hollow one for a refused; a cross for a failure."""
    across, height = place
    group = ET.SubElement(picture, "g", {"class": run.outcome.replace(" ", "-")})
    ET.SubElement(group, "title").text = _told(run)
    if run.outcome not in (*_SHIPPED, history.REFUSED):
        arms = f"M{across - 5:.1f} {height - 5:.1f}l10 10m0 -10l-10 10"
        ET.SubElement(group, "path", {**_line_of("failed", _FAILED), "d": arms, "fill": "none"})
        return
    shipped = run.outcome in _SHIPPED
    colour = _PUSHED if shipped else _REFUSED
    kind = "pushed" if shipped else "refused"
    circle = {"cx": f"{across:.1f}", "cy": f"{height:.1f}", **_line_of(kind, colour)}
    inside = {
        "fill": colour if shipped else "#ffffff",
        "class": f"{kind} {'shipped' if shipped else 'hollow'}",
    }
    ET.SubElement(group, "circle", {**circle, **inside, "r": "5"})
    if is_served:
        ET.SubElement(group, "circle", {**circle, "r": "10", "fill": "none", "class": "served"})


def _line_of(kind: str, colour: str) -> dict[str, str]:
    return {"stroke": colour, "stroke-width": "2", "class": kind}


def _told(run: RunEntry) -> str:
    """What a pointer on the mark shows."""
    accuracy = "no accuracy" if run.accuracy is None else f"accuracy {run.accuracy:.2%}"
    parts = [
        run.run_id or "no run",
        f"spans {', '.join(map(str, filter(None, run.spans))) or 'none'}",
        accuracy,
        run.outcome,
    ]
    return "; ".join(
        [*parts, *([str(run.version)] if run.version else []), *([run.reason] if run.reason else [])]
    )


def _legend(picture: ET.Element) -> None:
    entries = [
        (0, "pushed", _PUSHED, "● pushed (◎ served now)"),
        (180, "refused", _REFUSED, "○ refused"),
        (280, "failed", _FAILED, "✕ failed or unfinished"),
        (450, "random", _RANDOM, "┅ untrained encoder"),
    ]
    for across, kind, colour, words in entries:
        _text(picture, LEFT + across, HEIGHT - 14, words, "start", {"fill": colour, "class": kind})


def _text(
    parent: ET.Element, at_x: float, at_y: float, words: str, anchor: str, look: Mapping[str, str] = _WORDS
) -> None:
    place = {"x": f"{at_x:.1f}", "y": f"{at_y:.1f}", "text-anchor": anchor}
    ET.SubElement(parent, "text", {**place, **look}).text = words
