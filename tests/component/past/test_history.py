"""History, lineage and pruning of a real, small metadata store."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from typer.testing import CliRunner

from components.serving import serving_folder
from components.staging import copy_of, write_twice
from pipeline import cli, refusal
from pipeline.past import commands, history, history_plot, lineage, prune, store_graph
from pipeline.past.prune import PrunePolicy
from pipeline.past.store_graph import StoreGraph
from pipeline.report import write
from pipeline.retrain import rebuilding
from pipeline.root import Root
from pipeline.spans import arrivals, ledger
from pipeline.spans.ledger import Ledger, SpanRecord, Training
from tests.component import small_root
from tests.component.small_root import Plan

SVG = "{http://www.w3.org/2000/svg}"
OLD_AND_NEW = PrunePolicy(keep_runs=1, keep_spans=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("small") / "data"


@pytest.fixture(scope="module")
def past(data) -> Root:
    """Two pushes, the second warm-started on a window of two spans; three refusals; poisoned data."""
    root = Root(data.parent / "root")
    small_root.run(root, data, Plan(span=1))
    small_root.run(root, data, Plan(span=2, window=(1, 2), accuracy=0.95, warm_start=True))
    for epochs in (1, 2, 3):
        small_root.run(root, data, Plan(span=3, window=(2, 3), accuracy=0.5, epochs=epochs))
    with pytest.raises(ValueError, match="labels were permuted"):
        small_root.run(root, data, Plan(span=4, poisoned=True))
    return root


@pytest.fixture
def root(past, tmp_path) -> Root:
    return small_root.copied(past, tmp_path / "root")


def versions(root: Root) -> list[int]:
    return [version.number for version in serving_folder.versions(root.serving)]


def folders(root: Root) -> set[str]:
    """Every folder of an artifact, as NODE/OUTPUT/EXECUTION."""
    found = {path.relative_to(root.artifacts) for path in root.artifacts.glob("*/*/*")}
    return {str(path) for path in found if path.parts[1] != ".system"}


def everything(root: Root) -> dict[str, bytes]:
    return {
        str(path.relative_to(root.path)): path.read_bytes() for path in root.path.rglob("*") if path.is_file()
    }


def states(graph: StoreGraph) -> dict[str, str]:
    return {node: execution.state for node, execution in graph.runs[-1].executions.items()}


def said(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(cli.app, list(arguments), env={"COLUMNS": "200"})
    assert result.exit_code == status, result.output
    return result.output


def test_every_run_is_told_with_spans_accuracy_version_parent_and_reason(past):
    first, second = versions(past)
    told: Any = history.history(past)
    assert [run.outcome for run in told.runs] == ["pushed", "pushed", *["refused"] * 3, "data refused"]
    assert [run.spans for run in told.runs] == [[1], [1, 2], [2, 3], [2, 3], [2, 3], []]
    assert [run.newest_span for run in told.runs] == [1, 2, 3, 3, 3, 4]
    assert [run.accuracy for run in told.runs] == [0.9, 0.95, 0.5, 0.5, 0.5, None]
    assert [run.version for run in told.runs] == [first, second, None, None, None, None]
    assert [run.blessed for run in told.runs] == [True, True, False, False, False, None]
    assert [run.parent.versions if run.parent else None for run in told.runs] == [None, [first], *[None] * 4]
    assert told.runs[2].reason == "accuracy is 0.5, below its floor of 0.8"
    assert (told.runs[5].failed_node, told.runs[5].reason) == ("AnomalyGate", "TFX recorded no reason")
    assert [(v.version, v.action, v.served) for v in told.versions] == [
        (first, "push", False),
        (second, "push", True),
    ]
    assert all(run.seconds > 0 for run in told.runs)


def test_a_resolver_that_failed_is_told_with_its_reason(root, data):
    """TFX's runner goes on after a resolver that fails, and says nothing: the store does."""
    small_root.run(root, data, Plan(span=5, window=(77,)))
    last: Any = history.history(root).runs[-1]
    assert (last.outcome, last.failed_node) == ("failed", "Window")
    assert "no Examples of span 77" in last.reason


