"""What a schema cannot say about data: class balance, duplicates, and drift against the span before.

Each check takes rows without pixels and returns findings; components/data/anomaly_gate.py acts on them. A span is a
sample: what lies beyond a limit is an error only when chance alone does not explain it. How often chance may, over all
checks together, is `DataLimits.false_alarms`; each check has an equal part, and divides it among what it compares.
"""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
from scipy import stats

from components.data import data_limits, dataset, features
from components.data.data_limits import DataLimits

ERROR, WARNING = "error", "warning"

# The colour of a picture as a whole. Its distribution collapses when planes are read in the wrong layout,
# which leaves each channel's own mean almost as it was.
RED_MINUS_BLUE = "mean_red - mean_blue"

CLASSES = len(features.LABEL_NAMES)  # of CIFAR-10
_SHOWN_NAMES = 20
_FIGURES = len(features.IMAGE_FIGURES) + 1  # and RED_MINUS_BLUE


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong with the data.

    Attributes:
        severity: ERROR stops a run, WARNING is reported.
        kind: of `data_limits.KINDS`, by which a person may let it through.
        feature, split, span: where.
        reason: what was found, what was expected, and what chance alone does at this size.
    """

    severity: str
    kind: str
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
        labels: `[n]` int64, -1 for none.
        figures: float32 `[n]` for each key of `features.IMAGE_FIGURES`.
    """

    hashes: np.ndarray
    labels: np.ndarray
    figures: Mapping[str, np.ndarray]

    def labelled(self) -> "Rows":
        """The rows that have a label."""
        kept = self.labels != dataset.UNLABELLED
        if kept.all():
            return self
        figures = {key: values[kept] for key, values in self.figures.items()}
        return Rows(self.hashes[kept], self.labels[kept], figures)

    def compared_figures(self) -> dict[str, np.ndarray]:
        """The figures and what is derived from them, for comparison between spans."""
        cast = self.figures[features.MEAN_RED] - self.figures[features.MEAN_BLUE]
        return {**self.figures, RED_MINUS_BLUE: cast}


def check_span(
    span: int, splits: Mapping[str, Rows], limits: DataLimits, names: tuple[str, ...] = features.LABEL_NAMES
) -> list[Finding]:
    """Checks class balance of the labelled rows and duplicates among all rows of one span."""
    findings = []
    for split, rows in splits.items():
        if names:
            findings += check_classes(span, split, rows.labelled().labels, limits, names)
        findings += check_repeats(span, split, rows.hashes, limits)
    if features.TRAIN_SPLIT in splits and features.TEST_SPLIT in splits:
        shared = count_shared(splits[features.TRAIN_SPLIT].hashes, splits[features.TEST_SPLIT].hashes)
        if shared:
            reason = f"{shared} test images are also in the training split; expected none"
            findings.append(
                Finding(ERROR, data_limits.LEAK, features.CONTENT_HASH, features.TEST_SPLIT, span, reason)
            )
    return findings


def check_against(
    span: int,
    splits: Mapping[str, Rows],
    earlier_span: int,
    earlier: Mapping[str, Rows],
    limits: DataLimits,
    names: tuple[str, ...] = features.LABEL_NAMES,
) -> list[Finding]:
    """Checks one span against the one before: drift, leaks between train and test, repeats."""
    findings = []
    for split, rows in splits.items():
        if split in earlier:
            findings += check_drift(span, split, rows, earlier_span, earlier[split], limits, names)
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
                findings.append(Finding(ERROR, data_limits.LEAK, features.CONTENT_HASH, split, span, reason))
            elif shared and split == features.TRAIN_SPLIT:
                reason = f"{shared} images were in span {earlier_span} already"
                findings.append(
                    Finding(WARNING, data_limits.REPEATS, features.CONTENT_HASH, split, span, reason)
                )
    return findings


def check_fixed_test(span: int, splits: Mapping[str, Rows], fixed: Mapping[str, Rows]) -> list[Finding]:
    """Finds images of the fixed test set that a span would train on: what is measured must be new to the model."""
    train = splits[features.TRAIN_SPLIT]
    shared = sum(count_shared(train.hashes, rows.hashes) for rows in fixed.values())
    if not shared:
        return []
    reason = f"{shared} images are in the fixed test set; expected none"
    return [Finding(ERROR, data_limits.LEAK, features.CONTENT_HASH, features.TRAIN_SPLIT, span, reason)]


