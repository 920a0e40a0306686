"""What TFMA measures and the thresholds that decide."""

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2

from components import features
from pipeline.config import GateConfig

SIGNATURE = "evaluate"
PREDICTION = "probabilities"
ACCURACY = "sparse_categorical_accuracy"
EXAMPLE_COUNT = "example_count"
_TOP_K = 5


def gate(config: GateConfig) -> tfma.EvalConfig:
    """The Evaluator's configuration: the floor, no regression, and every test image counted.

    The thresholds hold for the overall slice alone; the slices by label are for reading.
    """
    return tfma.EvalConfig(
        model_specs=[_model_spec()],
        slicing_specs=_slices(),
        metrics_specs=[
            tfma.MetricsSpec(
                metrics=[
                    _metric(
                        "SparseCategoricalAccuracy",
                        value_lower_bound=config.minimum_accuracy,
                        change_lower_bound=-config.maximum_regression,
                    ),
                    _metric("ExampleCount", value_lower_bound=float(config.minimum_test_images)),
                    *_readings(),
                ]
            )
        ],
    )


def measurement() -> tfma.EvalConfig:
    """The control's configuration: the same metrics without thresholds, so that nothing is ever blessed by it."""
    return tfma.EvalConfig(
        model_specs=[_model_spec()],
        slicing_specs=_slices(),
        metrics_specs=[
            tfma.MetricsSpec(
                metrics=[_metric("SparseCategoricalAccuracy"), _metric("ExampleCount"), *_readings()]
            )
        ],
    )


def _model_spec() -> tfma.ModelSpec:
    return tfma.ModelSpec(signature_name=SIGNATURE, label_key=features.LABEL, prediction_key=PREDICTION)


def _slices() -> list[tfma.SlicingSpec]:
    return [tfma.SlicingSpec(), tfma.SlicingSpec(feature_keys=[features.LABEL])]


def _readings() -> list[tfma.MetricConfig]:
    return [
        tfma.MetricConfig(class_name="SparseTopKCategoricalAccuracy", config=f'{{"k": {_TOP_K}}}'),
        tfma.MetricConfig(class_name="SparseCategoricalCrossentropy"),
        tfma.MetricConfig(class_name="MultiClassConfusionMatrixPlot"),
    ]


def _metric(
    name: str, value_lower_bound: float | None = None, change_lower_bound: float | None = None
) -> tfma.MetricConfig:
    """A metric with its thresholds on the overall slice; a change threshold needs a baseline to act."""
    threshold = config_pb2.MetricThreshold()
    if value_lower_bound is not None:
        threshold.value_threshold.lower_bound.value = value_lower_bound
    if change_lower_bound is not None:
        threshold.change_threshold.direction = config_pb2.MetricDirection.HIGHER_IS_BETTER
        threshold.change_threshold.absolute.value = change_lower_bound
    if not threshold.ByteSize():
        return tfma.MetricConfig(class_name=name)
    return tfma.MetricConfig(
        class_name=name,
        per_slice_thresholds=[
            config_pb2.PerSliceMetricThreshold(slicing_specs=[tfma.SlicingSpec()], threshold=threshold)
        ],
    )
