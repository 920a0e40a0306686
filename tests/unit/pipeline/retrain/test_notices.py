"""What `byol retrain` tells the outside, whatever comes of it: a real hook, real files, real locks; no training."""

import contextlib
import datetime as dt
import json
import os
import pathlib
import signal
import sqlite3
import sys
from unittest import mock

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from components.serving import serving_folder
from pipeline import cli
from pipeline.retrain import rebuilding, retraining
from pipeline.root import Root
from pipeline.run import engine
from pipeline.spans import arrivals, ledger
from pipeline.spans.ledger import Ledger


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Calls `byol retrain` with a hook that appends what it is told; `work` stands for the training."""
    data = tmp_path / "spans"
    for number in (1, 2):
        (data / f"span-{number}").mkdir(parents=True)
        (data / f"span-{number}" / "_SUCCESS").touch()
    hook = tmp_path / "hook.py"
    hook.write_text(f"import sys\nopen({str(tmp_path / 'told')!r}, 'a').write(sys.stdin.read() + '\\n')\n")
    monkeypatch.setattr(retraining, "check_test_set", lambda request: None)
    # An interrupted command lets a second Ctrl-C end the process.
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def invoke(work=None, *more, catch=True):
        monkeypatch.setattr(retraining, "retrain", work)
        command = f"{sys.executable} {hook}"
        hooks = ["--on-pushed", command, "--on-refused", command, "--on-failed", command]
        rest = ["--data", str(data), "--root", str(tmp_path / "root"), "--preset", "demo", *hooks, *more]
        return CliRunner().invoke(cli.app, ["retrain", *rest], catch_exceptions=catch)

    return invoke


def told(folder: pathlib.Path) -> list[dict]:
    path = folder / "told"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def metrics(folder: pathlib.Path, path: str = "root/retraining/byol.prom") -> dict[str, float]:
    text = (folder / path).read_text()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {sample.name.removeprefix("byol_"): sample.value for sample in samples}


def beat(folder: pathlib.Path) -> dict:
    return json.loads((folder / "root" / "retraining" / "heartbeat.json").read_text())


def test_a_push_is_told_with_what_is_served(call, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "saved_model.pb").write_bytes(b"model")
    states = []

    def work(request, place, person, training_begins):
        states.append(beat(tmp_path)["state"])
        training_begins("spans 1, 2")
        states.append((beat(tmp_path)["state"], beat(tmp_path)["detail"]))
        version = serving_folder.publish(
            model, request.root.serving, {"metrics": {"sparse_categorical_accuracy": 0.75}}
        ).version
        known = Ledger.load(request.root.ledger)
        known.mark(1, ledger.ACCEPTED, retraining.waiting(request, known)[1])
        known.trainings.append(
            ledger.Training([1], [1], "never", None, None, None, outcome=ledger.PUSHED, version=version)
        )
        known.save()
        return retraining.Outcome(ledger.PUSHED, "", (1,), "run-a", version, 0.75, 12.5)

    outcome = call(work)
    assert outcome.exit_code == 0, outcome.output
    assert states == ["looking", ("training", "spans 1, 2")]
    (event,) = told(tmp_path)
    version = serving_folder.versions(tmp_path / "root" / "serving")[0].number
    assert event.pop("at").endswith("+00:00")
    assert len(event.pop("id")) == 32
    assert event == {
        "kind": "pushed",
        "root": str(tmp_path / "root"),
        "run_id": "run-a",
        "spans": [1],
        "version": version,
        "accuracy": 0.75,
        "reason": "",
        "seconds": 12.5,
        "by": "",
        "findings": [],
        "report": "",
        "text": f"BYOL {tmp_path / 'root'}: pushed, version {version}, accuracy 75.00%, spans 1",
        "missed": [],
    }
    found = metrics(tmp_path)
    published = serving_folder.versions(tmp_path / "root" / "serving")[0].record["published_at"]
    assert found["last_push_timestamp_seconds"] == dt.datetime.fromisoformat(published).timestamp()
    expected = {
        "last_exit_status": 0,
        "last_run_duration_seconds": 12.5,
        "accuracy": 0.75,
        "served_version": version,
        "served_accuracy": 0.75,
        "spans_waiting": 1,
        "spans_refused_total": 0,
    }
    assert {name: found[name] for name in expected} == expected
    assert (beat(tmp_path)["state"], beat(tmp_path)["detail"]) == ("idle", "pushed")


@pytest.mark.parametrize(
    ("result", "status", "kind", "reason"),
    [
        (retraining.Outcome(ledger.NOT_PUSHED, "too low", (1, 2)), 3, "refused", "too low"),
        (retraining.Outcome(ledger.FAILED, "it broke", (1,)), 1, "failed", "it broke"),
        (ValueError("no test set"), 2, "failed", "no test set"),
        (PermissionError(13, "Permission denied"), 2, "failed", "[Errno 13] Permission denied"),
        (
            OSError(28, "No space left"),
            1,
            "failed",
            "the disk is full (No space left); free some space and run the same command",
        ),
        (RuntimeError("a fault of ours"), 1, "failed", "a fault of ours"),
        (KeyboardInterrupt(), 130, None, "interrupted"),
        (retraining.Outcome(retraining.NOTHING_NEW), 0, None, "nothing new"),
    ],
)
def test_every_end_is_told(result, status, kind, reason, call, tmp_path):
    def work(request, place, person, training_begins):
        if isinstance(result, BaseException):
            raise result
        return result

    outcome = call(work)
    assert outcome.exit_code == status, outcome.output
    events = told(tmp_path)
    assert [(event["kind"], event["reason"]) for event in events] == ([(kind, reason)] if kind else [])
    found = metrics(tmp_path)
    assert found["last_exit_status"] == status
    assert found["spans_waiting"] == 2
    assert ("last_success_timestamp_seconds" in found) == (status in {0, 3})
    assert beat(tmp_path)["state"] == ("failed" if status in {1, 2} else "idle")
    assert beat(tmp_path)["detail"] == reason


def test_each_refused_span_is_counted_once(call, tmp_path):
    """For its data or for what was trained on it, also beside a push; a repaired one that is refused again counts."""

    def refuse(fingerprint, *trained):
        def work(request, place, person, training_begins):
            known = Ledger.load(request.root.ledger)
            known.mark(1, ledger.REFUSED, fingerprint, "blurred")
            known.mark(2, ledger.ACCEPTED, "a")
            for new in trained:
                known.trainings.append(
                    ledger.Training(
                        [2, new],
                        [new],
                        "never",
                        None,
                        None,
                        None,
                        outcome=ledger.NOT_PUSHED,
                        started=str(new),
                    )
                )
            known.save()
            return retraining.Outcome(ledger.PUSHED, "span 1 was not taken", (2,), "run", 7, 0.5)

        return work

    for fingerprint, trained, total in (("a", (), 1), ("a", (), 1), ("b", (2,), 3), ("b", (3, 4), 5)):
        assert call(refuse(fingerprint, *trained)).exit_code == 0
        assert metrics(tmp_path)["spans_refused_total"] == total


def test_the_hook_runs_when_the_root_is_free_again(call, tmp_path):
    hook = tmp_path / "free.py"
    hook.write_text(
        "import fcntl\n"
        f"fcntl.flock(open({str(tmp_path / 'root' / '.lock')!r}), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        f"open({str(tmp_path / 'free')!r}, 'w')\n"
    )
    refused = retraining.Outcome(ledger.NOT_PUSHED, "too low", (1,))
    outcome = call(lambda *_: refused, "--on-refused", f"{sys.executable} {hook}")
    assert outcome.exit_code == 3
    assert (tmp_path / "free").exists()


def test_what_could_not_be_told_is_a_line(call, tmp_path):
    refused = retraining.Outcome(ledger.NOT_PUSHED, "too low", (1,))
    outcome = call(
        lambda *_: refused, "--on-refused", "/no/program", "--metrics", str(tmp_path / "no" / "a.prom")
    )
    assert outcome.exit_code == 3
    assert "The hook on_refused (/no/program) was not delivered in 1 attempt" in outcome.output
    assert "could not be written to" in outcome.output
    assert "Not pushed: too low." in outcome.output


def test_a_refused_span_is_named_and_its_findings_stand_apart_from_the_sentence(call, tmp_path):
    untaken = ((7, "span 7 was not taken (refused): 30% darker; 2 classes are missing"),)
    outcome = retraining.Outcome(ledger.NOT_PUSHED, untaken[0][1], untaken=untaken)
    assert "Not pushed: span 7 was not taken (refused): 30% darker" in call(lambda *_: outcome).output
    (event,) = told(tmp_path)
    assert (event["spans"], event["reason"]) == ([7], "span 7 was not taken")
    assert event["findings"] == [untaken[0][1]]
    assert event["text"].endswith(f"refused, spans 7. span 7 was not taken. {untaken[0][1]}")


def test_an_event_has_a_link_to_the_report(call, tmp_path):
    report = Root(tmp_path / "root").summary("run-1").parent / "report.html"
    report.parent.mkdir(parents=True)
    report.touch()
    call(_pushed)
    assert told(tmp_path)[0]["report"] == report.as_uri()


def test_an_idle_call_changes_no_duration(call, tmp_path):
    call(lambda *_: retraining.Outcome(ledger.FAILED, "earlier", seconds=61.5))
    for number in (1, 2):
        (tmp_path / "spans" / f"span-{number}" / "_SUCCESS").unlink()
    assert call(None).exit_code == 0
    assert metrics(tmp_path)["last_run_duration_seconds"] == 61.5


def test_an_idle_call_looks_once_and_shows_what_waits_and_when_was_pushed(call, tmp_path, monkeypatch):
    """A training that was given up leaves its span for the next one; a person's approval is a push, too."""
    root, data = Root(tmp_path / "root"), tmp_path / "spans"
    known = Ledger.load(root.ledger)
    for number in (1, 2):
        path = data / f"span-{number}"
        known.mark(number, ledger.ACCEPTED, arrivals.fingerprint(path))
        known.spans[number].seal = arrivals.seal(path)
    outcomes = {1: ledger.PUSHED, 2: ledger.FAILED}
    known.trainings = [
        ledger.Training([number], [number], "never", None, None, None, outcome=outcome)
        for number, outcome in outcomes.items()
    ]
    known.save()
    model = tmp_path / "model"
    model.mkdir()
    (model / "saved_model.pb").write_bytes(b"model")
    serving_folder.publish(model, root.serving)
    look = mock.Mock(wraps=arrivals.complete_spans)
    monkeypatch.setattr(arrivals, "complete_spans", look)
    outcome = call(None)
    assert "Nothing new" in outcome.output
    assert look.call_count == 1
    found = metrics(tmp_path)
    assert found["spans_waiting"] == 1
    assert found["last_push_timestamp_seconds"] == serving_folder.last_push(root.serving)


