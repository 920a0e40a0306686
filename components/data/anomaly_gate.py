"""AnomalyGate: a run stops at data that ExampleValidator or the checks of components/data/data_checks.py object
to.

ExampleValidator itself never fails a run. The gate does, before anything is trained:

    gate = AnomalyGate(examples=..., statistics=..., anomalies=validator.outputs["anomalies"])
    transform.add_upstream_node(gate)

Nothing consumes the gate's output, so that edge is what makes later nodes wait.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any, ClassVar

import tensorflow as tf
import tensorflow_data_validation as tfdv
from absl import logging
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx import types
from tfx.components.example_gen.utils import SPAN_PROPERTY_NAME
from tfx.components.example_validator.executor import DEFAULT_FILE_NAME as ANOMALIES_FILE
from tfx.components.statistics_gen.stats_artifact_utils import BINARY_PB_BASENAME as STATISTICS_FILE
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.orchestration.data_types import RuntimeParameter
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.data import data_checks, data_limits, dataset, features
from components.data.data_limits import DataLimits
from components.data.dataset import CIFAR10, DataSet
from components.data.rows import read_columns

EXAMPLES_KEY = "examples"
STATISTICS_KEY = "statistics"
ANOMALIES_KEY = "anomalies"
EARLIER_EXAMPLES_KEY = "earlier_examples"
FIXED_TEST_KEY = "fixed_test"
REPORT_KEY = "report"
ALLOW_KEY = "allow_anomalies"
DATA_SET_KEY = "data_set"
REPORT_FILE = "findings.json"

_LIMIT_KEYS = tuple(field.name for field in dataclasses.fields(DataLimits))
_SHOWN = 10  # findings in an error message; the rest are counted


class DataAnomalyError(ValueError):
    """The data of this run is not fit to train on; the message names every finding."""


class AnomalyGateSpec(ComponentSpec):
    """AnomalyGate's parameters, inputs and output."""

    PARAMETERS: ClassVar = {
        ALLOW_KEY: ExecutionParameter(type=str),  # as data_limits.told_kinds writes it
        DATA_SET_KEY: ExecutionParameter(type=str, optional=True),
        **{key: ExecutionParameter(type=float) for key in _LIMIT_KEYS},
    }
    INPUTS: ClassVar = {
        EXAMPLES_KEY: ChannelParameter(type=standard_artifacts.Examples),
        STATISTICS_KEY: ChannelParameter(type=standard_artifacts.ExampleStatistics),
        ANOMALIES_KEY: ChannelParameter(type=standard_artifacts.ExampleAnomalies),
        EARLIER_EXAMPLES_KEY: ChannelParameter(type=standard_artifacts.Examples, optional=True),
        FIXED_TEST_KEY: ChannelParameter(type=standard_artifacts.Examples, optional=True),
    }
    OUTPUTS: ClassVar = {REPORT_KEY: ChannelParameter(type=standard_artifacts.ExampleAnomalies)}


class Executor(base_executor.BaseExecutor):
    """Gathers every finding, writes them down, and raises if one is an error."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Raises DataAnomalyError on a finding of error severity whose kind is not among those let through."""
        examples = artifact_utils.get_single_instance(input_dict[EXAMPLES_KEY])
        report = artifact_utils.get_single_instance(output_dict[REPORT_KEY])
        statistics = artifact_utils.get_single_instance(input_dict[STATISTICS_KEY])
        anomalies = artifact_utils.get_single_instance(input_dict[ANOMALIES_KEY])
        span = span_of(examples)
        earlier = newest_before(span, input_dict.get(EARLIER_EXAMPLES_KEY) or [])
        limits = DataLimits(**{key: exec_properties[key] for key in _LIMIT_KEYS})
        names = dataset.from_json(exec_properties.get(DATA_SET_KEY) or "").label_names

        splits = read_splits(examples)
        findings = anomaly_findings(anomalies, span)
        findings += statistics_findings(statistics, span, splits)
        before: Mapping[str, data_checks.Rows] = {}
        findings += data_checks.check_span(span, splits, limits, names)
        for number, artifact in enumerate(earlier):
            check_same_data_set(examples, artifact)
            other = read_splits(artifact)
            if number == 0:
                before = other
                findings += data_checks.check_against(span, splits, span_of(artifact), other, limits, names)
            else:
                findings += data_checks.check_shared(span, splits, span_of(artifact), other)
        for artifact in input_dict.get(FIXED_TEST_KEY) or []:
            findings += data_checks.check_fixed_test(span, splits, read_splits(artifact))

        allowed = data_limits.allowed_kinds(exec_properties[ALLOW_KEY])
        errors = [finding for finding in findings if finding.severity == data_checks.ERROR]
        seen = {
            split: data_checks.can_see(len(rows.labels), _count(before.get(split)), limits, len(names))
            for split, rows in splits.items()
        }
        write_report(report, examples, findings, allowed, seen)
        for finding in findings:
            logging.warning("AnomalyGate: %s", finding)
        stopping = [finding for finding in errors if finding.kind not in allowed]
        if stopping:
            raise DataAnomalyError(_message(stopping))


