"""TFMA metrics of the gate that TFMA itself lacks: a paired comparison with the baseline, and calibration.

An EvalConfig names them by `MetricConfig(class_name=..., module="components.gate.gate_metrics")`, so Beam's workers
import this module by name.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis.metrics import metric_types, metric_util
from tensorflow_model_analysis.proto import config_pb2

from components.gate import gate_statistics

MODULE = "components.gate.gate_metrics"
CHANGE_UPPER = "paired_accuracy_change_upper"
CHANGE_LOWER = "paired_accuracy_change_lower"
CHANGE = "paired_accuracy_change"
GAINED = "images_gained"
LOST = "images_lost"
P_VALUE = "mcnemar_p"
CALIBRATION_ERROR = "expected_calibration_error"


class PairedAccuracyChange(metric_types.Metric):
    """The change in accuracy from the baseline to the candidate on the same images, with its interval.

    Its keys are differences, so a `change_threshold` judges them, and TFMA drops that where there is no baseline. They
    are the change itself, both bounds of `gate_statistics.change_interval`, the images gained and lost and McNemar's p.
    A threshold applies to the one that is called `name`:

    - `paired_accuracy_change_upper`: at least -m means "not worse by more than m beyond doubt";
    - `paired_accuracy_change_lower`: at least m means "better by more than m beyond doubt".

    Args:
        name: what the threshold is on, one of the two.
        confidence: of each bound, in (0.5, 1).
    """

    def __init__(self, name: str = CHANGE_UPPER, confidence: float = 0.95) -> None:
        if name not in (CHANGE_UPPER, CHANGE_LOWER):
            raise ValueError(f"Expected the name {CHANGE_UPPER} or {CHANGE_LOWER}, received {name!r}.")
        super().__init__(_paired_computations, name=name, confidence=confidence)


class ExpectedCalibrationError(metric_types.Metric):
    """How far the confidence of the predicted class is from how often that class is right, on average; 0 is best.

    Images are put into bins of equal width by their highest probability; the result is the mean over images of
    |accuracy - mean confidence| of their bin. Source: Guo et al., arXiv 1706.04599, equation 3.

    Args:
        name: of the metric.
        bins: their number.
    """

    def __init__(self, name: str = CALIBRATION_ERROR, bins: int = 15) -> None:
        if bins < 1:
            raise ValueError(f"Expected at least 1 bin, received {bins}.")
        super().__init__(
            metric_util.merge_per_key_computations(_calibration_computations), name=name, bins=bins
        )


def _paired_computations(
    name: str = CHANGE_UPPER,
    eval_config: config_pb2.EvalConfig | None = None,
    model_names: list[str] | None = None,
    confidence: float = 0.95,
    **unused: Any,
) -> metric_types.MetricComputations:
    """One computation for each candidate; none without a baseline."""
    del name, unused
    specs = eval_config.model_specs if eval_config is not None else []
    baselines = [spec.name for spec in specs if spec.is_baseline]
    if not baselines:
        return []
    return [
        metric_types.MetricComputation(
            keys=[
                metric_types.MetricKey(name=key, model_name=candidate, example_weighted=False, is_diff=True)
                for key in (CHANGE, CHANGE_LOWER, CHANGE_UPPER, GAINED, LOST, P_VALUE)
            ],
            preprocessors=None,
            combiner=_PairedCombiner(candidate, baselines[0], eval_config, confidence),
        )
        for candidate in model_names or []
        if candidate != baselines[0]
    ]


@dataclasses.dataclass
class _Disputed:
    gained: int = 0
    lost: int = 0
    count: int = 0


class _PairedCombiner(beam.CombineFn):
    """Counts the images on which candidate and baseline disagree about being right."""

    def __init__(
        self, candidate: str, baseline: str, eval_config: config_pb2.EvalConfig | None, confidence: float
    ) -> None:
        self._candidate = candidate
        self._baseline = baseline
        self._eval_config = eval_config
        self._confidence = confidence

    def create_accumulator(self) -> _Disputed:
        return _Disputed()

    def add_input(self, accumulator: _Disputed, element: metric_types.StandardMetricInputs) -> _Disputed:
        new, old = (
            _is_right(*_label_and_probabilities(element, self._eval_config, name))
            for name in (self._candidate, self._baseline)
        )
        accumulator.gained += new and not old
        accumulator.lost += old and not new
        accumulator.count += 1
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[_Disputed]) -> _Disputed:
        merged = _Disputed()
        for part in accumulators:
            merged.gained += part.gained
            merged.lost += part.lost
            merged.count += part.count
        return merged

    def extract_output(self, accumulator: _Disputed) -> dict[metric_types.MetricKey, float]:
        gained, lost, count = accumulator.gained, accumulator.lost, accumulator.count
        lower, upper = gate_statistics.change_interval(gained, lost, count, self._confidence)
        values = {
            CHANGE: (gained - lost) / count,
            CHANGE_LOWER: lower,
            CHANGE_UPPER: upper,
            GAINED: float(gained),
            LOST: float(lost),
            P_VALUE: gate_statistics.mcnemar_p(gained, lost),
        }
        return {
            metric_types.MetricKey(
                name=name, model_name=self._candidate, example_weighted=False, is_diff=True
            ): value
            for name, value in values.items()
        }


def _calibration_computations(
    name: str,
    eval_config: config_pb2.EvalConfig | None = None,
    model_name: str = "",
    output_name: str = "",
    example_weighted: bool = False,
    bins: int = 15,
    **unused: Any,
) -> metric_types.MetricComputations:
    del unused
    key = metric_types.MetricKey(
        name=name, model_name=model_name, output_name=output_name, example_weighted=example_weighted
    )
    return [
        metric_types.MetricComputation(
            keys=[key], preprocessors=None, combiner=_CalibrationCombiner(key, eval_config, bins)
        )
    ]


class _CalibrationCombiner(beam.CombineFn):
    """Sums count, confidence and right answers of each bin: float64 [bins, 3]."""

    def __init__(
        self, key: metric_types.MetricKey, eval_config: config_pb2.EvalConfig | None, bins: int
    ) -> None:
        self._key = key
        self._eval_config = eval_config
        self._bins = bins

    def create_accumulator(self) -> np.ndarray:
        return np.zeros((self._bins, 3))

    def add_input(self, accumulator: np.ndarray, element: metric_types.StandardMetricInputs) -> np.ndarray:
        label, probabilities = _label_and_probabilities(element, self._eval_config, self._key.model_name)
        confidence = float(probabilities.max())
        chosen = min(int(confidence * self._bins), self._bins - 1)
        accumulator[chosen] += (1, confidence, _is_right(label, probabilities))
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[np.ndarray]) -> np.ndarray:
        return np.sum(list(accumulators), axis=0)

    def extract_output(self, accumulator: np.ndarray) -> dict[metric_types.MetricKey, float]:
        count, confidence, right = accumulator.T
        return {self._key: float(np.abs(right - confidence).sum() / count.sum())}


def _label_and_probabilities(
    element: metric_types.StandardMetricInputs, eval_config: config_pb2.EvalConfig | None, model_name: str
) -> tuple[int, np.ndarray]:
    """The label, and probabilities float [classes], that one model gives one image."""
    label, prediction, _ = next(
        metric_util.to_label_prediction_example_weight(
            element, eval_config=eval_config, model_name=model_name, flatten=False, allow_none=True
        )
    )
    return int(np.asarray(label).reshape(-1)[0]), np.asarray(prediction).reshape(-1)


def _is_right(label: int, probabilities: np.ndarray) -> bool:
    return bool(probabilities.argmax() == label)