def check_classes(
    span: int,
    split: str,
    labels: np.ndarray,
    limits: DataLimits,
    names: tuple[str, ...] = features.LABEL_NAMES,
) -> list[Finding]:
    """Finds missing classes and an imbalance above `class_ratio`; half of the check's false alarms for each.

    That a class is missing is held against the smallest share that it may have, 5.3% of ten classes at a ratio of 2.

    Args:
        span, split: where.
        labels: `[n]` int64, of the rows that have one.
        limits: the settings.
        names: of the classes.
    """
    counts, level, classes = np.bincount(labels, minlength=len(names)), limits.level / 2, len(names)
    missing = [name for name, count in zip(names, counts, strict=True) if count == 0]
    smallest = 1 / (1 + (classes - 1) * limits.class_ratio)
    if missing and (1 - smallest) ** len(labels) < level / classes:
        needed = int(np.ceil(np.log(level / classes) / np.log1p(-smallest)))
        shown = ", ".join(missing[:_SHOWN_NAMES]) + (", ..." if len(missing) > _SHOWN_NAMES else "")
        reason = (
            f"no image of {shown} among {len(labels)}; expected all {classes} classes "
            f"(from {needed} images on chance does not explain it)"
        )
        return [Finding(ERROR, data_limits.CLASS_BALANCE, features.LABEL, split, span, reason)]
    most, least = int(counts.argmax()), int(counts.argmin())
    odds = limits.class_ratio / (1 + limits.class_ratio)  # of the larger class, among the images of both
    chance = classes * (classes - 1) * stats.binom.sf(counts[most] - 1, counts[most] + counts[least], odds)
    if counts[most] <= limits.class_ratio * counts[least] or chance >= level:
        return []
    reason = (
        f"{names[most]} has {counts[most]} images and {names[least]} "
        f"{counts[least]}; expected at most {limits.class_ratio:g} times as many (chance explains it with "
        f"probability {chance:.1e}, below {level:.1e})"
    )
    return [Finding(ERROR, data_limits.CLASS_BALANCE, features.LABEL, split, span, reason)]


def check_repeats(span: int, split: str, hashes: np.ndarray, limits: DataLimits) -> list[Finding]:
    """Finds pictures that occur more than once in a split."""
    repeats = len(hashes) - len(np.unique(hashes))
    if not repeats:
        return []
    share = repeats / len(hashes)
    chance = stats.binom.sf(repeats - 1, len(hashes), limits.duplicate_share)
    severity = ERROR if share > limits.duplicate_share and chance < limits.level else WARNING
    allowed = int(stats.binom.isf(limits.level, len(hashes), limits.duplicate_share))
    reason = (
        f"{repeats} of {len(hashes)} images repeat another one ({share:.2%}); at most "
        f"{limits.duplicate_share:.2%} pass, which may by chance be {allowed} here"
    )
    return [Finding(severity, data_limits.REPEATS, features.CONTENT_HASH, split, span, reason)]


def count_shared(some: np.ndarray, others: np.ndarray) -> int:
    """The number of distinct hashes that occur in both."""
    return len(np.intersect1d(some, others))


def check_drift(
    span: int,
    split: str,
    rows: Rows,
    earlier_span: int,
    earlier: Rows,
    limits: DataLimits,
    names: tuple[str, ...] = features.LABEL_NAMES,
) -> list[Finding]:
    """Compares labels, figures, and figures within each class with those of an earlier span.

    Figures of all rows are compared, labels of those that have one.

    A picture's figures and its label are compared jointly because permuted labels change neither alone. What
    this cannot see: labels permuted among classes of equal brightness, contrast and colour.
    """
    labelled, labelled_earlier = rows.labelled(), earlier.labelled()
    findings = _check_shares(
        span, split, labelled.labels, earlier_span, labelled_earlier.labels, limits, names
    )
    current, previous = rows.compared_figures(), earlier.compared_figures()
    limit = distance_limit(len(rows.labels), len(earlier.labels), limits)
    for key in current:
        distance = ks_distance(current[key], previous[key])
        if distance > limit:
            reason = (
                f"mean went from {previous[key].mean():.3f} in span {earlier_span} to "
                f"{current[key].mean():.3f}, Kolmogorov-Smirnov distance {distance:.3f}; expected at most "
                f"{limit:.3f}, the larger of {limits.drift:g} and of what chance does with {len(rows.labels)} and "
                f"{len(earlier.labels)} images"
            )
            findings.append(Finding(ERROR, data_limits.FIGURES, key, split, span, reason))
    return findings or _check_class_drift(
        span, split, labelled, earlier_span, labelled_earlier, limits, names
    )