def test_the_ledgers_decisions_are_told_with_the_runs(root):
    runs = history.history(root).runs
    decided = Training([2, 3], [3], "encoder", 4, 1, 5, run_id=runs[2].run_id, outcome="refused", attempts=1)
    given_up = Training(
        [5],
        [5],
        "never",
        None,
        None,
        None,
        outcome="failed",
        reason="disk full",
        started=str(runs[3].started),
    )
    small_root.fail_by_hand(root, str(runs[4].run_id), "Evaluator")
    again = Training([2, 3], [3], "never", None, None, None, reason="no memory", started=str(runs[4].started))
    later = Training([6], [6], "never", None, None, None, started="2999-01-01T00:00:00+00:00")
    spans = {
        2: SpanRecord("accepted", "", "f", "2026-01-01T00:00:00+00:00"),
        4: SpanRecord("refused", "labels were permuted", "f", "2026-01-02T00:00:00+00:00"),
        5: SpanRecord("too old", "4 newer spans fill the window", "f", "2026-01-03T00:00:00+00:00"),
    }
    Ledger(root.ledger, spans, [decided, given_up, again, later]).save()
    told = history.history(root)
    assert len(told.runs) == len(runs) + 2
    assert told.runs[2].retraining == decided
    attempt = next(run for run in told.runs if run.run_id == runs[4].run_id)
    assert (attempt.retraining, attempt.outcome, attempt.failed_node) == (again, "failed", "Evaluator")
    assert attempt.reason == "no memory"
    assert told.runs[-1].outcome == "unfinished"
    assert ("failed", "disk full") in [(run.outcome, run.reason) for run in told.runs if run.run_id is None]
    refused = next(run for run in told.runs if run.outcome == "data refused")
    assert refused.reason == "labels were permuted"
    assert [(span.span, span.state) for span in told.spans] == [
        (2, "accepted"),
        (4, "refused"),
        (5, "too old"),
    ]
    assert told.spans[0].runs == [run.run_id for run in runs if 2 in run.spans]
    shown = said("history", "--root", str(root.path))
    for words in ("labels were permuted", "4 newer spans fill the window", "disk full", "data refused"):
        assert words in shown


@pytest.mark.parametrize("columns", [80, 120])
def test_history_fits_a_terminal_and_breaks_no_number(past, columns):
    result = CliRunner().invoke(cli.app, ["history", "--root", str(past.path)], env={"COLUMNS": str(columns)})
    lines = result.output.splitlines()
    assert max(map(len, lines)) <= columns
    assert len(lines) < 25  # six runs and two versions
    (pushed,) = [line for line in lines if f"pushed        {versions(past)[1]}" in line]
    assert "95.00%" in pushed
    refused = lines.index(next(line for line in lines if "refused" in line))
    assert lines[refused + 1].startswith("    accuracy is 0.5, below its floor of 0.8")


def test_spans_are_told_in_few_signs():
    assert commands.span_words([1, 2, 3, 4, 7, 9, 10]) == "1-4, 7, 9, 10"
    assert commands.span_words([]) == ""


def test_history_is_the_same_after_pruning_but_for_what_it_says_is_gone(root):
    before = history.history(root)
    prune.prune(root, OLD_AND_NEW)
    after = history.history(root)
    assert [run.pruned for run in before.runs] == [[]] * 6
    assert after.runs[2].pruned == ["Evaluator", "LinearProbe", "Pretrainer", "Pusher", "Verdict"]
    kept = [{**vars(run), "pruned": None} for run in after.runs]
    assert kept == [{**vars(run), "pruned": None} for run in before.runs]


