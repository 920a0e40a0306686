import numpy as np
import pytest
from keras import ops

from tests.unit.trainer import reference
from trainer.byol import losses


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(6, 5)).astype(np.float32) for _ in range(4)]


def test_a_pair_is_zero_at_identity_four_at_opposite_and_two_at_right_angles():
    x = np.array([[3.0, 4.0], [0.5, -2.0]], np.float32)
    turned = np.stack([-x[:, 1], x[:, 0]], axis=1)
    np.testing.assert_allclose(losses.regression_loss(x, 7 * x), [0, 0], atol=1e-6)
    np.testing.assert_allclose(losses.regression_loss(x, -0.1 * x), [4, 4], atol=1e-6)
    np.testing.assert_allclose(losses.regression_loss(x, turned), [2, 2], atol=1e-6)


def test_the_loss_is_the_sum_of_both_terms_by_the_reference(vectors):
    p1, p2, z1, z2 = vectors
    expected = reference.pair_loss(p1, z2) + reference.pair_loss(p2, z1)
    loss = np.asarray(losses.byol_loss(p1, p2, z1, z2))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert loss.shape == (6,)
    np.testing.assert_allclose(losses.byol_loss(p1, p2, -p2, -p1), np.full(6, 8.0), rtol=1e-6)


def test_each_prediction_is_compared_with_the_other_views_target(vectors):
    p1, p2, _, _ = vectors
    crossed = losses.byol_loss(prediction_1=p1, prediction_2=p2, target_1=p2, target_2=p1)
    np.testing.assert_allclose(crossed, np.zeros(6), atol=1e-6)
    straight = losses.byol_loss(prediction_1=p1, prediction_2=p2, target_1=p1, target_2=p2)
    np.testing.assert_allclose(straight, 2 * reference.pair_loss(p1, p2), rtol=1e-5)


def test_swapping_the_views_leaves_the_loss_unchanged(vectors):
    p1, p2, z1, z2 = vectors
    np.testing.assert_array_equal(losses.byol_loss(p1, p2, z1, z2), losses.byol_loss(p2, p1, z2, z1))


def test_a_zero_vector_gives_a_finite_loss_and_gradient(gradient):
    zero = np.zeros((2, 3), np.float32)
    other = np.ones((2, 3), np.float32)
    np.testing.assert_allclose(losses.regression_loss(zero, other), [2, 2])

    assert np.isfinite(gradient(lambda x: ops.sum(losses.regression_loss(x, other)), zero)).all()
