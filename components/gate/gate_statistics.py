"""The statistics behind the gate: intervals of one accuracy and of the difference of two on the same images.

The standard library only. Two models that were judged on the same images are compared by the images on which they
disagree; those on which both are right, or both wrong, say nothing about which is better.
"""

import math
import statistics

_BISECTIONS = 60  # halves [-1, 1] to less than the last digit of a double


def accuracy_interval(right: float, count: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of an accuracy, two-sided.

    Args:
        right: images that were classified correctly.
        count: all images, at least 1.
        confidence: probability with which the interval holds the true accuracy, in (0, 1).

    Returns:
        Lower and upper bound, 0 to 1.
    """
    _check_confidence(confidence)
    if not 0 <= right <= count or count < 1:
        raise ValueError(f"Expected 0 <= right <= count and at least 1 image, received {right} of {count}.")
    z = statistics.NormalDist().inv_cdf(0.5 + confidence / 2)
    share = right / count
    centre = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def change_interval(
    gained: float, lost: float, count: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Tango's score interval of the change in accuracy from one model to another on the same images.

    At a change of 0 its test is McNemar's. Each bound alone is one-sided: the true change lies below the upper bound
    with probability `confidence`, and above the lower one with the same. Source: Tango, Statistics in Medicine 17
    (1998) 891-908.

    Args:
        gained: images that the new model has right and the old one wrong.
        lost: images that the old model has right and the new one wrong.
        count: all images, at least 1.
        confidence: of each bound, in (0.5, 1).

    Returns:
        Lower and upper bound of (new accuracy - old accuracy), -1 to 1.
    """
    _check_confidence(confidence)
    if gained < 0 or lost < 0 or count < 1 or gained + lost > count:
        raise ValueError(
            f"Expected gained and lost images among at least 1 in all, received {gained} and {lost} of {count}."
        )
    z = statistics.NormalDist().inv_cdf(confidence)
    observed = (gained - lost) / count
    upper = _crossing(gained, lost, count, observed, 1.0, z)
    lower = -_crossing(lost, gained, count, -observed, 1.0, z)
    return lower, upper


def mcnemar_p(gained: int, lost: int) -> float:
    """McNemar's exact two-sided p: how often a fair coin splits the images in dispute at least as unevenly.

    Args:
        gained, lost: as in `change_interval`.
    """
    disputed, fewer = gained + lost, min(gained, lost)
    if disputed == 0:
        return 1.0
    log_half = disputed * math.log(0.5)
    tail = sum(
        math.exp(math.lgamma(disputed + 1) - math.lgamma(k + 1) - math.lgamma(disputed - k + 1) + log_half)
        for k in range(fewer + 1)
    )
    return min(1.0, 2 * tail)


def _crossing(gained: float, lost: float, count: float, low: float, high: float, z: float) -> float:
    """The change above `low` at which the score statistic falls to -z: it falls all the way."""
    if _score(gained, lost, count, high) > -z:
        return high
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if _score(gained, lost, count, middle) > -z:
            low = middle
        else:
            high = middle
    return high


def _score(gained: float, lost: float, count: float, change: float) -> float:
    """Tango's statistic for the hypothesis that the true change is `change`; about standard normal if it is."""
    # The share of lost images, most likely under the hypothesis: the larger root of a x^2 + b x + c = 0.
    a = 2 * count
    b = -gained - lost + (2 * count - gained + lost) * change
    c = -lost * change * (1 - change)
    share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = count * (2 * share + change * (1 - change))
    difference = gained - lost - count * change
    if variance <= 0:
        return 0.0 if difference == 0 else math.copysign(math.inf, difference)
    return difference / math.sqrt(variance)


def _check_confidence(confidence: float) -> None:
    if not 0.5 < confidence < 1:
        raise ValueError(f"Expected a confidence above 0.5 and below 1, received {confidence}.")
