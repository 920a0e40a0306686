"""Where a pushed version comes from: model, encoder and its warm-start parents, spans, data files and their SHA-256."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from components.serving import serving_folder
from pipeline import nodes
from pipeline.past.history import iso, pushed_as
from pipeline.past.store_graph import Artifact, Execution, StoreGraph
from pipeline.root import Root

SAME, DIFFERS, GONE, UNKNOWN = "same", "differs", "gone", "not looked at"
_BLOCK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Place:
    """An artifact as the metadata store knows it.

    Attributes:
        id, type, uri, state: see `store_graph.Artifact`; a pruned one is DELETED.
    """

    id: int
    type: str
    uri: str
    state: str


@dataclasses.dataclass(frozen=True)
class SpanSource:
    """One span that a training read.

    Attributes:
        span: its number; 0 for data without spans, None when the Examples do not say.
        examples: what ExampleGen made of it.
        input_base: the folder that the names of the files are below.
        files: name -> SHA-256, hex digits; empty for Examples made before digests were recorded.
        fingerprint: TFX's of the same files: their number, bytes and times.
    """

    span: int | None
    examples: Place
    input_base: str
    files: Mapping[str, str]
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class Training:
    """A model and how it was made.

    Attributes:
        model: the artifact.
        node: which Trainer made it.
        run_id: in which run; None if the store does not say.
        started: ISO, UTC.
        seconds: that it took.
        source_digest: of the trainer's source files.
        transform: the preprocessed images that it read.
        spans: what those were made of.
        pushed_as: versions that have this encoder; for the Pretrainer's models only.
    """

    model: Place
    node: str
    run_id: str | None
    started: str
    seconds: float
    source_digest: str
    transform: Place | None
    spans: list[SpanSource]
    pushed_as: list[int]


@dataclasses.dataclass(frozen=True)
class Lineage:
    """Where a version comes from.

    Attributes:
        version: its number.
        served, withdrawn: whether it is served now; whether its model was rolled back from.
        record: its `serving.json` without the list of files.
        pushed_model: the Pusher's artifact of it; None if the store does not know it.
        probe: the model that was pushed; None likewise.
        pretraining: its encoder, then the model that this one started from, and so on back to a random start.
        tested_on: the data whose test images decided.
    """

    version: int
    served: bool
    withdrawn: bool
    record: Mapping[str, Any]
    pushed_model: Place | None
    probe: Training | None
    pretraining: list[Training]
    tested_on: list[SpanSource]


@dataclasses.dataclass(frozen=True)
class Check:
    """One file or folder against its recorded digest: "same", "differs", "gone", or "not looked at"."""

    what: str
    result: str


def lineage(root: Root, version: int | None = None) -> Lineage:
    """Follows a version back.

    Args:
        root: of the runs.
        version: its number; None is the one that is served.

    Raises:
        ValueError: no such version, or no metadata store.
    """
    chosen, served = chosen_version(root, version)
    graph = StoreGraph(root.metadata)
    model = pushed_model_source(graph, chosen)
    probe = graph.maker(model.id) if model else None
    pushed = next(iter(pushed_artifacts(graph, {chosen.number, chosen.origin})), None)
    return Lineage(
        version=chosen.number,
        served=chosen.served,
        withdrawn=chosen.digest in served.record.get("withdrawn", []),
        record={key: value for key, value in chosen.record.items() if key != "files"},
        pushed_model=_place(pushed) if pushed else None,
        probe=_training(graph, model, probe) if model and probe else None,
        pretraining=list(_pretrainings(graph, probe)),
        tested_on=[
            _span(graph, examples)
            for evaluation in recorded_inputs(graph, chosen, nodes.EVALUATION)
            for examples in graph.read(graph.maker(evaluation.id), nodes.EXAMPLES)
        ],
    )


def chosen_version(root: Root, version: int | None) -> tuple[serving_folder.Version, serving_folder.Version]:
    """The version of that number, or the served one; and the served one.

    Raises:
        ValueError: there is no version, or none of that number.
    """
    present = serving_folder.versions(root.serving)
    if not present:
        raise ValueError(f"{root.serving} holds no version; nothing was pushed yet.")
    chosen = (
        next((one for one in present if one.number == version), None) if version is not None else present[-1]
    )
    if chosen is None:
        known = ", ".join(str(one.number) for one in present)
        raise ValueError(f"Expected one of the versions {known} in {root.serving}, received {version}.")
    return chosen, present[-1]


def pushed_model_source(graph: StoreGraph, version: serving_folder.Version) -> Artifact | None:
    """The Model artifact that became a version, by what its `serving.json` says; None if not in the store."""
    return next(iter(recorded_inputs(graph, version, nodes.MODEL)), None)


def recorded_inputs(
    graph: StoreGraph, version: serving_folder.Version, channel: str | None = None
) -> list[Artifact]:
    """The artifacts that `serving.json` names as the push's inputs, if the store knows them under the same address."""
    inputs = version.record.get("lineage", {}).get("inputs", {})
    named = [one for key, ones in inputs.items() if channel in {None, key} for one in ones]
    known = [(graph.artifacts.get(one.get("id")), one) for one in named]
    return [found for found, one in known if found is not None and found.uri == one.get("uri")]


