"""`byol approve`, `reject` and `rollback`: what a person decides is told to hooks and metrics."""

import json
import os
import signal
import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from components.serving import candidates, serving_folder
from pipeline import cli
from pipeline.retrain import approval, vital_signs
from pipeline.root import Root
from pipeline.spans import ledger


def served(root):
    version = serving_folder.served(root / "serving")
    assert version is not None
    return version


@pytest.fixture
def place(tmp_path):
    """A root with one version served, one candidate, and a hook that appends what it is told."""
    for name in "AB":
        folder = tmp_path / name
        folder.mkdir()
        (folder / "saved_model.pb").write_text(name)
    root = tmp_path / "root"
    lineage: dict[str, Any] = {"metrics": {"sparse_categorical_accuracy": 0.5}}
    serving_folder.publish(tmp_path / "A", root / "serving", lineage)
    digest = served(root).digest
    lineage = {"run_id": "run-2", "metrics": {"sparse_categorical_accuracy": 0.75}}
    candidates.hold(tmp_path / "B", root / "serving", lineage, replaces=digest)
    (root / "runs" / "run-2").mkdir(parents=True)
    (root / "runs" / "run-2" / "report.html").touch()
    known = ledger.Ledger.load(Root(root).ledger)
    known.trainings.append(ledger.Training([3, 4], [4], "never", None, None, None, "run-2", ledger.CANDIDATE))
    known.save()
    hook = tmp_path / "hook.py"
    hook.write_text(f"import sys\nopen({str(tmp_path / 'told')!r}, 'a').write(sys.stdin.read() + '\\n')\n")
    return root


def call(place, *words):
    result = CliRunner().invoke(cli.app, [words[0], "--root", str(place), *words[1:]])
    path = place.parent / "told"
    events = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return result, events


def hook(place):
    return f"{sys.executable} {place.parent / 'hook.py'}"


def measures(place):
    return json.loads((place / "retraining" / "heartbeat.json").read_text())["measures"]


def test_an_approval_is_pushed_told_and_measured(place):
    metrics = place.parent / "collector.prom"
    vital_signs.VitalSigns(place, metrics).started()
    result, (event,) = call(place, "approve", "--by", "ada", "--reason", "fine", "--on-pushed", hook(place))
    assert result.exit_code == 0, result.output
    now = served(place)
    assert f"served as version {now.number}" in result.output
    names = ("kind", "by", "reason", "version", "accuracy", "run_id", "spans", "report")
    assert {name: event[name] for name in names} == {
        "kind": "pushed", "by": "ada", "reason": "fine", "version": now.number, "accuracy": 0.75,
        "run_id": "run-2", "spans": [3, 4], "report": (place / "runs" / "run-2" / "report.html").as_uri(),
    }  # fmt: skip
    assert measures(place)["byol_served_version"] == now.number
    assert measures(place)["byol_last_push_timestamp_seconds"] == now.published_at
    assert "byol_served_accuracy" in metrics.read_text()


def test_a_rejection_keeps_what_is_served_and_needs_a_reason(place):
    before = served(place)
    assert call(place, "reject")[0].exit_code == 2
    result, (event,) = call(place, "reject", "--reason", "cats", "--on-rejected", hook(place))
    assert (result.exit_code, event["kind"], event["reason"]) == (0, "rejected", "cats")
    assert event["by"]
    assert served(place) == before


def test_a_rollback_is_told_with_its_reason_and_the_metrics_show_what_is_served(place):
    call(place, "approve")
    result, (event,) = call(place, "rollback", "--reason", "B is slow", "--on-rollback", hook(place))
    now = served(place)
    assert result.exit_code == 0, result.output
    assert (event["kind"], event["version"], event["accuracy"]) == ("rollback", now.number, 0.5)
    assert event["reason"].endswith(": B is slow")
    assert now.record["lineage"]["rollback"]["reason"] == "B is slow"
    assert measures(place)["byol_served_version"] == now.number
    assert measures(place)["byol_served_accuracy"] == 0.5


def test_a_candidate_is_listed_beside_the_versions(place):
    result, _ = call(place, "versions")
    candidate = candidates.waiting(place / "serving")
    assert candidate is not None
    name = candidate.name
    assert f"Candidate {name} waits for approval" in result.output
    assert "runs/run-2/report.html" in result.output


