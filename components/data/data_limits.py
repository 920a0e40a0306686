"""Where a check of a span's data becomes an error. The standard library only, for the command line's start."""

import dataclasses

# What a finding may be of, and what a person may let through by name.
CLASS_BALANCE = "class_balance"
CLASS_SHARES = "class_shares"
FIGURES = "figures"
CLASS_FIGURES = "class_figures"
REPEATS = "repeats"
LABELS = "labels"
LEAK = "leak"
SCHEMA = "schema"
KINDS = (CLASS_BALANCE, CLASS_SHARES, FIGURES, CLASS_FIGURES, REPEATS, LABELS, LEAK, SCHEMA)
ALL = "all"

# The checks on a sample: five on each of two splits, and LabelCheck. Each gets an equal part of the false alarms.
_SAMPLED = 2 * len((CLASS_BALANCE, CLASS_SHARES, FIGURES, CLASS_FIGURES, REPEATS)) + len((LABELS,))


@dataclasses.dataclass(frozen=True)
class DataLimits:
    """What a span's data may be like: a finding stops it when it is beyond its limit and beyond what chance does.

    Attributes:
        false_alarms: at most so often is a span refused that is a random sample of what the span before it is one of:
            the probability for all checks together, above 0 and below 1.
        class_ratio: the largest class over the smallest, within a split.
        class_share_change: change of a class's share from the span before.
        duplicate_share: share of a split's rows whose pixels occurred before in it.
        drift: Kolmogorov-Smirnov distance of a figure from the span before.
        class_drift: shift of a figure's mean within one class from the span before, in standard deviations of the
            figure.
    """

    false_alarms: float = 0.001
    class_ratio: float = 2.0
    class_share_change: float = 0.05
    duplicate_share: float = 0.01
    drift: float = 0.1
    class_drift: float = 0.3

    def __post_init__(self) -> None:
        if not 0.0 < self.false_alarms < 1.0:
            raise ValueError(f"data.false_alarms is above 0 and below 1; received {self.false_alarms}.")
        if not self.class_ratio >= 1.0:
            raise ValueError(f"data.class_ratio is at least 1; received {self.class_ratio}.")
        for name in ("class_share_change", "duplicate_share", "drift"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"data.{name} is 0 to 1; received {getattr(self, name)}.")
        if not self.class_drift >= 0.0:
            raise ValueError(f"data.class_drift is at least 0; received {self.class_drift}.")

    @property
    def level(self) -> float:
        """The probability of a false alarm that one check on a sample may have (Bonferroni)."""
        return check_level(self.false_alarms)


def check_level(false_alarms: float) -> float:
    """The part of the false alarms that one check on a sample may have."""
    return false_alarms / _SAMPLED


def allowed_kinds(told: bool | str) -> frozenset[str]:
    """Which kinds of findings are let through.

    Args:
        told: false or "" for none, true or "all" for every one, or some of `KINDS`, separated by commas.

    Raises:
        ValueError: for a kind that there is not.
    """
    if isinstance(told, bool):
        return frozenset(KINDS if told else ())
    names = [name.strip() for name in told.split(",") if name.strip()]
    unknown = [name for name in names if name not in (*KINDS, ALL)]
    if unknown:
        raise ValueError(
            f"There is no kind of finding {unknown[0]!r} to let through. Known: {', '.join((*KINDS, ALL))}."
        )
    return frozenset(KINDS if ALL in names else names)


def told_kinds(kinds: frozenset[str]) -> str:
    """The kinds as `allowed_kinds` reads them, in one spelling: it is part of a cache key."""
    return ALL if kinds == frozenset(KINDS) else ",".join(kind for kind in KINDS if kind in kinds)