def test_one_root_has_one_label_however_it_is_spelt(call, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "root")
    (tmp_path / "root").mkdir()
    for number, spelt in enumerate(("root", "link", "spans/../root")):
        call(_pushed, "--root", str(tmp_path / spelt), "--metrics", str(tmp_path / f"{number}.prom"))
        assert f'{{root="{tmp_path / "root"}"}}' in (tmp_path / f"{number}.prom").read_text()


def test_odd_things_are_a_line_each_call_a_metric_and_one_event(call, tmp_path):
    (tmp_path / "spans" / "span-07").mkdir()
    silent = tmp_path / "spans" / "span-9"
    silent.mkdir()
    os.utime(silent, (0, 0))
    more = ("--on-odd", f"{sys.executable} {tmp_path / 'hook.py'}", "--marker-hours", "2")
    for _ in range(2):
        output = call(_nothing, *more).output
        assert "'span-07'" in output
        assert "span 9 in" in output
        assert "more than 2 hours" in output
    (event,) = told(tmp_path)
    assert (event["kind"], len(event["findings"])) == ("odd", 2)
    assert metrics(tmp_path)["spans_odd"] == 2
    silent.rmdir()
    call(_nothing, *more)
    assert metrics(tmp_path)["spans_odd"] == 1
    assert len(told(tmp_path)) == 1


