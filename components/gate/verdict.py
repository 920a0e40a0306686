"""The verdict: everything that was measured against everything that was asked, and the one blessing that counts.

TFMA's two evaluations, the accuracy under corruption and the serving check each know a part. The verdict lists every
criterion (metric, slice, threshold, value, baseline), blesses the model if all are met, and says in a sentence and a
table what was missed. It is written for machines (`verdict.json`) and for people (`verdict.md`), and stays in ML
Metadata as the component's output.
"""

import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import tensorflow_model_analysis as tfma
from absl import logging
from tensorflow_model_analysis.proto import validation_result_pb2
from tfx import types
from tfx.components.evaluator import constants
from tfx.components.util import model_utils
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components.data import dataset, features
from components.gate import gate_metrics, gate_statistics, markdown_table, misses, robustness
from components.serving import pusher
from components.serving.serving_limits import PUSH, REFUSE

JSON_FILE = "verdict.json"
MARKDOWN_FILE = "verdict.md"
REASON_PROPERTY = "reason"
ACCURACY = "sparse_categorical_accuracy"
EXAMPLE_COUNT = "example_count"
OVERALL = "all test images"
NEWEST = "the newest span's test images"
SERVED = "the served model"
ACCURACY_PROPERTY, BASELINE_ACCURACY_PROPERTY = "accuracy", "baseline_accuracy"
COMPARISON_PROPERTY, CRITERIA_PROPERTY = "comparison", "criteria"
FIRST, BETTER, WORSE, EQUAL = "no baseline", "better", "worse", "no measurable difference"
LABELS = "labelled test pictures"
NOT_JUDGED = "none, so nothing can be judged; --set gate.without_labels=push pushes the encoder all the same"
PASSED_UNJUDGED = "none, so nothing was judged; gate.without_labels=push let it pass"
WHOLE_MATRIX = 40  # classes up to which a table of all by all can be read, and is written
CONFUSIONS = 50  # that are written of any number of classes
_PATH_PARTS = 4  # of .../RUN/STEP/OUTPUT/Format-Serving
_FLOOR, _CHANGE = "floor", "floor of the change"
_DIFFERENCE = "_diff"  # TFMA's ending of a metric's difference to the baseline


@dataclasses.dataclass(frozen=True)
class Criterion:
    """One thing that was asked of the model.

    Attributes:
        metric: its name.
        slice: on which images.
        threshold: the least that is good enough.
        value: what was measured; None if nothing was.
        baseline: the same metric of the model it is compared with, or that model's accuracy for a paired change.
        passed: whether the value is good enough, by the component that measured it.
        kind: whether the threshold is on the value or on its change.
        remark: what else a person should know.
    """

    metric: str
    slice: str
    threshold: float | None
    value: float | None
    baseline: float | None
    passed: bool
    kind: str = _FLOOR
    remark: str = ""


