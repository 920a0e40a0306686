import dataclasses

import numpy as np
import pytest

from tests.unit.trainer import reference
from trainer import representations
from trainer.byol import monitors

HEALTHY = {"loss": 0.8, "projection_spread": 0.7, "projection_rank": 9.0}


@pytest.fixture
def monitor_images(images):
    labels = np.arange(64) % 4
    return monitors.MonitorImages(images[:48], labels[:48], images[48:], labels[48:])


def test_the_spread_of_random_directions_is_one_and_of_a_constant_nothing():
    directions = np.random.default_rng(0).normal(size=(4000, 64)).astype(np.float32)
    assert monitors.projection_spread(directions) == pytest.approx(1.0, abs=0.02)
    assert monitors.projection_spread(5 * directions) == pytest.approx(1.0, abs=0.02)
    assert monitors.projection_spread(np.tile(directions[:1], (100, 1))) < 1e-5


def test_the_effective_rank_of_known_matrices():
    assert monitors.rank_me(np.eye(16, dtype=np.float32)) == pytest.approx(16, rel=1e-4)
    ones = np.ones((50, 1), np.float32)
    assert monitors.rank_me(ones @ np.ones((1, 8), np.float32)) == pytest.approx(1, abs=1e-4)
    # Singular values 3 and 1: shares 3/4 and 1/4.
    expected = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert monitors.rank_me(np.diag([3.0, 1.0]).astype(np.float32)) == pytest.approx(expected, rel=1e-5)
    assert monitors.rank_me(np.zeros((5, 3), np.float32)) == 0.0


@pytest.mark.parametrize("neighbors", [1, 7, 200])
def test_knn_equals_a_loop_over_sorted_neighbours(neighbors):
    rng = np.random.default_rng(1)
    bank, queries = rng.normal(size=(60, 6)).astype(np.float32), rng.normal(size=(25, 6)).astype(np.float32)
    labels = rng.integers(0, 5, 60)
    predicted = representations.knn_predict(bank, labels, queries, neighbors, 0.1, classes=5)
    expected = reference.knn(bank, labels, queries, min(neighbors, 60 // 5), 0.1, 5)
    np.testing.assert_array_equal(predicted, expected)
    assert predicted.dtype == np.int64


def test_knn_of_many_classes_with_few_images_each_asks_no_more_neighbours_than_a_class_has():
    """Three images each, two classes with sixty more; all features lie close, as an untrained encoder's do."""
    centres = np.random.default_rng(2).normal(5.0, size=(100, 64)).astype(np.float32)
    labels = np.concatenate([np.repeat(np.arange(100), 3), np.repeat([0, 1], 60)])
    bank, queries = centres[labels], centres
    predicted = representations.knn_predict(bank, labels, queries, classes=100)
    assert representations.knn_neighbors(len(bank), 100) == 4
    np.testing.assert_array_equal(predicted, np.arange(100))
    # With as many as for ten classes, how many images a class has decides.
    many = reference.knn(bank, labels, queries, 200, 0.1, 100)
    assert np.mean(many == np.arange(100)) < 0.2


def test_a_healthy_model_passes(shared_model, monitor_images):
    values = monitors.measure(shared_model, monitor_images)
    assert tuple(values) == monitors.MEASURED
    assert values["target_cosine"] == pytest.approx(1.0, abs=1e-5)  # the target starts as the online network
    assert 0.0 <= values["knn_accuracy"] <= 1.0
    assert values["projection_rank"] > 2 * monitors.COLLAPSE_RANK
    monitors.check(values | {"loss": 2.0})


def test_the_knn_accuracy_is_that_of_the_representations(shared_model, monitor_images):
    embed = representations.embed
    encoder = shared_model.online_encoder
    bank, queries = embed(encoder, monitor_images.bank), embed(encoder, monitor_images.queries)
    expected = reference.knn(bank, monitor_images.bank_labels, queries, 48 // 10, 0.1, 10)
    accuracy = np.mean(expected == monitor_images.query_labels)
    assert monitors.measure(shared_model, monitor_images)["knn_accuracy"] == pytest.approx(accuracy)


@pytest.fixture
def projector_output(shared_model):
    """The projector's last layer, restored afterwards."""
    layer = shared_model.online_projector.get_layer("output")
    weights = layer.get_weights()
    yield layer
    layer.set_weights(weights)


def test_projections_in_a_point_are_named_a_collapse_with_advice(
    shared_model, monitor_images, projector_output
):
    kernel, bias = projector_output.get_weights()
    projector_output.set_weights([kernel * 1e-3, np.ones_like(bias)])
    values = monitors.measure(shared_model, monitor_images)
    assert values["projection_spread"] < 0.02
    with pytest.raises(monitors.CollapseError, match=r"to a point.*spread is 0\.0.*learning rate.*base_tau"):
        monitors.check(values)


def test_projections_on_a_line_are_named_a_collapse(shared_model, monitor_images, projector_output):
    kernel, bias = projector_output.get_weights()
    line = kernel[:, :1] @ np.ones((1, kernel.shape[1]), np.float32)
    projector_output.set_weights([line, np.zeros_like(bias)])
    values = monitors.measure(shared_model, monitor_images)
    with pytest.raises(monitors.CollapseError, match="collapsed to a"):
        monitors.check(values)


def test_two_opposite_clusters_have_spread_but_rank_one():
    """Why the spread alone does not find every collapse."""
    signs = np.where(np.arange(100) % 2, 1.0, -1.0)[:, None]
    line = (signs * np.ones((1, 32))).astype(np.float32)
    assert monitors.projection_spread(line) == pytest.approx(1.0, abs=1e-3)
    assert monitors.rank_me(line) < monitors.COLLAPSE_RANK
    with pytest.raises(monitors.CollapseError, match="to a line"):
        monitors.check(HEALTHY | {"projection_rank": monitors.rank_me(line)})


def test_without_labels_all_is_measured_but_the_knn_accuracy(shared_model, monitor_images):
    labelled = monitors.measure(shared_model, monitor_images)
    unlabelled = dataclasses.replace(
        monitor_images, bank=monitor_images.queries[:1], bank_labels=np.zeros(1, int), classes=0
    )
    found = monitors.measure(shared_model, unlabelled)
    assert found.keys() == labelled.keys() - {"knn_accuracy"}
    assert found == pytest.approx({name: labelled[name] for name in found})


def test_values_that_are_not_finite_are_named_with_advice(shared_model, monitor_images, projector_output):
    kernel, bias = projector_output.get_weights()
    projector_output.set_weights([np.full_like(kernel, np.nan), bias])
    values = monitors.measure(shared_model, monitor_images)
    assert all(np.isnan(v) for v in values.values())
    with pytest.raises(monitors.CollapseError, match=r"finite numbers: loss 0\.8.*nan.*warmup_steps"):
        monitors.check({"loss": 0.8} | values)
    with pytest.raises(monitors.CollapseError, match="loss inf"):
        monitors.check({"loss": float("inf")})


def test_good_values_and_missing_monitors_pass():
    monitors.check(HEALTHY)
    monitors.check({"loss": 0.01})  # a small loss alone is no collapse
