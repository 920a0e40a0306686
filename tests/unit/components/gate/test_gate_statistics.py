"""The gate's statistics against SciPy, brute force and published values, and its rates over repeated draws."""

import functools

import numpy as np
import pytest
from scipy import optimize, stats

from components.gate import gate_statistics


@pytest.mark.parametrize(
    ("right", "count", "expected"),
    [
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_accuracy_interval_equals_newcombes_table(right, count, expected):
    """Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3."""
    assert gate_statistics.accuracy_interval(right, count) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (12, 2), (2, 12), (300, 300), (500, 431), (1, 0)])
def test_mcnemar_is_the_binomial_test(gained, lost):
    expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert gate_statistics.mcnemar_p(gained, lost) == pytest.approx(expected, rel=1e-9)


def _score_by_brute_force(gained, lost, count, change):
    """The score statistic with the nuisance share found by a numerical maximum of the likelihood."""

    def minus_log_likelihood(share_lost):
        share_gained = share_lost + change
        same = 1 - share_lost - share_gained
        terms = [(gained, share_gained), (lost, share_lost), (count - gained - lost, same)]
        return -sum(n * np.log(p) for n, p in terms if n)

    low, high = max(0.0, -change), (1 - change) / 2
    found = optimize.minimize_scalar(
        minus_log_likelihood, bounds=(low + 1e-12, high - 1e-12), method="bounded", options={"xatol": 1e-12}
    )
    variance = count * (2 * found.x + change - change**2)
    return (gained - lost - count * change) / np.sqrt(variance)


@pytest.mark.parametrize(
    ("gained", "lost", "count"), [(12, 2, 50), (3, 9, 40), (700, 640, 10_000), (20, 109, 2000)]
)
def test_at_the_bounds_the_score_statistic_is_the_normal_quantile(gained, lost, count):
    lower, upper = gate_statistics.change_interval(gained, lost, count, confidence=0.975)
    z = stats.norm.ppf(0.975)
    assert _score_by_brute_force(gained, lost, count, lower) == pytest.approx(z, abs=1e-3)
    assert _score_by_brute_force(gained, lost, count, upper) == pytest.approx(-z, abs=1e-3)


def test_models_that_never_disagree_have_tangos_closed_form():
    z = stats.norm.ppf(0.975)
    bound = z**2 / (50 + z**2)
    assert gate_statistics.change_interval(0, 0, 50, 0.975) == pytest.approx((-bound, bound), abs=1e-9)


def test_the_interval_turns_round_when_the_models_do():
    lower, upper = gate_statistics.change_interval(30, 50, 1000)
    assert gate_statistics.change_interval(50, 30, 1000) == pytest.approx((-upper, -lower), abs=1e-12)


def test_every_image_gained_or_lost_stays_within_bounds():
    assert gate_statistics.change_interval(10, 0, 10)[1] == 1.0
    assert gate_statistics.change_interval(0, 10, 10)[0] == -1.0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gate_statistics.change_interval(6, 5, 10), "received 6 and 5 of 10"),
        (lambda: gate_statistics.change_interval(1, 1, 10, 0.4), "received 0.4"),
        (lambda: gate_statistics.accuracy_interval(11, 10), "received 11 of 10"),
    ],
)
def test_impossible_counts_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@functools.cache
def _rates(images: int, true_change: float, disputed: float, margin: float) -> dict[str, float]:
    """Shares of 4,000 draws of a test split in which the new model is refused, and called better."""
    rng = np.random.default_rng(5)
    shares = [(disputed + true_change) / 2, (disputed - true_change) / 2, 1 - disputed]
    draws = rng.multinomial(images, shares, size=4000)
    bounds = np.array([gate_statistics.change_interval(g, lost, images) for g, lost, _ in draws.tolist()])
    return {"refused": float((bounds[:, 1] < -margin).mean()), "better": float((bounds[:, 0] > 0).mean())}


@pytest.mark.parametrize("images", [2_000, 10_000])
def test_a_model_that_differs_by_noise_is_neither_refused_nor_called_better(images):
    rates = _rates(images, 0.0, 0.15, 0.0)
    # 5% is what a one-sided confidence of 95% means; the rest is the error of 4,000 draws.
    assert 0.035 < rates["refused"] < 0.065
    assert 0.035 < rates["better"] < 0.065
    assert _rates(images, 0.0, 0.15, 0.005)["refused"] < 0.02


@pytest.mark.parametrize("margin", [0.005, 0.01])
def test_a_model_worse_by_three_points_is_refused(margin):
    """With the margins of the presets on CIFAR-10's 10,000 test images; one image in five is disputed."""
    assert _rates(10_000, -0.03, 0.2, margin)["refused"] > 0.98
    assert _rates(10_000, -0.03, 0.2, margin)["better"] == 0.0


def test_a_model_worse_by_the_margin_is_refused_no_oftener_than_the_confidence_allows():
    assert _rates(10_000, -0.01, 0.2, 0.01)["refused"] < 0.065


def test_a_single_accuracy_would_have_let_noise_decide():
    """Without pairing, equal models differ by more than 0.2 points on 10,000 images in most draws."""
    rng = np.random.default_rng(6)
    first, second = rng.binomial(10_000, 0.9, size=(2, 4000)) / 10_000
    assert (np.abs(first - second) > 0.002).mean() > 0.6
