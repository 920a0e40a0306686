"""The report's page from made-up facts: what it must say, whatever a run came to."""

import dataclasses
import html.parser
import io
import json
import pathlib
import re
import shlex

import numpy as np
import pytest
from rich.console import Console

from components.data import features
from components.data.dataset import CIFAR10, DataSet
from pipeline.config import PRESETS, fitted
from pipeline.report import facts, origin, page, write
from pipeline.root import Root

SUMMARY = {
    "run_id": "2026-01-02T03:04:05",
    "preset": "demo",
    "data": "/data/<script>alert(1)</script>",
    "linear_accuracy": 0.75,
    "random_encoder_linear_accuracy": 0.5,
    "knn_accuracy": 0.625,
    "blessed": True,
    "pushed_version": 17,
    "pushed_path": "/serving/17",
    "not_pushed_because": None,
    "seconds": 3700.0,
    "components": {"Pretrainer": 125.0, "Pusher": 0.0},
}
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Reader(html.parser.HTMLParser):
    """Collects what the tests ask for and checks that elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.facts: dict[str, set[str]] = {}
        self.ids: list[str] = []
        self.scripts: dict[str, str] = {}
        self._fact = ""
        self._script = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        found = dict(attrs)
        self._fact = found.get("data-fact", "")
        self.ids += [found["id"]] if "id" in found else []
        self._script = found.get("id", "inline") if tag == "script" else ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self._fact = self._script = ""

    def handle_data(self, data):
        if self._fact:
            self.facts.setdefault(self._fact, set()).add(data.strip())
        if self._script:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data


def external(text: str) -> list[str]:
    """Every address in the page that a browser would fetch from elsewhere."""
    reader = Reader(text)
    loading = [
        v
        for tag, n, v in reader.attributes
        if n in {"src", "href", "srcset", "data", "poster", "action", "xlink:href"}
        # A link to a file beside the report is followed by a person, or not at all.
        and not (tag == "a" and "//" not in v)
    ]
    loading += re.findall(r"url\(\s*['\"]?([^'\")]*)", text)
    loading += re.findall(r"@import\s+['\"]?([^'\";]*)", text)
    loading += re.findall(r"(?:fetch|import|XMLHttpRequest|WebSocket|EventSource|sendBeacon)\s*\(", text)
    return [address for address in loading if not address.startswith(("data:", "#"))]


@pytest.fixture
def made_up() -> facts.Facts:
    """40 test images of which 30 are right, as the summary says."""
    generator = np.random.default_rng(0)
    labels = np.arange(40) % 10
    predicted = np.where(np.arange(40) < 30, labels, (labels + 1) % 10)
    images = generator.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    return facts.Facts(
        summary=SUMMARY,
        settings={
            "gate": {"minimum_accuracy": 0.55, "minimum_class_accuracy": 0.25},
            "pretraining": {"view_1": {"size": 24, "flip": 0.5}, "view_2": {"size": 24, "flip": 0.4}},
        },
        verdict={},
        test=facts.TestSplit(
            images=images,
            labels=labels,
            probabilities=(0.7 * np.eye(10)[predicted] + 0.03).astype(np.float32),
            sample=np.arange(0, 40, 2),
            vectors=generator.normal(size=(20, 4)).astype(np.float32),
        ),
        history={
            "epoch": [1.0, 2.0],
            "loss": [2.0, 1.0],
            "tau": [0.9, 1.0],
            "knn_accuracy": [float("nan"), 0.5],
        },
        probe={"digest": "abc"},
        views=facts.Views(
            images[:3],
            labels[:3],
            generator.integers(0, 256, (3, 24, 24, 3), dtype=np.uint8),
            generator.integers(0, 256, (3, 24, 24, 3), dtype=np.uint8),
        ),
        data=facts.DataFacts(
            span=4,
            earlier_span=3,
            counts={"train": [5] * 10, "test": [4] * 10},
            figures=[
                facts.Comparison("brightness", 0.5, 0.4, 0.31, 0.1),
                facts.Comparison("contrast", 0.2, 0.2, 0.12, 0.2),
            ],
            findings=[
                {"severity": "warning", "split": "train", "feature": "content_hash", "reason": "2 <b> repeat"}
            ],
            allowed=False,
        ),
        lineage=[],
        environment={"python": "3.10"},
        code_digest=None,
    )


def test_the_page_is_whole_safe_and_alone(made_up):
    text = page.render(made_up)
    reader = Reader(text)
    assert external(text) == []
    assert len(reader.ids) == len(set(reader.ids))
    targets = [v[1:] for _, n, v in reader.attributes if n == "href" and v.startswith("#")]
    assert set(targets) <= set(reader.ids)
    assert text.isascii()
    assert "<script>alert" not in text
    assert "2 &lt;b&gt; repeat" in text
    assert json.loads(reader.scripts["summary-json"]) == SUMMARY


def test_the_check_for_addresses_finds_them():
    """The check itself: a page that loads from elsewhere is caught."""
    for bad in (
        '<img src="https://example.org/x.png">',
        '<link href="//example.org/x.css">',
        "<style>a{background:url(http://example.org)}</style>",
        "<script>fetch('x')</script>",
    ):
        assert external(f"<p>{bad}</p>")


def test_numbers_are_the_summarys(made_up):
    shown = Reader(page.render(made_up)).facts
    assert shown["linear_accuracy"] == {"75.00%"}
    assert shown["random_encoder_linear_accuracy"] == {"50.00%"}
    assert shown["knn_accuracy"] == {"62.50%"}
    assert shown["pushed_version"] == {"17"}


def test_every_picture_and_chart_has_words(made_up):
    text = page.render(made_up)
    for tag in re.findall(r'<(?:svg|span)[^>]*role="img"[^>]*>', text):
        assert re.search(r'aria-label="[^"]{5,}"', tag), tag
    assert len(re.findall(r"<svg", text)) == len(re.findall(r'<svg[^>]*role="img"', text))


def test_context_counts(made_up):
    found = page.context(made_up)
    assert found["overall"].right == 30
    assert found["mistake_total"] == 10
    assert len(found["mistakes"]) == 10
    assert found["mistakes"][0].caption == "airplane → automobile 73%"
    assert np.trace(np.array(found["matrix"])) == 30
    assert [chart.name for chart in found["curves"]] == ["loss", "knn_accuracy", "tau"]
    assert [words for _, words in found["drift"]] == ["drifted", "as before"]
    assert [(bar.name, bar.text) for bar in found["timing"]] == [
        ("Pretrainer", "2 min 05 s"),
        ("Pusher", "0.0 s"),
    ]
    assert found["view_settings"] == [("size", 24, 24), ("flip", 0.5, 0.4)]
    assert sum(len(group.points) for group in found["groups"]) == 20


def test_precision_and_recall_by_class(made_up):
    """By hand: of 3 cats 2 are right; 4 are taken for cats."""
    rows = page.class_rows(np.array([[2, 1], [2, 5]]), ("cat", "dog"))
    assert [(row.name, row.images, row.precision, row.recall) for row in rows] == [
        ("cat", 3, 0.5, 2 / 3),
        ("dog", 7, 5 / 6, 5 / 7),
    ]
    assert rows[0].f1 == pytest.approx(2 * 0.5 * (2 / 3) / (0.5 + 2 / 3))
    assert page.class_rows(np.array([[0, 3], [0, 2]]), ("cat", "dog"))[0].precision is None
    assert len(page.context(made_up)["class_rows"]) == 10


def test_speed_size_trend_origin_and_drift_are_shown(made_up, tmp_path):
    card = tmp_path / "card" / "MODEL_CARD.html"
    card.parent.mkdir()
    card.touch()
    given = dataclasses.replace(
        made_up,
        serving={"latency_p50_ms": 1.674, "latency_p99_ms": 12.0, "memory_peak_mb": 1759, "size_mb": 20.26},
        origin=origin.Origin(
            pictures="drawn textures",
            command="byol run --preset demo --set 'probe.epochs=2'",
            commit="0123abc",
            links={"model card": card, "gone": tmp_path / "gone"},
            earlier=({"run_id": "2025", "linear_accuracy": 0.5}, SUMMARY),
        ),
        data=dataclasses.replace(
            made_up.data,
            figures=[facts.Comparison("brightness", 0.5, 0.4, 0.31, 0.1, (0.25, 0.75), (0.5, 0.5))],
        ),
    )
    text = page.render(given, tmp_path / "latest")
    reader = Reader(text)
    assert external(text) == []
    for words in ("1.7 ms", "12.0 ms", "1,759 MiB", "20.3 MB", "Trained on drawn textures.", "0123abc"):
        assert words in text
    addresses = [v for tag, n, v in reader.attributes if tag == "a" and n == "href"]
    assert "../card/MODEL_CARD.html" in addresses
    assert not any("gone" in address for address in addresses)
    sections = [v for tag, n, v in reader.attributes if tag == "section" and n == "id"]
    assert {f"#{name}" for name in sections} <= set(addresses)  # a menu entry for each
    assert "byol run --preset demo --set" in text
    assert 'points="0.0,26.3 120.0,1.0"' in text  # 39 less 38 thirds, and the highest
    found = page.context(given)
    assert (found["trend"].first, found["trend"].last) == ("50%", "75%")
    assert page.trend((SUMMARY,)) is None


def test_a_reason_ends_with_one_full_stop(made_up):
    for reason in ("a rollback came meanwhile.", "a rollback came meanwhile"):
        refused = {**SUMMARY, "pushed_version": None, "not_pushed_because": reason}
        found = page.context(dataclasses.replace(made_up, summary=refused))
        assert found["reason"] == "a rollback came meanwhile"


def test_the_command_names_what_differs_from_the_preset(tmp_path):
    settings = json.loads(json.dumps(dataclasses.asdict(PRESETS["demo"])))
    assert (
        origin.command("demo", "/d", settings, CIFAR10) == "byol run --preset demo --data /d --root NEW_ROOT"
    )
    settings["pretraining"]["epochs"] = 99
    settings["gate"]["class_floors"] = [0.5, 0.25]
    words = origin.command("demo", "/d", settings, CIFAR10).split("NEW_ROOT ")[1]
    assert words == "--set 'gate.class_floors=(0.5, 0.25)' --set pretraining.epochs=99"
    settings["gate"]["class_floors"] = {"cat's": 0.5}
    given = shlex.split(origin.command("demo", "/d", settings, CIFAR10))
    assert """gate.class_floors={"cat's": 0.5}""" in given
    assert page.class_floors(settings["gate"], ("dog", "cat's")) == [None, 0.5]
    assert origin.command("demo", "/d", {}, CIFAR10) == ""


def test_what_a_preset_changes_for_large_pictures_need_not_be_set():
    large = dataclasses.replace(CIFAR10, height=96, width=128)
    settings = json.loads(json.dumps(dataclasses.asdict(fitted(PRESETS["demo"], 96))))
    assert origin.command("demo", "/d", settings, large) == "byol run --preset demo --data /d --root NEW_ROOT"
    words = origin.command("demo", "/d", settings, CIFAR10).split("NEW_ROOT ")[1]
    assert words == (
        "--set encoder.stem_stride=4 --set pretraining.view_1.size=72 --set pretraining.view_2.size=72"
    )


def test_drawn_pictures_are_named_as_such(tmp_path):
    assert origin.pictures(tmp_path, CIFAR10).startswith(CIFAR10.name)
    (tmp_path / "synthetic.json").touch()
    assert origin.pictures(tmp_path, CIFAR10).startswith("drawn textures")


def test_the_last_runs_end_with_this_one(tmp_path):
    for number in range(30):
        (tmp_path / f"{number}.json").write_text(
            json.dumps({"run_id": f"r{number:02}", "linear_accuracy": 0.5})
        )
    (tmp_path / "broken.json").write_text("{")
    found = origin.last_runs(tmp_path.glob("*.json"), "r24")
    assert [one["run_id"] for one in found] == [f"r{number:02}" for number in range(5, 25)]


def test_a_refused_run_says_why_first(made_up):
    refused = {
        **SUMMARY,
        "blessed": False,
        "pushed_version": None,
        "pushed_path": None,
        "not_pushed_because": "accuracy is 0.75, below its floor of 0.8 by 0.05",
    }
    verdict = {
        "criteria": [
            {
                "passed": False,
                "metric": "accuracy",
                "slice": "all",
                "threshold": 0.8,
                "value": 0.75,
                "baseline": None,
            },
            {
                "passed": True,
                "metric": "accuracy",
                "slice": "label=cat",
                "threshold": 0.2,
                "value": 0.3,
                "baseline": 0.1,
            },
        ],
        "comparison": {
            "result": "worse",
            "baseline_accuracy": 0.9,
            "change": -0.15,
            "interval": [-0.3, -0.01],
        },
    }
    text = page.render(dataclasses.replace(made_up, summary=refused, verdict=verdict))
    reason = (
        "1 of 2 criteria was missed, accuracy on all: 75.00%, 5.00 points short of the 80.00% that was asked."
    )
    assert text.index(reason) < text.index(">5.00 points</td>") < text.index('id="accuracy"')
    assert text.index("Not pushed") < text.index("90.00%")
    assert "missed" in text
    assert "change -15.00 points, 95% interval -30.00 to -1.00" in text
    assert "No model was served before" not in text
    assert ">Pushed<" not in text


def test_floors_of_each_class_slices_and_corruptions(made_up):
    """What a fuller gate records: floors that differ, parts of the images, corruptions."""
    gate = {"minimum_accuracy": 0.55, "class_floors": [0.1 + 0.05 * i for i in range(10)]}
    verdict = {
        "slices": {
            "label=cat": {page.ACCURACY: 0.1, page.EXAMPLE_COUNT: 10.0, "accuracy_interval": [0.05, 0.2]},
            "brightness_band=dark": {
                page.ACCURACY: 0.6125,
                page.EXAMPLE_COUNT: 1600.0,
                "accuracy_interval": [0.5, 0.7],
            },
        },
        "newest": {
            "metrics": {page.ACCURACY: 0.7, page.EXAMPLE_COUNT: 500.0, "accuracy_interval": [0.66, 0.74]}
        },
        "corrupted": {"accuracy": {"clean": 0.75, "gaussian_noise": 0.4375}, "severity": 3, "images": 40},
    }
    given = dataclasses.replace(made_up, settings={**made_up.settings, "gate": gate}, verdict=verdict)
    found = page.context(given)
    assert [bar.floor for bar in found["class_bars"]] == gate["class_floors"]
    assert [(bar.name, bar.text, bar.lower) for bar in found["slices"]] == [
        ("brightness_band=dark", "61.25% of 1,600", 0.5)
    ]
    bar = next(bar for bar in found["accuracy"] if bar.name == "newest span's test images")
    assert (bar.value, bar.text, bar.lower, bar.upper) == (0.7, "70.00% of 500", 0.66, 0.74)
    text = page.render(given)
    assert "for each: airplane 10.00%, automobile 15.00%" in text
    assert "gaussian_noise" in text
    assert "43.75%" in text


def test_the_gain_its_certain_part_and_that_there_is_no_other_model(made_up):
    """The verdict's first lines: how far the control is beaten, by the paired bound that the gate asks about."""
    criteria = [
        {
            "passed": True,
            "metric": metric,
            "slice": "all test images",
            "threshold": threshold,
            "value": value,
            "baseline": None,
            "remark": remark,
        }
        for metric, threshold, value, remark in (
            (page.EXAMPLE_COUNT, 2000.0, 2000.0, ""),
            (page.GAIN, 0.03, 0.215, "against the untrained encoder"),
        )
    ]
    text = page.render(
        dataclasses.replace(made_up, verdict={"criteria": criteria, "comparison": {"result": "no baseline"}})
    )
    first = text[: text.index('id="accuracy"')]
    assert "+25.00 points" in first
    assert "surely at least +21.50; asked: +3.00" in first
    assert "against the untrained encoder" in first
    assert '<td class="n">2,000</td><td class="n">2,000</td><td class="n"></td>' in first
    assert "No model was served before, so there is no other to compare with." in text
    assert page.gain_words([]) == ""
    twice = page.each_remark_once([{"remark": "a"}, {"remark": "a"}, {"remark": "b"}, {}])
    assert [criterion["remark"] for criterion in twice] == ["a", "", "b", ""]


