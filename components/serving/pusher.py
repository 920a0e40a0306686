"""The push: TFX's Pusher with the holes closed.

The stock Pusher reads one flag of the blessing, not which model it is about, and copies in place under the
version's final name. Here the blessings have to be about the model at hand, and `components.serving.serving_folder`
publishes it
atomically, verified and reversibly. Only local or mounted folders are served: an object store has no rename,
so a push to one (`gs://...`) is refused before anything is copied.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

from absl import logging
from google.protobuf import json_format
from tfx import types
from tfx.components.pusher import component as stock_component
from tfx.components.pusher import executor as stock_executor
from tfx.components.util import model_utils
from tfx.dsl.components.base import base_component, executor_spec
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils, component_spec, standard_artifacts, standard_component_specs
from tfx.utils import io_utils, json_utils, path_utils, proto_utils

from components.serving import candidates, serving_folder
from components.serving.serving_limits import APPROVALS, AUTOMATIC, MANUAL

MODEL_DIGEST_PROPERTY = "model_digest"
CURRENT_MODEL_PROPERTY = "current_model"
CURRENT_MODEL_ID_PROPERTY = "current_model_id"
REASON_PROPERTY = "not_pushed_reason"
IS_NEW_PROPERTY = "is_new_version"
OVERTAKEN_PROPERTY = "overtaken"
CANDIDATE_PROPERTY = "candidate"
DATA_PROPERTY = "data"

_MODEL = standard_component_specs.MODEL_KEY
_MODEL_BLESSING = standard_component_specs.MODEL_BLESSING_KEY
_INFRA_BLESSING = standard_component_specs.INFRA_BLESSING_KEY
_PUSHED_MODEL = standard_component_specs.PUSHED_MODEL_KEY
_PUSH_DESTINATION = standard_component_specs.PUSH_DESTINATION_KEY
_CUSTOM_CONFIG = standard_component_specs.CUSTOM_CONFIG_KEY
_EVALUATION = standard_component_specs.EVALUATION_KEY
_EXAMPLES = standard_component_specs.EXAMPLES_KEY
_BASELINE = standard_component_specs.BASELINE_MODEL_KEY
_CARD = "card"

Artifacts = dict[str, list[types.Artifact]]


@dataclasses.dataclass(frozen=True)
class PushSettings:
    """How to push.

    Attributes:
        keep_versions: how many versions stay in the serving folder, at least 1.
        retire_after_seconds: how long a version stays after a newer one took its place, in any case.
        lock_timeout_seconds: how long to wait for another push to the same folder.
        keeps_rollbacks: whether it is pushed only over the model that it was compared with; `Pusher` sets it when it is
            given that model.
        approval: one of `APPROVALS`: "manual" keeps the model as a candidate, for a person to push.
        lineage: what `serving.json` shall say besides what the pipeline knows: preset, digest of the code. It
            is part of the cache key, so it must not change from run to run.
    """

    keep_versions: int = serving_folder.KEEP_VERSIONS
    retire_after_seconds: float = serving_folder.RETIRE_AFTER_SECONDS
    lock_timeout_seconds: float = serving_folder.LOCK_TIMEOUT_SECONDS
    keeps_rollbacks: bool = False
    approval: str = AUTOMATIC
    lineage: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.approval not in APPROVALS:
            known = ", ".join(APPROVALS)
            raise ValueError(f"Expected approval to be one of {known}, received {self.approval!r}.")
        if self.keep_versions < 1:
            raise ValueError(f"Expected keep_versions of at least 1, received {self.keep_versions}.")
        if self.retire_after_seconds < 0 or self.lock_timeout_seconds < 0:
            raise ValueError(
                f"Expected times of at least 0 s, received retire_after_seconds={self.retire_after_seconds} "
                f"and lock_timeout_seconds={self.lock_timeout_seconds}."
            )


class PusherSpec(component_spec.ComponentSpec):
    """The stock Pusher's, with the inputs from which the lineage is read, and the model card."""

    PARAMETERS = standard_component_specs.PusherSpec.PARAMETERS
    INPUTS: ClassVar[dict[str, Any]] = {
        **standard_component_specs.PusherSpec.INPUTS,
        _EVALUATION: component_spec.ChannelParameter(type=standard_artifacts.ModelEvaluation, optional=True),
        _EXAMPLES: component_spec.ChannelParameter(type=standard_artifacts.Examples, optional=True),
        _CARD: component_spec.ChannelParameter(type=standard_artifacts.ModelEvaluation, optional=True),
        _BASELINE: component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
    }
    OUTPUTS = standard_component_specs.PusherSpec.OUTPUTS
    TYPE_ANNOTATION = standard_component_specs.PusherSpec.TYPE_ANNOTATION