@pytest.mark.parametrize(
    "more", [("--set", "gate.no_such=1"), ("--data", "/no/such"), ("--window", "0"), ("--preset", "x")]
)
def test_a_failure_before_the_first_look_is_told_as_any_other(more, call, tmp_path):
    call(_nothing)
    outcome = call(None, *more)
    assert outcome.exit_code == 2, outcome.output
    assert [event["kind"] for event in told(tmp_path)] == ["failed"]
    assert metrics(tmp_path)["last_exit_status"] == 2
    assert beat(tmp_path)["state"] == "failed"


def test_a_place_that_cannot_run_anything_is_told_as_any_other_failure(call, tmp_path, monkeypatch):
    def refuse(*_):
        raise ValueError("Nobody answers at localhost:8099.")

    call(_nothing)
    monkeypatch.setattr(engine, "try_engine", refuse)
    outcome = call(None)
    assert outcome.exit_code == 2, outcome.output
    assert [(event["kind"], event["reason"]) for event in told(tmp_path)] == [
        ("failed", "Nobody answers at localhost:8099.")
    ]
    assert metrics(tmp_path)["last_exit_status"] == 2


def test_a_root_is_not_made_to_tell_of_a_failure(call, tmp_path):
    call(None, "--window", "0")
    assert len(told(tmp_path)) == 1
    assert not (tmp_path / "root").exists()