def test_figures_stand_beside_those_of_the_span_before_or_alone(made_up):
    """Empty columns are not shown; with an earlier span the verdict comes before the numbers."""
    with_span = page.render(made_up)
    assert re.search(r"<td>brightness</td><td>drifted</td><td class=\"n\">0.5000</td>", with_span)
    alone = dataclasses.replace(
        made_up.data, earlier_span=None, figures=[facts.Comparison("brightness", 0.5)]
    )
    text = page.render(dataclasses.replace(made_up, data=alone))
    assert "agrees with" not in text
    assert '<td>brightness</td><td class="n">0.5000</td></tr>' in text
    assert "<th>distance</th>" not in text
    agreement = {"agreement": 0.875, "interval": [0.86, 0.889], "images": 2000, "minimum": 0.5}
    text = page.render(
        dataclasses.replace(made_up, data=dataclasses.replace(made_up.data, agreement=agreement))
    )
    assert (
        "agrees with 87.50% of the labels of 2,000 training images (95%: 86.00% to 88.90%; asked: 50.00%)"
        in text
    )


def test_a_run_without_settings_mistakes_or_whole_classes(made_up):
    """Two classes only, all right, nothing recorded: every part has something to say or is left out."""
    labels = np.arange(40) % 2
    test = dataclasses.replace(
        made_up.test, labels=labels, probabilities=(0.9 * np.eye(10)[labels] + 0.01).astype(np.float32)
    )
    data = dataclasses.replace(
        made_up.data, earlier_span=None, findings=[], span=0, figures=[facts.Comparison("brightness", 0.5)]
    )
    text = page.render(dataclasses.replace(made_up, settings={}, test=test, data=data))
    assert "The data checks found nothing." in text
    assert "There is no earlier span" in text
    assert "0 of 40 test images are taken for something else" in text
    assert 'id="class-bird"' not in text
    assert page.class_bars(np.diag([3, 0, 2]), [None] * 10)[1].name == features.LABEL_NAMES[2]
    assert "Under harder conditions" not in text


