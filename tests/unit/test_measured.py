"""README and tutorials say what docs/results/measured.json has, whose entries say where they are from."""

import json
import pathlib
import re

import pytest

from benchmarks import measured

PROJECT = pathlib.Path(__file__).resolve().parents[2]
KNOWN = json.loads(measured.MEASURED.read_text())
SHARES = {name: {f"{entry[key]:.{digits}%}" for key in ("accuracy", "untrained", "knn") if key in entry
                 for digits in (0, 1, 2)} for name, entry in KNOWN.items()}  # fmt: skip


def shares(text):
    return set(re.findall(r"(?<![\d.])\d+\.\d+%", text))


def test_the_first_screen_is_real_cifar10():
    first = (PROJECT / "README.md").read_text().split("## Two commands")[0]
    entry = KNOWN["cifar10-cpu"]
    assert f"**{entry['accuracy']:.1%}**" in first
    assert f"{entry['untrained']:.1%}" in first
    assert f"{entry['minutes']} minutes" in first
    assert shares(first) <= SHARES["cifar10-cpu"]


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_every_share_of_a_page_was_measured(page):
    text = (PROJECT / page).read_text()
    raw_pixels = {"25.0%"}  # by benchmarks.raw_pixels, docs/results/demo.md
    assert shares(text) - raw_pixels <= SHARES["cifar10-cpu"] | SHARES["demo"]
    demo = KNOWN["demo"]
    assert {f"{demo[key]:.2%}" for key in ("accuracy", "untrained", "knn")} <= shares(text)


def test_the_tutorial_promises_what_was_measured():
    entry = KNOWN["cifar10-cpu"]
    text = " ".join((PROJECT / "docs" / "tutorial-cifar10.md").read_text().split())
    assert f"{entry['minutes']} minutes on two cores, {entry['accuracy']:.1%} for the linear probe" in text
    assert f"{entry['untrained']:.1%} for the same probe on an untrained encoder" in text


@pytest.mark.parametrize("name", KNOWN)
def test_an_entry_typed_by_hand_names_the_page_that_has_it(name):
    entry = KNOWN[name]
    if entry["written_by"] == "hand":
        text = (PROJECT / entry["source"]).read_text()
        assert {f"{entry['accuracy']:.1%}", f"{entry['accuracy']:.2%}"} & shares(text)
        assert "typed by hand" in (PROJECT / "README.md").read_text()
    else:
        assert entry["written_by"] == "benchmarks.measured"


def test_a_runs_summary_becomes_an_entry_and_the_others_stay(tmp_path):
    path = tmp_path / "measured.json"
    path.write_text(json.dumps({"demo": {"accuracy": 0.9}}))
    summary = {
        "run_id": "r", "linear_accuracy": 0.58444, "random_encoder_linear_accuracy": 0.3868,
        "knn_accuracy": 0.5, "seconds": 2302.1,
    }  # fmt: skip
    measured.record(path, "cifar10-cpu", measured.entry(summary, "byol run"))
    assert json.loads(path.read_text()) == {
        "demo": {"accuracy": 0.9},
        "cifar10-cpu": {
            "written_by": "benchmarks.measured", "source": "summary.json", "run": "r",
            "command": "byol run", "accuracy": 0.5844, "untrained": 0.3868, "knn": 0.5, "minutes": 38,
        },
    }  # fmt: skip
