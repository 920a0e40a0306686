import collections
import dataclasses
import itertools

import keras
import numpy as np
import pytest

from trainer import representations
from trainer.probe import crops, probe
from trainer.probe.config import ProbeConfig

RATES = SLOW, GOOD = 1e-5, 0.3
CONFIG = ProbeConfig(learning_rates=RATES, epochs=3, batch_size=64)
CLASSES = 4


@pytest.fixture(scope="module")
def dataset():
    """600 rows: four clusters in four dimensions, badly scaled and far from zero, a dead feature, and noise."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, 600)
    centres = rng.normal(size=(CLASSES, 5)) * 2.0
    signal = (centres[labels] + rng.normal(size=(600, 5))) * [1, 100, 0.01, 1, 0] + [5, -300, 0, 1, 7]
    features = np.concatenate([signal, rng.normal(size=(600, 40))], axis=1).astype(np.float32)
    return features, labels, np.arange(600) % 5 == 0


@pytest.fixture(scope="module")
def result(dataset):
    features, labels, holdout = dataset
    return probe.fit_probe(features, labels, holdout, CONFIG)


def test_the_better_rate_on_the_holdout_is_chosen(result):
    assert result.learning_rate == GOOD
    assert result.holdout_accuracies[1] > result.holdout_accuracies[0] + 0.1
    assert result.holdout_accuracies[1] > 0.7


def test_the_last_fit_is_on_every_row_and_decided_by_the_seed(dataset, result):
    features, labels, _ = dataset
    other = probe._fit(features, labels, CLASSES, GOOD, dataclasses.replace(CONFIG, seed=1))
    again = probe._fit(features, labels, CLASSES, GOOD, CONFIG)
    np.testing.assert_array_equal(again.kernel, result.classifier.kernel)
    np.testing.assert_array_equal(again.bias, result.classifier.bias)
    assert np.abs(other.kernel - again.kernel).max() > 0


def test_poisoned_holdout_labels_change_the_choice_and_never_the_fits_it_is_made_from(dataset, monkeypatch):
    features, labels, holdout = dataset
    slow = probe._fit(features[~holdout], labels[~holdout], CLASSES, SLOW, CONFIG)
    poisoned = labels.copy()
    poisoned[holdout] = slow.logits(features[holdout]).argmax(1)
    fits = []
    plain = probe._fit

    def record(some_features, some_labels, *rest):
        classifier = plain(some_features, some_labels, *rest)
        fits.append((some_features, some_labels, classifier))
        return classifier

    monkeypatch.setattr(probe, "_fit", record)
    found = probe.fit_probe(features, poisoned, holdout, CONFIG)
    assert found.learning_rate == SLOW
    assert found.holdout_accuracies[0] == 1.0
    assert len(fits) == 3
    for seen_features, seen_labels, _ in fits[:2]:
        np.testing.assert_array_equal(seen_features, features[~holdout])
        np.testing.assert_array_equal(seen_labels, labels[~holdout])
    np.testing.assert_array_equal(fits[0][2].kernel, slow.kernel)


def test_the_candidates_see_no_row_of_the_holdout(dataset):
    """Rows held out may be anything at all without changing the candidates."""
    features, labels, holdout = dataset
    spoiled = features.copy()
    spoiled[holdout] += 1e4
    one = probe._fit(features[~holdout], labels[~holdout], CLASSES, GOOD, CONFIG)
    accuracy = one.accuracy(spoiled[holdout], labels[holdout])
    only_good = dataclasses.replace(CONFIG, learning_rates=(GOOD,))
    assert probe.fit_probe(spoiled, labels, holdout, only_good).holdout_accuracies == (accuracy,)


def test_the_standardisation_is_folded_into_the_weights(dataset, monkeypatch):
    features, labels, _ = dataset
    seen = {}
    plain = keras.Sequential

    def capture(layers):
        seen["model"] = plain(layers)
        return seen["model"]

    monkeypatch.setattr(keras, "Sequential", capture)
    classifier = probe._fit(features, labels, CLASSES, GOOD, CONFIG)
    std = features.std(axis=0)
    standardised = (features - features.mean(axis=0)) / np.where(std > 0, std, 1.0)
    expected = np.asarray(seen["model"](standardised))
    np.testing.assert_allclose(classifier.logits(features), expected, atol=2e-4)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_array_equal(classifier.kernel[4], np.zeros(CLASSES))  # the dead feature has no say


def test_the_classifier_is_linear_in_the_encoders_own_features():
    classifier = probe.LinearClassifier(
        np.array([[1.0, -1.0], [0.0, 2.0]], np.float32), np.array([0.5, 0.0], np.float32)
    )
    np.testing.assert_allclose(classifier.logits(np.array([[2.0, 1.0]], np.float32)), [[2.5, 0.0]])
    assert classifier.accuracy(np.array([[2.0, 1.0], [0.0, 3.0]], np.float32), np.array([0, 0])) == 0.5


def test_the_knn_accuracy_is_measured_on_the_holdout(dataset, result):
    features, labels, holdout = dataset
    poisoned = labels.copy()
    poisoned[holdout] = (labels[holdout] + 1) % CLASSES
    found = probe.fit_probe(features, poisoned, holdout, dataclasses.replace(CONFIG, learning_rates=(GOOD,)))
    assert result.knn_accuracy > 0.4
    assert found.knn_accuracy < 0.4
    assert found.knn_accuracy + result.knn_accuracy <= 1.0


def test_features_that_are_not_finite_and_a_missing_side_are_refused(dataset):
    features, labels, holdout = dataset
    broken = features.copy()
    broken[3, 1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        probe.fit_probe(broken, labels, holdout, CONFIG)
    for mask in (np.zeros(600, bool), np.ones(600, bool)):
        with pytest.raises(ValueError, match=rf"received {mask.sum()} held out of 600"):
            probe.fit_probe(features, labels, mask, CONFIG)


def test_every_pair_of_rate_and_decay_is_tried_and_the_best_one_used(dataset):
    """A decay that shrinks the kernel to nothing cannot win; the accuracies come in the candidates' order."""
    config = dataclasses.replace(CONFIG, weight_decays=(3.0, 1e-4))
    assert config.candidates() == ((SLOW, 3.0), (SLOW, 1e-4), (GOOD, 3.0), (GOOD, 1e-4))
    features, labels, holdout = dataset
    found = probe.fit_probe(features, labels, holdout, config)
    assert (found.learning_rate, found.weight_decay) == (GOOD, 1e-4)
    assert int(np.argmax(found.holdout_accuracies)) == 3
    assert len(found.holdout_accuracies) == 4


