"""Planted faults, on the embedded data set tinted as photographs are."""

import numpy as np
import pytest
from scipy import stats

from components.data import data_checks, data_limits, features, synthetic
from components.data.data_checks import ERROR, WARNING
from components.data.data_limits import DataLimits


def _rows(images, labels):
    hashes = np.array(features.content_hashes(images), "S32")
    return data_checks.Rows(hashes, labels, features.image_figures(images))


def _tinted_images(seed, count=2000):
    """Demo images with a class's colour and brightness, as photographs have: blue skies, green meadows."""
    images, labels = synthetic.make_images(count, np.random.default_rng(seed))
    gains = np.random.default_rng(99).uniform(0.75, 1.0, (10, 3)) * [1.0, 0.92, 0.85]
    return (images * gains[labels][:, None, None, :]).astype(np.uint8), labels


@pytest.fixture(scope="module")
def earlier():
    return {"train": _rows(*_tinted_images(1))}


@pytest.fixture(scope="module")
def current():
    return _tinted_images(2)


def _against(images, labels, earlier_splits):
    return data_checks.check_against(2, {"train": _rows(images, labels)}, 1, earlier_splits, DataLimits())


def test_another_sample_of_the_same_kind_passes(earlier, current):
    images, labels = current
    assert _against(images, labels, earlier) == []
    assert data_checks.check_span(2, {"train": _rows(images, labels)}, DataLimits()) == []


def test_a_span_darkened_by_30_percent_is_found(earlier, current):
    images, labels = current
    findings = _against((images * 0.7).astype(np.uint8), labels, earlier)
    assert {"brightness", "contrast", "mean_green"} <= {finding.feature for finding in findings}
    assert all(finding.severity == ERROR and finding.span == 2 for finding in findings)


@pytest.mark.parametrize("order", [[2, 1, 0], [1, 2, 0]])
def test_shuffled_channels_are_found(earlier, current, order):
    images, labels = current
    findings = _against(np.ascontiguousarray(images[..., order]), labels, earlier)
    assert data_checks.RED_MINUS_BLUE in {finding.feature for finding in findings}


def test_planes_read_as_interleaved_pixels_are_found(earlier, current):
    images, labels = current
    mixed = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(-1, 32, 32, 3)
    assert data_checks.RED_MINUS_BLUE in {finding.feature for finding in _against(mixed, labels, earlier)}


def test_permuted_labels_are_found_by_the_figures_of_classes(earlier, current):
    images, labels = current
    findings = _against(images, np.random.default_rng(0).permutation(labels), earlier)
    assert findings
    assert all(finding.feature.startswith("label with ") for finding in findings)
    assert "Are the labels right?" in findings[0].reason


def test_labels_swapped_between_classes_that_look_alike_cannot_be_seen():
    """The stated limit: upright and slanted stripes have the same brightness, contrast and colours."""
    earlier = {"train": _rows(*synthetic.make_images(2000, np.random.default_rng(1)))}
    images, labels = synthetic.make_images(2000, np.random.default_rng(2))
    swapped = np.where(np.isin(labels, [1, 2]), 3 - labels, labels)
    assert _against(images, swapped, earlier) == []


def test_a_shift_of_class_shares_is_found(earlier, current):
    images, labels = current
    keep = (labels != 4) | (np.arange(len(labels)) % 50 == 0)
    many = np.concatenate([np.flatnonzero(keep), np.flatnonzero(labels == 7), np.flatnonzero(labels == 7)])
    findings = _against(images[many], labels[many], earlier)
    assert findings[0].feature == "label"
    assert "horse went from 10.0% in span 1 to 2" in findings[0].reason


def test_a_missing_class_is_named(current):
    _, labels = current
    (finding,) = data_checks.check_classes(4, "train", labels[labels != 6], DataLimits())
    assert (finding.severity, finding.feature, finding.split, finding.span) == (ERROR, "label", "train", 4)
    assert finding.kind == data_limits.CLASS_BALANCE
    assert finding.reason.startswith("no image of frog among 1800")