def test_nothing_to_decide_is_one_line_and_status_2(place):
    call(place, "reject", "--reason", "cats")
    result, events = call(place, "approve", "--on-pushed", hook(place))
    assert (result.exit_code, events) == (2, [])
    assert "No candidate waits" in result.output


def decide(place, kind, *more):
    """The command of a kind of event, with a hook of that kind."""
    words = {"pushed": ["approve"], "rejected": ["reject", "--reason", "cats"], "rollback": ["rollback"]}[
        kind
    ]
    if kind == "rollback":
        call(place, "approve")
    return [*words, "--by", "ada", *more]


@pytest.mark.parametrize("kind", ["pushed", "rejected", "rollback"])
def test_a_decision_whose_hook_is_down_is_kept_listed_and_told_again_with_the_same_id(kind, place):
    result, events = call(place, *decide(place, kind, f"--on-{kind}", "false"))
    assert (result.exit_code, events) == (0, [])
    assert f"The hook on_{kind} (false) was not delivered in 3 attempts" in result.output
    result, _ = call(place, "hooks", "--json")
    (kept,) = json.loads(result.stdout)
    assert (result.exit_code, kept["kind"], kept["by"]) == (0, kind, "ada")
    file = place.parent / "hooks.ini"
    file.write_text(f"[hooks]\non_{kind} = {hook(place)}\n")
    file.chmod(0o600)
    assert call(place, "hooks", "--retry")[0].exit_code == 2
    result, events = call(place, "hooks", "--retry", "--hooks-file", str(file))
    assert (result.exit_code, events) == (0, [kept])
    assert "Every event was delivered" in result.output


@pytest.mark.parametrize("kind", ["pushed", "rejected", "rollback"])
@pytest.mark.parametrize("decided", [True, False])
def test_a_kill_at_a_decision_loses_no_event_and_invents_none(kind, decided, place, monkeypatch):
    module = serving_folder if kind == "rollback" else candidates
    name = {"pushed": "approve", "rejected": "reject", "rollback": "rollback"}[kind]
    words = decide(place, kind, f"--on-{kind}", "false")
    whole = getattr(module, name)

    def killed(*arguments, **named):
        if decided:
            whole(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(module, name, killed)
    child = os.fork()
    if child == 0:
        call(place, *words)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    result, _ = call(place, "hooks", "--json")
    told = json.loads(result.stdout)
    assert [(event["kind"], event["by"]) for event in told] == ([(kind, "ada")] if decided else [])
    if decided and kind != "rejected":
        assert told[0]["version"] == served(place).number
    assert not list((place / "retraining" / "outbox").glob("draft-*"))


def test_an_event_that_cannot_be_kept_is_told_at_once(place):
    (place / "retraining" / "outbox").write_text("")
    result, (event,) = call(place, "approve", "--on-pushed", hook(place))
    assert (result.exit_code, event["version"]) == (0, served(place).number)


def test_a_file_in_the_outbox_that_is_no_event_hides_no_other(place):
    call(place, "approve", "--on-pushed", "false")
    (place / "retraining" / "outbox" / "0-x.json").write_text("[]")
    result, _ = call(place, "hooks")
    assert result.exit_code == 0
    assert "0-x.json is no event" in result.output
    assert "2 events were not delivered" in result.output


@pytest.mark.parametrize(
    ("words", "again"),
    [
        (("rollback", "--on-rollback"), 0),
        (("approve", "--on-pushed"), 2),
        (("reject", "--reason", "x", "--on-rejected"), 2),
    ],
)
def test_a_decision_that_was_cut_off_before_it_was_told_is_told_by_the_same_call(
    place, monkeypatch, words, again
):
    """A rollback finds its model served, the others that nothing waits any more."""

    class CutError(BaseException):
        pass

    def cut(*_):
        raise CutError

    if words[0] == "rollback":
        words = (words[0], str(served(place).number), *words[1:])
        (place.parent / "C").mkdir()
        (place.parent / "C" / "saved_model.pb").write_text("C")
        serving_folder.publish(place.parent / "C", place / "serving")
    with monkeypatch.context() as patched:
        patched.setattr(approval, "_tell", cut)
        with pytest.raises(CutError):
            call(place, *words, hook(place))
    before = served(place).number
    result, events = call(place, *words, hook(place))
    assert result.exit_code == again, result.output
    assert served(place).number == before
    assert [event["kind"] for event in events] == [
        {"approve": "pushed", "reject": "rejected"}.get(words[0], words[0])
    ]
    assert call(place, *words, hook(place))[1] == events