ODD_NAMES = ("wool & silk", "<script>alert(2)</script>", 'l\'\u00e9t\u00e9 "vif"', "[bold]{{ x }}", "n" * 200)


def _of_classes(made_up: facts.Facts, names: tuple[str, ...]) -> facts.Facts:
    """Two test images of each class, of which the second is taken for the class before."""
    count = 2 * len(names)
    labels = np.arange(count) // 2
    predicted = np.where(np.arange(count) % 2, (labels - 1) % len(names), labels)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    sample = np.unique(np.linspace(0, count - 1, 200).astype(int))
    return dataclasses.replace(
        made_up,
        settings={"gate": {"minimum_accuracy": 0.5, "class_floors": dict.fromkeys(names, 0.5)}},
        test=facts.TestSplit(
            images=images,
            labels=labels,
            probabilities=(0.9 * np.eye(len(names), dtype=np.float32)[predicted] + 0.1 / len(names)),
            sample=sample,
            vectors=rng.normal(size=(len(sample), 4)).astype(np.float32),
        ),
        views=dataclasses.replace(made_up.views, labels=labels[:3]),
        data=dataclasses.replace(made_up.data, counts={"train": [5] * len(names), "test": [2] * len(names)}),
        data_set=DataSet("many", "", names, 8, 8),
    )