def _count(rows: data_checks.Rows | None) -> int | None:
    return None if rows is None else len(rows.labels)


class AnomalyGate(base_component.BaseComponent):
    """Stops the run on data anomalies.

    Args:
        examples: this run's Examples, with the splits "train" and "test".
        statistics: StatisticsGen's output for them; must describe as many rows as there are.
        anomalies: ExampleValidator's output for those.
        earlier_examples: Examples of other spans. The latest before this run's is compared for drift, each before
            it for duplicates. Without it, or on a first span, a fault that gives every image plausible figures
            (swapped channels, permuted labels) cannot be seen.
        fixed_test: Examples of a test set that stays the same from span to span; training on its images is an error.
        allow_anomalies: which kinds of findings do not stop the run, as `data_limits.allowed_kinds` reads them;
            findings and the permission are recorded in the output.
        limits: where a finding becomes an error.
        data_set: the data set whose rows these are.

    The output `report` is ExampleAnomalies with `findings.json` and the integer custom properties
    `allow_anomalies` (1 where any kind is let through), `errors` and `warnings`. The file also says what could be seen
    in so many rows.
    """

    SPEC_CLASS = AnomalyGateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(  # noqa: PLR0913, PLR0917 - a component's inputs
        self,
        examples: types.BaseChannel,
        statistics: types.BaseChannel,
        anomalies: types.BaseChannel,
        earlier_examples: types.BaseChannel | None = None,
        allow_anomalies: bool | str | RuntimeParameter = False,
        limits: DataLimits | None = None,
        fixed_test: types.BaseChannel | None = None,
        data_set: DataSet = CIFAR10,
    ) -> None:
        chosen = limits or DataLimits()
        super().__init__(
            spec=AnomalyGateSpec(
                examples=examples,
                statistics=statistics,
                anomalies=anomalies,
                earlier_examples=earlier_examples,
                fixed_test=fixed_test,
                allow_anomalies=data_limits.told_kinds(data_limits.allowed_kinds(allow_anomalies))
                if isinstance(allow_anomalies, bool | str)
                else allow_anomalies,
                data_set=data_set.to_json(),
                report=types.Channel(type=standard_artifacts.ExampleAnomalies),
                **{key: float(getattr(chosen, key)) for key in _LIMIT_KEYS},
            )
        )


def anomaly_findings(anomalies: types.Artifact, span: int) -> list[data_checks.Finding]:
    """Turns ExampleValidator's output into findings."""
    findings = []
    for split in artifact_utils.decode_split_names(anomalies.split_names):
        path = os.path.join(artifact_utils.get_split_uri([anomalies], split), ANOMALIES_FILE)
        with fileio.open(path, "rb") as file:
            found = anomalies_pb2.Anomalies.FromString(file.read())
        for feature, info in [*found.anomaly_info.items(), ("all", found.dataset_anomaly_info)]:
            if info.severity != anomalies_pb2.AnomalyInfo.UNKNOWN:
                is_error = info.severity == anomalies_pb2.AnomalyInfo.ERROR
                severity = data_checks.ERROR if is_error else data_checks.WARNING
                reason = f"{info.short_description}: {info.description.strip()}"
                findings.append(
                    data_checks.Finding(severity, data_limits.SCHEMA, feature, split, span, reason)
                )
    return findings


def statistics_findings(
    statistics: types.Artifact, span: int, splits: Mapping[str, data_checks.Rows]
) -> list[data_checks.Finding]:
    """Finds splits whose statistics, which were validated, describe another number of rows than there are."""
    described = set(artifact_utils.decode_split_names(statistics.split_names))
    findings = []
    for split, rows in splits.items():
        count = 0
        if split in described:
            path = os.path.join(artifact_utils.get_split_uri([statistics], split), STATISTICS_FILE)
            count = tfdv.load_stats_binary(path).datasets[0].num_examples
        if count != len(rows.labels):
            reason = f"statistics describe {count} rows of {len(rows.labels)}; expected all of them"
            findings.append(
                data_checks.Finding(data_checks.ERROR, data_limits.SCHEMA, "all", split, span, reason)
            )
    return findings


