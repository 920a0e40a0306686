"""The data path, top to bottom: records of pictures in, a pushed encoder out."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import tensorflow_model_analysis as tfma
from tfx.components import Evaluator, ExampleValidator, StatisticsGen, Trainer, Transform
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.dsl.components.base.base_node import BaseNode
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import pusher_pb2, range_config_pb2, trainer_pb2, transform_pb2
from tfx.types import BaseChannel

from components.data import data_limits, features
from components.data.anomaly_gate import AnomalyGate
from components.data.dataset import CIFAR10, DataSet
from components.data.example_gen import Cifar10ExampleGen
from components.data.statistics import statistics_options
from components.gate.label_check import LabelCheck
from components.gate.model_card import ModelCard
from components.gate.robustness import Robustness
from components.gate.verdict import Verdict
from components.serving.pusher import Pusher, PushSettings
from components.serving.serving_check import ServingCheck
from pipeline import eval_config
from pipeline import nodes as node_names
from pipeline.config import PipelineConfig
from pipeline.source_digest import source_digest
from trainer.byol.run_fn import ENCODER_FILE

NAME = "byol"
SCHEMA_FILE = str(pathlib.Path(features.__file__).with_name("schema.pbtxt"))
EXAMPLE_GEN = node_names.EXAMPLE_GEN
PRETRAINER = node_names.PRETRAINER
LINEAR_PROBE = node_names.LINEAR_PROBE
RANDOM_PROBE = "RandomProbe"
EVALUATOR = "Evaluator"
RANDOM_EVALUATOR = "RandomEvaluator"
NEWEST_EVALUATOR = "NewestEvaluator"
ANOMALY_GATE = node_names.ANOMALY_GATE
LABEL_CHECK = node_names.LABEL_CHECK
VERDICT = node_names.VERDICT
PUSHER = node_names.PUSHER
SERVED_MODEL = "ServedModel"
SCHEMA = "ImportSchemaGen"
SPANS_SO_FAR = "SpansSoFar"
WINDOW = "Window"
WARM_START = "WarmStart"
TEST_EXAMPLE_GEN = "TestExampleGen"
SPAN_PATTERN = "span-{SPAN}"

# The files each stage is made of, besides the values in its own parameters.
_FEATURES = ("components/data/features.py", "components/data/dataset.py")
_ROWS = (*_FEATURES, "components/data/cifar10.py")
_SHARED = (*_FEATURES, "trainer")
_EVALUATION = (
    *_FEATURES,
    "components/gate/gate_metrics.py",
    "components/gate/gate_statistics.py",
    "components/gate/quality_bands.py",
)
SOURCES: dict[str, tuple[str, ...]] = {
    EXAMPLE_GEN: (*_ROWS, "components/data/example_gen.py"),
    TEST_EXAMPLE_GEN: (*_ROWS, "components/data/example_gen.py"),
    LABEL_CHECK: (
        *_FEATURES,
        "components/data/data_limits.py",
        "components/gate/label_check.py",
        "components/gate/robustness.py",
    ),
    ANOMALY_GATE: (
        *_FEATURES,
        "components/data/anomaly_gate.py",
        "components/data/data_checks.py",
        "components/data/data_limits.py",
    ),
    "Transform": (*_FEATURES, "components/data/preprocessing.py"),
    PRETRAINER: (*_SHARED, "trainer/byol"),
    LINEAR_PROBE: (*_SHARED, "trainer/probe", "components/serving/warm_up.py"),
    RANDOM_PROBE: (*_SHARED, "trainer/probe", "components/serving/warm_up.py"),
    EVALUATOR: _EVALUATION,
    RANDOM_EVALUATOR: _EVALUATION,
    NEWEST_EVALUATOR: _EVALUATION,
    "Robustness": (
        *_FEATURES,
        "components/gate/corruptions.py",
        "components/gate/robustness.py",
    ),
    "ServingCheck": (
        *_FEATURES,
        "components/serving/serving_check.py",
        "components/serving/serving_folder.py",
        "components/serving/serving_requests.py",
    ),
    VERDICT: (
        "components/gate/verdict.py",
        "components/gate/gate_metrics.py",
        "components/gate/gate_statistics.py",
        "components/gate/markdown_table.py",
        "components/gate/misses.py",
        "components/serving/pusher.py",
        "components/gate/robustness.py",
    ),
    "ModelCard": (
        *_FEATURES,
        "components/gate/model_card.py",
        "components/data/data_digest.py",
        "components/gate/gate_statistics.py",
        "components/gate/markdown_table.py",
        "components/gate/verdict.py",
    ),
    PUSHER: (
        "components/serving/pusher.py",
        "components/serving/serving_folder.py",
        "components/serving/candidates.py",
    ),
}
DATA_SET_KEY = (
    "data_set"  # `DataSet.to_json`, a parameter of these nodes, and what the Trainers and Transform are told
)
_TOLD = frozenset({EXAMPLE_GEN, TEST_EXAMPLE_GEN, ANOMALY_GATE, LABEL_CHECK, VERDICT})
_TOLD |= {"Robustness", "ServingCheck", "ModelCard"}
ALL_SOURCES = ("components/**", "trainer/**", "pipeline/**")


@dataclasses.dataclass(frozen=True)
class Locations:
    """Where a run reads and writes.

    Attributes:
        data: folder of the record files.
        pipeline_root: TFX's artifacts.
        metadata: the MLMD database; None where the orchestrator has its own.
        checkpoints: folder that outlives a killed pretraining.
        serving: folder that TensorFlow Serving watches.
        span: number of the span to take when `data` holds `span-N` folders, "latest" for the highest one there when
            the run starts; None for a plain folder of files.
        served: what lies in it now; part of the Pusher's cache key, so that a version that was removed or rolled back
            is noticed.
        schema: the reviewed schema, where the run finds it.
        test: folder of a test set that stays the same from span to span; None takes the span's own test images.
        data_set: what the records say they hold.
        newest_labelled: whether the span's own test images have labels, beside a fixed test set.
    """

    data: str
    pipeline_root: str
    metadata: str | None
    checkpoints: str
    serving: str
    span: int | Literal["latest"] | None = None
    served: tuple[str, ...] = ()
    schema: str = SCHEMA_FILE
    test: str | None = None
    data_set: DataSet = CIFAR10
    newest_labelled: bool = True


@dataclasses.dataclass(frozen=True)
class Bindings:
    """The nodes that look at what lies outside the run, earlier runs above all: each orchestrator has its own.

    Attributes:
        spans_so_far: makes the node whose output `examples` are what this run's span is compared with; itself may be
            among them.
        served_model: makes the node whose output `model` is what is served now, or nothing.
        window: makes the node whose output `examples` is trained on; None trains on what this run reads, alone.
        warm_start: makes the node whose output `model` is the Pretrainer's from which the encoder starts; None for a
            start from random weights.
        kept_span: makes the node that, after the data gates, keeps this run's span for later comparisons; None where
            the metadata store does.
        kept_networks: makes the node that, after the push, keeps what a later warm start needs of the Pretrainer's
            model; None where the metadata store does.
        schema: makes the node whose output `schema` is the reviewed one with the labels of the data set, where nobody
            can write it to a file before the run; None imports `Locations.schema`.
    """

    spans_so_far: Callable[[Cifar10ExampleGen, Locations], BaseNode]
    served_model: Callable[[Locations], BaseNode]
    window: Callable[[Cifar10ExampleGen, Locations], BaseNode] | None = None
    warm_start: Callable[[Locations], BaseNode] | None = None
    kept_span: Callable[[Cifar10ExampleGen, Sequence[BaseNode]], BaseNode] | None = None
    kept_networks: Callable[[Trainer, Pusher, Locations], BaseNode] | None = None
    schema: Callable[[Locations], BaseNode] | None = None


def create_pipeline(
    config: PipelineConfig, locations: Locations, beam_args: list[str], bindings: Bindings
) -> Pipeline:
    """Returns the pipeline.

    Args:
        config: what is trained, and what it must reach.
        locations: where.
        beam_args: how Beam runs.
        bindings: how the orchestrator looks at earlier runs.
    """
    # Records become Examples: raw pixels, label, content hash and image-quality figures.
    example_gen = _example_gen(locations)
    examples = example_gen.outputs["examples"]
    test_example_gen = _test_example_gen(locations)
    test_examples = test_example_gen.outputs["examples"] if test_example_gen else examples

    # What came in is described, compared with the reviewed schema, and stopped here when it is wrong.
    statistics_gen = StatisticsGen(examples=examples, stats_options=statistics_options(locations.data_set))
    schema = bindings.schema(locations) if bindings.schema else ImportSchemaGen(schema_file=locations.schema)
    example_validator = _example_validator(statistics_gen, schema)
    spans_so_far = bindings.spans_so_far(example_gen, locations)
    anomaly_gate = _anomaly_gate(
        config, examples, example_validator, statistics_gen, spans_so_far, test_example_gen
    )
    served = bindings.served_model(locations)
    label_check = _label_check(config, examples, served)
    label_check.add_upstream_node(anomaly_gate)  # what is plain from the data alone is told first

    kept_span = bindings.kept_span(example_gen, [anomaly_gate, label_check]) if bindings.kept_span else None

    # One full pass over the training images for the normalisation; pixels stay bytes until the model.
    window = bindings.window(example_gen, locations) if bindings.window else None
    trained_on = window.outputs["examples"] if window else examples
    transform = _transform(locations, trained_on, schema)
    transform.add_upstream_nodes([anomaly_gate, label_check])

    # BYOL learns the encoder without labels; the probe measures it frozen; the control probes an untrained one.
    parent = bindings.warm_start(locations) if bindings.warm_start else None
    pretrainer = _pretrainer(config, locations, transform, parent)
    linear_probe = _linear_probe(config, locations, transform, pretrainer)
    model, baseline = linear_probe.outputs["model"], served.outputs["model"]

    # What has no label is not judged; all else is read here and nowhere before.
    judges = None
    if locations.data_set.classes:
        newest = examples if test_example_gen and locations.newest_labelled else None
        judges = _judges(config, locations, transform, Judged(model, baseline, test_examples, newest))

    # The exported model answers real requests; then one verdict on all that was measured, and what is known in words.
    serving_check = _serving_check(config, linear_probe)
    verdict = _verdict(config, model, judges, serving_check)
    model_card = _model_card(config, verdict, trained_on, test_examples if test_example_gen else None)

    # What all of them bless moves into the served folder in one rename.
    judged = {
        "model_blessing": verdict.outputs["blessing"],
        "infra_blessing": serving_check.outputs["blessing"],
        "card": model_card.outputs["card"],
        "baseline_model": baseline,
        **({"evaluation": judges.evaluator.outputs["evaluation"]} if judges else {}),
    }
    pusher = _pusher(config, locations, linear_probe, judged, examples)
    kept_networks = bindings.kept_networks(pretrainer, pusher, locations) if bindings.kept_networks else None

    return _pipeline(
        locations,
        beam_args,
        *(example_gen, test_example_gen, statistics_gen, schema, example_validator),
        *(spans_so_far, anomaly_gate, served, label_check, kept_span, window, transform),
        *(parent, pretrainer, linear_probe),
        *(judges.nodes if judges else ()),
        *(serving_check, verdict, model_card, pusher, kept_networks),
    )


@dataclasses.dataclass(frozen=True)
class Judged:
    """What is judged, against what, and on what.

    Attributes:
        model: the exported one.
        baseline: the served one, or nothing.
        test_examples: with the test split that decides.
        newest: the newest span's Examples, where its own test images are another, labelled split.
    """

    model: BaseChannel
    baseline: BaseChannel
    test_examples: BaseChannel
    newest: BaseChannel | None


@dataclasses.dataclass(frozen=True)
class Judges:
    """The nodes that measure a model on labelled test images."""

    random_probe: Trainer
    evaluator: Evaluator
    random_evaluator: Evaluator
    newest_evaluator: Evaluator | None
    robustness: BaseNode

    @property
    def nodes(self) -> tuple[BaseNode | None, ...]:
        """In the order of the data path."""
        return (
            *(self.random_probe, self.evaluator, self.random_evaluator),
            *(self.newest_evaluator, self.robustness),
        )

    def evidence(self) -> dict[str, BaseChannel]:
        """The Verdict's inputs."""
        newest = self.newest_evaluator
        return {
            "evaluation": self.evaluator.outputs["evaluation"],
            "evaluation_blessing": self.evaluator.outputs["blessing"],
            "gain": self.random_evaluator.outputs["evaluation"],
            "gain_blessing": self.random_evaluator.outputs["blessing"],
            "corrupted": self.robustness.outputs["evaluation"],
            **({"newest": newest.outputs["evaluation"]} if newest else {}),
            **({"newest_blessing": newest.outputs["blessing"]} if newest else {}),
        }