@component
def Verdict(  # noqa: N802, PLR0913, PLR0917 - the name is the component's, and so are its inputs
    model: InputArtifact[standard_artifacts.Model],
    infra_blessing: InputArtifact[standard_artifacts.InfraBlessing],
    blessing: OutputArtifact[standard_artifacts.ModelBlessing],
    verdict: OutputArtifact[standard_artifacts.ModelEvaluation],
    minimum_corrupted_accuracy: Parameter[float],
    minimum_worst_corrupted_accuracy: Parameter[float],
    evaluation: InputArtifact[standard_artifacts.ModelEvaluation] = None,  # type: ignore[assignment]
    evaluation_blessing: InputArtifact[standard_artifacts.ModelBlessing] = None,  # type: ignore[assignment]
    gain: InputArtifact[standard_artifacts.ModelEvaluation] = None,  # type: ignore[assignment]
    gain_blessing: InputArtifact[standard_artifacts.ModelBlessing] = None,  # type: ignore[assignment]
    corrupted: InputArtifact[standard_artifacts.ModelEvaluation] = None,  # type: ignore[assignment]
    newest: InputArtifact[standard_artifacts.ModelEvaluation] = None,  # type: ignore[assignment]
    newest_blessing: InputArtifact[standard_artifacts.ModelBlessing] = None,  # type: ignore[assignment]
    seed_spread: Parameter[float] = 0.0,
    without_labels: Parameter[str] = REFUSE,
    data_set: Parameter[str] = "",
    source_digest: Parameter[str] = "",
) -> None:
    """Blesses the model if every criterion is met by evidence about this very model.

    Of a data set without labels there is no evaluation. Then one criterion stands for all that could not be asked, and
    `without_labels` decides on it.

    Args:
        model: the exported model.
        evaluation, evaluation_blessing: the Evaluator's, with the served model as baseline where there is one; none
            of these and of the three below where nothing is labelled.
        gain, gain_blessing: the Evaluator's with the untrained encoder as baseline.
        corrupted: Robustness's `robustness.json`.
        infra_blessing: the serving check's.
        blessing: gets what Pusher reads: `blessed`, `current_model`, `current_model_id`.
        verdict: gets `verdict.json` and `verdict.md`, and the properties `blessed`, `reason`, `criteria` (as JSON),
            `comparison`, `accuracy` and, if there is a baseline, `baseline_accuracy`; they outlive the files.
        minimum_corrupted_accuracy, minimum_worst_corrupted_accuracy: floors for `corrupted`.
        newest, newest_blessing: an Evaluator's on the newest span's test images alone; both or neither.
        seed_spread: how far the accuracies of one recipe's seeds lie apart; a smaller change is not called better.
        without_labels: "push" lets a model pass of which nothing can be judged; "refuse" does not.
        data_set: what it was judged on, as `DataSet.to_json` writes it.
        source_digest: of this component's source files: part of the cache key, and nothing else.

    Raises:
        ValueError: some of the evidence is missing, of a data set with labels or without.
    """
    del source_digest
    names = dataset.from_json(data_set).label_names
    evidence = (evaluation, evaluation_blessing, gain, gain_blessing, corrupted)
    if any((artifact is not None) != bool(names) for artifact in evidence):
        given = sum(artifact is not None for artifact in evidence)
        raise ValueError(
            f"Expected {len(evidence) if names else 'no'} inputs about {len(names)} classes, received {given}."
        )
    if not names:
        _write(blessing, verdict, unjudged(model, infra_blessing, without_labels == PUSH), model)
        return
    report = json.loads((pathlib.Path(corrupted.uri) / robustness.REPORT_FILE).read_text(encoding="utf-8"))
    judged = Evaluation(evaluation.uri, names)
    newest_judged = _newest_evaluation(newest, newest_blessing, names)
    control = Evaluation(gain.uri, names)
    criteria = [
        *judged.criteria(SERVED),
        *newest_criteria(newest_judged),
        *gain_criteria(control),
        *robustness_criteria(report, minimum_corrupted_accuracy, minimum_worst_corrupted_accuracy),
        _serving_criterion(infra_blessing),
        *_evidence_criteria(
            model,
            {
                "evaluation": evaluation_blessing,
                "gain over the untrained encoder": gain_blessing,
                **({} if newest_blessing is None else {"newest span": newest_blessing}),
            },
            {"accuracy under corruption": corrupted, "serving check": infra_blessing},
        ),
        *_judged_criteria(
            model,
            {
                "evaluation": judged,
                "gain over the untrained encoder": control,
                **({} if newest_judged is None else {"newest span": newest_judged}),
            },
        ),
    ]
    record = compose(criteria, judged, report, newest_judged, seed_spread) | {
        "control": control.comparison(),
        "model": {"uri": model.uri, "id": int(model.id)},
        "baseline_model": evaluation_blessing.get_string_custom_property(
            constants.ARTIFACT_PROPERTY_BASELINE_MODEL_URI_KEY
        ),
    }
    _write(blessing, verdict, record, model)