def test_weight_decay_shrinks_the_kernel_and_spares_the_bias(dataset):
    """Of a class that is everything the bias is all there is to learn, decay or not."""
    features = dataset[0] - dataset[0].mean(axis=0)
    labels = np.full(len(features), 2)
    labels[:30] = 1
    plain, decayed = (probe._fit(features, labels, 3, 0.1, CONFIG, decay) for decay in (0.0, 1.0))
    assert np.linalg.norm(decayed.kernel) < 0.7 * np.linalg.norm(plain.kernel)
    assert np.abs(decayed.bias).max() > 0.9 * np.abs(plain.bias).max()


def test_without_decay_and_crops_the_fit_is_adams(dataset):
    features, labels, _ = dataset
    one = probe._fit(features, labels, CLASSES, GOOD, CONFIG)
    other = probe._fit(features, labels, CLASSES, GOOD, CONFIG, 0.0, [])
    np.testing.assert_array_equal(one.kernel, other.kernel)


def test_epochs_take_turns_between_the_whole_images_and_their_crops(dataset, monkeypatch):
    features, labels, holdout = dataset
    cropped = [features + 1e3, features - 1e3]
    seen = []
    plain = keras.Sequential.fit

    def fit(self, x, *arguments, **named):
        seen.append(float(x.mean()))
        return plain(self, x, *arguments, **named)

    monkeypatch.setattr(keras.Sequential, "fit", fit)
    probe._fit(features, labels, CLASSES, GOOD, dataclasses.replace(CONFIG, epochs=4), 0.0, cropped)
    assert [np.sign(round(value)) for value in seen] == [0, 1, -1, 0]
    seen.clear()
    result = probe.fit_probe(features, labels, holdout, dataclasses.replace(CONFIG, epochs=2), cropped)
    assert np.isfinite(result.classifier.kernel).all()
    assert [np.sign(round(value)) for value in seen] == [0, 1] * 3  # two candidates and the last fit


def test_a_crop_is_the_padded_image_shifted_and_mirrored_and_nothing_else():
    """Against every crop that is possible, each of which turns up about as often as the others."""
    image = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    possible = {}
    for top, left, step in itertools.product(range(9), range(9), (1, -1)):
        possible[padded[top : top + 6, left : left + 5][:, ::step].tobytes()] = (top, left, step)
    assert len(possible) == 9 * 9 * 2
    drawn = crops.crop_and_flip(np.repeat(image[None], 16_200, axis=0), np.random.default_rng(1))
    counts = collections.Counter(possible[crop.tobytes()] for crop in drawn)
    assert len(counts) == 9 * 9 * 2
    assert 50 < min(counts.values()) <= max(counts.values()) < 150


def test_the_crops_features_are_decided_by_the_seed_and_the_order_of_the_images(monkeypatch):
    monkeypatch.setattr(representations, "embed", lambda _, images: images.reshape(len(images), -1))
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    config = dataclasses.replace(CONFIG, crops=2)
    found = crops.cropped_features(None, lambda: [images[:30], images[30:]], config)
    assert [features.shape for features in found] == [(40, 192)] * 2
    assert not np.array_equal(found[0], found[1])
    again = crops.cropped_features(None, lambda: [images[:30], images[30:]], config)
    np.testing.assert_array_equal(found, again)
    other = crops.cropped_features(None, lambda: [images], dataclasses.replace(config, seed=1))
    assert not np.array_equal(found, other)
    assert crops.cropped_features(None, lambda: [images], CONFIG) == ()