def test_json_is_the_whole_history(past):
    told = json.loads(said("history", "--root", str(past.path), "--format", "json"))
    assert [run["version"] for run in told["runs"]][:2] == versions(past)
    assert told["runs"][1]["parent"]["versions"] == [versions(past)[0]]


def test_the_plot_marks_each_run_at_its_accuracy(past, tmp_path):
    out = tmp_path / "history.svg"
    said("history", "--root", str(past.path), "--format", "plot", "--out", str(out))
    picture: Any = ET.fromstring(out.read_text())  # noqa: S314 - our own picture
    groups = picture.findall(f"{SVG}g")
    assert [group.get("class") for group in groups] == ["pushed", "pushed", *["refused"] * 3, "data-refused"]
    dots = [group.find(f"{SVG}circle") for group in groups[:5]]
    heights = [float(dot.get("cy")) for dot in dots]
    # Accuracies 0.9, 0.95 and 0.5: heights are in the same proportion, and up is better.
    assert (heights[2] - heights[0]) / (heights[2] - heights[1]) == pytest.approx(0.4 / 0.45, abs=0.01)
    places = [float(dot.get("cx")) for dot in dots]
    assert places == sorted(places)
    rings = [len(group.findall(f"{SVG}circle[@class='served']")) for group in groups]
    assert rings == [0, 1, 0, 0, 0, 0]
    assert groups[5].find(f"{SVG}path") is not None
    assert history_plot.description(history.history(past)) in picture.find(f"{SVG}desc").text
    assert "2 pushed, 3 refused, 1 data refused; highest accuracy 95.00%" in picture.find(f"{SVG}desc").text


def test_on_a_dark_screen_nothing_of_the_plot_keeps_a_colour_of_the_light_one(past):
    picture: Any = ET.fromstring(history_plot.plot(history.history(past)))  # noqa: S314 - our own picture
    assert "style" not in picture.attrib
    dark = picture.find(f"{SVG}style").text.split("prefers-color-scheme:dark")[1]
    rules = re.findall(r"((?:\.runs [\w.]+,?)+){(\w+):", dark)
    changed = {(kind, what) for names, what in rules for kind in re.findall(r"\.(\w+)(?=,|$)", names)}
    assert ("label", "fill") in changed
    coloured = [
        (one, what)
        for one in picture.iter()
        for what in ("fill", "stroke")
        if (one.get(what) or "none") != "none"
    ]
    assert len(coloured) > 15
    for one, what in coloured:
        assert {(kind, what) for kind in one.get("class").split()} & changed, one.attrib


def test_a_plot_without_a_file_and_a_root_without_runs_are_refused(tmp_path, past):
    assert "--out" in said("history", "--root", str(past.path), "--format", "plot", status=2)
    assert "metadata.sqlite" in said("history", "--root", str(tmp_path), status=2)
    assert "no version" in said("lineage", "--root", str(tmp_path), status=2)
    assert "Expected one of the versions" in said("lineage", "--root", str(past.path), "7", status=2)
    assert not list(tmp_path.iterdir())


def test_lineage_goes_back_through_the_parent_to_the_files_digests(past, data):
    first, second = versions(past)
    found: Any = lineage.lineage(past)
    graph = StoreGraph(past.metadata)
    assert (found.version, found.served, found.record["lineage"]["code_digest"]) == (second, True, "0123")
    assert found.pushed_model.uri.endswith(f"Pusher/pushed_model/{graph.runs[1].executions['Pusher'].id}")
    assert [training.pushed_as for training in found.pretraining] == [[second], [first]]
    assert [[span.span for span in training.spans] for training in found.pretraining] == [[1, 2], [1]]
    assert found.probe.run_id == graph.runs[1].id
    digests = {name: digest for span in found.pretraining[0].spans for name, digest in span.files.items()}
    assert digests == {
        f"span-{number}/data_batch_1.bin": hashlib.sha256(f"span {number}".encode()).hexdigest()
        for number in (1, 2)
    }
    assert lineage.lineage(past, first).pretraining == found.pretraining[1:]