def span_of(examples: types.Artifact) -> int:
    """Returns the span that the driver of an ExampleGen recorded, as a custom property; 0 without spans."""
    return examples.get_int_custom_property(SPAN_PROPERTY_NAME)


def data_set_of(examples: types.Artifact) -> DataSet:
    """Returns the data set that ExampleGen recorded; CIFAR-10 of Examples that were made before there were others."""
    return dataset.from_json(examples.get_string_custom_property(DATA_SET_KEY))


def check_same_data_set(examples: types.Artifact, earlier: types.Artifact) -> None:
    """Compares the classes and sizes of two spans.

    Raises:
        DataAnomalyError: they differ; labels of one mean nothing in the other.
    """
    new, old = data_set_of(examples), data_set_of(earlier)
    if not new.fits(old):
        raise DataAnomalyError(
            f"Span {span_of(examples)} has {new.classes} classes ({', '.join(new.label_names[:5])}, ...) at "
            f"{new.height}x{new.width} pixels, span {span_of(earlier)} had {old.classes} "
            f"({', '.join(old.label_names[:5])}, ...) at {old.height}x{old.width}. Spans of one --root are of one data "
            "set; import it with the same classes and --size, or take a new --root."
        )


def newest_before(span: int, artifacts: list[types.Artifact]) -> list[types.Artifact]:
    """Returns the newest Examples of each span before `span`, the latest span first."""
    newest: dict[int, types.Artifact] = {}
    for artifact in sorted(artifacts, key=lambda x: x.id):
        newest[span_of(artifact)] = artifact
    return [newest[number] for number in sorted(newest, reverse=True) if number < span]


def read_splits(examples: types.Artifact) -> dict[str, data_checks.Rows]:
    """Reads every split of an Examples artifact without its pixels."""
    return {
        split: read_rows(artifact_utils.get_split_uri([examples], split))
        for split in artifact_utils.decode_split_names(examples.split_names)
    }


def read_rows(folder: str) -> data_checks.Rows:
    """Reads hashes, labels and figures from the TFRecords of one split.

    Raises:
        DataAnomalyError: there is no row.
    """
    spec = {
        features.CONTENT_HASH: tf.io.FixedLenFeature([], tf.string),
        features.LABEL: tf.io.FixedLenFeature([], tf.int64),
        **{key: tf.io.FixedLenFeature([], tf.float32) for key in features.IMAGE_FIGURES},
    }
    try:
        columns = read_columns(folder, spec)
    except ValueError as error:
        raise DataAnomalyError(str(error)) from error
    return data_checks.Rows(
        hashes=columns[features.CONTENT_HASH].astype("S32"),
        labels=columns[features.LABEL],
        figures={key: columns[key] for key in features.IMAGE_FIGURES},
    )


def write_report(
    report: types.Artifact,
    examples: types.Artifact,
    findings: list[data_checks.Finding],
    allowed: frozenset[str],
    seen: Mapping[str, Mapping[str, float]],
) -> None:
    """Writes `findings.json` and records in the artifact what was found and whether it was let through."""
    report.span = span_of(examples)
    report.split_names = examples.split_names
    errors = sum(finding.severity == data_checks.ERROR for finding in findings)
    report.set_int_custom_property(ALLOW_KEY, int(bool(allowed)))
    report.set_int_custom_property("errors", errors)
    report.set_int_custom_property("warnings", len(findings) - errors)
    rows = [vars(finding) for finding in findings]
    fileio.makedirs(report.uri)
    with fileio.open(os.path.join(report.uri, REPORT_FILE), "w") as file:
        told = {ALLOW_KEY: data_limits.told_kinds(allowed), "span": report.span, "findings": rows}
        file.write(json.dumps({**told, "can_see": seen}, indent=2) + "\n")


def _message(errors: list[data_checks.Finding]) -> str:
    """One line, since a run ends with the last line of what stopped it."""
    shown = [str(finding) for finding in errors[:_SHOWN]]
    if len(errors) > _SHOWN:
        shown.append(f"and {len(errors) - _SHOWN} more")
    kinds = ",".join(kind for kind in data_limits.KINDS if kind in {finding.kind for finding in errors})
    return (
        f"The data has {len(errors)} anomalies of error severity, so nothing was trained: {'; '.join(shown)}. "
        f"Repair the data, or let it through with allow_anomalies={kinds}, which is recorded."
    )