def distance_limit(count: int, earlier_count: int, limits: DataLimits) -> float:
    """The Kolmogorov-Smirnov distance up to which two samples of these sizes have not drifted.

    It is `limits.drift`, or what chance reaches at the check's level if that is more.
    """
    return max(limits.drift, _chance_distance(count, earlier_count, limits.level / _FIGURES))


@functools.lru_cache(maxsize=1024)
def _chance_distance(count: int, earlier_count: int, level: float) -> float:
    """The distance that two samples of one distribution exceed with probability `level`."""
    return float(stats.kstwo.isf(level, max(1, round(count * earlier_count / (count + earlier_count)))))


def _check_shares(
    span: int,
    split: str,
    labels: np.ndarray,
    earlier_span: int,
    earlier_labels: np.ndarray,
    limits: DataLimits,
    names: tuple[str, ...],
) -> list[Finding]:
    """Finds the class whose share changed most, by Fisher's exact test beyond chance and beyond the limit."""
    if not len(labels) or not len(earlier_labels):
        return []
    counts, earlier_counts = (np.bincount(x, minlength=len(names)) for x in (labels, earlier_labels))
    shares, earlier_shares = counts / max(len(labels), 1), earlier_counts / max(len(earlier_labels), 1)
    worst = int(np.abs(shares - earlier_shares).argmax())
    change = abs(shares[worst] - earlier_shares[worst])
    chance = len(names) * _fisher(counts[worst], len(labels), earlier_counts[worst], len(earlier_labels))
    if change <= limits.class_share_change or chance >= limits.level:
        return []
    reason = (
        f"{names[worst]} went from {earlier_shares[worst]:.1%} in span {earlier_span} to "
        f"{shares[worst]:.1%}; expected a change of at most {limits.class_share_change:.1%} (chance explains it "
        f"with probability {chance:.1e}, below {limits.level:.1e})"
    )
    return [Finding(ERROR, data_limits.CLASS_SHARES, features.LABEL, split, span, reason)]


def _fisher(count: int, total: int, earlier_count: int, earlier_total: int) -> float:
    """Fisher's exact test: how often two samples of one share differ at least so far; twice the smaller tail."""
    drawn = (total + earlier_total, count + earlier_count, total)
    return float(min(1.0, 2 * min(stats.hypergeom.cdf(count, *drawn), stats.hypergeom.sf(count - 1, *drawn))))


def _check_class_drift(
    span: int,
    split: str,
    rows: Rows,
    earlier_span: int,
    earlier: Rows,
    limits: DataLimits,
    names: tuple[str, ...],
) -> list[Finding]:
    """Finds the figures whose mean moved within single classes; one finding a figure, for its worst class."""
    if not len(rows.labels) or not len(earlier.labels):
        return []
    findings = []
    previous = earlier.compared_figures()
    for key, values in rows.compared_figures().items():
        spread = max(float(previous[key].std()), 1e-6)
        shifts = _class_shifts(values, rows.labels, previous[key], earlier.labels, len(names)) / spread
        worst = int(np.abs(shifts).argmax())
        if abs(shifts[worst]) <= limits.class_drift:
            continue
        chance = _FIGURES * class_drift_p(values, rows.labels, previous[key], earlier.labels, len(names))
        if chance < limits.level:
            reason = (
                f"the mean of class {names[worst]} moved by {shifts[worst]:+.2f} standard deviations "
                f"against span {earlier_span} while all classes together did not drift; expected at most "
                f"{limits.class_drift:g} (chance explains the classes' shifts with probability {chance:.1e}, below "
                f"{limits.level:.1e}). Are the labels right?"
            )
            feature = f"{features.LABEL} with {key}"
            findings.append(Finding(ERROR, data_limits.CLASS_FIGURES, feature, split, span, reason))
    return findings