class Evaluation:
    """What TFMA wrote about one model, and about its baseline if there is one.

    Args:
        uri: of the `ModelEvaluation`.
        label_names: of the classes.
    """

    def __init__(self, uri: str, label_names: tuple[str, ...] = features.LABEL_NAMES) -> None:
        self.label_names = label_names
        result = tfma.load_eval_result(uri)
        specs = result.config.model_specs
        self.has_baseline = len(specs) > 1
        names = {spec.is_baseline: spec.name for spec in specs}
        if self.has_baseline:
            result = tfma.load_eval_result(uri, model_name=names[False])
        self.config = result.config
        self.metrics = _numbers(result)
        self.baseline_metrics = (
            _numbers(tfma.load_eval_result(uri, model_name=names[True])) if self.has_baseline else {}
        )
        self.confusion_matrix = _confusion_matrix(result, len(label_names))
        self.model_path = str(result.model_location)
        self.validation: validation_result_pb2.ValidationResult = tfma.load_validation_result(uri)

    def criteria(self, baseline_name: str) -> list[Criterion]:
        """Every threshold of the evaluation's configuration, and TFMA's own decision where it is stricter."""
        found = [
            self._criterion(_metric_name(metric), _slice_of(where), entry.threshold, baseline_name)
            for spec in self.config.metrics_specs
            for metric in spec.metrics
            for entry in metric.per_slice_thresholds
            if entry.threshold.HasField("value_threshold") or entry.threshold.HasField("change_threshold")
            for where in entry.slicing_specs
        ]
        if not self.validation.validation_ok and all(criterion.passed for criterion in found):
            missing = "TFMA did not validate the model; a slice with a threshold may have no rows"
            found.append(Criterion("evaluation", OVERALL, None, None, None, passed=False, remark=missing))
        return found

    def comparison(self, seed_spread: float = 0.0) -> dict[str, Any]:
        """Whether the model is better than its baseline, worse, or not measurably different.

        Args:
            seed_spread: what another seed of the same recipe changes; the interval has to lie beyond it.
        """
        if not self.has_baseline:
            return {"result": FIRST}
        overall = self.metrics[()]
        lower = overall[gate_metrics.CHANGE_LOWER + _DIFFERENCE]
        upper = overall[gate_metrics.CHANGE_UPPER + _DIFFERENCE]
        return {
            "result": BETTER if lower > seed_spread else WORSE if upper < -seed_spread else EQUAL,
            "accuracy": overall[ACCURACY],
            "baseline_accuracy": self.baseline_metrics[()][ACCURACY],
            "change": overall[gate_metrics.CHANGE + _DIFFERENCE],
            "interval": [lower, upper],
            "images_gained": overall[gate_metrics.GAINED + _DIFFERENCE],
            "images_lost": overall[gate_metrics.LOST + _DIFFERENCE],
            "mcnemar_p": overall[gate_metrics.P_VALUE + _DIFFERENCE],
        }

    def confusions(self) -> list[dict[str, Any]]:
        """What is most often taken for what: `true` and `predicted` names, and `images`, the most first."""
        wrong = [
            (-count, actual, predicted)
            for actual, row in enumerate(self.confusion_matrix)
            for predicted, count in enumerate(row)
            if count and actual != predicted
        ]
        names = self.label_names
        return [
            {"true": names[actual], "predicted": names[predicted], "images": -count}
            for count, actual, predicted in sorted(wrong)[:CONFUSIONS]
        ]

    def slice_name(self, where: tuple[Any, ...]) -> str:
        """A TFMA slice key in words: class labels by name."""
        if not where:
            return OVERALL
        return ", ".join(
            f"{feature}={self.label_names[int(value)] if feature == features.LABEL else _text(value)}"
            for feature, value in where
        )

    def _criterion(self, name: str, where: tuple[Any, ...], threshold: Any, baseline_name: str) -> Criterion:
        is_change = threshold.HasField("change_threshold")
        value = self.metrics.get(where, {}).get(name + _DIFFERENCE if is_change else name)
        baseline = self.baseline_metrics.get(where, {}).get(ACCURACY if is_change else name)
        if not is_change:
            least = threshold.value_threshold.lower_bound.value
            return Criterion(name, self.slice_name(where), least, value, baseline, _reaches(value, least))
        least = threshold.change_threshold.absolute.value
        overall = self.metrics.get(where, {})
        remark = (
            f"against {baseline_name}: accuracy {overall.get(ACCURACY, math.nan):.4f} for {baseline:.4f}, "
            f"{overall.get(gate_metrics.GAINED + _DIFFERENCE, 0):.0f} images gained and "
            f"{overall.get(gate_metrics.LOST + _DIFFERENCE, 0):.0f} lost"
            if baseline is not None
            else ""
        )
        return Criterion(
            name, self.slice_name(where), least, value, baseline, _reaches(value, least), _CHANGE, remark
        )


def newest_criteria(newest: Evaluation | None) -> list[Criterion]:
    """The criteria on the newest span's test images, named after them; none without an evaluation of those."""
    if newest is None:
        return []
    return [
        dataclasses.replace(
            criterion, slice=NEWEST if criterion.slice == OVERALL else f"{criterion.slice}, {NEWEST}"
        )
        for criterion in newest.criteria(SERVED)
    ]