class Executor(stock_executor.Executor):
    """Publishes a model whose blessings are about it, and otherwise says why not.

    A model that is not pushed does not fail the run: `pushed` is 0, and `not_pushed_reason` a sentence.
    """

    def Do(  # noqa: N802 - the name that TFX calls
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]
    ) -> None:
        """Pushes, or records why it does not.

        Args:
            input_dict: `model`, `model_blessing`, and optionally `infra_blessing`, `evaluation`, `examples`, `card`,
                `baseline_model`.
            output_dict: `pushed_model`; gets the stock custom properties `pushed`, `pushed_destination` and
                `pushed_version`, a copy of the model, and `is_new_version` (0 if it was served already).
            exec_properties: `push_destination` and `custom_config`, as `Pusher` writes them.

        Raises:
            ValueError: the destination is not a local folder, or the model's files have changed since the
                check.
            OSError: no permission, or a full disk. What was served is still served.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        pushed_model = artifact_utils.get_single_instance(output_dict[_PUSHED_MODEL])
        reason = refusal(input_dict)
        if reason is not None:
            self._refuse(pushed_model, reason)
            return
        model = pathlib.Path(self.GetModelPath(input_dict))
        settings = PushSettings(**json_utils.loads(exec_properties[_CUSTOM_CONFIG]))
        folder = _base_directory(exec_properties)
        how: dict[str, Any] = {
            "documents": artifact_utils.get_single_uri(input_dict[_CARD]) if input_dict.get(_CARD) else None,
            "expected_digest": _judged_digest(input_dict),
            "replaces": _baseline_digest(input_dict) if settings.keeps_rollbacks else None,
            "keep_versions": settings.keep_versions,
            "retire_after_seconds": settings.retire_after_seconds,
        }
        lineage = {**settings.lineage, **self._lineage(input_dict)}
        try:
            if settings.approval == MANUAL and not _is_served(model, folder):
                candidate = candidates.hold(model, folder, lineage, **how)
                pushed_model.set_string_custom_property(CANDIDATE_PROPERTY, candidate.name)
                # By which what it was pretrained from is found, once it is approved.
                pushed_model.set_string_custom_property(MODEL_DIGEST_PROPERTY, candidate.digest)
                self._refuse(
                    pushed_model,
                    f"candidate {candidate.name} waits for approval: `byol approve` or `byol reject`",
                )
                return
            publication = serving_folder.publish(
                model, folder, lineage, lock_timeout_seconds=settings.lock_timeout_seconds, **how
            )
        except (serving_folder.WithdrawnModelError, candidates.RejectedModelError) as error:
            self._refuse(pushed_model, str(error))
            return
        except serving_folder.OvertakenError as error:
            pushed_model.set_int_custom_property(OVERTAKEN_PROPERTY, 1)
            self._refuse(pushed_model, str(error))
            return
        # The stock Pusher archives the model in its own artifact, where retention does not reach it.
        io_utils.copy_dir(str(publication.path), pushed_model.uri)
        pushed_model.set_string_custom_property(MODEL_DIGEST_PROPERTY, publication.digest)
        pushed_model.set_int_custom_property(IS_NEW_PROPERTY, int(publication.is_new))
        self._MarkPushed(pushed_model, str(publication.path), str(publication.version))
        logging.info("The model is served as version %s from %s.", publication.version, publication.path)

    def CheckBlessing(self, input_dict: Artifacts) -> bool:  # noqa: N802
        """Whether the model may be pushed; `refusal` says why not."""
        return refusal(input_dict) is None

    def _refuse(self, pushed_model: types.Artifact, reason: str) -> None:
        reason = reason.removesuffix(".")  # whoever shows it ends the sentence
        logging.warning("Nothing is pushed: %s.", reason)
        pushed_model.set_string_custom_property(REASON_PROPERTY, reason)
        self._MarkNotPushed(pushed_model)

    def _lineage(self, input_dict: Artifacts) -> dict[str, Any]:
        inputs = {
            key: [_described(artifact) for artifact in artifacts]
            for key, artifacts in input_dict.items()
            if key != _BASELINE  # what a model was compared with is not what it was made of
        }
        lineage: dict[str, Any] = {"inputs": inputs}
        if self._context is not None:
            lineage["run_id"] = self._context.pipeline_run_id
        if input_dict.get(_CARD):
            card = artifact_utils.get_single_instance(input_dict[_CARD])
            lineage["data"] = json.loads(card.get_string_custom_property(DATA_PROPERTY) or "null")
        if input_dict.get(_EVALUATION):
            lineage |= _evaluated(artifact_utils.get_single_uri(input_dict[_EVALUATION]))
        return lineage


class Pusher(stock_component.Pusher):
    """A Pusher that publishes atomically and only what was judged.

    Component `outputs` contains:

    - `pushed_model`: `PushedModel`, as the stock Pusher's; `not_pushed_reason` says why `pushed` is 0.
    """

    SPEC_CLASS = PusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(  # noqa: PLR0913, PLR0917 - a component's inputs
        self,
        model: types.BaseChannel,
        model_blessing: types.BaseChannel,
        push_destination: pusher_pb2.PushDestination,
        infra_blessing: types.BaseChannel | None = None,
        evaluation: types.BaseChannel | None = None,
        examples: types.BaseChannel | None = None,
        card: types.BaseChannel | None = None,
        baseline_model: types.BaseChannel | None = None,
        settings: PushSettings | None = None,
    ) -> None:
        """Constructs the component.

        Args:
            model: `Model`, what is pushed.
            model_blessing: `ModelBlessing` of that model; without one nothing is pushed.
            push_destination: the folder that TensorFlow Serving watches: `filesystem.base_directory`, local.
            infra_blessing: `InfraBlessing` of that model, honoured if given.
            evaluation: `ModelEvaluation`, for the metrics and thresholds in `serving.json`.
            examples: `Examples`, for the spans and fingerprints in `serving.json`.
            card: `ModelEvaluation` with the model card of that model, published beside it; its property
                `data`, which names the data by content, goes into `serving.json`.
            baseline_model: `Model` that the model was compared with, nothing before the first push. If another one is
                served by now, because of a rollback, nothing is pushed.
            settings: how to push.

        Raises:
            ValueError: the destination is remote.
        """
        serving_folder.local_folder(push_destination.filesystem.base_directory)
        settings = dataclasses.replace(settings or PushSettings(), keeps_rollbacks=baseline_model is not None)
        spec = PusherSpec(
            model=model,
            model_blessing=model_blessing,
            infra_blessing=infra_blessing,
            evaluation=evaluation,
            examples=examples,
            card=card,
            baseline_model=baseline_model,
            push_destination=push_destination,
            custom_config=json_utils.dumps(dataclasses.asdict(settings)),
            pushed_model=types.Channel(type=standard_artifacts.PushedModel),
        )
        # The stock constructor cannot pass the inputs it does not know.
        base_component.BaseComponent.__init__(self, spec=spec)


def refusal(input_dict: Artifacts) -> str | None:
    """Returns the reason not to push the model, or None if its blessings are good and about it.

    Args:
        input_dict: `model`, `model_blessing`, and optionally `infra_blessing`, a list of one artifact each.
    """
    if not input_dict.get(_MODEL):
        return "there is no model."
    if not input_dict.get(_MODEL_BLESSING):
        return "there is no model blessing, so nothing has judged the model."
    model = artifact_utils.get_single_instance(input_dict[_MODEL])
    reason = _unblessed(artifact_utils.get_single_instance(input_dict[_MODEL_BLESSING]), model)
    if reason is None and input_dict.get(_INFRA_BLESSING):
        reason = _unserved(artifact_utils.get_single_instance(input_dict[_INFRA_BLESSING]), model)
    if reason is None and input_dict.get(_CARD):
        reason = other_model(artifact_utils.get_single_instance(input_dict[_CARD]), model)
    return reason


def _unblessed(blessing: types.Artifact, model: types.Artifact) -> str | None:
    if not model_utils.is_model_blessed(blessing):
        return f"the model at {model.uri} was not blessed by the evaluation ({blessing.uri})."
    if not blessing.has_custom_property(CURRENT_MODEL_PROPERTY):
        return f"the blessing at {blessing.uri} does not say which model it is about."
    return other_model(blessing, model)


def _unserved(blessing: types.Artifact, model: types.Artifact) -> str | None:
    if not model_utils.is_infra_validated(blessing):
        why = blessing.get_string_custom_property("reason") or "see the report there"
        return f"the model at {model.uri} did not pass the serving check ({blessing.uri}): {why}"
    return other_model(blessing, model)


def other_model(blessing: types.Artifact, model: types.Artifact) -> str | None:
    """Says which other model a blessing or report is about; None if it is about this one, or tells nothing."""
    uri = blessing.get_string_custom_property(CURRENT_MODEL_PROPERTY)
    if uri and uri.rstrip("/") != model.uri.rstrip("/"):
        return (
            f"{blessing.type_name} at {blessing.uri} is about the model at {uri}, not the one at {model.uri}."
        )
    # Kubeflow's entrypoint writes a resource name in place of the number; there the address decides.
    identifier = blessing.get_custom_property(CURRENT_MODEL_ID_PROPERTY)
    if isinstance(identifier, int | float) and int(identifier) != model.id:
        return f"{blessing.type_name} at {blessing.uri} is about the model of id {int(identifier)}, not {model.id}."
    return None


def _is_served(model: pathlib.Path, folder: str) -> bool:
    present = serving_folder.versions(folder)
    return bool(present) and present[-1].digest == serving_folder.model_digest(model)


def _judged_digest(input_dict: Artifacts) -> str | None:
    """The digest of the files that the serving check loaded, if it says so."""
    if not input_dict.get(_INFRA_BLESSING):
        return None
    blessing = artifact_utils.get_single_instance(input_dict[_INFRA_BLESSING])
    return blessing.get_string_custom_property(MODEL_DIGEST_PROPERTY) or None


def _baseline_digest(input_dict: Artifacts) -> str:
    """The digest of the files that the model was compared with; "" if there were none."""
    if not input_dict.get(_BASELINE):
        return ""
    folder = artifact_utils.get_single_uri(input_dict[_BASELINE])
    return serving_folder.model_digest(path_utils.serving_model_path(folder))


def _base_directory(exec_properties: dict[str, Any]) -> str:
    destination = pusher_pb2.PushDestination()
    proto_utils.json_to_proto(exec_properties[_PUSH_DESTINATION], destination)
    if not destination.filesystem.base_directory:
        raise ValueError(
            f"Expected a push destination with filesystem.base_directory, received {destination!r}. Set it."
        )
    return str(destination.filesystem.base_directory)


def _described(artifact: types.Artifact) -> dict[str, Any]:
    """What an artifact's metadata say: its properties hold spans, fingerprints, ids of judged models."""
    message = artifact.mlmd_artifact
    values = {**message.properties, **message.custom_properties}
    return {
        "type": artifact.type_name,
        "id": artifact.id,
        "uri": artifact.uri,
        "properties": {key: _plain(value) for key, value in sorted(values.items())},
    }