def test_a_rolled_back_version_has_the_lineage_of_what_it_restores(root):
    first, second = versions(root)
    restored = serving_folder.rollback(root.serving).version
    found: Any = lineage.lineage(root)
    assert (found.version, found.record["restored_version"]) == (restored, first)
    assert found.pretraining == lineage.lineage(root, first).pretraining
    assert lineage.lineage(root, second).withdrawn
    assert [(v.version, v.action, v.withdrawn) for v in history.history(root).versions][1:] == [
        (second, "push", True),
        (restored, "rollback", False),
    ]


def test_verify_tells_what_changed_and_what_is_gone(root, data, tmp_path):
    assert "Verified: 3 same." in said("lineage", "--root", str(root.path), "--verify")
    found: Any = lineage.lineage(root)
    moved = tmp_path / "data"
    moved.mkdir()
    (moved / "a.bin").write_bytes(b"changed")
    (tmp_path / "secret").write_bytes(b"outside")
    files = {
        "a.bin": hashlib.sha256(b"as it was").hexdigest(),
        "b.bin": "0",
        "../secret": "0",
        "/etc/hostname": "0",
    }
    source = lineage.SpanSource(9, found.pushed_model, str(moved), files, "")
    changed = lineage.Lineage(**{**vars(found), "pretraining": [], "tested_on": [source]})
    assert [check.result for check in lineage.verify(root, changed)] == [
        "same",
        "differs",
        "gone",
        *["not looked at"] * 2,
    ]
    (root.serving / str(versions(root)[1]) / "saved_model.pb").write_bytes(b"tampered")
    shown = said("lineage", "--root", str(root.path), "--verify", status=1)
    assert "1 files differ from what was recorded: version" in shown
    told = json.loads(said("lineage", "--root", str(root.path), "--format", "json"))
    assert [len(training["spans"]) for training in told["pretraining"]] == [2, 1]


def test_pruning_keeps_lineages_the_newest_run_and_the_newest_span_and_nothing_else(root):
    graph = StoreGraph(root.metadata)
    ids = [{node: execution.id for node, execution in run.executions.items()} for run in graph.runs]
    before, size = (
        folders(root),
        sum(path.stat().st_size for path in root.artifacts.rglob("*") if path.is_file()),
    )
    pruned = prune.prune(root, OLD_AND_NEW)
    gone = before - folders(root)
    outputs = {
        "Pretrainer": ["model"],
        "LinearProbe": ["model"],
        "Evaluator": ["evaluation"],
        "Verdict": ["blessing", "verdict"],
        "Pusher": ["pushed_model"],
    }
    # Runs 2 and 3 were refused, and the newest uses their data; no model is made from what the gate reported on it.
    assert gone == {
        f"{node}/{output}/{ids[run][node]}"
        for run in (2, 3)
        for node, names in outputs.items()
        for output in names
    } | {f"AnomalyGate/report/{ids[run]['AnomalyGate']}" for run in (0, 1)}
    left = sum(path.stat().st_size for path in root.artifacts.rglob("*") if path.is_file())
    assert 0 < pruned.bytes == size - left
    assert len(pruned.artifacts) == len(gone)
    assert {reason.split(" ")[0] for reason in pruned.kept} == {"latest", "lineage", "run", "span"}


def test_a_dry_run_tells_the_same_and_changes_nothing(root):
    before = everything(root)
    told = prune.prune(root, OLD_AND_NEW, dry_run=True)
    assert everything(root) == before
    assert prune.prune(root, OLD_AND_NEW) == told
    assert told.artifacts
    shown = said("prune", "--root", str(root.path), "--keep-runs", "1", "--keep-spans", "1", "--dry-run")
    assert "Would free 0.0 kB; 0 artifacts" in shown