def gain_criteria(gain: Evaluation) -> list[Criterion]:
    """The criteria of the control; that there is none is itself a failure, as no one may forget to ask."""
    found = [c for c in gain.criteria("the untrained encoder") if c.kind == _CHANGE]
    if found:
        return found
    absent = "the untrained encoder was not evaluated"
    return [Criterion("gain", OVERALL, None, None, None, passed=False, remark=absent)]


def robustness_criteria(
    report: Mapping[str, Any], minimum_mean: float, minimum_worst: float
) -> list[Criterion]:
    """The floors of the mean over corruptions and of each.

    Args:
        report: what `robustness.measure` returns.
        minimum_mean, minimum_worst: accuracies, 0 to 1.
    """
    corrupted = {name: value for name, value in report["accuracy"].items() if name != robustness.CLEAN}
    clean = report["accuracy"][robustness.CLEAN]
    remark = f"the baseline is the accuracy on the same {report['images']} images as they are"
    mean = sum(corrupted.values()) / len(corrupted)
    rows = [("mean of all corruptions", mean, minimum_mean)]
    rows += [
        (f"{name} of severity {report['severity']}", corrupted[name], minimum_worst) for name in corrupted
    ]
    return [
        Criterion(
            "accuracy_under_corruption", name, least, value, clean, _reaches(value, least), remark=remark
        )
        for name, value, least in rows
    ]


def compose(
    criteria: list[Criterion],
    judged: Evaluation,
    corrupted: Mapping[str, Any],
    newest: Evaluation | None = None,
    seed_spread: float = 0.0,
) -> dict[str, Any]:
    """The verdict as plain values; numbers that are not finite become None.

    Returns:
        `blessed`, `reason` (one sentence, empty if blessed), `criteria`, `comparison`, `metrics`, `baseline_metrics`,
        `slices` (name -> metrics, with the 95% interval of the accuracy), `confusion_matrix` (empty of more classes
        than WHOLE_MATRIX), `confusions` (`Evaluation.confusions`), `corrupted`, `newest`
        (`metrics`, `baseline_metrics` and `comparison` on the newest span's test images; None if not evaluated).
    """
    listed = [
        {key: _finite(value) for key, value in dataclasses.asdict(criterion).items()}
        for criterion in criteria
    ]
    return {
        "judged": True,
        "blessed": all(criterion.passed for criterion in criteria),
        "reason": misses.sentence(listed),
        "criteria": listed,
        **_overall(judged, seed_spread),
        "slices": {
            judged.slice_name(where): _with_interval(values)
            for where, values in sorted(judged.metrics.items(), key=lambda item: str(item[0]))
            if where
        },
        "confusion_matrix": judged.confusion_matrix if len(judged.label_names) <= WHOLE_MATRIX else [],
        "confusions": judged.confusions(),
        "corrupted": dict(corrupted),
        "newest": None if newest is None else _overall(newest, seed_spread),
    }


def unjudged(model: types.Artifact, infra_blessing: types.Artifact, passes: bool) -> dict[str, Any]:
    """The verdict on a model of which nothing can be measured, in the form of `compose`'s, with the model.

    Args:
        model: the exported model.
        infra_blessing: the serving check's.
        passes: whether it is blessed all the same.
    """
    criteria = [
        Criterion(
            LABELS, OVERALL, None, None, None, passes, remark=PASSED_UNJUDGED if passes else NOT_JUDGED
        ),
        _serving_criterion(infra_blessing),
        *_evidence_criteria(model, {}, {"serving check": infra_blessing}),
    ]
    listed = [dataclasses.asdict(criterion) for criterion in criteria]
    nothing: dict[str, Any] = {"comparison": {"result": FIRST}, "metrics": {}, "baseline_metrics": {}}
    return {
        "judged": False,
        "blessed": all(criterion.passed for criterion in criteria),
        "reason": misses.sentence(listed),
        "criteria": listed,
        **nothing,
        "slices": {},
        "confusion_matrix": [],
        "confusions": [],
        "corrupted": {},
        "newest": None,
        "control": {"result": FIRST},
        "model": {"uri": model.uri, "id": int(model.id)},
        "baseline_model": "",
    }


