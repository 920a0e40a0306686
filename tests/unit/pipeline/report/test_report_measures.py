"""The report's numbers against independent references."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import confusion_matrix

from pipeline.report import charts, measures


@pytest.mark.parametrize(("right", "total"), [(0, 1), (1, 1), (0, 200), (200, 200), (93, 100), (1861, 2000)])
def test_interval_is_wilsons(right, total):
    found = measures.share(right, total)
    expected = stats.binomtest(right, total).proportion_ci(0.95, method="wilson")
    assert found.value == right / total
    assert (found.lower, found.upper) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("right", "total"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(right, total):
    with pytest.raises(ValueError, match=f"received {right} of {total}"):
        measures.share(right, total)


@pytest.fixture
def predictions():
    generator = np.random.default_rng(5)
    labels = generator.integers(0, 10, 500)
    logits = generator.normal(size=(500, 10)) + 2.0 * np.eye(10)[labels]
    return labels, stats.norm.cdf(logits) / stats.norm.cdf(logits).sum(1, keepdims=True)


def test_confusion_is_sklearns(predictions):
    labels, probabilities = predictions
    predicted = probabilities.argmax(1)
    found = measures.confusion(labels, predicted, 10)
    np.testing.assert_array_equal(found, confusion_matrix(labels, predicted, labels=range(10)))


def test_calibration_by_hand():
    labels = np.array([0, 0, 0, 1, 1])
    top = np.array([1.0, 0.95, 0.5, 0.55, 0.91])
    # Predicted class 0 for all but the last.
    probabilities = np.stack([top, 1 - top], axis=1)
    probabilities[4] = probabilities[4, ::-1]
    bins = measures.calibration(labels, probabilities)
    assert [part.count for part in bins] == [0, 0, 0, 0, 0, 2, 0, 0, 0, 3]
    assert bins[9].confidence == pytest.approx((1.0 + 0.95 + 0.91) / 3)
    assert bins[9].accuracy == 1.0
    assert bins[5].accuracy == 0.5
    expected = (3 * abs((1.0 + 0.95 + 0.91) / 3 - 1.0) + 2 * abs(0.525 - 0.5)) / 5
    assert measures.calibration_error(bins) == pytest.approx(expected)


def test_worst_mistakes_are_wrong_and_ordered(predictions):
    labels, probabilities = predictions
    found = measures.worst_mistakes(labels, probabilities, 7)
    wrong = [(-probabilities[i].max(), i) for i in range(500) if probabilities[i].argmax() != labels[i]]
    assert found.tolist() == [i for _, i in sorted(wrong)[:7]]
    assert measures.worst_mistakes(labels, np.eye(10)[labels], 7).tolist() == []


def test_neighbors_by_brute_force():
    vectors = np.random.default_rng(1).normal(size=(60, 8)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -2)
    queries = np.array([3, 41])
    np.testing.assert_array_equal(
        measures.neighbors(vectors, queries, 5), np.argsort(-cosine[queries])[:, :5]
    )


def test_samples():
    assert measures.spread_rows(4, 10).tolist() == [0, 1, 2, 3]
    rows = measures.spread_rows(2000, 1000)
    assert len(set(rows.tolist())) == 1000
    assert (rows[0], rows[-1]) == (0, 1999)
    assert measures.one_of_each(np.array([2, 0, 2, 0]), 4).tolist() == [1, 0]


def test_the_map_keeps_groups_apart_and_is_the_same_each_time():
    generator = np.random.default_rng(2)
    labels = np.repeat([0, 1], 30)
    vectors = (generator.normal(size=(60, 6)) * 0.1 + np.eye(6)[labels]).astype(np.float32)
    placed = measures.flat_map(vectors)
    assert placed.min() == 0.0
    assert placed.max() == 1.0
    np.testing.assert_array_equal(placed, measures.flat_map(vectors))
    assert measures.separation(placed, labels) == 1.0
    assert 0.3 < measures.separation(placed, generator.permutation(labels)) < 0.7
    assert measures.flat_map(vectors[:5]).shape == (5, 2)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.97, 1), (600, 1236), (-3, 4), (0.5, 0.5), (0, 0), (1e-6, 0.2), (1, 1000)]
)
def test_ticks_enclose_and_are_round(low, high):
    ticks = charts.nice_ticks(low, high, 5)
    assert ticks[0] <= low + 1e-9
    assert ticks[-1] >= high - 1e-9
    assert 2 <= len(ticks) <= 9
    steps = np.diff(ticks)
    np.testing.assert_allclose(steps, steps[0])
    assert f"{steps[0]:.0e}"[0] in "125"


def test_a_line_chart_maps_ends_to_the_frame():
    chart = charts.line_chart("loss", "Loss", [1, 2, 3], [2.0, float("nan"), 0.0])
    assert chart is not None
    points = [tuple(map(float, point.split(","))) for point in chart.points.split()]
    assert points == [
        (charts.LEFT, charts.TOP),
        (charts.WIDTH - charts.RIGHT, charts.HEIGHT - charts.BOTTOM),
    ]
    assert chart.summary == "Loss: 2 after epoch 1, 0 after epoch 3; lowest 0, highest 2."
    assert charts.line_chart("loss", "Loss", [1, 2], [float("nan")] * 2) is None
    one = charts.line_chart("loss", "Loss", [1], [5.0])
    assert one is not None
    assert one.first == one.last == "5"
    as_share = charts.line_chart("knn_accuracy", "kNN", [1, 2], [0.2, 0.345], as_share=True)
    assert as_share is not None
    assert as_share.summary == "kNN: 20% after epoch 1, 34.5% after epoch 2; lowest 20%, highest 34.5%."
    assert [tick.label for tick in as_share.y_ticks] == ["20%", "25%", "30%", "35%"]
