"""Where a run stands: one live table of its nodes on a terminal, plain lines elsewhere."""

import contextlib
import dataclasses
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from absl import logging as absl_logging
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from components.staging import read_either
from pipeline.root import Root

# TFX's own words, by which the runner is followed without a copy of its loop.
_STARTED = "Component %s is running."
_FINISHED = "Component %s is finished."
_CACHED = "A cached execution %d is used."
WAITING, RUNNING, DONE, CACHED, FAILED = "waiting", "running", "done", "from cache", "failed"
_MARKS = {WAITING: "·", RUNNING: "▶", DONE: "✓", CACHED: "=", FAILED: "✗"}
_STYLES = {WAITING: "dim", RUNNING: "bold", DONE: "green", CACHED: "cyan", FAILED: "bold red"}
_REFRESHES_PER_SECOND = 4
_TIME_WIDTH = len("0:00:00")
_LONG_REMARK = 2  # more lines that a trainer's remark takes on a terminal of 80 columns


class View(Protocol):
    """Shows a person what happens."""

    def started(self, node: str) -> None:
        """A node began."""

    def finished(self, node: str, state: str, seconds: float) -> None:
        """A node ended as DONE, CACHED or FAILED."""

    def told(self, line: str) -> None:
        """The node at work says how far it is."""


class PlainView:
    """A line when a node starts, when it ends, and for what it says in between."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def started(self, node: str) -> None:
        """Prints the node's name."""
        self._console.print(f"[bold]{node}[/bold]", highlight=False)

    def finished(self, node: str, state: str, seconds: float) -> None:
        """Prints how long it took."""
        how = f"{seconds:.1f} s" if state == DONE else state
        self._console.print(f"  [dim]{node}: {how}[/dim]", highlight=False)

    def told(self, line: str) -> None:
        """Prints the line."""
        self._console.print(f"  {line}", highlight=False, markup=False)


@dataclasses.dataclass
class _Row:
    state: str = WAITING
    seconds: float = 0.0
    line: str = ""


