"""Planted faults, on the embedded data set tinted as photographs are."""

import numpy as np
import pytest
from scipy import stats

from components.data import data_checks, features, synthetic
from components.data.data_checks import ERROR, WARNING, Limits


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
    return data_checks.check_against(2, {"train": _rows(images, labels)}, 1, earlier_splits, Limits())


def test_another_sample_of_the_same_kind_passes(earlier, current):
    images, labels = current
    assert _against(images, labels, earlier) == []
    assert data_checks.check_span(2, {"train": _rows(images, labels)}, Limits()) == []


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
    (finding,) = data_checks.check_classes(4, "train", labels[labels != 6], 2.0)
    assert (finding.severity, finding.feature, finding.split, finding.span) == (ERROR, "label", "train", 4)
    assert finding.reason.startswith("no image of frog among 1800")


def test_imbalance_is_an_error_above_the_limit_only():
    labels = np.repeat(np.arange(10), [30, *[10] * 9])
    (finding,) = data_checks.check_classes(1, "train", labels, 2.9)
    assert "airplane is 3.00 times as frequent as automobile" in finding.reason
    assert data_checks.check_classes(1, "train", labels, 3.0) == []


def test_repeated_records_are_counted_and_weighed(current):
    hashes = np.array(features.content_hashes(current[0][:100]), "S32")
    assert data_checks.check_repeats(1, "train", hashes, 0.01) == []
    (few,) = data_checks.check_repeats(1, "train", np.concatenate([hashes, hashes[:1]]), 0.01)
    (many,) = data_checks.check_repeats(1, "train", np.concatenate([hashes, hashes[:5]]), 0.01)
    assert (few.severity, many.severity) == (WARNING, ERROR)
    assert few.reason.startswith("1 of 101 images repeat another one (0.99%)")
    assert many.reason.startswith("5 of 105 images")


def test_test_images_in_train_stop_the_run(current):
    images, labels = current
    splits = {"train": _rows(images[:1500], labels[:1500]), "test": _rows(images[1499:], labels[1499:])}
    (finding,) = data_checks.check_span(1, splits, Limits())
    assert (finding.severity, finding.split) == (ERROR, "test")
    assert finding.reason.startswith("1 test images are also in the training split")


def test_leaks_between_spans_are_errors_and_repeats_are_reported(current):
    images, labels = current
    earlier = {"train": _rows(images[:800], labels[:800]), "test": _rows(images[800:1000], labels[800:1000])}
    later = {"train": _rows(images[790:1500], labels[790:1500]), "test": _rows(images[799:], labels[799:])}
    found = data_checks.check_against(2, later, 1, earlier, Limits(drift=1, class_drift=9))
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
    """Of two samples of one distribution scipy's own p-value is above 0.001 up to the limit, and below it beyond."""
    assert data_checks.distance_limit(50_000, 50_000, 0.1) == 0.1
    limit = data_checks.distance_limit(300, 500, 0.1)
    assert limit > 0.1
    size = 300 * 500 / 800
    assert stats.kstwobign.sf(limit * np.sqrt(size)) == pytest.approx(0.001, rel=0.1)