def test_what_was_deleted_is_made_again_and_what_was_kept_is_not(root, data):
    old, new = (Plan(span=3, window=(2, 3), accuracy=0.5, epochs=epochs) for epochs in (8, 9))
    small_root.run(root, data, old)
    small_root.run(root, data, new)
    prune.prune(root, OLD_AND_NEW)
    made = ("Pretrainer", "LinearProbe", "Evaluator", "Verdict", "Pusher")
    shared = ("Cifar10ExampleGen", "AnomalyGate", "Transform")
    unchanged = states(small_root.run(root, data, new))
    assert {unchanged[node] for node in (*made, *shared)} == {"CACHED"}
    found = states(small_root.run(root, data, old))
    assert {found[node] for node in shared} == {"CACHED"}
    assert {found[node] for node in made} == {"COMPLETE"}
    assert [run.outcome for run in history.history(root).runs[-2:]] == ["refused"] * 2


def test_after_pruning_a_push_on_a_warm_start_and_a_rollback_work(root, data):
    first, second = versions(root)
    prune.prune(root, OLD_AND_NEW)
    small_root.run(root, data, Plan(span=5, window=(3, 5), accuracy=0.97, warm_start=True))
    last: Any = history.history(root).runs[-1]
    assert (last.outcome, last.parent.versions) == ("pushed", [second])
    assert serving_folder.rollback(root.serving).digest == lineage.lineage(root, second).record["digest"]
    assert first not in versions(root)  # retired by the Pusher, so its lineage may go
    small = prune.prune(root, OLD_AND_NEW)
    assert not any(f"version {first}" in reason for reason in small.kept)


@pytest.mark.parametrize("survived", [0, 1, 5])
def test_a_kill_between_mark_and_delete_is_made_up_for(root, tmp_path, monkeypatch, survived):
    reference = small_root.copied(root, tmp_path / "reference")
    prune.prune(reference, OLD_AND_NEW)
    remove, calls = prune._remove, []

    def killed(path):
        calls.append(path)
        if len(calls) > survived:
            raise KeyboardInterrupt
        remove(path)

    monkeypatch.setattr(prune, "_remove", killed)
    with pytest.raises(KeyboardInterrupt):
        prune.prune(root, OLD_AND_NEW)
    deleted = {a.id for a in StoreGraph(root.metadata).artifacts.values() if a.state == store_graph.DELETED}
    assert deleted
    monkeypatch.undo()
    completed = prune.prune(root, OLD_AND_NEW)
    assert completed.artifacts == []
    assert folders(root) == folders(reference)
    assert everything(root).keys() == everything(reference).keys()


def test_leftovers_of_crashes_go_and_links_are_not_followed(root, tmp_path):
    orphan = root.artifacts / "Transform" / "transformed_examples" / "999"
    orphan.mkdir()
    (orphan / "half.txt").write_text("half")
    outside = tmp_path / "outside"
    (outside / "1").mkdir(parents=True)
    (root.artifacts / "Transform" / "link").symlink_to(outside)
    (root.artifacts / "Transform" / "notes").mkdir()
    (root.artifacts / "Transform" / "notes" / "mine").mkdir()
    pruned = prune.prune(root, PrunePolicy(keep_runs=100, keep_spans=100))
    assert orphan in pruned.removed
    assert not orphan.exists()
    assert pruned.artifacts == []
    assert (outside / "1").is_dir()
    assert (root.artifacts / "Transform" / "notes" / "mine").is_dir()


def test_the_latest_blessed_model_stays_though_it_is_served_no_more(root):
    """As after a rollback from it, when its version has been retired since."""
    blessed = small_root.latest_blessed(root)
    _, second = versions(root)
    probe: Any = lineage.lineage(root, second).probe
    model = probe.model.id
    assert model in blessed
    serving_folder.rollback(root.serving)
    withdrawn = root.serving / str(second)
    withdrawn.rename(root.path / "elsewhere")
    pruned = prune.prune(root, OLD_AND_NEW)
    assert "latest blessed model" in pruned.kept
    assert small_root.latest_blessed(root) == blessed


