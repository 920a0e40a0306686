"""The BYOL loss (paper, section 3.1, equation 2)."""

from keras import ops

from trainer.networks import l2_normalize


def regression_loss(prediction, target):
    """Squared distance of the L2-normalised vectors, 2 - 2 cos: [batch, dim] twice -> [batch] float32 in [0, 4]."""
    cosine = ops.sum(l2_normalize(prediction) * l2_normalize(target), axis=-1)
    return 2.0 - 2.0 * cosine


def byol_loss(prediction_1, prediction_2, target_1, target_2):
    """The symmetrised loss: each view's prediction against the *other* view's target projection.

    Args:
        prediction_1, prediction_2: [batch, dim] float32, the predictor's outputs for view 1 and view 2.
        target_1, target_2: [batch, dim] float32, the target projections, already cut from the gradient.

    Returns:
        [batch] float32 in [0, 8]: the sum (not the mean) of the two terms, 0 when they agree.
    """
    return regression_loss(prediction_1, target_2) + regression_loss(prediction_2, target_1)
