"""What TFX's resolvers do on one machine, as components: open-source KFP has no resolvers. And the schema, for which a
client has no file.

The former read durable storage, the volume that every step mounts. A resolver answers with a list of artifacts, a
component on KFP with exactly one; so the one holds the list in a file, which the custom property `resolved` names, and
`kubeflow.entrypoint` puts the artifacts of that list in its place before the next step sees them: a property is part of
a command's argument, and a list grows. An empty list is a resolver's "nothing".
"""

import json
import pathlib
import re
import shutil
from collections.abc import Iterable, Sequence

from absl import logging
from tfx import types
from tfx.components import Trainer
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.components.base.base_node import BaseNode
from tfx.types import artifact as tfx_artifact
from tfx.types import standard_artifacts

from components import staging
from components.data.anomaly_gate import DATA_SET_KEY, data_set_of, span_of
from components.data.example_gen import Cifar10ExampleGen
from components.serving import candidates, serving_folder
from components.serving.pusher import Pusher
from kubeflow import resolving, volume
from kubeflow.config import EVERY, NOTHING, NOW, Decided, KubeflowConfig
from kubeflow.resolving import NOTE, chosen_version, member, resolve
from pipeline import nodes, pipeline

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


@component
def ServedModel(  # noqa: N802 - the name is the component's
    serving: Parameter[str], version: Parameter[str], model: OutputArtifact[standard_artifacts.Model]
) -> None:
    """Copies a served model, the last one pushed by default, out of the serving folder.

    Args:
        serving: the folder TensorFlow Serving watches.
        version: "served" for the one that is served now, a version's number, or "none".
        model: gets the model as a Trainer leaves it; resolves to nothing before the first push.
    """
    resolving.served_model(serving=serving, version=version, model=model)


@component
def StoredSpans(  # noqa: N802
    current: InputArtifact[standard_artifacts.Examples],
    store: Parameter[str],
    spans: Parameter[str],
    examples: OutputArtifact[standard_artifacts.Examples],
) -> None:
    """Answers with the Examples of the earlier spans that the data gates let through.

    Args:
        current: this run's Examples.
        store: folder with one `span-N` for each span that KeptSpan kept.
        spans: numbers of the spans to compare with, as JSON; "every" for all before this one.
        examples: resolves to the kept Examples of those spans; to nothing for the first.
    """
    resolving.stored_spans(current=current, store=store, spans=spans, examples=examples)


@component
def KeptWindow(  # noqa: N802
    store: Parameter[str], spans: Parameter[str], examples: OutputArtifact[standard_artifacts.Examples]
) -> None:
    """Answers with the Examples of the spans that are trained on.

    Args:
        store: folder with one `span-N` for each span that KeptSpan kept.
        spans: their numbers, as JSON.
        examples: resolves to their kept Examples, in that order.
    """
    resolving.kept_window(store=store, spans=spans, examples=examples)


@component
def ReviewedSchema(  # noqa: N802
    schema_file: Parameter[str], data_set: Parameter[str], schema: OutputArtifact[standard_artifacts.Schema]
) -> None:
    """The reviewed schema, its labels those of the data set: what a local run writes into its root beforehand.

    Args:
        schema_file: in the image.
        data_set: as `DataSet.to_json` writes it.
        schema: gets the schema as ImportSchemaGen leaves it.
    """
    resolving.reviewed_schema(schema_file=schema_file, data_set=data_set, schema=schema)


@component
def KeptSpan(  # noqa: N802
    accepted: InputArtifact[standard_artifacts.Examples], store: Parameter[str]
) -> None:
    """Keeps this run's Examples for later runs; it waits for the data gates, so a refused span is never kept.

    Compared with a span that was refused, the next good one would be refused as well.

    Args:
        accepted: this run's Examples.
        store: folder with one `span-N` for each span that was let through.
    """
    keep(accepted, pathlib.Path(store))


@component
def ServedNetworks(  # noqa: N802
    serving: Parameter[str],
    store: Parameter[str],
    version: Parameter[str],
    model: OutputArtifact[standard_artifacts.Model],
) -> None:
    """What a warm start begins with: the pretrained networks of a served model, by default of what is served now.

    They are found by the model's digest, so that they are the right ones after a rollback, too.

    Args:
        serving: the folder TensorFlow Serving watches.
        store: folder in which KeptNetworks keeps them.
        version: as ServedModel's.
        model: gets what the Pretrainer left; resolves to nothing before the first push, and for a served model that
            another installation pretrained.
    """
    served = chosen_version(serving, version)
    found = kept_networks(served.digest, pathlib.Path(store)) if served else None
    if served is None or found is None:
        logging.info("No pretrained networks are kept for what %s serves: a warm start has no base.", serving)
    else:
        # A copy, as for the baseline.
        shutil.copytree(found, model.uri, dirs_exist_ok=True)
        logging.info("The networks of version %s are the base of a warm start.", served.number)
    resolve(model, [member(model.uri, {})] if found else [])


