"""The dashboard of a real, small root: one page without network that tells what the store and the folders hold."""

import dataclasses
import datetime as dt
import pathlib
from urllib.parse import unquote

import pytest
from typer.testing import CliRunner

from components.gate.misses import Miss
from components.serving import candidates, serving_folder
from pipeline import cli
from pipeline.past import dashboard, history
from pipeline.root import Root
from pipeline.spans import ledger
from pipeline.spans.ledger import Ledger
from tests.component import small_root
from tests.component.report.test_report_page import Reader, external
from tests.component.small_root import Plan

NOW = dt.datetime(2126, 1, 1, tzinfo=dt.timezone.utc)


@pytest.fixture(scope="module")
def past(tmp_path_factory) -> Root:
    """A push, a better one, a refusal and poisoned data; the second run has a report."""
    folder = tmp_path_factory.mktemp("small & <odd>")
    root, data = Root(folder / "root"), folder / "data"
    small_root.run(root, data, Plan(span=1))
    small_root.run(root, data, Plan(span=2, window=(1, 2), accuracy=0.95))
    small_root.run(root, data, Plan(span=3, window=(2, 3), accuracy=0.5))
    with pytest.raises(ValueError, match="labels were permuted"):
        small_root.run(root, data, Plan(span=4, poisoned=True))
    second = str(history.history(root).runs[1].run_id)
    report = root.summary(second).with_name("report.html")
    report.parent.mkdir(parents=True)
    report.write_text("<!doctype html>")
    return root


def links(text: str) -> list[str]:
    return [v for tag, n, v in Reader(text).attributes if (tag, n) == ("a", "href") and not v.startswith("#")]


def test_the_command_writes_a_page_that_loads_nothing_and_whose_links_lead_to_files(past):
    result = CliRunner().invoke(cli.app, ["dashboard", "--root", str(past.path)])
    assert result.exit_code == 0, result.output
    text = (past.path / "dashboard.html").read_text()
    found = links(text)
    assert external(text) == []
    assert any(link.endswith("report.html") for link in found)
    for link in found:
        assert (past.path / unquote(link)).exists(), link
    assert "<odd>" not in text


def test_it_says_what_is_served_how_the_last_run_ended_and_what_became_of_each_span(past):
    text = dashboard.render(past, past.path, NOW)
    served = serving_folder.versions(past.serving)[-1]
    facts = Reader(text).facts
    assert facts["served_version"] == {str(served.number)}
    assert facts["last_outcome"] == {"data refused"}
    assert f"Since {str(served.record['published_at'])[:16].replace('T', ' ')} UTC" in text
    rows = dashboard.span_rows(history.history(past))
    assert [(row.span, row.fate, row.runs) for row in rows] == [
        (1, "pushed", 2),
        (2, "pushed", 2),
        (3, "refused", 1),
        (4, "data refused", 0),
    ]
    assert text.count('<g class="refused"') == 1  # the plot's mark


def test_the_ledgers_word_about_a_span_is_the_one_that_counts(past, tmp_path):
    root = small_root.copied(past, tmp_path / "root")
    Ledger(root.ledger).mark(4, ledger.REFUSED, "", "labels look permuted")
    rows = dashboard.span_rows(history.history(root))
    assert (rows[3].fate, rows[3].reason) == ("refused", "labels look permuted")
    assert rows[3].seen
    assert "labels look permuted" in dashboard.render(root, tmp_path, NOW)


def test_a_page_elsewhere_links_from_there(past, tmp_path):
    out = dashboard.write(past, tmp_path / "pages" / "byol.html")
    report = next(link for link in links(out.read_text()) if link.endswith("report.html"))
    assert (out.parent / unquote(report)).resolve().is_file()


def test_gates_over_time_are_what_each_run_missed_and_by_how_much(past):
    runs = [run for run in history.history(past).runs if run.blessed is not None]
    floor = Miss("accuracy", "all test images", 0.8, 0.5)
    cat = Miss("accuracy", "cat", None, None, note="not measured")
    judged = [
        runs[0],
        dataclasses.replace(runs[1], missed=[floor]),
        dataclasses.replace(runs[2], missed=[cat]),
    ]
    assert dashboard.gate_rows(judged) == [
        dashboard.GateRow("accuracy", "all test images", ["", "30.00 points", ""]),
        dashboard.GateRow("accuracy", "cat", ["", "", "missed"]),
    ]
    gain, change = dashboard.curves(
        [
            dataclasses.replace(run, random_encoder_accuracy=0.4, baseline_accuracy=base)
            for run, base in zip(runs, (None, 0.9, None), strict=True)
        ]
    )
    assert gain is not None
    assert (gain.first, gain.last) == ("50", "10")
    assert "after run 3" in gain.summary
    assert change is not None
    assert (change.first, change.last) == ("5", "5")


def test_a_candidate_that_waits_is_on_the_first_screen_and_what_became_of_it_stays(past, tmp_path):
    assert "waits for approval" not in dashboard.render(past, past.path, NOW)
    root, run_id = small_root.copied(past, tmp_path / "root"), str(history.history(past).runs[1].run_id)
    model = tmp_path / "model"
    model.mkdir()
    (model / serving_folder.SAVED_MODEL_FILE).write_text("another model")
    lineage = {"run_id": run_id, "metrics": {"sparse_categorical_accuracy": 0.875}}
    held = candidates.hold(model, root.serving, lineage)
    text = dashboard.render(root, root.path, NOW)
    facts = Reader(text).facts
    assert (facts["candidate"], facts["candidate_accuracy"]) == ({held.name}, {"87.50%"})
    before_accuracy = text.split('<section id="accuracy">')[0]
    assert f"byol approve --root {root.path} {held.name}".replace("&", "&amp;") in before_accuracy
    assert unquote(links(text)[0]) == str(
        root.summary(run_id).with_name("report.html").relative_to(root.path)
    )
    candidates.reject(root.serving, "Ada", "cats <look> like dogs")
    text = dashboard.render(root, root.path, NOW)
    assert "waits for approval" not in text
    assert f"<td>{held.name}</td><td>rejected</td><td>Ada</td>" in text
    assert "cats &lt;look&gt; like dogs" in text


def test_disk_use_counts_every_byte_once(tmp_path):
    (tmp_path / "tfx" / "deep").mkdir(parents=True)
    (tmp_path / "tfx" / "deep" / "model").write_bytes(b"m" * 3000)
    (tmp_path / "tfx" / "linked").hardlink_to(tmp_path / "tfx" / "deep" / "model")
    (tmp_path / "metadata.sqlite").write_bytes(b"s" * 1000)
    found = {row.name: (row.bytes, row.share) for row in dashboard.disk_use(tmp_path)}
    assert found == {"tfx": (3000, 0.75), "metadata.sqlite": (1000, 0.25)}
    assert [dashboard.size(count) for count in (12, 3000, 4_500_000, 7_000_000_000)] == [
        "12 B",
        "3.0 kB",
        "4.5 MB",
        "7.0 GB",
    ]


@pytest.mark.parametrize(
    ("since", "words"),
    [("2125-12-30T00:00:00+00:00", "2 days"), ("2125-12-31T21:00:00+00:00", "3 hours"), ("", "")],
)
def test_ages_are_in_words(since, words):
    assert dashboard.age(since, NOW) == words


def test_a_folder_that_is_no_root_is_said_and_nothing_is_written(tmp_path: pathlib.Path):
    result = CliRunner().invoke(cli.app, ["dashboard", "--root", str(tmp_path)])
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == []
