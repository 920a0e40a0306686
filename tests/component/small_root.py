"""Makes real roots in seconds: TFX's runner, cache, resolvers and our Pusher, over nodes that write a line each."""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import shutil
import sqlite3

from tfx import v1 as tfx
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.orchestration import metadata
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.types.standard_artifacts import Examples, Model, ModelBlessing, ModelEvaluation

from components.serving import serving_folder
from components.serving.pusher import Pusher, PushSettings
from pipeline import pipeline
from pipeline.past.store_graph import StoreGraph, open_store
from pipeline.root import Root
from pipeline.run import bindings, parentage


@component
def ExampleGen(  # noqa: N802 - the name is the component's
    examples: OutputArtifact[Examples], data: Parameter[str], input_base: Parameter[str], span: Parameter[int]
) -> None:
    """Stands for Cifar10ExampleGen: one file a span, named with its digest."""
    name = f"span-{span}/data_batch_1.bin"
    content = (pathlib.Path(input_base) / name).read_bytes()
    _write(examples.uri, content.decode() + data)
    examples.set_int_custom_property("span", span)
    examples.set_string_custom_property("files", json.dumps({name: hashlib.sha256(content).hexdigest()}))


@component
def AnomalyGate(  # noqa: N802 - the name is the component's
    examples: InputArtifact[Examples],
    report: OutputArtifact[ModelEvaluation],
    earlier_examples: InputArtifact[list[Examples]],
    poisoned: Parameter[int],
) -> None:
    """Stands for both gates of the data."""
    _write(report.uri, f"{examples.uri} against {len(earlier_examples)}")
    if poisoned:
        raise ValueError("labels were permuted")


@component
def Transform(  # noqa: N802 - the name is the component's
    examples: InputArtifact[list[Examples]], transformed_examples: OutputArtifact[Examples]
) -> None:
    """Puts the spans of the window together."""
    _write(transformed_examples.uri, "".join(_read(one.uri) for one in examples))


@component
def Pretrainer(  # noqa: N802 - the name is the component's
    examples: InputArtifact[Examples],
    model: OutputArtifact[Model],
    epochs: Parameter[int],
    base_model: InputArtifact[Model] = None,
) -> None:
    """Learns its input by heart."""
    _write(model.uri, f"{_read(examples.uri)} {epochs} {_read(base_model.uri) if base_model else ''}")


@component
def LinearProbe(  # noqa: N802 - the name is the component's
    examples: InputArtifact[Examples], base_model: InputArtifact[Model], model: OutputArtifact[Model]
) -> None:
    """Exports what looks like a SavedModel."""
    folder = pathlib.Path(model.uri) / "Format-Serving"
    _write(str(folder), _read(base_model.uri), serving_folder.SAVED_MODEL_FILE)


@component
def Evaluator(  # noqa: N802 - the name is the component's
    examples: InputArtifact[Examples],
    model: InputArtifact[Model],
    evaluation: OutputArtifact[ModelEvaluation],
    baseline_model: InputArtifact[Model] = None,
) -> None:
    """Notes what was compared with what."""
    _write(evaluation.uri, f"{model.uri} {baseline_model.uri if baseline_model else ''}")


@component
def Verdict(  # noqa: N802 - the name is the component's
    model: InputArtifact[Model],
    evaluation: InputArtifact[ModelEvaluation],
    blessing: OutputArtifact[ModelBlessing],
    verdict: OutputArtifact[ModelEvaluation],
    accuracy: Parameter[float],
    floor: Parameter[float],
) -> None:
    """Blesses what reaches the floor, with the properties of the real one."""
    good = accuracy >= floor
    _write(blessing.uri, "", "BLESSED" if good else "NOT_BLESSED")
    _write(verdict.uri, "")
    for artifact in (blessing, verdict):
        artifact.set_int_custom_property("blessed", int(good))
        artifact.set_string_custom_property("current_model", model.uri)
        artifact.set_int_custom_property("current_model_id", model.id)
    verdict.set_string_custom_property(
        "reason", "" if good else f"accuracy is {accuracy}, below its floor of {floor}"
    )
    verdict.set_float_custom_property("accuracy", accuracy)


@dataclasses.dataclass(frozen=True)
class Plan:
    """One run: the span that comes in, what is trained on, and what becomes of it."""

    span: int
    window: tuple[int, ...] = ()
    accuracy: float = 0.9
    floor: float = 0.8
    epochs: int = 1
    warm_start: bool = False
    poisoned: bool = False
    padding: int = 1000


def run(root: Root, data: pathlib.Path, plan: Plan) -> StoreGraph:
    """Runs it; what a gate raises is raised. Returns the store as it is then."""
    source = data / f"span-{plan.span}" / "data_batch_1.bin"
    if not source.exists():
        source.parent.mkdir(parents=True)
        source.write_text(f"span {plan.span}")
    root.prepare()
    _run(_nodes(root, data, plan), root)
    return StoreGraph(root.metadata)


