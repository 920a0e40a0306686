"""What a schema cannot say about data: class balance, duplicates, and drift against the span before. NumPy
only.

Each check takes rows without pixels and returns findings; components/data/anomaly_gate.py acts on them.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from components.data import features

ERROR, WARNING = "error", "warning"

# The colour of a picture as a whole. Its distribution collapses when planes are read in the wrong layout,
# which leaves each channel's own mean almost as it was.
RED_MINUS_BLUE = "mean_red - mean_blue"

_NOISE_STANDARD_ERRORS = 5.0  # a mean within so many standard errors is no drift, however small the limit
_KS_CRITICAL = 1.95  # Kolmogorov-Smirnov, two samples, level 0.001: c(alpha) of the asymptotic formula


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong with the data.

    Attributes:
        severity: ERROR stops a run, WARNING is reported.
        feature, split, span: where.
        reason: what was found, and what was expected.
    """

    severity: str
    feature: str
    split: str
    span: int
    reason: str

    def __str__(self) -> str:
        return f"{self.severity}: span {self.span}, split {self.split}, feature {self.feature}: {self.reason}"


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of one split, without pixels: about 60 bytes a row.

    Attributes:
        hashes: `[n]` bytes "S32".
        labels: `[n]` int64.
        figures: float32 `[n]` for each key of `features.IMAGE_FIGURES`.
    """

    hashes: np.ndarray
    labels: np.ndarray
    figures: Mapping[str, np.ndarray]

    def compared_figures(self) -> dict[str, np.ndarray]:
        """The figures and what is derived from them, for comparison between spans."""
        cast = self.figures[features.MEAN_RED] - self.figures[features.MEAN_BLUE]
        return {**self.figures, RED_MINUS_BLUE: cast}


@dataclasses.dataclass(frozen=True)
class Limits:
    """Where a finding becomes an error.

    Attributes:
        class_ratio: largest class over smallest class, within a split.
        duplicate_share: share of a split's rows whose pixels occurred before in it.
        drift: Kolmogorov-Smirnov distance of a figure, and largest difference of a class's share, between
            spans.
        class_drift: shift of a figure's mean within one class between spans, in standard deviations of the
            figure.
    """

    class_ratio: float = 2.0
    duplicate_share: float = 0.01
    drift: float = 0.1
    class_drift: float = 0.3


def check_span(span: int, splits: Mapping[str, Rows], limits: Limits) -> list[Finding]:
    """Checks class balance and duplicates of one span."""
    findings = []
    for split, rows in splits.items():
        findings += check_classes(span, split, rows.labels, limits.class_ratio)
        findings += check_repeats(span, split, rows.hashes, limits.duplicate_share)
    if features.TRAIN_SPLIT in splits and features.TEST_SPLIT in splits:
        shared = count_shared(splits[features.TRAIN_SPLIT].hashes, splits[features.TEST_SPLIT].hashes)
        if shared:
            reason = f"{shared} test images are also in the training split; expected none"
            findings.append(Finding(ERROR, features.CONTENT_HASH, features.TEST_SPLIT, span, reason))
    return findings


def check_against(
    span: int, splits: Mapping[str, Rows], earlier_span: int, earlier: Mapping[str, Rows], limits: Limits
) -> list[Finding]:
    """Checks one span against the one before: drift, leaks between train and test, repeats."""
    findings = []
    for split, rows in splits.items():
        if split in earlier:
            findings += check_drift(span, split, rows, earlier_span, earlier[split], limits)
    return findings + check_shared(span, splits, earlier_span, earlier)


def check_shared(
    span: int, splits: Mapping[str, Rows], earlier_span: int, earlier: Mapping[str, Rows]
) -> list[Finding]:
    """Finds pictures that an earlier span had: in the other split an error, in the training split a repeat."""
    findings = []
    for split, rows in splits.items():
        for earlier_split, earlier_rows in earlier.items():
            shared = count_shared(rows.hashes, earlier_rows.hashes)
            if shared and split != earlier_split:
                reason = (
                    f"{shared} images are in the {earlier_split} split of span {earlier_span}; expected none"
                )
                findings.append(Finding(ERROR, features.CONTENT_HASH, split, span, reason))
            elif shared and split == features.TRAIN_SPLIT:
                reason = f"{shared} images were in span {earlier_span} already"
                findings.append(Finding(WARNING, features.CONTENT_HASH, split, span, reason))
    return findings


def check_fixed_test(span: int, splits: Mapping[str, Rows], fixed: Mapping[str, Rows]) -> list[Finding]:
    """Finds images of the fixed test set that a span would train on: what is measured must be new to the model."""
    train = splits[features.TRAIN_SPLIT]
    shared = sum(count_shared(train.hashes, rows.hashes) for rows in fixed.values())
    if not shared:
        return []
    reason = f"{shared} images are in the fixed test set; expected none"
    return [Finding(ERROR, features.CONTENT_HASH, features.TRAIN_SPLIT, span, reason)]


def check_classes(span: int, split: str, labels: np.ndarray, class_ratio: float) -> list[Finding]:
    """Finds missing classes and an imbalance above `class_ratio`."""
    counts = np.bincount(labels, minlength=len(features.LABEL_NAMES))
    missing = [name for name, count in zip(features.LABEL_NAMES, counts, strict=True) if count == 0]
    if missing:
        reason = f"no image of {', '.join(missing)} among {len(labels)}; expected all ten classes"
        return [Finding(ERROR, features.LABEL, split, span, reason)]
    ratio = counts.max() / counts.min()
    if ratio <= class_ratio:
        return []
    most, least = (features.LABEL_NAMES[i] for i in (counts.argmax(), counts.argmin()))
    reason = f"{most} is {ratio:.2f} times as frequent as {least}; expected at most {class_ratio:g} times"
    return [Finding(ERROR, features.LABEL, split, span, reason)]


def check_repeats(span: int, split: str, hashes: np.ndarray, duplicate_share: float) -> list[Finding]:
    """Finds pictures that occur more than once in a split."""
    repeats = len(hashes) - len(np.unique(hashes))
    if not repeats:
        return []
    share = repeats / len(hashes)
    severity = ERROR if share > duplicate_share else WARNING
    reason = (
        f"{repeats} of {len(hashes)} images repeat another one ({share:.2%}); at most "
        f"{duplicate_share:.2%} pass"
    )
    return [Finding(severity, features.CONTENT_HASH, split, span, reason)]


def count_shared(some: np.ndarray, others: np.ndarray) -> int:
    """The number of distinct hashes that occur in both."""
    return len(np.intersect1d(some, others))


def check_drift(
    span: int, split: str, rows: Rows, earlier_span: int, earlier: Rows, limits: Limits
) -> list[Finding]:
    """Compares labels, figures, and figures within each class with those of an earlier span.

    A picture's figures and its label are compared jointly because permuted labels change neither alone. What
    this cannot see: labels permuted among classes of equal brightness, contrast and colour.
    """
    findings = []
    shares, earlier_shares = (class_shares(r.labels) for r in (rows, earlier))
    worst = int(np.abs(shares - earlier_shares).argmax())
    if abs(shares[worst] - earlier_shares[worst]) > limits.drift:
        reason = (
            f"{features.LABEL_NAMES[worst]} went from {earlier_shares[worst]:.1%} in span {earlier_span} to "
            f"{shares[worst]:.1%}; expected a change of at most {limits.drift:.1%}"
        )
        findings.append(Finding(ERROR, features.LABEL, split, span, reason))
    current, previous = rows.compared_figures(), earlier.compared_figures()
    for key in current:
        distance = ks_distance(current[key], previous[key])
        limit = distance_limit(len(current[key]), len(previous[key]), limits.drift)
        if distance > limit:
            reason = (
                f"mean went from {previous[key].mean():.3f} in span {earlier_span} to "
                f"{current[key].mean():.3f}, "
                f"Kolmogorov-Smirnov distance {distance:.3f}; expected at most {limit:.3f}"
            )
            findings.append(Finding(ERROR, key, split, span, reason))
    return findings or _check_class_drift(span, split, rows, earlier_span, earlier, limits.class_drift)


def distance_limit(count: int, earlier_count: int, drift: float) -> float:
    """The Kolmogorov-Smirnov distance up to which two samples of these sizes have not drifted.

    It is `drift`, or what noise alone reaches once in a thousand times if that is more.
    """
    return max(drift, float(_KS_CRITICAL * np.sqrt(1 / count + 1 / earlier_count)))


def _check_class_drift(
    span: int, split: str, rows: Rows, earlier_span: int, earlier: Rows, class_drift: float
) -> list[Finding]:
    """Finds the figures whose mean moved within single classes; one finding a figure, for its worst class."""
    findings = []
    previous = earlier.compared_figures()
    for key, values in rows.compared_figures().items():
        spread = max(float(previous[key].std()), 1e-6)
        shifts, noise = _class_shifts(values, rows.labels, previous[key], earlier.labels)
        excess = np.abs(shifts) / spread - np.maximum(class_drift, _NOISE_STANDARD_ERRORS * noise)
        worst = int(excess.argmax())
        if excess[worst] > 0:
            reason = (
                f"the mean of class {features.LABEL_NAMES[worst]} moved by {shifts[worst] / spread:+.2f} "
                f"standard "
                f"deviations against span {earlier_span} while all classes together did not drift; expected "
                f"at "
                f"most {class_drift:g}. Are the labels right?"
            )
            findings.append(Finding(ERROR, f"{features.LABEL} with {key}", split, span, reason))
    return findings


def _class_shifts(
    values: np.ndarray, labels: np.ndarray, earlier_values: np.ndarray, earlier_labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Differences of class means float64 `[10]`, and their standard errors in units of one standard
    deviation.

    A class that one of the spans lacks shifts by 0: `check_classes` reports it.
    """
    classes = len(features.LABEL_NAMES)
    counts, earlier_counts = (np.bincount(x, minlength=classes) for x in (labels, earlier_labels))
    both = (counts > 0) & (earlier_counts > 0)
    means = np.bincount(labels, values, minlength=classes) / np.maximum(counts, 1)
    earlier_means = np.bincount(earlier_labels, earlier_values, minlength=classes) / np.maximum(
        earlier_counts, 1
    )
    noise = np.sqrt(1 / np.maximum(counts, 1) + 1 / np.maximum(earlier_counts, 1))
    return np.where(both, means - earlier_means, 0.0), noise


def class_shares(labels: np.ndarray) -> np.ndarray:
    """Shares of the ten classes: float64 `[10]`, sum 1."""
    return np.bincount(labels, minlength=len(features.LABEL_NAMES)) / max(len(labels), 1)


def ks_distance(some: np.ndarray, others: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance of two samples: the largest gap between their distribution functions, in
    [0, 1].
    """
    points = np.concatenate([some, others])
    below = np.searchsorted(np.sort(some), points, side="right") / len(some)
    below_others = np.searchsorted(np.sort(others), points, side="right") / len(others)
    return float(np.abs(below - below_others).max())
