"""What TFMA measures and the thresholds that decide."""

import json

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2

from components import features, metrics
from pipeline.config import GateConfig

SIGNATURE = "evaluate"
PREDICTION = "probabilities"
ACCURACY = "sparse_categorical_accuracy"
EXAMPLE_COUNT = "example_count"
_TOP_K = 5
_BY_LABEL = tfma.SlicingSpec(feature_keys=[features.LABEL])


def gate(config: GateConfig) -> tfma.EvalConfig:
    """The Evaluator's configuration: floors, no regression, and every test image counted.

    The floor of a class is a threshold of its own on the slices by label; all others hold for the overall slice alone.
    """
    overall = _threshold(
        [tfma.SlicingSpec()],
        value_lower_bound=config.minimum_accuracy,
        change_lower_bound=-config.maximum_regression,
    )
    each_class = _threshold([_BY_LABEL], value_lower_bound=config.minimum_class_accuracy)
    every_row = _threshold([tfma.SlicingSpec()], value_lower_bound=float(config.minimum_test_images))
    return tfma.EvalConfig(
        model_specs=[_model_spec()],
        slicing_specs=[tfma.SlicingSpec(), _BY_LABEL],
        metrics_specs=[
            tfma.MetricsSpec(
                metrics=[
                    tfma.MetricConfig(
                        class_name="SparseCategoricalAccuracy", per_slice_thresholds=[overall, each_class]
                    ),
                    tfma.MetricConfig(class_name="ExampleCount", per_slice_thresholds=[every_row]),
                    *_readings(),
                    *_paired_test(config.confidence),
                ]
            )
        ],
    )


def measurement() -> tfma.EvalConfig:
    """The control's configuration: the same metrics without thresholds, so that nothing is ever blessed by it."""
    return tfma.EvalConfig(
        model_specs=[_model_spec()],
        slicing_specs=[tfma.SlicingSpec(), _BY_LABEL],
        metrics_specs=[
            tfma.MetricsSpec(
                metrics=[
                    tfma.MetricConfig(class_name="SparseCategoricalAccuracy"),
                    tfma.MetricConfig(class_name="ExampleCount"),
                    *_readings(),
                ]
            )
        ],
    )


def _model_spec() -> tfma.ModelSpec:
    return tfma.ModelSpec(signature_name=SIGNATURE, label_key=features.LABEL, prediction_key=PREDICTION)


def _readings() -> list[tfma.MetricConfig]:
    return [
        tfma.MetricConfig(class_name="SparseTopKCategoricalAccuracy", config=f'{{"k": {_TOP_K}}}'),
        tfma.MetricConfig(class_name="SparseCategoricalCrossentropy"),
        tfma.MetricConfig(class_name="MultiClassConfusionMatrixPlot"),
    ]


def _paired_test(confidence: float) -> list[tfma.MetricConfig]:
    """Refused when the whole interval of the change lies below 0. Without a baseline it is silent."""
    no_loss = _threshold([tfma.SlicingSpec()], change_lower_bound=0.0)
    return [
        tfma.MetricConfig(
            class_name=metrics.PairedAccuracyChange.__name__,
            module=metrics.__name__,
            config=json.dumps({"name": name, "confidence": confidence}),
            per_slice_thresholds=[no_loss] if name == metrics.CHANGE_UPPER else [],
        )
        for name in (metrics.CHANGE, metrics.CHANGE_LOWER, metrics.CHANGE_UPPER)
    ]


def _threshold(
    slices: list[tfma.SlicingSpec],
    value_lower_bound: float | None = None,
    change_lower_bound: float | None = None,
) -> config_pb2.PerSliceMetricThreshold:
    """Bounds on some slices; one on the change needs a baseline to act."""
    threshold = config_pb2.MetricThreshold()
    if value_lower_bound is not None:
        threshold.value_threshold.lower_bound.value = value_lower_bound
    if change_lower_bound is not None:
        threshold.change_threshold.direction = config_pb2.MetricDirection.HIGHER_IS_BETTER
        threshold.change_threshold.absolute.value = change_lower_bound
    return config_pb2.PerSliceMetricThreshold(slicing_specs=slices, threshold=threshold)