def test_tfx_does_not_see_a_deleted_blessed_model(root):
    blessed = small_root.latest_blessed(root)
    store_graph.mark_deleted(root.metadata, blessed)
    older = small_root.latest_blessed(root)
    assert older
    assert not set(older) & set(blessed)


def test_an_unfinished_retraining_keeps_what_it_was_begun_with(root):
    graph = StoreGraph(root.metadata)
    probe = graph.runs[2].executions["LinearProbe"]
    (model,) = graph.written(probe, "model")
    begun = Training([2, 3], [3], "encoder", None, None, baseline=model.id)
    spans = {number: SpanRecord("accepted", "", "f", "") for number in (1, 2, 3)}
    Ledger(root.ledger, {**spans, 4: SpanRecord(ledger.REFUSED, "poisoned", "f", "")}, [begun]).save()
    pruned = prune.prune(root, OLD_AND_NEW)
    after = StoreGraph(root.metadata)
    assert after.artifacts[model.id].state == store_graph.LIVE
    # Span 4 was refused, so span 3 is the newest that counts.
    assert "span 3" in pruned.kept
    assert "span 4" not in pruned.kept


def test_reports_logs_and_checkpoints_of_old_runs_go_and_summaries_stay(root):
    graph = StoreGraph(root.metadata)
    for run in graph.runs:
        summary = root.summary(run.id)
        summary.parent.mkdir(parents=True)
        summary.write_text("{}")
        (summary.parent / "report.html").write_text(run.id)
    prune.prune(root, OLD_AND_NEW)
    kept = sorted(path.parent.name for path in root.path.glob("runs/*/report.html"))
    # The two that pushed a version, the newest that trained, and the newest that did not come that far.
    assert kept == sorted(root.summary(graph.runs[place].id).parent.name for place in (0, 1, 4, 5))
    assert len(list(root.path.glob("runs/*/summary.json"))) == len(graph.runs)


def test_a_report_of_a_pruned_run_is_refused_with_where_its_numbers_are(root):
    run = StoreGraph(root.metadata).runs[2]
    root.summary(run.id).parent.mkdir(parents=True)
    root.summary(run.id).write_text(json.dumps({"run_id": run.id}))
    prune.prune(root, OLD_AND_NEW)
    with pytest.raises(ValueError, match=r"Evaluator.* were pruned.*numbers are in .*summary\.json"):
        write.write_report(root, run.id)


def test_old_logs_and_stale_checkpoints_go(root):
    graph = StoreGraph(root.metadata)
    for number, seconds in (
        (1, 0),
        (2, graph.runs[-2].started / 1000 + 1),
        (3, graph.runs[-1].started / 1000 + 1),
    ):
        log = root.logs / f"{number}.log"
        log.write_text("told")
        os.utime(log, (seconds, seconds))
    (root.checkpoints / "abc").mkdir(parents=True)
    (root.checkpoints / "abc" / "checkpoint.npz").write_text("state")
    prune.prune(root, OLD_AND_NEW)
    assert sorted(path.name for path in root.logs.iterdir()) == ["2.log", "3.log"]
    assert not (root.checkpoints / "abc").exists()


def test_a_root_that_was_moved_loses_nothing(past, tmp_path):
    shutil.copytree(past.path, tmp_path / "moved")
    moved = Root(tmp_path / "moved")
    before = folders(moved)
    pruned = prune.prune(moved, OLD_AND_NEW)
    assert pruned.artifacts == []
    assert pruned.elsewhere == sum(
        a.state == store_graph.LIVE for a in StoreGraph(moved.metadata).artifacts.values()
    )
    assert folders(moved) == before