def test_nothing_new_is_told_to_monitoring_alone(call, tmp_path):
    for number in (1, 2):
        (tmp_path / "spans" / f"span-{number}" / "_SUCCESS").unlink()
    outcome = call(None, "--metrics", str(tmp_path / "a.prom"))
    assert (outcome.exit_code, told(tmp_path)) == (0, [])
    found = metrics(tmp_path, "a.prom")
    assert found["last_exit_status"] == 0
    assert found["spans_waiting"] == 0
    assert found["last_success_timestamp_seconds"] >= found["last_attempt_timestamp_seconds"] > 1.7e9


def test_a_call_beside_another_one_leaves_what_that_one_told(call, tmp_path):
    root = Root(tmp_path / "root")
    call(lambda *_: retraining.Outcome(ledger.FAILED, "earlier"))
    before = beat(tmp_path)
    (tmp_path / "told").unlink()
    with root.locked():
        outcome = call(None)
        assert outcome.exit_code == 0, outcome.output
        assert "at work" in outcome.output
        for number in (1, 2):
            (tmp_path / "spans" / f"span-{number}" / "_SUCCESS").unlink()
        assert call(None).exit_code == 0
    assert beat(tmp_path) == before
    assert told(tmp_path) == []


def test_what_can_never_be_told_is_refused_before_training(call):
    for more, part in (
        (("--on-failed", "http://"), "on_failed is neither"),
        (("--metrics", "folder"), "end in .prom"),
    ):
        outcome = call(None, *more)
        assert outcome.exit_code == 2
        assert part in outcome.output


def _pushed(request, place, console, training_begins):
    return retraining.Outcome(ledger.PUSHED, spans=(1,), run_id="run-1", version=7, accuracy=0.9, seconds=1.0)


def _nothing(request, place, console, training_begins):
    return retraining.Outcome(retraining.NOTHING_NEW)


def test_an_event_is_kept_while_its_hook_fails_and_is_told_by_a_later_call(call, tmp_path):
    hook = (tmp_path / "hook.py").read_text()
    (tmp_path / "hook.py").write_text("raise SystemExit(1)")
    bad = tmp_path / "root" / "retraining" / "outbox"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.sleep", lambda _: None)
        assert "was not delivered in 3 attempts" in call(_pushed).output
        assert "was not delivered in 1 attempt:" in call(_nothing).output  # the night goes on
    (kept,) = bad.glob("*.json")
    (tmp_path / "hook.py").write_text(hook)
    assert call(_nothing).exit_code == 0
    (event,) = told(tmp_path)
    assert (event["kind"], event["version"], len(event["id"])) == ("pushed", 7, 32)
    assert event["id"] in kept.name
    assert not list(bad.iterdir())
    call(_nothing)
    assert len(told(tmp_path)) == 1


