"""The heartbeat and the metrics: as monitoring reads them, over several processes, with broken and missing files."""

import ast
import json
import os
import pathlib
import re
import subprocess
import sys
import time

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from pipeline.retrain import vital_signs
from pipeline.retrain.vital_signs import Outcome, VitalSigns

PROJECT = pathlib.Path(__file__).resolve().parents[4]
LOADS = "import sys, pipeline.schedule.commands; from pipeline.retrain import hooks, vital_signs; print(*sys.modules)"


@pytest.fixture
def now(monkeypatch):
    """A clock that the test sets."""
    clock = {"now": 1_000.0}
    monkeypatch.setattr(time, "time", lambda: clock["now"])
    return clock


def metrics(path: pathlib.Path, root: pathlib.Path) -> dict[str, float]:
    """By Prometheus' own parser; every sample belongs to the root."""
    found = {}
    for family in text_string_to_metric_families(path.read_text()):
        for sample in family.samples:
            assert sample.labels == {"root": str(root)}
            found[sample.name.removeprefix("byol_")] = sample.value
    return found


def test_a_night_with_a_push_then_a_refusal_then_a_failure(tmp_path, now):
    path = tmp_path / "retraining" / "byol.prom"
    beat = tmp_path / "retraining" / "heartbeat.json"

    assert VitalSigns(tmp_path).started() == []
    assert metrics(path, tmp_path) == {"last_attempt_timestamp_seconds": 1000, "spans_refused_total": 0}
    assert json.loads(beat.read_text())["state"] == "looking"

    VitalSigns(tmp_path).training("spans 3 and 4")
    told = json.loads(beat.read_text())
    assert (told["state"], told["detail"], told["pid"]) == ("training", "spans 3 and 4", os.getpid())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", told["at"])

    now["now"] = 1_600.0
    VitalSigns(tmp_path).finished(Outcome(0, 600.5, 1_550.0, 0.91, 12, 0.91, 1))
    pushed = {
        "last_attempt_timestamp_seconds": 1000,
        "last_success_timestamp_seconds": 1600,
        "last_push_timestamp_seconds": 1550,
        "last_run_duration_seconds": 600.5,
        "last_exit_status": 0,
        "accuracy": 0.91,
        "served_version": 12,
        "served_accuracy": 0.91,
        "spans_waiting": 1,
        "spans_refused_total": 0,
    }
    assert metrics(path, tmp_path) == pushed
    assert json.loads(beat.read_text())["state"] == "idle"

    now["now"] = 2_000.0
    VitalSigns(tmp_path).started()
    now["now"] = 2_100.0
    VitalSigns(tmp_path).finished(Outcome(3, 100, accuracy=0.5, spans_waiting=0, spans_refused=2))
    refused = pushed | {
        "last_attempt_timestamp_seconds": 2000,
        "last_success_timestamp_seconds": 2100,
        "last_run_duration_seconds": 100,
        "last_exit_status": 3,
        "accuracy": 0.5,
        "spans_waiting": 0,
        "spans_refused_total": 2,
    }
    assert metrics(path, tmp_path) == refused
    assert json.loads(beat.read_text())["state"] == "idle"

    now["now"] = 3_000.0
    VitalSigns(tmp_path).finished(Outcome(1, 5, spans_refused=1, detail="the disk is full"))
    assert metrics(path, tmp_path) == refused | {
        "last_run_duration_seconds": 5,
        "last_exit_status": 1,
        "spans_refused_total": 3,
    }
    told = json.loads(beat.read_text())
    assert (told["state"], told["detail"]) == ("failed", "the disk is full")
    assert sorted(file.name for file in path.parent.iterdir()) == ["byol.prom", "heartbeat.json"]


def test_types_are_prometheus_own(tmp_path):
    VitalSigns(tmp_path).finished(Outcome(0, 1, 5.0, 0.9, 1, 0.9, 0))
    types = {
        family.name: family.type
        for family in text_string_to_metric_families((tmp_path / "retraining" / "byol.prom").read_text())
    }
    assert types.pop("byol_spans_refused") == "counter"
    assert set(types.values()) == {"gauge"}


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"measures": 3}', '{"measures": {"byol_accuracy": "x"}}'])
def test_a_heartbeat_that_a_crash_broke_is_written_anew(broken, tmp_path):
    signs = VitalSigns(tmp_path)
    signs.heartbeat.parent.mkdir()
    signs.heartbeat.write_text(broken)
    assert signs.finished(Outcome(0, 7)) == []
    assert metrics(signs.textfile, tmp_path)["last_run_duration_seconds"] == 7


def test_what_cannot_be_written_is_told_and_stops_nothing(tmp_path):
    """A folder of node_exporter that is gone, and a root whose place is taken by a file."""
    signs = VitalSigns(tmp_path, tmp_path / "gone" / "nightly.prom")
    (problem,) = signs.started()
    assert (
        f"metrics could not be written to {tmp_path}/gone/nightly.prom (No such file or directory)" in problem
    )
    assert json.loads(signs.heartbeat.read_text())["state"] == "looking"
    (tmp_path / "file").touch()
    assert len(VitalSigns(tmp_path / "file").started()) == 2


def test_the_folder_of_node_exporter(tmp_path):
    """Two roots in one folder; a name that the exporter would pass over is refused."""
    for name in ("a", 'b "quoted" \\ é'):
        root = tmp_path / name
        signs = VitalSigns(root, tmp_path / f"{name[0]}.prom")
        assert signs.finished(Outcome(0, 1, accuracy=0.5)) == []
        assert metrics(signs.textfile, root)["accuracy"] == 0.5
    with pytest.raises(ValueError, match=r"names that end in \.prom"):
        VitalSigns(tmp_path, tmp_path)