@component
def KeptNetworks(  # noqa: N802
    pretrained: InputArtifact[standard_artifacts.Model],
    pushed_model: InputArtifact[standard_artifacts.PushedModel],
    serving: Parameter[str],
    store: Parameter[str],
) -> None:
    """Keeps the networks of a model that was pushed: a push takes the encoder alone, a warm start needs the heads.

    So are those of a candidate, which a person may push at any time, without another step. Networks of models that have
    left the serving folder are removed, so the store is as small as that folder.

    Args:
        pretrained: what the Pretrainer left in this run.
        pushed_model: what the Pusher did with the encoder; nothing is kept of one that it refused.
        serving: the folder TensorFlow Serving watches.
        store: folder with one folder for each model in `serving`, named by its digest.
    """
    told = pushed_model.get_string_custom_property
    if int(pushed_model.get_custom_property(nodes.PUSHED) or 0) or told(nodes.CANDIDATE):
        keep_networks(pretrained, told("model_digest"), pathlib.Path(store))
    # The candidate is asked for first: approved in between, it is found among the versions.
    candidate = candidates.waiting(serving)
    present = {version.digest for version in serving_folder.versions(serving)}
    forget_networks(present | ({candidate.digest} if candidate else set()), pathlib.Path(store))


def keep_networks(pretrained: types.Artifact, digest: str, store: pathlib.Path) -> pathlib.Path:
    """Copies what a Pretrainer left below `store`, complete or not at all; the same model's are kept once.

    Raises:
        ValueError: `digest` is no digest of a model.
    """
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise ValueError(
            f"The pushed model's digest is {digest!r}; expected sha256: and 64 hex digits, as the Pusher writes it."
        )
    target = store / match[1]
    if not target.exists():
        with staging.staged_folder(target) as copy:
            shutil.copytree(pretrained.uri, copy, dirs_exist_ok=True)
    return target


def kept_networks(digest: str, store: pathlib.Path) -> pathlib.Path | None:
    """Where the networks of a model are kept; None if they are not."""
    match = _DIGEST.fullmatch(digest)  # a foreign writer's record may say anything
    return store / match[1] if match and (store / match[1]).is_dir() else None


def forget_networks(present: Iterable[str], store: pathlib.Path) -> None:
    """Removes the networks of every model that is not among the digests in `present`."""
    present_folders = {kept_networks(digest, store) for digest in present}
    for folder in store.glob("[0-9a-f]" * 64):
        if folder not in present_folders:
            shutil.rmtree(folder)


def keep(examples: types.Artifact, store: pathlib.Path) -> pathlib.Path:
    """Copies Examples below `store`, in place of older ones of the same span; complete or not at all."""
    folder = store / f"{volume.SPAN}{span_of(examples)}"
    older = volume.copies(folder)
    target = folder / str(max(older, default=0) + 1)
    with staging.staged_folder(target) as copy:
        shutil.copytree(examples.uri, copy, dirs_exist_ok=True)
        properties = {
            "split_names": examples.split_names,
            # The prefix tells a custom property from one of the type that has its name; others go without it
            # (_get_json_metadata_mapping, tfx/orchestration/kubeflow/v2/container/kubeflow_v2_entrypoint_utils.py).
            f"{tfx_artifact.CUSTOM_PROPERTIES_PREFIX}span": span_of(examples),
            DATA_SET_KEY: data_set_of(examples).to_json(),
        }
        (copy / NOTE).write_text(json.dumps(properties))
    for number in older:
        shutil.rmtree(older[number])
    return target


def bindings(config: KubeflowConfig, warm_start: bool, decided: Decided | None = None) -> pipeline.Bindings:
    """What `create_pipeline` needs in order to look at earlier runs on KFP, or to take what was decided of them."""
    compared = json.dumps(decided.compared) if decided else EVERY
    networks = warm_start or (decided is not None and bool(decided.window))

    def spans_so_far(example_gen: Cifar10ExampleGen, _: pipeline.Locations) -> BaseNode:
        return StoredSpans(
            current=example_gen.outputs["examples"], store=config.folder("store"), spans=compared
        ).with_id(pipeline.SPANS_SO_FAR)

    def window(_: Cifar10ExampleGen, __: pipeline.Locations) -> BaseNode:
        spans = json.dumps(decided.window if decided else ())
        return KeptWindow(store=config.folder("store"), spans=spans).with_id(pipeline.WINDOW)

    def kept_span(example_gen: Cifar10ExampleGen, gates: Sequence[BaseNode]) -> BaseNode:
        node = KeptSpan(accepted=example_gen.outputs["examples"], store=config.folder("store"))
        node.add_upstream_nodes(gates)
        return node

    def served_model(locations: pipeline.Locations) -> BaseNode:
        version = _told_version(decided.baseline) if decided else NOW
        return ServedModel(serving=locations.serving, version=version).with_id(pipeline.SERVED_MODEL)

    def served_networks(locations: pipeline.Locations) -> BaseNode:
        version = _told_version(decided.parent) if decided else NOW
        return ServedNetworks(
            serving=locations.serving, store=config.folder("networks"), version=version
        ).with_id(pipeline.WARM_START)

    def kept_networks(pretrainer: Trainer, pusher: Pusher, locations: pipeline.Locations) -> BaseNode:
        return KeptNetworks(
            pretrained=pretrainer.outputs["model"],
            pushed_model=pusher.outputs["pushed_model"],
            serving=locations.serving,
            store=config.folder("networks"),
        )

    def schema(locations: pipeline.Locations) -> BaseNode:
        return ReviewedSchema(schema_file=locations.schema, data_set=locations.data_set.to_json()).with_id(
            pipeline.SCHEMA
        )

    return pipeline.Bindings(
        schema=schema,
        spans_so_far=spans_so_far,
        # A run with a window trains on what is kept already, its own span included.
        kept_span=None if decided and decided.window else kept_span,
        served_model=served_model,
        window=window if decided and decided.window else None,
        warm_start=served_networks
        if warm_start and (decided is None or decided.parent is not None)
        else None,
        kept_networks=kept_networks if networks else None,
    )


def _told_version(number: int | None) -> str:
    return NOTHING if number is None else str(number)
