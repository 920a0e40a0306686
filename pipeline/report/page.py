"""From facts to HTML: what is shown, in which order and words. The look is in page.html and style.css."""

import dataclasses
import pathlib
from typing import Any

import jinja2
import numpy as np

from components.data import features
from components.gate import misses
from pipeline.report import charts, measures, origin
from pipeline.report.facts import Comparison, Facts
from pipeline.report.pictures import Sprite, sprite

ACCURACY, EXAMPLE_COUNT = "sparse_categorical_accuracy", "example_count"  # TFMA's names
GAIN = "paired_accuracy_change_lower"  # over the untrained encoder, the lower bound of the paired interval
MISTAKES = 24
NEIGHBORS = 6
QUERIES = 20  # of neighbors shown, of so many classes, or of test images without labels
# Classes up to which a page names each of them in its charts; of more it shows those that are told worst.
FEW_CLASSES = 30
# Share from which white is easier to read than black on a cell of the confusion matrix.
WHITE_FROM = 0.83
# Of a class's name on the map, in its view box, as large as a phone shows it.
_NAME_WIDTH, _NAME_HEIGHT = 110.0, 34.0
_MAP_WIDTH = 700.0
_FOLDER = pathlib.Path(__file__).parent
# Told apart by people with the common colour deficiencies as well; every use has a name or a shape beside it.
COLORS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#b0347f",
    "#8a6d00",
    "#5b3fa0",
    "#2f8fbf",
    "#7a3b12",
    "#4d6b1f",
    "#444444",
)
_CURVES = {
    "loss": "Loss (0 to 8; low is not good by itself)",
    "knn_accuracy": "Monitor's kNN while pretraining (fewer images, a smaller bank than the probe's)",
    "tau": "Target decay tau",
    "learning_rate": "Learning rate",
    "projection_spread": "Spread of the projections (below 0.1: collapse to a point)",
    "projection_rank": "Effective rank of the projections (below 2: collapse to a line)",
    "rank_me": "Effective rank of the representations",
    "target_cosine": "Cosine of online and target projection",
    "images_per_second": "Images per second",
}
_SHARES = {"knn_accuracy"}


@dataclasses.dataclass(frozen=True)
class Bar:
    """One bar of a chart of shares.

    Attributes:
        name: what it is of.
        value: its length, 0 to 1.
        text: the value in words.
        lower, upper: its interval; None without.
        floor: what the gate asks of it; None where it asks nothing.
        fact: the key of `summary.json` that it shows, if any.
        strong: the bar that the others are compared with.
    """

    name: str
    value: float
    text: str
    lower: float | None = None
    upper: float | None = None
    floor: float | None = None
    fact: str = ""
    strong: bool = False


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture in the sprite, and what to say of it.

    Attributes:
        column, line: its place.
        text: for those who do not see it.
        caption: below it.
        good: whether it is what was hoped for; None where nothing was.
    """

    column: int
    line: int
    text: str
    caption: str = ""
    good: bool | None = None


@dataclasses.dataclass(frozen=True)
class Point:
    """A test image on the map, in the map's view box."""

    x: float
    y: float
    picture: Picture


@dataclasses.dataclass(frozen=True)
class Group:
    """The test images of one class on the map.

    Attributes:
        number, name, color: of the class.
        points: its images.
        x, name_y: where its name goes.
    """

    number: int
    name: str
    color: str
    points: list[Point]
    x: float
    name_y: float


@dataclasses.dataclass(frozen=True)
class ClassRow:
    """How well one class is told: of those taken for it, and of its own images.

    Attributes:
        name: of the class.
        images: test images of it.
        precision: the share of what was taken for it that is of it; None when nothing was.
        recall: the share of its images that was taken for it; its accuracy.
        f1: their harmonic mean.
    """

    name: str
    images: int
    precision: float | None
    recall: float
    f1: float


