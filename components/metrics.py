"""What TFMA does not have: the change of accuracy against a baseline, judged on the same images.

docs/decisions/0040-paired-gate.md says why the gate asks for it.
"""

import dataclasses
import math
import statistics
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
from tensorflow_model_analysis.metrics import metric_types, metric_util
from tensorflow_model_analysis.utils import model_util

CHANGE = "paired_accuracy_change"
CHANGE_LOWER = "paired_accuracy_change_lower"
CHANGE_UPPER = "paired_accuracy_change_upper"


@dataclasses.dataclass(frozen=True)
class PairedChange:
    """Accuracy of a model minus that of its baseline, with its confidence interval; all in [-1, 1]."""

    change: float
    lower: float
    upper: float


def paired_change(gained: int, lost: int, images: int, confidence: float) -> PairedChange:
    """The change of accuracy on the same images, by the images on which the two models disagree.

    Images that both get right, or both wrong, say nothing of the difference: its variance comes from the others
    (McNemar 1947). The interval is the one of Agresti and Min (2005, Statistics in Medicine 24), who add half an image
    to each of the four cells; it holds its level on small and on one-sided counts, where the plain one does not.

    Args:
        gained: images that the model alone gets right.
        lost: images that the baseline alone gets right.
        images: all of them.
        confidence: of the two-sided interval, between 0 and 1.

    Raises:
        ValueError: for counts that no set of images has.
    """
    if min(gained, lost) < 0 or images < max(gained + lost, 1):
        raise ValueError(
            f"Expected counts of at least 0 that sum to at most all images; received gained={gained}, lost={lost}, "
            f"images={images}."
        )
    total, more, less = images + 2.0, gained + 0.5, lost + 0.5
    middle = (more - less) / total
    deviation = math.sqrt((more + less) - (more - less) ** 2 / total) / total
    reach = statistics.NormalDist().inv_cdf(0.5 + confidence / 2) * deviation
    return PairedChange((gained - lost) / images, max(middle - reach, -1.0), min(middle + reach, 1.0))


class PairedAccuracyChange(metric_types.Metric):
    """TFMA metric: accuracy minus the baseline's on the same images, or an end of its confidence interval.

    Without a baseline there is none. Predictions are [classes] scores, labels class numbers.

    Args:
        name: CHANGE, CHANGE_LOWER or CHANGE_UPPER: which of the three. One metric gives one value, because TFMA looks
            thresholds up by the key of a metric's configuration.
        confidence: of the two-sided interval.
    """

    def __init__(self, name: str = CHANGE, confidence: float = 0.95) -> None:
        if name not in _VALUES:
            raise ValueError(f"The metric's name is one of {', '.join(_VALUES)}; received {name!r}.")
        super().__init__(_computations, name=name, confidence=confidence)


_VALUES = {CHANGE: "change", CHANGE_LOWER: "lower", CHANGE_UPPER: "upper"}


def _computations(
    name: str = CHANGE,
    confidence: float = 0.95,
    eval_config: Any = None,
    model_names: list[str] | None = None,
    output_names: list[str] | None = None,
    **_: Any,
) -> metric_types.MetricComputations:
    """One computation for each model that has a baseline beside it."""
    baseline = model_util.get_baseline_model_spec(eval_config) if eval_config else None
    if baseline is None:
        return []
    keys = [
        metric_types.MetricKey(name=name, model_name=model_name, output_name=output_name, is_diff=True)
        for model_name in model_names or [""]
        if model_name != baseline.name
        for output_name in output_names or [""]
    ]
    return [
        metric_types.MetricComputation(
            keys=[key],
            preprocessors=None,
            combiner=_Disagreements(eval_config, baseline.name, key, confidence),
        )
        for key in keys
    ]


class _Disagreements(beam.CombineFn):
    """(gained, lost, images) of a slice -> the value that the key's name asks for."""

    def __init__(
        self, eval_config: Any, baseline: str, key: metric_types.MetricKey, confidence: float
    ) -> None:
        self.eval_config, self.baseline, self.key, self.confidence = eval_config, baseline, key, confidence

    def create_accumulator(self) -> tuple[int, int, int]:
        return 0, 0, 0

    def add_input(
        self, accumulator: tuple[int, int, int], element: metric_types.StandardMetricInputs
    ) -> tuple[int, int, int]:
        ours, theirs = (self._is_right(element, name) for name in (self.key.model_name, self.baseline))
        gained, lost, images = accumulator
        return gained + (ours and not theirs), lost + (theirs and not ours), images + 1

    def merge_accumulators(self, accumulators: Iterable[tuple[int, int, int]]) -> tuple[int, int, int]:
        gained, lost, images = (sum(counts) for counts in zip(*accumulators, strict=True))
        return gained, lost, images

    def extract_output(self, accumulator: tuple[int, int, int]) -> dict[metric_types.MetricKey, float]:
        found = paired_change(*accumulator, self.confidence)
        return {self.key: getattr(found, _VALUES[self.key.name])}

    def _is_right(self, element: metric_types.StandardMetricInputs, model_name: str) -> bool:
        label, prediction, _ = next(
            metric_util.to_label_prediction_example_weight(
                element,
                eval_config=self.eval_config,
                model_name=model_name,
                output_name=self.key.output_name,
                flatten=False,
            )
        )
        return bool(prediction.argmax() == int(metric_util.safe_to_scalar(label)))