def test_class_names_are_text_wherever_they_stand(made_up):
    text = page.render(_of_classes(made_up, ODD_NAMES))
    reader = Reader(text)
    assert "<script>alert(2)" not in text
    assert "wool &amp; silk" in text
    assert {f"class-{number}" for number in range(5)} <= set(reader.ids)
    assert all(re.fullmatch(r"[A-Za-z][\w-]*", name) for name in reader.ids)
    targets = [v[1:] for _, n, v in reader.attributes if n == "href" and v.startswith("#")]
    assert set(targets) <= set(reader.ids)
    shown = [v for tag, n, v in reader.attributes if n == "data-t" and v.startswith(ODD_NAMES[1])]
    assert shown == [
        f"{ODD_NAMES[1]}, test image 2",
        f"{ODD_NAMES[1]}, test image 3, taken for {ODD_NAMES[0]}",
    ]


def test_a_thousand_classes_make_a_page_that_can_be_read(made_up):
    names = tuple(f"class {number:04d}" for number in range(1000))
    text = page.render(_of_classes(made_up, names))
    assert len(text) < 1_500_000
    reader = Reader(text)
    targets = [v[1:] for _, n, v in reader.attributes if n == "href" and v.startswith("#")]
    assert set(targets) <= set(reader.ids)
    assert f"The {page.FEW_CLASSES} of 1000 classes that are told worst." in text
    assert "All 1000 classes" in text
    assert text.count('class="strip row"') == page.QUERIES


