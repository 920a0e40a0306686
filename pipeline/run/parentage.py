"""Which artifacts of the metadata store the served version came from: what is compared with, and started from."""

import dataclasses
import pathlib
from collections.abc import Iterable

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2
from tfx.components.example_gen.utils import SPAN_PROPERTY_NAME
from tfx.types import standard_artifacts

from components.serving import serving_folder
from pipeline.past import store_graph

_OUTPUTS = (metadata_store_pb2.Event.OUTPUT, metadata_store_pb2.Event.DECLARED_OUTPUT)
_INPUTS = (metadata_store_pb2.Event.INPUT, metadata_store_pb2.Event.DECLARED_INPUT)
_BASE_MODEL = "base_model"
_MODEL = "model"


@dataclasses.dataclass(frozen=True)
class Parentage:
    """Where a served version comes from.

    Attributes:
        version: its number.
        restored: whether it is served because of a rollback.
        model: id of the LinearProbe's Model that was pushed.
        pretrainer: id of the Pretrainer's Model with the encoder under it.
    """

    version: int
    restored: bool
    model: int
    pretrainer: int


def of_served(serving: pathlib.Path, database: pathlib.Path) -> Parentage | None:
    """Finds what the served version came from; None when nothing is served.

    Args:
        serving: the folder TensorFlow Serving watches.
        database: the MLMD SQLite file.

    Raises:
        ValueError: the version was not made in this root, so nothing can be compared with it.
    """
    served = [version for version in serving_folder.versions(serving) if version.served]
    if not served:
        return None
    version = served[0]
    pushed = version.record.get("lineage", {}).get("inputs", {}).get(_MODEL)
    if not pushed or not database.exists():
        raise ValueError(_foreign(version.path))
    store = store_graph.open_store(database, writable=True)
    model = _live(store, [int(pushed[0]["id"])])
    if model is None or model.uri != pushed[0]["uri"]:
        raise ValueError(_foreign(version.path))
    pretrainer = _live(store, _inputs_of_maker(store, model.id, _BASE_MODEL))
    if pretrainer is None:
        raise ValueError(_foreign(version.path))
    return Parentage(
        version=version.number,
        restored=version.record.get("action") == serving_folder.ROLLBACK,
        model=model.id,
        pretrainer=pretrainer.id,
    )


def stored_spans(database: pathlib.Path, producer: str) -> set[int]:
    """The numbers of the spans whose Examples are in the store, and their files with them.

    Args:
        database: the MLMD SQLite file.
        producer: id of the node that wrote them.
    """
    if not database.exists():
        return set()
    store = store_graph.open_store(database, writable=True)
    return {
        artifact.custom_properties[SPAN_PROPERTY_NAME].int_value
        for artifact in store.get_artifacts_by_type(standard_artifacts.Examples.TYPE_NAME)
        if artifact.state == metadata_store_pb2.Artifact.LIVE and f"/{producer}/" in artifact.uri
    }


def _live(store: mlmd.MetadataStore, ids: Iterable[int]) -> metadata_store_pb2.Artifact | None:
    found = store.get_artifacts_by_id(list(ids))
    return next((a for a in found if a.state == metadata_store_pb2.Artifact.LIVE), None)


def _inputs_of_maker(store: mlmd.MetadataStore, artifact: int, key: str) -> list[int]:
    """Ids of what the execution that wrote an artifact read under a name."""
    events = store.get_events_by_artifact_ids([artifact])
    makers = [event.execution_id for event in events if event.type in _OUTPUTS]
    return [
        event.artifact_id
        for event in store.get_events_by_execution_ids(makers[:1])
        if event.type in _INPUTS and any(step.key == key for step in event.path.steps)
    ]


def _foreign(version: pathlib.Path) -> str:
    return (
        f"The served version at {version} was not made in this root, or its record or artifacts are gone, so a new "
        "model could not be compared with it. Expected a version that this root pushed: take another --root, or move "
        "that folder away to begin without a served model."
    )
