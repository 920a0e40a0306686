"""The paired change of accuracy: against scipy, by simulation, and as TFMA calls it."""

import numpy as np
import pytest
import tensorflow_model_analysis as tfma
from scipy import stats
from tensorflow_model_analysis.metrics import metric_types

from components import metrics

IMAGES = 10_000


def test_the_change_is_the_difference_of_accuracies():
    rng = np.random.default_rng(0)
    ours, theirs = rng.random(500) < 0.6, rng.random(500) < 0.5
    found = metrics.paired_change(int((ours & ~theirs).sum()), int((theirs & ~ours).sum()), 500, 0.95)
    assert found.change == pytest.approx(ours.mean() - theirs.mean())
    assert found.lower < found.change < found.upper


@pytest.mark.parametrize(("gained", "lost"), [(900, 1000), (1000, 900), (40, 85), (300, 300), (60, 20)])
def test_the_interval_excludes_zero_when_mcnemars_test_rejects(gained, lost):
    rejected = stats.binomtest(gained, gained + lost).pvalue < 0.05
    found = metrics.paired_change(gained, lost, IMAGES, 0.95)
    assert (found.lower > 0 or found.upper < 0) == rejected


def test_equal_models_have_an_interval_around_zero():
    found = metrics.paired_change(0, 0, 300, 0.95)
    assert found.change == 0
    assert -0.01 < found.lower < 0 < found.upper < 0.01


@pytest.mark.parametrize(("gained", "lost", "images"), [(-1, 0, 10), (6, 5, 10), (0, 0, 0)])
def test_impossible_counts_are_refused(gained, lost, images):
    with pytest.raises(ValueError, match=f"gained={gained}, lost={lost}, images={images}"):
        metrics.paired_change(gained, lost, images, 0.95)


@pytest.mark.parametrize(
    ("worse_by", "refused", "called_better"),
    [
        (0.0, (0.01, 0.045), (0.01, 0.045)),
        (0.03, (0.999, 1.0), (0.0, 0.0)),
        (-0.03, (0.0, 0.0), (0.999, 1.0)),
    ],
    ids=["noise", "3 points worse", "3 points better"],
)
def test_rates_over_repeated_draws(worse_by, refused, called_better):
    """Two trainings of one recipe disagree on about a fifth of the images: 2,000 of 10,000."""
    rng = np.random.default_rng(1)
    lost = 0.1 + worse_by / 2
    draws = rng.multinomial(IMAGES, [0.2 - lost, lost, 0.8], size=4000)
    found = [metrics.paired_change(int(g), int(b), IMAGES, 0.95) for g, b, _ in draws]
    assert refused[0] <= np.mean([f.upper < 0 for f in found]) <= refused[1]
    assert called_better[0] <= np.mean([f.lower > 0 for f in found]) <= called_better[1]


def _eval_config():
    return tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(name="candidate", label_key="label"),
            tfma.ModelSpec(name="baseline", label_key="label", is_baseline=True),
        ]
    )


def _inputs(labels, ours, theirs):
    for label, candidate, baseline in zip(labels, ours, theirs, strict=True):
        predictions = {name: np.eye(3)[k] for name, k in (("candidate", candidate), ("baseline", baseline))}
        yield metric_types.StandardMetricInputs(
            label={"candidate": np.array([label]), "baseline": np.array([label])}, prediction=predictions
        )


@pytest.mark.parametrize("value", ["change", "lower", "upper"])
def test_tfma_counts_each_image_once_for_the_candidate(value):
    name = {"change": metrics.CHANGE, "lower": metrics.CHANGE_LOWER, "upper": metrics.CHANGE_UPPER}[value]
    (computation,) = metrics.PairedAccuracyChange(name, confidence=0.9).computations(
        eval_config=_eval_config(), model_names=["candidate", "baseline"]
    )
    combiner = computation.combiner
    labels, ours, theirs = [0, 1, 2, 0, 1], [0, 1, 2, 1, 0], [0, 2, 0, 0, 2]  # gained 2, lost 1
    halves = []
    for rows in (slice(0, 2), slice(2, 5)):
        accumulator = combiner.create_accumulator()
        for element in _inputs(labels[rows], ours[rows], theirs[rows]):
            accumulator = combiner.add_input(accumulator, element)
        halves.append(accumulator)
    ((key, found),) = combiner.extract_output(combiner.merge_accumulators(halves)).items()
    assert (key.name, key.model_name, key.is_diff) == (name, "candidate", True)
    assert found == getattr(metrics.paired_change(2, 1, 5, 0.9), value)


def test_without_a_baseline_there_is_nothing_to_compare():
    alone = tfma.EvalConfig(model_specs=[tfma.ModelSpec(label_key="label")])
    assert metrics.PairedAccuracyChange().computations(eval_config=alone, model_names=[""]) == []


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"one of paired_accuracy_change, .* received 'gain'"):
        metrics.PairedAccuracyChange("gain")