def test_importing_it_imports_nothing_heavy():
    """`byol retrain` looks for new data in seconds: what it always imports has to be light."""
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            LOADS,
        ],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    heavy = {"tensorflow", "tfx", "numpy", "keras", "apscheduler", "urllib3", "prometheus_client"}
    assert not set(told) & heavy
    assert "pipeline.retrain.hooks" in told


# Of PromQL, what the rules have; `unless` is to Prometheus what `and` is to Python: a word between two vectors.
TOKEN = re.compile(r"\s+|[a-z_]\w*|\d+(?:\.\d+)?|[-+*/()]|[<>=!]=|[<>]")
FUNCTIONS = {"time", "increase", "max_over_time"}
WINDOW = re.compile(r"(?<=\w)\[\d+[smhdw]\]")


def syntax(expression: str) -> ast.Expression:
    """A rule's expression by Python's grammar, in which precedence and comparisons are the same for what is used."""
    plain = WINDOW.sub("", expression)
    assert not TOKEN.sub("", plain), expression
    return ast.parse(re.sub(r"\bunless\b", "and", plain), mode="eval")


def test_the_rules_of_the_alerts_are_rules_of_prometheus_over_metrics_that_exist():
    """What `promtool check rules` looks at (model/rulefmt/rulefmt.go), and that each metric is one of ours."""
    content = yaml.safe_load((PROJECT / "docs" / "guides" / "byol-alerts.yml").read_text())
    rules = [rule for group in content["groups"] for rule in group["rules"]]
    known = {*vital_signs._GAUGES, *(f"{name}_total" for name in vital_signs._COUNTERS)}
    assert set(content) == {"groups"}
    assert all(set(group) <= {"name", "interval", "rules"} for group in content["groups"])
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert {"alert", "expr", "labels", "annotations"} <= set(rule) <= {
            "alert", "expr", "for", "labels", "annotations",
        }  # fmt: skip
        assert re.fullmatch(r"[A-Za-z_]\w*", rule["alert"])
        assert re.fullmatch(r"\d+[smhdw]", rule.get("for", "0s"))
        nodes = list(ast.walk(syntax(rule["expr"])))
        called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
        named = {node.id for node in nodes if isinstance(node, ast.Name)}
        assert called <= FUNCTIONS
        assert named - FUNCTIONS
        assert named - FUNCTIONS <= known
        said = " ".join(rule["annotations"].values())
        assert set(re.findall(r"{{\s*(.+?)\s*}}", said)) <= {"$labels.root", "$value"}
        assert "$labels.root" in said


def test_a_root_that_was_tried_and_never_pushed_from_has_an_alert(tmp_path):
    """An age of what never was is no number, and a rule on it never fires."""
    signs = VitalSigns(tmp_path)
    signs.started()
    signs.finished(Outcome(3, 5))
    have = {f"byol_{name}" for name in metrics(signs.textfile, tmp_path)}
    content = yaml.safe_load((PROJECT / "docs" / "guides" / "byol-alerts.yml").read_text())
    (expression,) = (
        rule["expr"] for rule in content["groups"][0]["rules"] if rule["alert"] == "ByolNeverPushed"
    )
    present, absent = expression.split(" unless ")
    assert present in have
    assert absent not in have
    signs.serves(7, 0.5, pushed_at=1000.0)
    assert metrics(signs.textfile, tmp_path)[absent.removeprefix("byol_")] == 1000
    signs.finished(Outcome(0, None, pushed_at=900.0))  # the newer version was retired meanwhile
    assert metrics(signs.textfile, tmp_path)[absent.removeprefix("byol_")] == 1000


def test_a_clock_that_was_ahead_makes_no_age_negative_once_it_is_right(tmp_path, now):
    signs = VitalSigns(tmp_path)
    now["now"] = 9_000.0
    signs.started()
    signs.finished(Outcome(0, 5, pushed_at=9_000.0))
    for moment in (2_000.0, 3_000.0):
        now["now"] = moment
        signs.training()
        signs.finished(Outcome(1, 5, pushed_at=9_000.0))  # as the served version's record has it
        found = metrics(signs.textfile, tmp_path)
        times = {name: value for name, value in found.items() if name.endswith("timestamp_seconds")}
        assert set(times.values()) == {2_000.0}
    signs.finished(Outcome(0, 5, pushed_at=2_900.0))
    assert metrics(signs.textfile, tmp_path)["last_push_timestamp_seconds"] == 2_900


def test_the_dashboard_for_grafana_asks_for_metrics_that_exist_and_shows_each_of_them():
    board = json.loads((PROJECT / "docs" / "guides" / "byol-grafana.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    known = {*vital_signs._GAUGES, *(f"{name}_total" for name in vital_signs._COUNTERS)}
    assert set(re.findall(r"\bbyol_\w+", " ".join(asked))) == known
    roots = next(one for one in board["templating"]["list"] if one["name"] == "root")
    assert set(re.findall(r"\bbyol_\w+", roots["query"]["query"])) <= known
    assert all('{root=~"$root"}' in expression for expression in asked)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    places = [panel["gridPos"] for panel in board["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))  # no panel lies on another
    assert max(x for x, _ in cells) < 24  # the width of Grafana's grid