def render(facts: Facts, folder: pathlib.Path = pathlib.Path()) -> str:
    """The whole page, to be written into `folder`: links to other files of the run are relative to it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["number"] = charts.number
    environment.filters["measured"] = measured
    environment.filters["duration"] = duration
    page = environment.get_template("page.html").render(
        **context(facts), links=origin.relative(facts.origin.links, folder)
    )
    # Characters outside ASCII as references: no encoding of any system can spoil them.
    return page.encode("ascii", "xmlcharrefreplace").decode("ascii")


def context(facts: Facts) -> dict[str, Any]:
    """What the template is given."""
    test, names = facts.test, facts.data_set.label_names
    probabilities = test.probabilities
    mistakes = (
        np.array([], np.int64)
        if probabilities is None
        else measures.worst_mistakes(test.labels, probabilities, MISTAKES)
    )
    album = _album(facts, mistakes)
    return {
        "summary": facts.summary,
        # Runs of older code recorded fewer settings.
        "floor": facts.settings.get("gate", {}).get("minimum_accuracy"),
        "missed": misses.misses(facts.verdict.get("criteria", [])),
        "most_missed": misses.SHOWN,
        "missed_headings": misses.HEADINGS,
        # The page ends the sentence itself.
        "reason": (
            misses.sentence(facts.verdict.get("criteria", [])) or facts.summary["not_pushed_because"] or ""
        ).rstrip("."),
        "criteria": each_remark_once(facts.verdict.get("criteria", [])),
        "classes": names,
        "data_set": facts.data_set,
        "album": album,
        "judged": probabilities is not None,
        **({} if probabilities is None else _judged(facts, probabilities, mistakes, album)),
        "test_images": len(test.labels),
        "serving": serving_rows(facts.serving),
        "origin": facts.origin,
        "curves": curves(facts.history),
        "epochs": facts.history,
        "history_rows": list(zip(*facts.history.values(), strict=True)),
        **_map(facts, album),
        "neighbors": _neighbors(facts, album),
        "views": _view_pictures(facts, album),
        "view_settings": view_settings(facts.settings.get("pretraining", {})),
        "data": facts.data,
        "drift": [(figure, drift_words(figure)) for figure in facts.data.figures],
        "drift_shapes": {figure.name: drift_shapes(figure) for figure in facts.data.figures if figure.shape},
        "timing": timing_bars(facts.summary["components"]),
        "probe": facts.probe,
        "lineage": facts.lineage,
        "environment": facts.environment,
        "code_digest": facts.code_digest,
        "settings": sorted(flat(facts.settings).items()),
    }


def _judged(facts: Facts, probabilities: np.ndarray, mistakes: np.ndarray, album: Sprite) -> dict[str, Any]:
    """What the template is given of a model that was measured on labelled test images."""
    test, names = facts.test, facts.data_set.label_names
    predicted = probabilities.argmax(1)
    matrix = measures.confusion(test.labels, predicted, len(names))
    bins = measures.calibration(test.labels, probabilities)
    bars = class_bars(matrix, class_floors(facts.settings.get("gate", {}), names), names)
    few = len(names) <= FEW_CLASSES
    return {
        "gain": gain_words(facts.verdict.get("criteria", [])),
        "comparison": facts.verdict.get("comparison", {}),
        "accuracy": accuracy_bars(facts, int((predicted == test.labels).sum())),
        "overall": measures.share(int(matrix.trace()), int(matrix.sum())),
        "few_classes": few,
        "class_bars": bars if few else sorted(bars, key=lambda bar: bar.value)[:FEW_CLASSES],
        "confusions": [] if few else confusions(matrix, names),
        "class_rows": class_rows(matrix, names),
        "trend": trend(facts.origin.earlier),
        "slices": slice_bars(facts.verdict.get("slices", {})),
        "corrupted": corruption_bars(facts.verdict.get("corrupted", {})),
        "matrix": matrix.tolist() if few else [],
        "shades": (matrix / np.maximum(matrix.sum(1, keepdims=True), 1)).tolist() if few else [],
        "white_from": WHITE_FROM,
        "bins": bins,
        "calibration_error": measures.calibration_error(bins),
        "mean_confidence": float(probabilities.max(1).mean()),
        "mistakes": [_mistake(facts, probabilities, album, int(row)) for row in mistakes],
        "mistake_total": int((predicted != test.labels).sum()),
    }


def accuracy_bars(facts: Facts, right: int) -> list[Bar]:
    """The encoder beside what it has to beat. The values are those of `summary.json`, intervals are Wilson's."""
    total = len(facts.test.labels)
    floor = facts.settings.get("gate", {}).get("minimum_accuracy")
    found = [
        ("BYOL encoder, linear probe", "linear_accuracy", right),
        ("untrained encoder, linear probe", "random_encoder_linear_accuracy", None),
    ]
    bars = []
    for name, key, count in found:
        value = facts.summary[key]
        part = measures.share(round(value * total) if count is None else count, total)
        bars.append(
            Bar(name, value, percent(value), part.lower, part.upper, floor, key, key == "linear_accuracy")
        )
    baseline = facts.verdict.get("comparison", {}).get("baseline_accuracy")
    if baseline is not None:
        part = measures.share(round(baseline * total), total)
        bars.append(
            Bar("served model before, same images", baseline, percent(baseline), part.lower, part.upper)
        )
    newest = (facts.verdict.get("newest") or {}).get("metrics")
    if newest:
        bars.append(
            Bar(
                "newest span's test images",
                newest[ACCURACY],
                _of_images(newest),
                *newest["accuracy_interval"],
            )
        )
    knn = facts.summary["knn_accuracy"]
    bars.append(Bar("kNN, held-out training images", knn, percent(knn), fact="knn_accuracy"))
    return bars