def _plain(value: Any) -> Any:
    """The content of an ML Metadata `Value`."""
    kind = value.WhichOneof("value")
    content = getattr(value, kind)
    return content if isinstance(content, int | float | str) else json_format.MessageToDict(content)


def _evaluated(uri: str) -> dict[str, Any]:
    """The overall metrics and the thresholds of a TFMA evaluation.

    Returns:
        `metrics`, finite numbers by name, and `thresholds`, TFMA's own messages by metric.
    """
    # Imported here: it takes seconds, and not every push has an evaluation.
    import tensorflow_model_analysis as tfma

    result = tfma.load_eval_result(uri)
    candidates = [spec.name for spec in result.config.model_specs if not spec.is_baseline]
    if len(result.config.model_specs) > 1:
        result = tfma.load_eval_result(uri, model_name=candidates[0])
    metrics = result.get_metrics_for_slice(()) or {}
    numbers = {name: value["doubleValue"] for name, value in metrics.items() if "doubleValue" in value}
    return {
        "metrics": {name: value for name, value in sorted(numbers.items()) if math.isfinite(value)},
        "thresholds": _thresholds(json_format.MessageToDict(result.config, preserving_proto_field_name=True)),
    }


def _thresholds(eval_config: dict[str, Any]) -> dict[str, Any]:
    thresholds: dict[str, Any] = {}
    for spec in eval_config.get("metrics_specs", []):
        thresholds |= spec.get("thresholds", {}) | spec.get("per_slice_thresholds", {})
        for metric in spec.get("metrics", []):
            limits = {key: value for key, value in metric.items() if "threshold" in key}
            if limits:
                thresholds[metric["class_name"]] = limits
    return thresholds