def test_a_root_at_work_is_left_alone(root):
    before = everything(root)
    with root.locked():
        assert "is at work in" in said("prune", "--root", str(root.path), "--keep-runs", "1", status=2)
    assert everything(root).keys() == before.keys() | {".lock"}
    with pytest.raises(ValueError, match="keep_runs is at least 1; received 0"):
        PrunePolicy(keep_runs=0)


def test_the_disk_is_bounded_over_many_retrainings(tmp_path):
    """Each on a window of two spans, warm-started, pushed, pruned: from the third on nothing grows."""
    root, counts = Root(tmp_path / "root"), []
    for span in range(1, 6):
        plan = Plan(span=span, window=(span - 1, span) if span > 1 else (), warm_start=span > 1)
        small_root.run(root, tmp_path / "data", plan)
        prune.prune(root, PrunePolicy(keep_runs=1, keep_spans=2))
        counts.append(len(folders(root)))
    assert counts[2] == counts[3] == counts[4]


@pytest.mark.parametrize("cut", ["", "\0" * 40, '{"format": 1, "spans": {"1"'])
def test_a_ledger_of_which_both_copies_were_lost_is_made_again(root, data, cut):
    first, second = versions(root)
    Ledger(root.ledger).mark(1, ledger.ACCEPTED, "f")
    for path in (root.ledger, copy_of(root.ledger)):
        path.write_text(cut)
    with pytest.raises(ValueError, match="let the next `byol retrain` make it again from ML Metadata"):
        Ledger.load(root.ledger)
    assert ledger.is_rebuildable(root.ledger)
    rebuilding.rebuilt(root, data).save()
    known = Ledger.load(root.ledger)
    assert {number: (span.state, span.compared) for number, span in known.spans.items()} == {
        1: ("accepted", []),
        2: ("accepted", [1]),
        3: ("accepted", [1, 2]),
        4: ("refused", []),
    }
    assert "AnomalyGate" in known.spans[4].reason
    for number in (1, 2, 3):
        assert known.spans[number].fingerprint == arrivals.fingerprint(data / f"span-{number}")
        assert known.spans[number].seal == arrivals.seal(data / f"span-{number}")
    told = [(t.window, t.new, t.outcome, t.version, t.accuracy, t.told) for t in known.trainings]
    assert told == [
        ([1], [1], "pushed", first, 0.9, True),
        ([1, 2], [2], "pushed", second, 0.95, True),
        ([2, 3], [3], "refused", None, 0.5, False),
    ]
    graph: Any = StoreGraph(root.metadata)
    makers = [graph.maker(number) for number in (known.trainings[1].parent, known.trainings[1].baseline)]
    assert [maker.node for maker in makers] == ["Pretrainer", "LinearProbe"]
    assert known.trainings[1].parent_version == first
    assert (known.unheard(), known.unfinished()) == ([], None)


def test_a_span_that_is_another_one_by_now_is_not_taken_for_the_one_that_was_read(root, data, tmp_path):
    """It stays accepted, as what was read then, and is told to have changed."""
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "span-2" / "data_batch_1.bin").write_text("other pictures")
    known = rebuilding.rebuilt(root, tmp_path / "data")
    assert (known.spans[2].state, known.spans[2].fingerprint) == ("accepted", "")
    assert known.spans[1].fingerprint == arrivals.fingerprint(tmp_path / "data" / "span-1")


def test_a_summary_that_was_emptied_is_read_from_its_copy_and_without_it_the_store_is_asked(root):
    run = str(history.history(root).runs[2].run_id)
    write_twice(root.summary(run), json.dumps({"random_encoder_linear_accuracy": 0.25, "missed": []}) + "\n")
    root.summary(run).write_text("")
    assert history.history(root).runs[2].random_encoder_accuracy == 0.25
    copy_of(root.summary(run)).write_text("")
    assert history.history(root).runs[2].random_encoder_accuracy is None
    assert history.history(root).runs[2].accuracy == 0.5
    assert refusal.recorded(root, run) == ()