def _judges(config: PipelineConfig, locations: Locations, transform: Transform, judged: Judged) -> Judges:
    """Every test row, against floors, the served model and the control."""
    names, classes = locations.data_set.label_names, locations.data_set.classes
    model, baseline = judged.model, judged.baseline
    # The control: the same probe on an untrained encoder.
    random_probe = _random_probe(config, locations, transform)
    evaluator = _evaluator(
        EVALUATOR, judged.test_examples, model, baseline, eval_config.gate(config.gate, names)
    )
    random_evaluator = _evaluator(
        RANDOM_EVALUATOR,
        judged.test_examples,
        model,
        random_probe.outputs["model"],
        eval_config.gain(config.gate, classes),
    )
    # With a test set of its own, the span's test images say how the model does on the newest data.
    newest_evaluator = (
        _evaluator(NEWEST_EVALUATOR, judged.newest, model, baseline, eval_config.newest(config.gate, classes))
        if judged.newest
        else None
    )
    robustness = _robustness(config, model, judged.test_examples)
    return Judges(random_probe, evaluator, random_evaluator, newest_evaluator, robustness)


def _example_gen(locations: Locations) -> Cifar10ExampleGen:
    """The whole folder, or one numbered span of it."""
    if locations.span is None:
        return Cifar10ExampleGen(input_base=locations.data)
    if locations.span == "latest":
        return Cifar10ExampleGen(input_base=locations.data, span_pattern=SPAN_PATTERN)
    return Cifar10ExampleGen(
        input_base=locations.data,
        span_pattern=SPAN_PATTERN,
        range_config=range_config_pb2.RangeConfig(
            static_range=range_config_pb2.StaticRange(
                start_span_number=locations.span, end_span_number=locations.span
            )
        ),
    )