def class_floors(gate: dict[str, Any], names: tuple[str, ...] = features.LABEL_NAMES) -> list[float | None]:
    """The gate's floor of each class: one for all, one each, by name, or none recorded."""
    recorded = gate.get("class_floors") or [gate.get("minimum_class_accuracy")]
    each = list(map(recorded.get, names)) if isinstance(recorded, dict) else list(recorded)
    return each if len(each) == len(names) else each * len(names)


def class_bars(
    matrix: np.ndarray, floors: list[float | None], names: tuple[str, ...] = features.LABEL_NAMES
) -> list[Bar]:
    """Accuracy on the test images of each class that has any."""
    bars = []
    for number, row in enumerate(matrix):
        if row.sum():
            part = measures.share(int(row[number]), int(row.sum()))
            text = f"{percent(part.value)} ({part.right} of {part.total})"
            name = names[number]
            bars.append(Bar(name, part.value, text, part.lower, part.upper, floors[number]))
    return bars


def confusions(matrix: np.ndarray, names: tuple[str, ...]) -> list[tuple[str, str, int]]:
    """What is most often taken for what, and how often: at most FEW_CLASSES pairs, the most frequent first."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:FEW_CLASSES]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [
        (names[actual], names[said], int(wrong[actual, said]))
        for actual, said in pairs
        if wrong[actual, said]
    ]


def class_rows(matrix: np.ndarray, names: tuple[str, ...]) -> list[ClassRow]:
    """Precision, recall and F1 of each class that has test images, from the confusion matrix."""
    rows = []
    for number in np.flatnonzero(matrix.sum(1)):
        right, own, taken = (
            int(n) for n in (matrix[number, number], matrix[number].sum(), matrix[:, number].sum())
        )
        rows.append(
            ClassRow(
                names[number], own, right / taken if taken else None, right / own, 2 * right / (own + taken)
            )
        )
    return rows


def serving_rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """What the serving check measured, in words."""
    known = {
        "latency_p50_ms": ("one image, median", "{:,.1f} ms"),
        "latency_p99_ms": ("one image, 99th percentile", "{:,.1f} ms"),
        "memory_loaded_mb": ("memory with the model loaded, TensorFlow included", "{:,.0f} MiB"),
        "memory_peak_mb": ("memory at most", "{:,.0f} MiB"),
        "size_mb": ("size of the model's files", "{:,.1f} MB"),
    }
    return [(words, form.format(figures[name])) for name, (words, form) in known.items() if name in figures]


def trend(earlier: tuple[dict[str, Any], ...]) -> charts.LineChart | None:
    """Accuracy over the last runs of the root; None with fewer than two."""
    if len(earlier) < 2:
        return None
    values = [float(one["linear_accuracy"]) for one in earlier]
    places = [float(number) for number in range(1, len(values) + 1)]
    title = f"Linear probe, last {len(values)} runs of this root"
    return charts.line_chart("trend", title, places, values, as_share=True)


def drift_shapes(figure: Comparison) -> tuple[str, str]:
    """The points of two polylines in a box of 120 x 40: this span's distribution and the earlier one's."""
    highest = max([*figure.shape, *figure.earlier_shape, 1e-9])
    step = 120 / max(len(figure.shape) - 1, 1)
    return tuple(  # type: ignore[return-value]
        " ".join(f"{i * step:.1f},{39 - 38 * value / highest:.1f}" for i, value in enumerate(shape))
        for shape in (figure.shape, figure.earlier_shape)
    )


def slice_bars(slices: dict[str, dict[str, Any]]) -> list[Bar]:
    """Accuracy on parts of the test images other than classes, as the verdict has it with its intervals."""
    return [
        Bar(name, values[ACCURACY], _of_images(values), *values["accuracy_interval"])
        for name, values in slices.items()
        if not name.startswith(f"{features.LABEL}=") and "accuracy_interval" in values
    ]


def _of_images(values: dict[str, Any]) -> str:
    return f"{percent(values[ACCURACY])} of {values[EXAMPLE_COUNT]:,.0f}"


def corruption_bars(corrupted: dict[str, Any]) -> list[Bar]:
    """Accuracy under each corruption, as the verdict has it."""
    return [Bar(name, value, percent(value)) for name, value in corrupted.get("accuracy", {}).items()]


def timing_bars(seconds: dict[str, float]) -> list[Bar]:
    """Each component's share of the longest one."""
    longest = max([*seconds.values(), 1e-9])
    return [Bar(name, value / longest, duration(value)) for name, value in seconds.items()]