class LiveView:
    """A table with a row a node: state, time, time left. Rich draws it again several times a second.

    Args:
        nodes: in the order of the run.
        expected: seconds that nodes took in earlier runs; those not in it have no estimate.
        clock: seconds, for tests.
    """

    def __init__(
        self, nodes: Sequence[str], expected: dict[str, float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._rows = {node: _Row() for node in nodes}
        self._expected = expected
        self._running = ""
        self._node_start = self._start = self._clock()

    def started(self, node: str) -> None:
        """Marks the node as running."""
        self._running, self._node_start = node, self._clock()
        self._rows.setdefault(node, _Row()).state = RUNNING

    def finished(self, node: str, state: str, seconds: float) -> None:
        """Marks how the node ended."""
        row = self._rows.setdefault(node, _Row())
        row.state, row.seconds, row.line = state, seconds, ""

    def told(self, line: str) -> None:
        """Shows the line beside the running node until the next one."""
        if self._running:
            self._rows[self._running].line = line

    def seconds_left(self) -> float | None:
        """Of the whole run, by what the nodes to come took before; None at its end, and if one of them never ran."""
        if all(row.state not in (WAITING, RUNNING) for row in self._rows.values()):
            return None
        left = 0.0
        for node, row in self._rows.items():
            if row.state not in (WAITING, RUNNING):
                continue
            if node not in self._expected:
                return None
            worked = self._clock() - self._node_start if row.state == RUNNING else 0.0
            left += max(0.0, self._expected[node] - worked)
        return left

    def __rich__(self) -> Table:
        """The table as it is now."""
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, min_width=max(map(len, self._rows), default=0))
        table.add_column(no_wrap=True, justify="right", min_width=_TIME_WIDTH)
        table.add_column()  # what a trainer says may take another line
        for node, row in self._rows.items():
            style = _STYLES[row.state]
            table.add_row(
                Text(_MARKS[row.state], style),
                Text(node, style),
                self._time(row),
                Text(self._remark(node, row), "dim"),
            )
        table.add_row("", "all", clock_time(self._clock() - self._start), Text(self._all_left(), "dim"))
        return table

    def _time(self, row: _Row) -> str:
        if row.state == RUNNING:
            return clock_time(self._clock() - self._node_start)
        return clock_time(row.seconds) if row.state in (DONE, FAILED) else ""

    def _remark(self, node: str, row: _Row) -> str:
        if row.state == WAITING and self._expected.get(node, 0.0) >= 1.0:
            return f"{WAITING}, about {clock_time(self._expected[node])}"
        if row.state != RUNNING:
            return row.state if row.state != DONE else ""
        if row.line:
            return row.line
        if node not in self._expected:
            return "running"
        return left_words(self._expected[node] - (self._clock() - self._node_start))

    def _all_left(self) -> str:
        left = self.seconds_left()
        return "" if left is None else left_words(left)


class NodeFollower(logging.Handler):
    """Follows TFX's log and tells a view which node runs, how long it took and whether its cache was used.

    Attributes:
        running: the node at work, which is the one to name when the run fails; None between nodes.
    """

    def __init__(self, view: View) -> None:
        super().__init__()
        self.view = view
        self.running: str | None = None
        self._started = 0.0
        self._cached = False

    def emit(self, record: logging.LogRecord) -> None:
        """Takes up the start, the end and the cache of a node."""
        if record.msg == _STARTED and isinstance(record.args, tuple):
            self.running, self._started, self._cached = str(record.args[0]), time.monotonic(), False
            self.view.started(self.running)
        elif record.msg == _CACHED:
            self._cached = True
        elif record.msg == _FINISHED and self.running is not None:
            state = CACHED if self._cached else DONE
            self.view.finished(self.running, state, time.monotonic() - self._started)
            self.running = None

    def failed(self) -> None:
        """Tells that the node at work ended the run."""
        if self.running is not None:
            self.view.finished(self.running, FAILED, time.monotonic() - self._started)


def node_at_work() -> str:
    """The node that a follower of this process sees running; "" where there is none."""
    followers = (h for h in absl_logging.get_absl_logger().handlers if isinstance(h, NodeFollower))
    return next((follower.running for follower in followers if follower.running), "")


class TrainingLines(logging.Handler):
    """Hands on what the trainers log: epochs, losses, speed, time left."""

    def __init__(self, view: View) -> None:
        super().__init__(logging.INFO)
        self.view = view

    def emit(self, record: logging.LogRecord) -> None:
        """Tells the message as it is."""
        self.view.told(record.getMessage())


@contextlib.contextmanager
def followed(console: Console, nodes: Sequence[str], expected: dict[str, float]) -> Iterator[NodeFollower]:
    """Shows the run inside the `with` on the console: live on a terminal of enough lines, by lines elsewhere.

    Args:
        console: that reaches the person.
        nodes: in their order.
        expected: seconds of nodes in earlier runs.
    """
    live_view = LiveView(nodes, expected)
    # A table taller than the terminal could not be drawn over.
    lines_needed = len(nodes) + 1 + _LONG_REMARK
    is_live = console.is_terminal and not console.is_dumb_terminal and console.height > lines_needed
    follower = NodeFollower(live_view if is_live else PlainView(console))
    lines = TrainingLines(follower.view)
    absl, ours = absl_logging.get_absl_logger(), logging.getLogger("byol")
    absl_logging.set_verbosity(absl_logging.INFO)
    ours.setLevel(logging.INFO)
    absl.addHandler(follower)
    ours.addHandler(lines)
    # Both streams belong to the log file meanwhile, so the live table must not take them for itself.
    live = Live(
        live_view,
        console=console,
        refresh_per_second=_REFRESHES_PER_SECOND,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    try:
        with live if is_live else contextlib.nullcontext():
            try:
                yield follower
            except BaseException:
                follower.failed()
                raise
    finally:
        absl.removeHandler(follower)
        ours.removeHandler(lines)


def expected_seconds(root: Root, preset: str) -> dict[str, float]:
    """The longest that each node took in finished runs of a preset: one from the cache says nothing of its work."""
    longest: dict[str, float] = {}
    for path in root.path.glob("runs/*/summary.json"):
        try:
            summary = json.loads(read_either(path))
        except (OSError, ValueError):
            continue  # only an estimate is lost
        if summary.get("preset") == preset:
            for node, seconds in summary.get("components", {}).items():
                longest[node] = max(longest.get(node, 0.0), float(seconds))
    return longest


def clock_time(seconds: float) -> str:
    """Seconds as 0:07, 12:03 or 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def left_words(seconds: float) -> str:
    """An estimate in words."""
    return f"about {clock_time(seconds)} left" if seconds >= 1 else "nearly done"