def _test_example_gen(locations: Locations) -> Cifar10ExampleGen | None:
    """The test set that stays the same from span to span, if there is one."""
    if locations.test is None:
        return None
    made = Cifar10ExampleGen(input_base=locations.test, splits=(features.TEST_SPLIT,))
    return made.with_id(TEST_EXAMPLE_GEN)


def _example_validator(statistics_gen: StatisticsGen, schema: BaseNode) -> ExampleValidator:
    """What of the statistics the schema does not allow."""
    return ExampleValidator(statistics=statistics_gen.outputs["statistics"], schema=schema.outputs["schema"])


def _anomaly_gate(
    config: PipelineConfig,
    examples: BaseChannel,
    example_validator: ExampleValidator,
    statistics_gen: StatisticsGen,
    spans_so_far: BaseNode,
    test_example_gen: Cifar10ExampleGen | None,
) -> AnomalyGate:
    """Stops at anomalies, at drift from earlier spans and at test images that are trained on."""
    return AnomalyGate(
        examples=examples,
        statistics=statistics_gen.outputs["statistics"],
        anomalies=example_validator.outputs["anomalies"],
        earlier_examples=spans_so_far.outputs["examples"],
        fixed_test=test_example_gen.outputs["examples"] if test_example_gen else None,
        allow_anomalies=config.allow_anomalies,
        limits=config.data,
    )


