"""What TFMA measures and the thresholds that decide."""

import json
from collections.abc import Sequence

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2

from components.data import features
from components.gate import gate_metrics, quality_bands
from pipeline.config import GateConfig

SIGNATURE = "evaluate"
PREDICTION = "probabilities"
ACCURACY = "sparse_categorical_accuracy"
EXAMPLE_COUNT = "example_count"
EXTRACTORS = "components.gate.quality_bands"
_TOP_K = 5  # or less of fewer classes, where five always hold the right one
CLASSES = len(features.LABEL_NAMES)  # of CIFAR-10


def gate(config: GateConfig, label_names: Sequence[str] = features.LABEL_NAMES) -> tfma.EvalConfig:
    """The Evaluator's configuration: floors, no regression against the served model, every test image counted.

    Each threshold names its slice: the overall one, or one class. The slices by image quality are for reading.
    """
    accuracy = [_floor(config.minimum_accuracy, tfma.SlicingSpec())]
    accuracy += [_floor(floor, _label_slice(label)) for label, floor in enumerate(config.floors(label_names))]
    return _eval_config(
        len(label_names),
        tfma.MetricConfig(class_name="SparseCategoricalAccuracy", per_slice_thresholds=accuracy),
        tfma.MetricConfig(
            class_name="ExampleCount",
            per_slice_thresholds=[_floor(float(config.minimum_test_images), tfma.SlicingSpec())],
        ),
        _paired(gate_metrics.CHANGE_UPPER, -config.maximum_regression, config.confidence),
    )


def newest(config: GateConfig, classes: int = CLASSES) -> tfma.EvalConfig:
    """The configuration for the newest span's own test images: the same comparison, and no floor, for they are few.

    That there is a row is asked as well: without any threshold, as on a first run, TFMA blesses nothing.
    """
    return _eval_config(
        classes,
        tfma.MetricConfig(class_name="SparseCategoricalAccuracy"),
        tfma.MetricConfig(class_name="ExampleCount", per_slice_thresholds=[_floor(1.0, tfma.SlicingSpec())]),
        _paired(gate_metrics.CHANGE_UPPER, -config.maximum_regression, config.confidence),
    )


def gain(config: GateConfig, classes: int = CLASSES) -> tfma.EvalConfig:
    """The control's configuration: the same metrics against the untrained encoder, which must be beaten."""
    return _eval_config(
        classes,
        tfma.MetricConfig(class_name="SparseCategoricalAccuracy"),
        tfma.MetricConfig(class_name="ExampleCount"),
        _paired(gate_metrics.CHANGE_LOWER, config.minimum_gain, config.confidence),
    )


def _eval_config(classes: int, *decisive: tfma.MetricConfig) -> tfma.EvalConfig:
    return tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(signature_name=SIGNATURE, label_key=features.LABEL, prediction_key=PREDICTION)
        ],
        slicing_specs=[
            tfma.SlicingSpec(),
            tfma.SlicingSpec(feature_keys=[features.LABEL]),
            *(tfma.SlicingSpec(feature_keys=[band]) for band in quality_bands.BANDS),
        ],
        metrics_specs=[tfma.MetricsSpec(metrics=[*decisive, *_readings(classes)])],
    )


def _readings(classes: int) -> list[tfma.MetricConfig]:
    return [
        tfma.MetricConfig(
            class_name="SparseTopKCategoricalAccuracy", config=json.dumps({"k": min(_TOP_K, classes - 1)})
        ),
        tfma.MetricConfig(class_name="SparseCategoricalCrossentropy"),
        tfma.MetricConfig(class_name="ExpectedCalibrationError", module=gate_metrics.MODULE),
        tfma.MetricConfig(class_name="MultiClassConfusionMatrixPlot"),
    ]


def _paired(bound: str, least: float, confidence: float) -> tfma.MetricConfig:
    """The paired comparison with the baseline, one bound of which must be at least `least`."""
    threshold = config_pb2.MetricThreshold()
    threshold.change_threshold.direction = config_pb2.MetricDirection.HIGHER_IS_BETTER
    threshold.change_threshold.absolute.value = least + 0.0  # never minus zero
    return tfma.MetricConfig(
        class_name="PairedAccuracyChange",
        module=gate_metrics.MODULE,
        config=json.dumps({"name": bound, "confidence": confidence}),
        per_slice_thresholds=[
            config_pb2.PerSliceMetricThreshold(slicing_specs=[tfma.SlicingSpec()], threshold=threshold)
        ],
    )


def _floor(value: float, where: tfma.SlicingSpec) -> config_pb2.PerSliceMetricThreshold:
    threshold = config_pb2.MetricThreshold()
    threshold.value_threshold.lower_bound.value = value
    return config_pb2.PerSliceMetricThreshold(slicing_specs=[where], threshold=threshold)


def _label_slice(label: int) -> tfma.SlicingSpec:
    return tfma.SlicingSpec(feature_values={features.LABEL: str(label)})