def _overall(judged: Evaluation, seed_spread: float) -> dict[str, Any]:
    """What one evaluation says about all of its images."""
    return {
        "comparison": judged.comparison(seed_spread),
        "metrics": _with_interval(judged.metrics[()]),
        "baseline_metrics": {k: _finite(v) for k, v in judged.baseline_metrics.get((), {}).items()},
    }


def markdown(record: Mapping[str, Any]) -> str:
    """The verdict for people."""
    heading = "Blessed" if record["blessed"] else "Not blessed"
    lines = [f"# {heading}", ""]
    if not record["blessed"]:
        lines += [
            f"{markdown_table.escaped(record['reason'])}.",
            "",
            *misses.markdown(misses.misses(record["criteria"])),
            "",
        ]
    if record["judged"]:
        lines += [f"Against {SERVED}: {comparison_sentence(record['comparison'])}.", ""]
    else:
        lines += ["No picture of the data set has a label, so nothing was judged.", ""]
    if record["newest"]:
        accuracy = accuracy_sentence(record["newest"]["metrics"])
        change = comparison_sentence(record["newest"]["comparison"])
        lines += [f"On {NEWEST} alone: {accuracy}; against {SERVED}: {change}.", ""]
    rows = [
        (
            "met" if criterion["passed"] else "missed",
            criterion["metric"],
            criterion["slice"],
            *(_number(criterion[key]) for key in ("threshold", "value", "baseline")),
        )
        for criterion in record["criteria"]
    ]
    lines += markdown_table.lines(("", "metric", "images", "threshold", "value", "baseline"), rows)
    return "\n".join(lines) + "\n"


def accuracy_sentence(metrics: Mapping[str, Any]) -> str:
    """An accuracy with the number of its images and its interval, in words."""
    low, high = metrics["accuracy_interval"]
    return (
        f"right on {metrics[ACCURACY]:.2%} of {metrics[EXAMPLE_COUNT]:.0f} "
        f"(95% interval {low:.2%} to {high:.2%})"
    )


def comparison_sentence(comparison: Mapping[str, Any]) -> str:
    """The comparison with the baseline in words."""
    if comparison["result"] == FIRST:
        return "there is none yet"
    lower, upper = comparison["interval"]
    return (
        f"{comparison['result']}; accuracy {comparison['accuracy']:.4f} for {comparison['baseline_accuracy']:.4f}, "
        f"change {comparison['change']:+.4f} in [{lower:+.4f}, {upper:+.4f}], "
        f"{comparison['images_gained']:.0f} images gained and {comparison['images_lost']:.0f} lost, "
        f"McNemar's p {comparison['mcnemar_p']:.2g}"
    )


def _write(
    blessing: types.Artifact, verdict: types.Artifact, record: dict[str, Any], model: types.Artifact
) -> None:
    for artifact in (blessing, verdict):
        pathlib.Path(artifact.uri).mkdir(parents=True, exist_ok=True)
        artifact.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, int(record["blessed"]))
        artifact.set_string_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY, model.uri)
        artifact.set_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, int(model.id))
    _describe(verdict, record)
    name = constants.BLESSED_FILE_NAME if record["blessed"] else constants.NOT_BLESSED_FILE_NAME
    (pathlib.Path(blessing.uri) / name).touch()
    folder = pathlib.Path(verdict.uri)
    (folder / JSON_FILE).write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    (folder / MARKDOWN_FILE).write_text(markdown(record), encoding="utf-8")
    logging.info("%s", markdown(record))


def _describe(verdict: types.Artifact, record: Mapping[str, Any]) -> None:
    """What must outlive the files: a history is read from ML Metadata when old files are pruned."""
    verdict.set_string_custom_property(REASON_PROPERTY, record["reason"])
    verdict.set_string_custom_property(CRITERIA_PROPERTY, json.dumps(record["criteria"]))
    verdict.set_string_custom_property(COMPARISON_PROPERTY, record["comparison"]["result"])
    measured = {
        ACCURACY_PROPERTY: record["metrics"].get(ACCURACY),
        BASELINE_ACCURACY_PROPERTY: record["baseline_metrics"].get(ACCURACY),
    }
    for name, value in measured.items():
        if value is not None:
            verdict.set_float_custom_property(name, value)