def _label_check(config: PipelineConfig, examples: BaseChannel, served: BaseNode) -> BaseNode:
    """Stops at labels that the served model does not recognise."""
    return LabelCheck(
        examples=examples,
        model=served.outputs["model"],
        minimum_agreement=config.gate.minimum_label_agreement,
        allow_anomalies=data_limits.told_kinds(data_limits.allowed_kinds(config.allow_anomalies)),
        false_alarms=config.data.false_alarms,
    )


def _transform(locations: Locations, examples: BaseChannel, schema: BaseNode) -> Transform:
    """Transform of the training split, and of no other."""
    return Transform(
        examples=examples,
        schema=schema.outputs["schema"],
        preprocessing_fn="components.data.preprocessing.preprocessing_fn",
        custom_config={DATA_SET_KEY: locations.data_set.to_json()},
        splits_config=transform_pb2.SplitsConfig(
            analyze=[features.TRAIN_SPLIT], transform=[features.TRAIN_SPLIT]
        ),
    )


def _pretrainer(
    config: PipelineConfig, locations: Locations, transform: Transform, parent: BaseNode | None
) -> Trainer:
    """BYOL, from random weights or from the encoder of `parent`."""
    return _trainer(
        transform,
        "trainer.byol.run_fn.run_fn",
        {
            "pretraining": dataclasses.asdict(config.pretraining),
            "encoder": dataclasses.asdict(config.encoder),
            "checkpoints": locations.checkpoints,
            **_images(config, locations),
            "warm_start": config.warm_start if parent else "never",
        },
        **({"base_model": parent.outputs["model"]} if parent else {}),
    ).with_id(PRETRAINER)


