"""What a person sees of a run, live and by lines, from the words that TFX logs."""

import io
import json
import logging

import pytest
from absl import logging as absl_logging
from rich.console import Console

from pipeline.root import Root
from pipeline.run import progress

NODES = ["Gen", "Pretrainer", "Pusher"]


class Clock:
    """Time that moves when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("pipeline.run.progress.time.monotonic", clock)
    return clock


def _said(view) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=100).print(view)
    return [" ".join(line.split()) for line in out.getvalue().splitlines()]


def test_the_table_follows_a_run(clock):
    view = progress.LiveView(NODES, {"Gen": 5.0, "Pretrainer": 100.0, "Pusher": 0.4}, clock)
    assert _said(view) == [
        "· Gen waiting, about 0:05",
        "· Pretrainer waiting, about 1:40",
        "· Pusher waiting",
        "all 0:00 about 1:45 left",
    ]
    view.started("Gen")
    clock.now = 2.0
    assert _said(view)[0] == "▶ Gen 0:02 about 0:03 left"
    view.finished("Gen", progress.CACHED, 2.0)
    view.started("Pretrainer")
    clock.now = 62.0
    assert _said(view) == [
        "= Gen from cache",
        "▶ Pretrainer 1:00 about 0:40 left",
        "· Pusher waiting",
        "all 1:02 about 0:40 left",
    ]
    view.told("epoch 2/4 loss 1.5")
    assert _said(view)[1] == "▶ Pretrainer 1:00 epoch 2/4 loss 1.5"
    clock.now = 300.0  # longer than ever before
    assert view.seconds_left() == 0.4
    view.finished("Pretrainer", progress.DONE, 298.0)
    assert _said(view)[1] == "✓ Pretrainer 4:58"
    view.finished("Pusher", progress.FAILED, 1.0)
    assert _said(view)[2:] == ["✗ Pusher 0:01 failed", "all 5:00"]


def test_a_long_remark_leaves_names_and_times_whole(clock):
    """On 80 columns the end of what a trainer says, the time left, goes to another line and is not cut off."""
    names = ["LatestBlessedModel", "Pretrainer"]
    view = progress.LiveView(names, {}, clock)
    view.started("Pretrainer")
    view.told("epoch 10/10  loss 0.862  tau 0.9761  kNN 59.0%  spread 0.80  457 images/s  30 min left")
    out = io.StringIO()
    Console(file=out, width=80).print(view)
    lines = out.getvalue().splitlines()
    assert "LatestBlessedModel" in lines[0]
    assert "Pretrainer" in lines[1]
    assert "0:00" in lines[1]
    assert "30 min left" in " ".join(" ".join(lines[1:-1]).split())
    assert len(lines) <= len(names) + 1 + progress._LONG_REMARK


def test_without_earlier_runs_there_is_no_estimate(clock):
    view = progress.LiveView(NODES, {"Gen": 5.0}, clock)
    assert view.seconds_left() is None
    view.started("Pretrainer")
    assert _said(view)[1] == "▶ Pretrainer 0:00 running"
    assert _said(view)[3] == "all 0:00"


def _log_a_run() -> None:
    """As TFX's launcher logs it."""
    absl_logging.info("Component %s is running.", "Gen")
    absl_logging.info("A cached execution %d is used.", 3)
    absl_logging.info("Component %s is finished.", "Gen")
    absl_logging.info("Component %s is running.", "Pretrainer")
    logging.getLogger("byol").info("epoch %d/%d", 1, 2)


def test_lines_where_there_is_no_terminal(clock):
    out = io.StringIO()
    console = Console(file=out, width=100)
    with progress.followed(console, NODES, {}) as follower:
        _log_a_run()
        assert follower.running == "Pretrainer"
        clock.now = 1.25
        absl_logging.info("Component %s is finished.", "Pretrainer")
    absl_logging.info("Component %s is running.", "Pusher")
    assert out.getvalue().splitlines() == [
        "Gen",
        "  Gen: from cache",
        "Pretrainer",
        "  epoch 1/2",
        "  Pretrainer: 1.2 s",
    ]


def test_a_live_table_on_a_terminal_ends_with_what_failed():
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True, color_system=None, legacy_windows=False)
    console._environ = {"TERM": "xterm"}

    def run() -> None:
        with progress.followed(console, NODES, {}):
            _log_a_run()
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        run()
    last = out.getvalue().split("\x1b[2K")[-4:]
    said = " ".join("".join(last).split())
    assert "= Gen from cache" in said
    assert "✗ Pretrainer 0:00 failed" in said
    assert "· Pusher waiting" in said
    assert "\x1b[?25h" in out.getvalue()  # the cursor is back


def test_a_terminal_too_low_for_the_table_gets_lines():
    out = io.StringIO()
    console = Console(file=out, width=100, height=len(NODES) + 3, force_terminal=True, color_system=None)
    console._environ = {"TERM": "xterm"}
    with progress.followed(console, NODES, {}):
        _log_a_run()
    assert out.getvalue().splitlines() == ["Gen", "  Gen: from cache", "Pretrainer", "  epoch 1/2"]


def test_estimates_are_the_longest_of_the_same_preset(tmp_path):
    for name, preset, seconds in (("a", "demo", 112.0), ("b", "demo", 0.1), ("c", "cpu", 2000.0)):
        path = Root(tmp_path).summary(name)
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"preset": preset, "components": {"Pretrainer": seconds}}))
    Root(tmp_path).summary("d").parent.mkdir()
    Root(tmp_path).summary("d").write_text("half a fi")
    assert progress.expected_seconds(Root(tmp_path), "demo") == {"Pretrainer": 112.0}
    assert progress.expected_seconds(Root(tmp_path / "none"), "demo") == {}


@pytest.mark.parametrize(("seconds", "said"), [(7.9, "0:07"), (723, "12:03"), (3723, "1:02:03")])
def test_clock_time(seconds, said):
    assert progress.clock_time(seconds) == said
