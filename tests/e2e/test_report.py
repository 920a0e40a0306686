"""The report that a real run leaves: its numbers, its size, and how it behaves in a real browser."""

import json
import pathlib
import shutil
import subprocess

import pytest

from pipeline.report import curves, write
from pipeline.root import REPORT_FILE, Root
from tests.component.report.test_report_page import Reader, external
from tests.e2e import byol_command

pytestmark = pytest.mark.timeout(900)  # the first test that asks for it waits for the first run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHONE = 375
# A request that is expected: the check has to see it, and it alone. Nothing listens there.
CONTROL = "http://127.0.0.1:9/control.png"
# Appended to a copy of the page: uses it as a person does and leaves what happened in its own element.
PROBE = """
<script>
addEventListener("load", () => {
  const circle = document.querySelector("svg.map .points circle");
  const place = circle.getBoundingClientRect();
  circle.dispatchEvent(new PointerEvent("pointermove",
    {bubbles: true, clientX: place.x, clientY: place.y, pointerType: "mouse"}));
  const hover = document.getElementById("hover");
  const words = hover.hidden ? "" : hover.querySelector(".words").textContent;
  const button = document.querySelector(".pick button");
  button.click();
  const map = document.querySelector("svg.map");
  const press = (key) => map.dispatchEvent(new KeyboardEvent("keydown", {key: key}));
  press("ArrowRight");
  const next = hover.querySelector(".words").textContent;
  press("Escape");
  const found = {
    words: words,
    expected: circle.dataset.t,
    next: next,
    next_expected: document.querySelectorAll(".points circle")[1].dataset.t,
    hidden: hover.hidden,
    picked: document.querySelectorAll(".map.picked .points.on").length,
    pressed: button.getAttribute("aria-pressed"),
    resources: performance.getEntriesByType("resource").map((entry) => entry.name),
    width: document.documentElement.scrollWidth,
    sprite: getComputedStyle(document.querySelector("#mistakes .thumb, #neighbors .thumb")).backgroundImage.length,
  };
  parent.postMessage(JSON.stringify(found), "*");
});
</script>
"""
FRAME = """<!doctype html><body><pre id="found"></pre>
<script>addEventListener("message", (event) => { document.getElementById("found").textContent = event.data; });</script>
<iframe src="copy.html" style="width:%dpx;height:800px;border:0"></iframe></body>"""


@pytest.fixture(scope="module")
def report(first_run) -> pathlib.Path:
    assert first_run.process.returncode == 0, first_run.process.stderr
    said = next(line for line in first_run.process.stdout.splitlines() if line.startswith("Report: "))
    return pathlib.Path(said.removeprefix("Report: "))


@pytest.fixture(scope="module")
def summary(report) -> dict:
    """Of the first run: later tests may have run more in its root."""
    return json.loads(report.with_name("summary.json").read_text())


def test_a_run_writes_its_report_and_says_where(first_run, report, summary):
    assert report.name == REPORT_FILE
    assert report.is_relative_to(first_run.root / "runs")
    assert summary["run_id"] in report.read_text()


def test_it_needs_no_network_is_small_and_agrees_with_the_summary(report, summary):
    text = report.read_text()
    assert len(text) < 5_000_000
    assert external(text) == []
    reader = Reader(text)
    assert json.loads(reader.scripts["summary-json"]) == summary
    for key in ("linear_accuracy", "random_encoder_linear_accuracy", "knn_accuracy"):
        assert reader.facts[key] == {f"{summary[key]:.2%}"}
    assert reader.facts["pushed_version"] == {str(summary["pushed_version"])}
    # What the page computes itself from the model's predictions is what TFMA found.
    right = round(summary["linear_accuracy"] * byol_command.TEST_IMAGES)
    assert f"{byol_command.TEST_IMAGES - right} of {byol_command.TEST_IMAGES} test images are taken" in text


def test_the_command_writes_the_same_report_again(first_run, report, summary):
    """Slow: another process."""
    before = report.read_text()
    root = str(first_run.root)
    process = byol_command.warm(["pipeline.cli", "report", "--root", root, summary["run_id"]])
    assert process.returncode == 0, process.stderr
    assert str(report) in process.stdout
    after = Reader(report.read_text())
    assert after.facts == Reader(before).facts


def test_tensorboard_is_given_the_curves_under_the_runs_name(first_run, summary):
    """A run that took its pretraining from the cache adds none; Ctrl-C's epochs are another folder of events."""
    root = Root(first_run.root)
    assert curves.link(root) == len(list(root.path.glob("runs/*/projector")))
    links = {path.name: path.resolve() for path in root.tensorboard.iterdir() if path.is_symlink()}
    finished = {name: path for name, path in links.items() if not name.endswith(", not finished")}
    start = summary["run_id"][:19].replace("T", " ")
    assert min(finished).startswith(f"{start}, demo, ")
    assert f", {summary['linear_accuracy']:.2%}" in max(finished)
    assert all(list(path.glob("events.out.tfevents.*")) for path in links.values())
    events = [path.parent for path in root.artifacts.glob("*/model_run/*/**/events.out.tfevents.*")]
    assert set(links.values()) == set(events)
    assert len(links) == len(set(events))


def test_a_report_that_fails_is_one_line_and_no_more(report, tmp_path, capsys):
    from rich.console import Console

    root = tmp_path / "root"
    (root / "runs").mkdir(parents=True)
    shutil.copytree(report.parent, root / "runs" / "one")
    write.write_after_run(Root(root), "one", Console(width=300))
    said = capsys.readouterr().out.strip()
    assert said.startswith("No report: ")
    assert len(said.splitlines()) == 1


@pytest.mark.skipif(BROWSER is None, reason="needs chromium or google-chrome on PATH")
@pytest.mark.parametrize("width", [PHONE, 1200])
def test_in_a_browser(report, tmp_path, width):
    """In a real browser: no request leaves the page, hover and buttons work, nothing is wider than the screen."""
    (tmp_path / "copy.html").write_text(f'{report.read_text()}<img alt="" src="{CONTROL}">{PROBE}')
    (tmp_path / "frame.html").write_text(FRAME % width)
    command = [
        *[BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        *[
            "--disable-component-update",
            "--no-first-run",
            "--window-size=1300,900",
            "--virtual-time-budget=5000",
        ],
        *[f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"],
        (tmp_path / "frame.html").as_uri(),
    ]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = json.loads(process.stdout.split('<pre id="found">')[1].split("</pre>")[0])
    assert found["words"] == found["expected"]
    assert found["next"] == found["next_expected"] != found["words"]
    assert found["hidden"] is True
    assert found["picked"] == 1
    assert found["pressed"] == "true"
    assert found["width"] <= width
    assert found["sprite"] > 10_000
    assert [name for name in found["resources"] if not name.startswith("data:")] == [CONTROL]