def _linear_probe(
    config: PipelineConfig,
    locations: Locations,
    transform: Transform,
    pretrainer: Trainer,
) -> Trainer:
    """The linear probe on the frozen encoder; exports the model that is judged and pushed."""
    return _trainer(
        transform,
        "trainer.probe.run_fn.run_fn",
        {**_probe(config, locations), "encoder": ENCODER_FILE},
        base_model=pretrainer.outputs["model"],
    ).with_id(LINEAR_PROBE)


def _random_probe(config: PipelineConfig, locations: Locations, transform: Transform) -> Trainer:
    """The same probe on an encoder that was not trained: the control."""
    return _trainer(
        transform,
        "trainer.probe.run_fn.run_fn",
        {
            **_probe(config, locations),
            "random_encoder": dataclasses.asdict(config.encoder),
            "seed": config.pretraining.seed,
        },
    ).with_id(RANDOM_PROBE)


def _probe(config: PipelineConfig, locations: Locations) -> dict[str, Any]:
    """What both probes have in common."""
    return {"probe": dataclasses.asdict(config.probe), **_images(config, locations)}


def _images(config: PipelineConfig, locations: Locations) -> dict[str, Any]:
    """What the Trainers are told of the images."""
    return {
        "memory_bytes": config.memory_mb * 10**6,
        DATA_SET_KEY: locations.data_set.to_json(),
    }


def _trainer(transform: Transform, run_fn: str, custom_config: dict[str, Any], **inputs: Any) -> Trainer:
    """A Trainer that is given the training split and no other."""
    return Trainer(
        run_fn=run_fn,
        examples=transform.outputs["transformed_examples"],
        train_args=trainer_pb2.TrainArgs(splits=[features.TRAIN_SPLIT]),
        eval_args=trainer_pb2.EvalArgs(splits=[features.TRAIN_SPLIT]),
        custom_config=custom_config,
        **inputs,
    )