def _nodes(root: Root, data: pathlib.Path, plan: Plan) -> list:
    served = parentage.of_served(root.serving, root.metadata)
    bound = bindings.bindings(
        bindings.Earlier(
            served_model=served.model if served else None,
            window=plan.window or (plan.span,),
            warm_start=served.pretrainer if served and plan.warm_start else None,
        )
    )
    places = pipeline.Locations(str(data), str(root.artifacts), None, "", "", span=plan.span)
    example_gen = ExampleGen(data="." * plan.padding, input_base=str(data), span=plan.span).with_id(
        pipeline.EXAMPLE_GEN
    )
    examples = example_gen.outputs["examples"]
    so_far = bound.spans_so_far(example_gen, places)
    gate = AnomalyGate(
        examples=examples, earlier_examples=so_far.outputs["examples"], poisoned=int(plan.poisoned)
    )
    assert bound.window is not None
    window = bound.window(example_gen, places)
    transform = Transform(examples=window.outputs["examples"])
    transform.add_upstream_node(gate)
    images = transform.outputs["transformed_examples"]
    parent = bound.warm_start(places) if bound.warm_start else None
    pretrainer = Pretrainer(
        examples=images, epochs=plan.epochs, **({"base_model": parent.outputs["model"]} if parent else {})
    )
    probe = LinearProbe(examples=images, base_model=pretrainer.outputs["model"])
    model = probe.outputs["model"]
    baseline = bound.served_model(places)
    evaluator = Evaluator(examples=examples, model=model, baseline_model=baseline.outputs["model"])
    verdict = Verdict(
        model=model, evaluation=evaluator.outputs["evaluation"], accuracy=plan.accuracy, floor=plan.floor
    )
    pusher = Pusher(
        model=model,
        model_blessing=verdict.outputs["blessing"],
        examples=examples,
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=str(root.serving))
        ),
        settings=PushSettings(keep_versions=2, retire_after_seconds=0, lineage={"code_digest": "0123"}),
    )
    pusher.exec_properties["served"] = json.dumps(
        [f"{version.number}:{version.digest}" for version in serving_folder.versions(root.serving)]
    )
    nodes = [
        example_gen,
        so_far,
        gate,
        window,
        transform,
        parent,
        pretrainer,
        probe,
        baseline,
        evaluator,
        verdict,
        pusher,
    ]
    return [node for node in nodes if node is not None]


def copied(root: Root, target: pathlib.Path) -> Root:
    """Another root with the same past: a test may spoil it. Addresses in it are its own."""
    shutil.copytree(root.path, target, symlinks=True)
    with contextlib.closing(sqlite3.connect(target / "metadata.sqlite")) as database, database:
        database.execute("UPDATE Artifact SET uri = replace(uri, ?, ?)", (str(root.path), str(target)))
    for record in target.glob("serving/*/serving.json"):
        record.write_text(record.read_text().replace(str(root.path), str(target)))
    return Root(target)


def fail_by_hand(root: Root, run_id: str, node: str) -> None:
    """Makes the store say that a node failed, as it does when the node raises."""
    number = next(run for run in StoreGraph(root.metadata).runs if run.id == run_id).executions[node].id
    store = open_store(root.metadata, writable=True)
    (execution,) = store.get_executions_by_id([number])
    execution.last_known_state = execution.FAILED
    store.put_executions([execution])


def latest_blessed(root: Root) -> list[int]:
    """Ids of what TFX's own LatestBlessedModelStrategy resolves to."""
    resolver = tfx.dsl.Resolver(
        strategy_class=tfx.dsl.experimental.LatestBlessedModelStrategy,
        model=tfx.dsl.Channel(type=Model, producer_component_id=pipeline.LINEAR_PROBE),
        model_blessing=tfx.dsl.Channel(type=ModelBlessing, producer_component_id=pipeline.VERDICT),
    ).with_id("LatestBlessed")
    _run([resolver], root)
    store = open_store(root.metadata, writable=False)
    last = max(execution.id for execution in store.get_executions())
    events = store.get_events_by_execution_ids([last])
    return sorted(event.artifact_id for event in events if event.type == event.INTERNAL_OUTPUT)


def _run(nodes: list, root: Root) -> None:
    LocalDagRunner().run(
        tfx.dsl.Pipeline(
            pipeline_name=pipeline.NAME,
            pipeline_root=str(root.artifacts),
            components=nodes,
            metadata_connection_config=metadata.sqlite_metadata_connection_config(str(root.metadata)),
            enable_cache=True,
        )
    )


def _write(folder: str, text: str, name: str = "content.txt") -> None:
    path = pathlib.Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    (path / name).write_text(text)


def _read(folder: str) -> str:
    return (pathlib.Path(folder) / "content.txt").read_text()