def curves(history: dict[str, list[float]]) -> list[charts.LineChart]:
    """A chart for each column that is known, in the order of importance."""
    found = (
        charts.line_chart(name, title, history["epoch"], history[name], as_share=name in _SHARES)
        for name, title in _CURVES.items()
        if name in history
    )
    return [chart for chart in found if chart is not None]


def gain_words(criteria: list[dict[str, Any]]) -> str:
    """The lower bound of the gain over the untrained encoder and what the gate asks; nothing if not measured."""
    for criterion in criteria:
        if criterion["metric"] == GAIN and criterion["value"] is not None:
            return (
                f"surely at least {100 * criterion['value']:+.2f}; asked: {100 * criterion['threshold']:+.2f}"
            )
    return ""


def each_remark_once(criteria: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The criteria, each with a remark, empty where an earlier one has the same."""
    said: set[str] = set()
    found = []
    for criterion in criteria:
        remark = criterion.get("remark", "")
        found.append(criterion | {"remark": "" if remark in said else remark})
        said.add(remark)
    return found


def measured(value: float | None) -> str:
    """A number of the gate: whole ones, such as counts of images, without decimals; nothing for None."""
    return "" if value is None else f"{value:,.4f}".removesuffix(".0000")


def drift_words(figure: Comparison) -> str:
    """What a comparison with the span before comes to."""
    if figure.distance is None or figure.limit is None:
        return "no earlier span"
    return "drifted" if figure.distance > figure.limit else "as before"


def view_settings(pretraining: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Each augmentation with its value in both views."""
    first, second = pretraining.get("view_1", {}), pretraining.get("view_2", {})
    return [(name, value, second.get(name)) for name, value in first.items()]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def percent(value: float) -> str:
    """0.9305 -> 93.05%."""
    return f"{value:.2%}"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _album(facts: Facts, mistakes: np.ndarray) -> Sprite:
    """Every picture of the page: test images by row, training images and their views."""
    rows = sorted({int(row) for row in facts.test.sample} | {int(row) for row in mistakes})
    pictures = {f"test-{row}": facts.test.images[row] for row in rows}
    for name in ("images", "first", "second"):
        pictures |= {f"{name}-{i}": picture for i, picture in enumerate(getattr(facts.views, name))}
    return sprite(pictures)


def _picture(album: Sprite, name: str, text: str, caption: str = "", good: bool | None = None) -> Picture:
    column, line = album.places[name]
    return Picture(column, line, text, caption, good)


def _map(facts: Facts, album: Sprite) -> dict[str, Any]:
    """Points by class, and how well the map tells classes apart; one group, and nothing to tell, without labels."""
    test, data_set = facts.test, facts.data_set
    labels = test.labels[test.sample]
    placed = measures.flat_map(test.vectors)
    predicted = None if test.probabilities is None else test.probabilities.argmax(1)
    points: dict[int, list[Point]] = {label: [] for label in sorted(set(labels.tolist()))}
    for row, label, (x, y) in zip(test.sample.tolist(), labels.tolist(), placed.tolist(), strict=True):
        name = data_set.label_name(label)
        words = f"{name}, test image {row}"
        if predicted is not None and predicted[row] != label:
            words += f", taken for {data_set.label_name(int(predicted[row]))}"
        points[label].append(Point(20 + 660 * x, 20 + 520 * y, _picture(album, f"test-{row}", words)))
    few = data_set.classes <= FEW_CLASSES
    middles = [
        _dense_place(np.array([(point.x, point.y) for point in found])) if few else (0.0, 0.0)
        for found in points.values()
    ]
    groups = [
        Group(label, data_set.label_name(label), COLORS[label % len(COLORS)], found, x, y)
        for (label, found), (x, y) in zip(points.items(), apart(middles) if few else middles, strict=True)
    ]
    separation = None if predicted is None else measures.separation(placed, labels)
    return {"groups": groups, "mapped": len(labels), "separation": separation}


def _dense_place(places: np.ndarray) -> tuple[float, float]:
    """Where the points [n, 2] of a class lie closest: the one with the least distance to a quarter of them."""
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    near = np.sort(distance, axis=1)[:, : max(1, len(places) // 4)]
    x, y = places[near.mean(1).argmin()]
    return float(x), float(y)


def apart(places: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Moves names that would lie on each other down, from the top one on; the order stays."""
    settled: list[tuple[float, float]] = []
    moved = list(places)
    # A name is centred on its place and must not leave the frame, on a phone either.
    places = [(min(max(x, _NAME_WIDTH), _MAP_WIDTH - _NAME_WIDTH), y) for x, y in places]
    for number in sorted(range(len(places)), key=lambda i: places[i][1]):
        x, y = places[number]
        while any(
            abs(x - other_x) < _NAME_WIDTH and abs(y - other_y) < _NAME_HEIGHT for other_x, other_y in settled
        ):
            y += 2.0
        settled.append((x, y))
        moved[number] = (x, y)
    return moved


def _neighbors(facts: Facts, album: Sprite) -> list[tuple[Picture, list[Picture]]]:
    """One test image of each class, or some where nothing is labelled, with the nearest other test images."""
    test, data_set = facts.test, facts.data_set
    labels = test.labels[test.sample]
    labelled = data_set.classes > 0
    queries = measures.one_of_each(labels, data_set.classes) if labelled else np.arange(len(labels))
    if not labelled or len(queries) > FEW_CLASSES:
        queries = queries[measures.spread_rows(len(queries), QUERIES)]
    found = measures.neighbors(test.vectors, queries, min(NEIGHBORS, len(labels) - 1))

    def shown(row: int, role: str, query: int | None = None) -> Picture:
        name = data_set.label_name(int(labels[row]))
        good = None if query is None or not labelled else bool(labels[row] == labels[query])
        return _picture(album, f"test-{test.sample[row]}", f"{role}: {name}", name if labelled else "", good)

    return [
        (shown(query, "query"), [shown(row, "neighbor", query) for row in rows])
        for query, rows in zip(queries, found, strict=True)
    ]


def _mistake(facts: Facts, every: np.ndarray, album: Sprite, row: int) -> Picture:
    probabilities = every[row]
    truth = facts.data_set.label_name(int(facts.test.labels[row]))
    said = facts.data_set.label_names[probabilities.argmax()]
    words = f"{truth}, taken for {said} with probability {probabilities.max():.0%}"
    return _picture(album, f"test-{row}", words, f"{truth} → {said} {probabilities.max():.0%}")


def _view_pictures(facts: Facts, album: Sprite) -> list[tuple[Picture, Picture, Picture]]:
    names = [facts.data_set.label_name(int(label)) for label in facts.views.labels]
    return [
        (
            _picture(album, f"images-{i}", f"training image: {name}", name),
            _picture(album, f"first-{i}", f"view 1 of the same {name}"),
            _picture(album, f"second-{i}", f"view 2 of the same {name}"),
        )
        for i, name in enumerate(names)
    ]