def test_an_event_outlives_a_call_that_is_killed_before_it_is_told(call, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.retrain.hooks.deliver", kill)
        with pytest.raises(Killed):
            call(_pushed)
    assert told(tmp_path) == []
    call(_nothing)
    assert [event["version"] for event in told(tmp_path)] == [7]


def test_a_full_disk_is_told_all_the_same(call, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.retrain.outbox.write_twice", full)
    assert "cannot be kept" in call(_pushed).output
    assert [event["version"] for event in told(tmp_path)] == [7]


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the call runs after it but what the interpreter insists on."""


def _trains(request, killed):
    """Decides on a training and on a span as `retraining` does, and is killed after the ledger was saved."""
    known = Ledger.load(request.root.ledger)
    known.spans[2] = ledger.SpanRecord(ledger.REFUSED, "dark pictures", "f", ledger.now(), told=False)
    done = ledger.Training([1], [1], "never", None, None, None, started=ledger.now())
    known.trainings.append(done)
    done.outcome, done.reason, done.ended, done.told = ledger.NOT_PUSHED, "too low", ledger.now(), False
    known.save()
    if killed:
        raise Killed
    return retraining.Outcome(ledger.NOT_PUSHED, "too low", (1,), told="too low")


def test_an_event_between_the_ledger_and_the_outbox_is_told_by_the_next_call(call, tmp_path):
    with pytest.raises(Killed):
        call(lambda request, *_: _trains(request, killed=True), catch=False)
    assert told(tmp_path) == []
    call(lambda *_: retraining.Outcome(retraining.NOTHING_NEW))
    events = told(tmp_path)
    assert [(event["kind"], event["reason"], event["spans"], event["findings"]) for event in events] == [
        ("refused", "too low", [1], ["span 2 was not taken (refused): dark pictures"])
    ]
    call(lambda *_: retraining.Outcome(retraining.NOTHING_NEW))
    assert told(tmp_path) == events


def test_an_event_told_again_after_a_kill_has_the_id_that_it_had(call, tmp_path, monkeypatch):
    whole = Ledger.all_told

    def killed(known):
        if known.untold().trainings:
            raise Killed
        whole(known)

    monkeypatch.setattr(Ledger, "all_told", killed)
    with pytest.raises(Killed):
        call(lambda request, *_: _trains(request, killed=False), catch=False)
    monkeypatch.setattr(Ledger, "all_told", whole)
    call(lambda *_: retraining.Outcome(retraining.NOTHING_NEW))
    ids = [event["id"] for event in told(tmp_path) if event["reason"] == "too low"]
    assert len(ids) == 2
    assert len(set(ids)) == 1


def test_a_ledger_that_a_cut_took_is_whole_before_anything_is_decided(call, tmp_path, monkeypatch):
    root, data = Root(tmp_path / "root"), tmp_path / "spans"
    root.ledger.parent.mkdir(parents=True)
    root.ledger.write_text("")
    with contextlib.closing(sqlite3.connect(root.metadata)) as store:
        store.execute("CREATE TABLE Execution (id INT, create_time_since_epoch INT)")

    def rebuilt(place: Root, spans: pathlib.Path) -> Ledger:
        known = Ledger(place.ledger, trainings=[ledger.Training([1, 2], [1, 2], "never", None, None, None)])
        known.trainings[0].outcome, known.trainings[0].told = ledger.PUSHED, False
        for number in (1, 2):
            fingerprint = arrivals.fingerprint(spans / f"span-{number}")
            known.spans[number] = ledger.SpanRecord(ledger.ACCEPTED, "", fingerprint, ledger.now())
        return known

    monkeypatch.setattr(rebuilding, "rebuilt", rebuilt)
    said = call(None).output
    assert "was lost in a power cut; made again from ML Metadata: 2 spans and 1 trainings." in said
    assert f"Nothing new in {data}." in said.replace("\n", "")
    assert [event["kind"] for event in told(tmp_path)] == ["pushed"]
    assert Ledger.load(root.ledger).untold().trainings == []
    assert "made again" not in call(None).output