def pushed_artifacts(graph: StoreGraph, versions: set[int]) -> list[Artifact]:
    """The PushedModel artifacts of versions, by number."""
    numbers = {str(version) for version in versions}
    return [
        one
        for one in graph.artifacts.values()
        if one.properties.get(nodes.PUSHED) == 1 and one.properties.get(nodes.PUSHED_VERSION) in numbers
    ]


def verify(root: Root, found: Lineage) -> list[Check]:
    """Hashes again what still exists: the version's files, and the data files of all its spans."""
    version, _ = chosen_version(root, found.version)
    checks = list(_version_checks(version))
    sources = [*found.tested_on, *(span for training in found.pretraining for span in training.spans)]
    for source in {source.examples.id: source for source in sources}.values():
        checks += [_file_check(source.input_base, name, digest) for name, digest in source.files.items()]
    return checks


def _version_checks(version: serving_folder.Version) -> Iterator[Check]:
    recorded = version.record.get("files", {})
    try:
        actual = serving_folder.model_manifest(version.path)
    except ValueError:
        actual = {}
    for name in sorted(recorded.keys() | actual.keys()):
        same = recorded.get(name) == actual.get(name)
        yield Check(
            f"version {version.number}: {name}", SAME if same else DIFFERS if name in actual else GONE
        )


def _file_check(base: str, name: str, digest: str) -> Check:
    """Names come from the metadata store, so one that leaves its folder is not followed."""
    path = pathlib.Path(base) / name
    if (
        "://" in base
        or ".." in pathlib.PurePosixPath(name).parts
        or pathlib.PurePosixPath(name).is_absolute()
    ):
        return Check(str(path), UNKNOWN)
    if not path.is_file():
        return Check(str(path), GONE)
    return Check(str(path), SAME if _sha256(path) == digest else DIFFERS)


def _sha256(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _pretrainings(graph: StoreGraph, probe: Execution | None) -> Iterator[Training]:
    """The encoder of a probe, and each that one started from."""
    seen: set[int] = set()
    at = probe
    while at is not None:
        model = next((one for one in graph.read(at, nodes.BASE_MODEL) if one.id not in seen), None)
        at = graph.maker(model.id) if model else None
        if model and at:
            seen.add(model.id)
            yield _training(graph, model, at)


def _training(graph: StoreGraph, model: Artifact, maker: Execution) -> Training:
    images = next(iter(graph.read(maker, nodes.EXAMPLES)), None)
    transform = graph.maker(images.id) if images else None
    return Training(
        model=_place(model),
        node=maker.node,
        run_id=next((run.id for run in graph.runs if run.executions.get(maker.node) == maker), None),
        started=iso(maker.started),
        seconds=round((maker.ended - maker.started) / 1000, 1),
        source_digest=str(maker.properties.get("source_digest", "")),
        transform=_place(images) if images else None,
        spans=[_span(graph, one) for one in graph.read(transform, nodes.EXAMPLES)],
        pushed_as=pushed_as(graph, model.id) if maker.node == nodes.PRETRAINER else [],
    )


def _span(graph: StoreGraph, examples: Artifact) -> SpanSource:
    maker = graph.maker(examples.id)
    number = examples.properties.get(nodes.SPAN)
    return SpanSource(
        span=None if number is None else int(number),
        examples=_place(examples),
        input_base=str(maker.properties.get("input_base", "")) if maker else "",
        files=json.loads(examples.properties.get(nodes.FILES, "{}")),
        fingerprint=str(examples.properties.get(nodes.FINGERPRINT, "")),
    )


def _place(artifact: Artifact) -> Place:
    return Place(artifact.id, artifact.type, artifact.uri, artifact.state)
