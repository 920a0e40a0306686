"""The steps that read little and write little, without TFX: its import takes longer than what they do.

Most answer with a list of what lies on the volume; `kubeflow.bindings` makes components of them, and
`kubeflow.entrypoint` runs them by what `STEPS` says, in place of TFX's own entry point, which imports Beam, TensorFlow
and TFMA.
"""

import json
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from absl import logging

from components.serving import serving_folder
from kubeflow import volume
from kubeflow.config import EVERY, NOTHING, NOW

NOTE = "resolved.json"
RESOLVED = "resolved"
# Where a Trainer leaves the model to be served (tfx/utils/path_utils.py), and what tells a custom property
# from one of the type (CUSTOM_PROPERTIES_PREFIX, tfx/types/artifact.py).
_SERVED, _CUSTOM = "Format-Serving", "custom:"
_SPAN = "span"
_SCHEMA = "schema.pbtxt"  # what TFX's readers of a Schema expect (tfx/components/schema_gen/executor.py)


class Artifact(Protocol):
    """What the steps use of an artifact, TFX's or this module's."""

    uri: str

    def get_int_custom_property(self, key: str) -> int:
        """A number."""

    def set_string_custom_property(self, key: str, value: str) -> None:
        """Sets a text."""


class PlainArtifact:
    """An artifact of an ExecutorInput.

    Args:
        message: the artifact as the entry point has read it.
    """

    def __init__(self, message: Mapping[str, Any]) -> None:
        self.uri = str(message["uri"])
        self.metadata: dict[str, Any] = dict(message.get("metadata", {}))

    def get_int_custom_property(self, key: str) -> int:
        """A number; 0 if there is none, as TFX has it."""
        return int(self.metadata.get(_CUSTOM + key, self.metadata.get(key, 0)))

    def set_string_custom_property(self, key: str, value: str) -> None:
        """Sets a text."""
        self.metadata[key] = value


def served_model(serving: str, version: str, model: Artifact) -> None:
    """See `kubeflow.bindings.ServedModel`."""
    found = chosen_version(serving, version)
    if found is not None and found.complete:
        # A copy, because a push may retire the version while the Evaluator reads it.
        target = pathlib.Path(model.uri) / _SERVED
        shutil.copytree(found.path, target, ignore=shutil.ignore_patterns(serving_folder.RECORD_FILE))
        logging.info("Version %s of %s is the baseline.", found.number, serving)
    resolve(model, [member(model.uri, {})] if found is not None and found.complete else [])


def stored_spans(current: Artifact, store: str, spans: str, examples: Artifact) -> None:
    """See `kubeflow.bindings.StoredSpans`."""
    there, span = kept(pathlib.Path(store)), current.get_int_custom_property(_SPAN)
    if spans == EVERY:
        resolve(examples, [there[number] for number in sorted(there) if number < span])
    else:
        resolve(examples, kept_of(there, json.loads(spans), store))


def kept_window(store: str, spans: str, examples: Artifact) -> None:
    """See `kubeflow.bindings.KeptWindow`."""
    resolve(examples, kept_of(kept(pathlib.Path(store)), json.loads(spans), store))


def reviewed_schema(schema_file: str, data_set: str, schema: Artifact) -> None:
    """See `kubeflow.bindings.ReviewedSchema`."""
    from components.data import dataset
    from components.data.schema import schema_text

    text = schema_text(dataset.from_json(data_set), pathlib.Path(schema_file))
    folder = pathlib.Path(schema.uri)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _SCHEMA).write_text(text, encoding="utf-8")


# By the class that TFX makes of a component's function, which the compiled command names.
STEPS: dict[str, Callable[..., None]] = {
    "kubeflow.bindings.ServedModel_Executor": served_model,
    "kubeflow.bindings.StoredSpans_Executor": stored_spans,
    "kubeflow.bindings.KeptWindow_Executor": kept_window,
    "kubeflow.bindings.ReviewedSchema_Executor": reviewed_schema,
}


def run(step: Callable[..., None], message: Mapping[str, Any], output_file: pathlib.Path) -> None:
    """Runs a step and writes its ExecutorOutput.

    Args:
        step: one of STEPS.
        message: the ExecutorInput as the entry point has read it.
        output_file: where the answer is written.
    """
    inputs, outputs = message["inputs"], message["outputs"]["artifacts"]
    given = {key: PlainArtifact(one["artifacts"][0]) for key, one in inputs.get("artifacts", {}).items()}
    made = {key: PlainArtifact(one["artifacts"][0]) for key, one in outputs.items()}
    step(**inputs.get("parameterValues", {}), **given, **made)
    answer = {
        key: {"artifacts": [{**outputs[key]["artifacts"][0], "metadata": artifact.metadata}]}
        for key, artifact in made.items()
    }
    output_file.parent.mkdir(parents=True, exist_ok=True)
    output_file.write_text(json.dumps({"artifacts": answer}))


def chosen_version(serving: str, wanted: str) -> serving_folder.Version | None:
    """The version of a serving folder that "served", "none" or a number means.

    Raises:
        ValueError: there is no version of that number any more.
    """
    there = serving_folder.versions(serving)
    if wanted == NOTHING:
        return None
    if wanted == NOW:
        return next((version for version in there if version.served), None)
    found = next((version for version in there if str(version.number) == wanted), None)
    if found is None:
        numbers = ", ".join(str(version.number) for version in there) or "none"
        raise ValueError(
            f"{serving} has no version {wanted}, which was served when this run was decided on; there are: {numbers}. "
            "The next retraining goes by what is served then."
        )
    return found


def kept(store: pathlib.Path) -> dict[int, dict[str, Any]]:
    """The kept Examples by span, as members of a resolved list."""
    found = {}
    for number, folder in volume.spans(store).items():
        copies = volume.copies(folder)
        newest = copies[max(copies)]
        found[number] = member(str(newest), json.loads((newest / NOTE).read_text()))
    return found


def kept_of(there: dict[int, dict[str, Any]], numbers: Sequence[int], store: str) -> list[dict[str, Any]]:
    """The kept Examples of some spans, in their order.

    Raises:
        ValueError: some are not kept.
    """
    missing = [number for number in numbers if number not in there]
    if missing:
        raise ValueError(
            f"{store} has no Examples of span {', '.join(map(str, missing))}; expected those of "
            f"{', '.join(map(str, numbers))}. Were they removed? The next retraining reads them again."
        )
    return [there[number] for number in numbers]


def member(uri: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """One artifact of a resolved list: where it is, and its metadata as KFP hands it over."""
    return {"uri": uri, "metadata": metadata}


def resolve(artifact: Artifact, members: list[dict[str, Any]]) -> None:
    """Makes `artifact` stand for a list of others."""
    folder = pathlib.Path(artifact.uri)
    folder.mkdir(parents=True, exist_ok=True)
    # "" is the artifact itself, whose address is another one in the next step's container.
    listed = [{**one, "uri": "" if one["uri"] == artifact.uri else one["uri"]} for one in members]
    (folder / NOTE).write_text(json.dumps(listed))  # an object store keeps no empty folder
    artifact.set_string_custom_property(RESOLVED, NOTE)