def test_the_most_frequent_mistakes_come_first():
    matrix = np.array([[5, 0, 3], [1, 9, 0], [0, 4, 2]])
    assert page.confusions(matrix, ("a", "b", "c")) == [("c", "b", 4), ("a", "c", 3), ("b", "a", 1)]


def test_a_run_without_labels_shows_pictures_and_no_number_of_them(made_up):
    unlabelled = dataclasses.replace(
        made_up,
        summary=SUMMARY
        | dict.fromkeys(("linear_accuracy", "random_encoder_linear_accuracy", "knn_accuracy"))
        | {"not_pushed_because": None},
        test=dataclasses.replace(made_up.test, labels=np.full(40, -1), probabilities=None),
        views=dataclasses.replace(made_up.views, labels=np.full(3, -1)),
        data=dataclasses.replace(
            made_up.data, counts={"train": [], "test": []}, rows={"train": 400, "test": 40}
        ),
        data_set=DataSet("photos", "", (), 32, 32, unlabelled=True),
        history={name: values for name, values in made_up.history.items() if name != "knn_accuracy"},
    )
    found = page.context(unlabelled)
    assert [(group.name, len(group.points)) for group in found["groups"]] == [("no label", 20)]
    assert found["separation"] is None
    assert len(found["neighbors"]) == page.QUERIES
    assert {picture.good for query, near in found["neighbors"] for picture in (query, *near)} == {None}
    text = page.render(unlabelled)
    reader = Reader(text)
    assert {"verdict", "map", "neighbors", "views", "data"} <= set(reader.ids)
    assert not {"accuracy", "classes", "calibration", "mistakes"} & set(reader.ids)
    targets = [v[1:] for _, n, v in reader.attributes if n == "href" and v.startswith("#")]
    assert set(targets) <= set(reader.ids)
    assert "gate.without_labels=push let the encoder pass" in text
    assert "400 train images, 40 test images" in text


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyboardInterrupt(), "No report: interrupted. `byol report --root /r` writes it."),
        (KeyError("settings"), "No report: KeyError: 'settings'"),
        (OSError(28, "No space left on device"), "No report: OSError: [Errno 28] No space left on device"),
    ],
)
def test_no_report_is_one_line_and_the_run_stands(monkeypatch, error, said):
    def broken(root, run_id):
        raise error

    monkeypatch.setattr(write, "write_report", broken)
    out = io.StringIO()
    write.write_after_run(Root(pathlib.Path("/r")), "one", Console(file=out, width=200))
    assert out.getvalue() == f"{said}\n"