def test_a_class_that_chance_may_leave_out_is_no_error(current):
    """Of 50 pictures of ten equal classes one is missing in 5% of all samples: 10 x 0.9^50."""
    _, labels = current
    kept = labels[labels != 6]
    assert data_checks.check_classes(4, "train", kept[:50], DataLimits()) == []
    first = int(data_checks.can_see(50, None, DataLimits())["missing_class_from"])
    # Nine tenths of 1/11 of 1/1000 in two halves, over ten classes, at 1/19 of the pictures: ln(4.5e-6) / ln(18/19).
    assert first == np.ceil(np.log(0.001 / 11 / 2 / 10) / np.log(18 / 19)) == 228
    assert data_checks.check_classes(4, "train", kept[: first - 1], DataLimits()) == []
    assert len(data_checks.check_classes(4, "train", kept[:first], DataLimits())) == 1


def test_imbalance_is_an_error_above_the_limit_and_beyond_chance_only():
    labels = np.repeat(np.arange(10), [300, *[100] * 9])
    (finding,) = data_checks.check_classes(1, "train", labels, DataLimits(class_ratio=1.5))
    assert "airplane has 300 images and automobile 100; expected at most 1.5 times" in finding.reason
    assert data_checks.check_classes(1, "train", labels[::10], DataLimits(class_ratio=1.5)) == []
    assert data_checks.check_classes(1, "train", labels, DataLimits(class_ratio=3.0)) == []


def test_the_false_alarms_are_a_setting():
    labels = np.repeat(np.arange(10), [300, *[140] * 9])  # more than twice as many, by a chance of 4%
    assert data_checks.check_classes(1, "train", labels, DataLimits()) == []
    loose = DataLimits(false_alarms=0.999, class_ratio=1.5)
    assert len(data_checks.check_classes(1, "train", labels, loose)) == 1


def test_repeated_records_are_counted_and_weighed(current):
    hashes = np.array(features.content_hashes(current[0][:100]), "S32")
    assert data_checks.check_repeats(1, "train", hashes, DataLimits()) == []
    for count, severity in ((1, WARNING), (5, WARNING), (12, ERROR)):
        repeated = np.concatenate([hashes, hashes[:count]])
        (found,) = data_checks.check_repeats(1, "train", repeated, DataLimits())
        assert (found.severity, found.kind) == (severity, data_limits.REPEATS)
        assert found.reason.startswith(f"{count} of {100 + count} images repeat another one")


def test_test_images_in_train_stop_the_run(current):
    images, labels = current
    splits = {"train": _rows(images[:1500], labels[:1500]), "test": _rows(images[1499:], labels[1499:])}
    (finding,) = data_checks.check_span(1, splits, DataLimits())
    assert (finding.severity, finding.split) == (ERROR, "test")
    assert finding.reason.startswith("1 test images are also in the training split")


def test_leaks_between_spans_are_errors_and_repeats_are_reported(current):
    images, labels = current
    earlier = {"train": _rows(images[:800], labels[:800]), "test": _rows(images[800:1000], labels[800:1000])}
    later = {"train": _rows(images[790:1500], labels[790:1500]), "test": _rows(images[799:], labels[799:])}
    found = data_checks.check_against(
        2, later, 1, earlier, DataLimits(drift=1, class_drift=9, class_share_change=1)
    )
    assert [(x.severity, x.split, x.reason.split(";")[0]) for x in found] == [
        (WARNING, "train", "10 images were in span 1 already"),
        (ERROR, "train", "200 images are in the test split of span 1"),
        (ERROR, "test", "1 images are in the train split of span 1"),
    ]


def test_a_class_that_one_span_lacks_is_no_drift(earlier, current):
    images, labels = current
    findings = _against(images[labels != 6], labels[labels != 6], earlier)
    assert [finding for finding in findings if finding.feature.startswith("label with")] == []


def test_ks_distance_is_scipys():
    rng = np.random.default_rng(3)
    some, others = rng.normal(size=300), rng.normal(0.3, 1.2, size=500)
    others[:50] = some[:50]  # ties
    assert data_checks.ks_distance(some, others) == pytest.approx(stats.ks_2samp(some, others).statistic)
    assert data_checks.ks_distance(some, some) == 0
    assert data_checks.ks_distance(some, some + 100) == 1