def _newest_evaluation(
    newest: types.Artifact | None, newest_blessing: types.Artifact | None, label_names: tuple[str, ...]
) -> Evaluation | None:
    """The evaluation on the newest span's test images, if there is one.

    Raises:
        ValueError: there is an evaluation without its blessing, or the reverse.
    """
    if (newest is None) != (newest_blessing is None):
        given = "newest_blessing" if newest is None else "newest"
        raise ValueError(f"Expected newest and newest_blessing, or neither; received {given} alone.")
    return None if newest is None else Evaluation(newest.uri, label_names)


def _serving_criterion(infra_blessing: types.Artifact) -> Criterion:
    passed = model_utils.is_infra_validated(infra_blessing)
    reason = infra_blessing.get_string_custom_property("reason")
    return Criterion("serving check", OVERALL, None, None, None, passed, remark=reason)


def _evidence_criteria(
    model: types.Artifact, blessings: Mapping[str, types.Artifact], reports: Mapping[str, types.Artifact]
) -> list[Criterion]:
    """What is wrong with the evidence itself: it is about another model, or does not say which."""
    problems = {
        f"evidence, {name}": pusher.other_model(artifact, model)
        for name, artifact in {**blessings, **reports}.items()
    }
    for name, blessing in blessings.items():
        if not blessing.has_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY):
            problems[f"evidence, {name}"] = "the blessing does not say which model it is about"
    return [
        Criterion(name, OVERALL, None, None, None, passed=False, remark=problem)
        for name, problem in problems.items()
        if problem
    ]


def _judged_criteria(model: types.Artifact, evaluations: Mapping[str, Evaluation]) -> list[Criterion]:
    """Evaluations of another model, whose blessing may have been exchanged for this model's.

    Compared is the end of the path, run, step and output: on Kubeflow each step has the model in a folder of its own.
    """
    own = pathlib.PurePath(path_utils.serving_model_path(model.uri)).parts[-_PATH_PARTS:]
    return [
        Criterion(
            f"evaluation, {name}",
            OVERALL,
            None,
            None,
            None,
            passed=False,
            remark=f"TFMA judged the model at {judged.model_path}, not the one at {model.uri}",
        )
        for name, judged in evaluations.items()
        if pathlib.PurePath(judged.model_path).parts[-_PATH_PARTS:] != own
    ]


def _numbers(result: Any) -> dict[tuple[Any, ...], dict[str, float]]:
    """Slice key -> metric -> number."""
    return {
        tuple(where): {
            name: value["doubleValue"] for name, value in outputs[""][""].items() if "doubleValue" in value
        }
        for where, outputs in result.slicing_metrics
    }


def _confusion_matrix(result: Any, number: int) -> list[list[int]]:
    """Images by true class (rows) and predicted class (columns), over all test images; empty if not measured."""
    plots = dict(result.plots).get((), {}).get("", {}).get("", {})
    matrices = plots.get("multiClassConfusionMatrixAtThresholds", {}).get("matrices", [])
    if not matrices:
        return []
    classes = range(number)
    counts = {
        (entry.get("actualClassId", 0), entry.get("predictedClassId", 0)): int(entry["numWeightedExamples"])
        for entry in matrices[0]["entries"]
    }
    return [[counts.get((actual, predicted), 0) for predicted in classes] for actual in classes]


def _slice_of(spec: Any) -> tuple[Any, ...]:
    """The slice key that a specification with given values means; labels are integers."""
    return tuple(
        (feature, int(value) if feature == features.LABEL else value)
        for feature, value in sorted(spec.feature_values.items())
    )


def _metric_name(metric: Any) -> str:
    """The name that a MetricConfig gives, or TFMA's and Keras' default for its class."""
    named = json.loads(metric.config or "{}").get("name")
    return named or re.sub(r"(?<!^)(?=[A-Z])", "_", metric.class_name).lower()


def _reaches(value: float | None, least: float) -> bool:
    return value is not None and value >= least


def _with_interval(values: Mapping[str, float]) -> dict[str, Any]:
    found: dict[str, Any] = {name: _finite(value) for name, value in values.items()}
    count = values.get(EXAMPLE_COUNT, 0)
    if count >= 1 and ACCURACY in values:
        right = round(values[ACCURACY] * count)
        found["accuracy_interval"] = list(gate_statistics.accuracy_interval(right, count))
    return found


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}".removesuffix(".0000")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