def test_a_name_lies_where_its_class_is_dense():
    """Two groups: the mean and the median of a class may lie between them, where none of it is."""
    places = np.array(
        [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.5), (90.0, 90.0), (60.0, 99.0), (99.0, 60.0)]
    )
    x, y = page._dense_place(places)
    assert max(x, y) <= 1.0


def test_names_on_the_map_do_not_lie_on_each_other():
    places = [(120.0, 100.0), (130.0, 101.0), (140.0, 103.0), (500.0, 100.0)]
    assert [x for x, _ in page.apart([(5.0, 0.0), (695.0, 0.0)])] == [110.0, 590.0]
    settled = page.apart(places)
    assert settled[0] == places[0]
    assert settled[3] == places[3]
    heights = sorted(y for _, y in settled[:3])
    assert np.diff(heights).min() >= 26.0
    assert settled[1][1] < settled[2][1]


def _luminance(color: tuple[float, float, float]) -> float:
    """WCAG 2.2's relative luminance of 0..255 values."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _rgb(color: str) -> tuple[float, float, float]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def test_everything_can_be_read():
    """WCAG: 4.5 for text and 3 for marks; the matrix's text changes colour where both are near 4.5."""
    style = (page._FOLDER / "style.css").read_text()
    light, dark = style.split("@media screen and (prefers-color-scheme:dark)")
    for theme in (dark, light):
        named = {"paper": "#ffffff", **dict(re.findall(r"--(\w+):(#[0-9a-f]{6})", theme))}
        for ink in ("ink", "soft", "blue", "good", "bad"):
            for ground in ("paper", "tint"):
                assert _contrast(_rgb(named[ink]), _rgb(named[ground])) >= 4.5, (ink, ground)
    for color in page.COLORS:
        assert _contrast(_rgb(color), _rgb(named["tint"])) >= 3.0, color
    blue = np.array([11.0, 92.0, 173.0])
    for shade in np.linspace(0, 1, 101):
        alpha = 0.06 + 0.94 * shade
        red, green, blue_part = (255 - alpha * (255 - blue)).tolist()
        text = (255.0, 255.0, 255.0) if shade > page.WHITE_FROM else (0.0, 0.0, 0.0)
        assert _contrast((red, green, blue_part), text) >= 4.4, shade