def test_distance_limit_is_the_setting_or_the_noise():
    """Scipy's own p-value of two samples' distance is the check's part of the false alarms at the limit."""
    assert data_checks.distance_limit(50_000, 50_000, DataLimits()) == 0.1
    limit = data_checks.distance_limit(300, 500, DataLimits())
    assert limit > 0.1
    assert stats.kstwo.sf(limit, 300 * 500 // 800 + 1) == pytest.approx(0.001 / 11 / 7, rel=0.01)


def test_a_change_of_a_share_is_judged_by_fishers_exact_test():
    table = [[30, 170], [12, 388]]
    expected = 2 * stats.fisher_exact(table, alternative="greater").pvalue
    assert data_checks._fisher(30, 200, 12, 400) == pytest.approx(expected)
    assert data_checks._fisher(10, 100, 10, 100) == 1.0


def test_class_drift_of_one_class_is_the_rank_sum_test():
    """Scipy's Mann-Whitney, without its correction for continuity, is the same with one class."""
    rng = np.random.default_rng(5)
    some, others = rng.normal(size=60), rng.normal(0.4, size=80)
    expected = stats.mannwhitneyu(some, others, use_continuity=False, method="asymptotic").pvalue
    found = data_checks.class_drift_p(some, np.full(60, 3), others, np.full(80, 3))
    assert found == pytest.approx(expected)
    assert data_checks.class_drift_p(some, np.full(60, 3), others, np.full(80, 4)) == 1.0


@pytest.mark.parametrize("train", [50, 200])
def test_clean_samples_of_unequal_pictures_are_not_refused(train):
    """Of 300 random spans the old limits refused all: at 1 in 1,000 three among them are a chance of 0.3%."""
    rng = np.random.default_rng(train)
    pool_labels = rng.choice(10, 20_000, p=np.arange(10, 20) / 145)
    values = {key: rng.beta(2, 5, 20_000) + pool_labels / 20 for key in features.IMAGE_FIGURES}
    hashes = np.arange(20_000).astype("S32")
    refused = 0
    for _ in range(300):
        picked = rng.permutation(20_000)[: 4 * train].reshape(4, train)
        parts = [
            data_checks.Rows(hashes[rows], pool_labels[rows], {key: x[rows] for key, x in values.items()})
            for rows in picked
        ]
        splits, earlier = ({"train": parts[i], "test": parts[i + 1]} for i in (0, 2))
        found = data_checks.check_span(2, splits, DataLimits())
        found += data_checks.check_against(2, splits, 1, earlier, DataLimits())
        refused += any(finding.severity == ERROR for finding in found)
    assert refused < 3


def test_what_can_be_seen_grows_with_the_span():
    few, many = (data_checks.can_see(count, count, DataLimits()) for count in (100, 5000))
    assert few["figures"] > many["figures"] == 0.1
    assert few["class_shares"] > 0.2 > many["class_shares"] > 0.05
    assert data_checks.can_see(100, None, DataLimits()) == {"missing_class_from": few["missing_class_from"]}


def test_lowest_agreement_is_what_chance_reaches():
    limit = data_checks.lowest_agreement(200, 0.5, 0.001)
    below = stats.binom.cdf(round(limit * 200) - 1, 200, 0.5)
    assert below < 0.001 / 11 < stats.binom.cdf(round(limit * 200), 200, 0.5)


def test_kinds_to_let_through_are_read_and_told_in_one_spelling():
    assert data_limits.allowed_kinds(False) == data_limits.allowed_kinds("") == frozenset()
    assert data_limits.allowed_kinds(True) == data_limits.allowed_kinds("all") == frozenset(data_limits.KINDS)
    two = data_limits.allowed_kinds(" leak,class_balance")
    assert data_limits.told_kinds(two) == "class_balance,leak"
    with pytest.raises(ValueError, match="no kind of finding 'frogs'"):
        data_limits.allowed_kinds("frogs")