def _class_shifts(
    values: np.ndarray,
    labels: np.ndarray,
    earlier_values: np.ndarray,
    earlier_labels: np.ndarray,
    classes: int,
) -> np.ndarray:
    """Differences of class means float64 `[classes]`; 0 for a class that one of the spans lacks."""
    counts, earlier_counts = (np.bincount(x, minlength=classes) for x in (labels, earlier_labels))
    means = np.bincount(labels, values, minlength=classes) / np.maximum(counts, 1)
    earlier_means = np.bincount(earlier_labels, earlier_values, minlength=classes) / np.maximum(
        earlier_counts, 1
    )
    return np.where((counts > 0) & (earlier_counts > 0), means - earlier_means, 0.0)


def class_drift_p(
    values: np.ndarray,
    labels: np.ndarray,
    earlier_values: np.ndarray,
    earlier_labels: np.ndarray,
    classes: int = CLASSES,
) -> float:
    """How often chance shifts a figure within the classes at least so much, all taken together.

    Within each class the mean rank of the new rows is standardised by its variance under permutation of the two
    spans; the squares add up to a chi-square with as many degrees as there are classes to compare. Ranks are bounded,
    so a few odd pictures do not upset it, and few pictures make it rather more careful than less.
    """
    ranks = stats.rankdata(np.concatenate([values, earlier_values]))
    both = np.concatenate([labels, earlier_labels])
    new, every = (np.bincount(x, minlength=classes).astype(float) for x in (labels, both))
    old = every - new
    mean = np.bincount(both, ranks, minlength=classes) / np.maximum(every, 1)
    square = np.bincount(both, (ranks - mean[both]) ** 2, minlength=classes)
    excess = np.bincount(labels, ranks[: len(labels)] - mean[labels], minlength=classes)
    variance = new * old * square / np.maximum(every * (every - 1), 1)
    compared = variance > 0
    if not compared.any():
        return 1.0
    return float(stats.chi2.sf((excess[compared] ** 2 / variance[compared]).sum(), compared.sum()))


def lowest_agreement(images: int, minimum: float, false_alarms: float) -> float:
    """The share below which chance does not explain an agreement of at least `minimum`: exact, of the binomial."""
    return float(stats.binom.ppf(data_limits.check_level(false_alarms), images, minimum)) / images


def can_see(
    count: int, earlier_count: int | None, limits: DataLimits, classes: int = CLASSES
) -> dict[str, float]:
    """What the checks can see in a split of so many rows: the smallest fault of each kind that is an error.

    Args:
        count: rows of the split.
        earlier_count: rows of the split in the span before; None on a first span.
        limits: the settings.
        classes: their number; 0 where nothing is labelled, of which nothing is said then.

    Returns:
        `missing_class_from`: rows from which on a class without any is an error. With a span before: `figures`, a
        distance, and `class_shares`, the change of a share that was
        that of one class among equals, 10% of ten.
    """
    seen = {}
    if classes:
        smallest = 1 / (1 + (classes - 1) * limits.class_ratio)
        level = limits.level / 2 / classes
        seen["missing_class_from"] = float(np.ceil(np.log(level) / np.log1p(-smallest)))
    if earlier_count is not None:
        seen["figures"] = distance_limit(count, earlier_count, limits)
    if earlier_count is not None and classes:
        part = earlier_count // classes
        more = np.arange(count // classes, count + 1)
        chance = stats.hypergeom.sf(more - 1, count + earlier_count, part + more, count)
        enough = (2 * classes * chance < limits.level) & (
            more / count - 1 / classes > limits.class_share_change
        )
        seen["class_shares"] = (
            float(more[enough.argmax()] / count - 1 / classes) if enough.any() else 1 - 1 / classes
        )
    return {name: round(value, 4) for name, value in seen.items()}


def ks_distance(some: np.ndarray, others: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance of two samples: the largest gap between their distribution functions, in
    [0, 1].
    """
    points = np.concatenate([some, others])
    order = np.argsort(points, kind="stable")
    steps = np.where(order < len(some), len(others), -len(some))
    ordered = points[order]
    last_of_ties = np.append(ordered[1:] != ordered[:-1], True)  # equal values step together
    return float(np.abs(np.cumsum(steps)[last_of_ties]).max() / (len(some) * len(others)))