def _evaluator(
    name: str, examples: BaseChannel, model: BaseChannel, baseline: BaseChannel, config: tfma.EvalConfig
) -> Evaluator:
    """An Evaluator of the test split that slices by image quality."""
    return Evaluator(
        examples=examples,
        example_splits=[features.TEST_SPLIT],
        model=model,
        baseline_model=baseline,
        eval_config=config,
        module_path=eval_config.EXTRACTORS,
    ).with_id(name)


def _robustness(config: PipelineConfig, model: BaseChannel, examples: BaseChannel) -> BaseNode:
    """The test images with noise, blur and the like."""
    return Robustness(
        model=model,
        examples=examples,
        images=min(config.gate.robustness_images, config.gate.minimum_test_images),
        severity=config.gate.corruption_severity,
    )


def _serving_check(config: PipelineConfig, linear_probe: Trainer) -> BaseNode:
    """Real requests to the exported model in a clean process."""
    return ServingCheck(
        model=linear_probe.outputs["model"],
        model_run=linear_probe.outputs["model_run"],
        limits=json.dumps(dataclasses.asdict(config.serving)),
    )


def _verdict(
    config: PipelineConfig, model: BaseChannel, judges: Judges | None, serving_check: BaseNode
) -> BaseNode:
    """Every threshold, one decision."""
    return Verdict(
        model=model,
        infra_blessing=serving_check.outputs["blessing"],
        **(judges.evidence() if judges else {}),
        minimum_corrupted_accuracy=config.gate.minimum_corrupted_accuracy,
        minimum_worst_corrupted_accuracy=config.gate.minimum_worst_corrupted_accuracy,
        seed_spread=config.gate.seed_spread,
        without_labels=config.gate.without_labels,
    )


def _model_card(
    config: PipelineConfig, verdict: BaseNode, examples: BaseChannel, fixed_test: BaseChannel | None
) -> BaseNode:
    """What is known of the model in words, to lie beside it."""
    return ModelCard(
        verdict=verdict.outputs["verdict"],
        examples=examples,
        settings=json.dumps(dataclasses.asdict(config)),
        code_digest=source_digest(ALL_SOURCES),
        **({"test_examples": fixed_test} if fixed_test else {}),
    )


def _pusher(
    config: PipelineConfig,
    locations: Locations,
    linear_probe: Trainer,
    judged: Mapping[str, BaseChannel],
    examples: BaseChannel,
) -> Pusher:
    """The push of what every gate blessed; `judged` are the Pusher's inputs of the gates, by name."""
    pusher = Pusher(
        model=linear_probe.outputs["model"],
        examples=examples,
        **judged,
        push_destination=pusher_pb2.PushDestination(
            filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=locations.serving)
        ),
        settings=PushSettings(
            keep_versions=config.keep_versions,
            approval=config.gate.approval,
            lineage={
                "settings": dataclasses.asdict(config),
                "code_digest": source_digest(ALL_SOURCES),
                "judged": "evaluation" in judged,
            },
        ),
    )
    pusher.exec_properties["served"] = json.dumps(locations.served)
    return pusher


def _pipeline(locations: Locations, beam_args: list[str], *nodes: BaseNode | None) -> Pipeline:
    """TFX's pipeline of the nodes that there are, in this order."""
    present = [node for node in nodes if node is not None]
    for node in present:
        _describe(node, locations.data_set)
        _key_by_source(node)
    return Pipeline(
        pipeline_name=NAME,
        pipeline_root=locations.pipeline_root,
        components=present,
        enable_cache=True,
        metadata_connection_config=(
            metadata.sqlite_metadata_connection_config(locations.metadata) if locations.metadata else None
        ),
        beam_pipeline_args=beam_args,
    )


def _describe(node: BaseNode, data_set: DataSet) -> None:
    """Tells a node that reads rows or names classes what data set it has before it."""
    if node.id in _TOLD:
        node.exec_properties[DATA_SET_KEY] = data_set.to_json()


def _key_by_source(node: BaseNode) -> None:
    """Puts a digest of the node's source into its cache key: TFX itself keys on parameters and inputs alone."""
    if node.id in SOURCES:
        node.exec_properties["source_digest"] = source_digest(SOURCES[node.id])
