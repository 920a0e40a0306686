"""What a step's container starts: TFX's own entry point, given what it can read and read back as KFP expects.

    python -m kubeflow.entrypoint --code_digest D --executor_class_path C --json_serialized_invocation_args '{...}' ...

TFX's containers were made for Vertex AI. Open-source KFP's launcher differs in six ways, each of which would stop or,
worse, silently spoil a step; docs/decisions/0051-container-entrypoint.md lists them beside what is done here.
"""

import argparse
import contextlib
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from components.staging import write_twice
from kubeflow import failures, resolving
from kubeflow.packing import unpacked
from kubeflow.resolving import RESOLVED
from pipeline.console import cause
from pipeline.source_digest import source_digest

CODE_OPTION = "--code_digest"
NOTE_OPTION = "--note"
FAILURES_OPTION = "--failures"
# A parameter on which a task is started or skipped (kubeflow/new_data.py); the step itself has no use for it.
FOUND = "new_data"
_GATE = "components.data.anomaly_gate"
# Where the launcher stages object stores as files; the folder above is another one only in tests.
_STAGED = {"minio://": "minio", "s3://": "s3", "gs://": "gcs"}
STAGING_VARIABLE = "BYOL_STAGING_ROOT"
_LOGS = "executor-logs"
_EXACT = 2**53
_SOURCES = ("components/**", "trainer/**", "pipeline/**", "kubeflow/**", "components/data/schema.pbtxt")

Message = dict[str, Any]


def code_digest() -> str:
    """Digest of all the code that steps run: a pipeline and its image must have the same."""
    return source_digest(_SOURCES)


def local_path(uri: str) -> str:
    """Where KFP's launcher stages an artifact; the address itself when it is no object store's."""
    for scheme, folder in _STAGED.items():
        if uri.startswith(scheme):
            return os.path.join(os.environ.get(STAGING_VARIABLE, "/"), folder, uri.removeprefix(scheme))
    return uri


def stored_uri(path: str) -> str:
    """The object store's address of a staged path; the text itself when it is none. The reverse of `local_path`."""
    for scheme, folder in _STAGED.items():
        staged = os.path.join(os.environ.get(STAGING_VARIABLE, "/"), folder, "")
        if path.startswith(staged):
            return scheme + path.removeprefix(staged)
    return path


def readable(executor_input: Message, inputs_spec: Message) -> Message:
    """KFP's ExecutorInput as TFX can read it; the argument is left as it is.

    Args:
        executor_input: as the launcher wrote it.
        inputs_spec: the component's ComponentInputsSpec, which has the artifacts' types.

    Raises:
        ValueError: an input has no type in `inputs_spec`.
    """
    message: Message = json.loads(json.dumps(executor_input))
    parameters = message.setdefault("inputs", {}).get("parameterValues", {})
    parameters.pop(FOUND, None)
    parameters.update({name: unpacked(value) for name, value in parameters.items()})
    inputs = message["inputs"].setdefault("artifacts", {})
    outputs = message.setdefault("outputs", {}).setdefault("artifacts", {})
    # The launcher's own output, of a type that TFX does not have.
    outputs.pop(_LOGS, None)
    for key, artifacts in inputs.items():
        kind = inputs_spec.get("artifacts", {}).get(key, {}).get("artifactType")
        if kind is None:
            raise ValueError(f"The component has no input {key!r}; compile the pipeline again.")
        artifacts["artifacts"] = [
            {
                **one,
                "type": kind,
                "uri": local_path(one.get("uri", "")),
                # A blessing names its model by address, and is compared with the model's.
                "metadata": _texts(one.get("metadata", {}), local_path),
            }
            for artifact in artifacts.get("artifacts", [])
            for one in _resolved(artifact)
        ]
    for artifacts in outputs.values():
        for artifact in artifacts.get("artifacts", []):
            artifact["uri"] = local_path(artifact.get("uri", ""))
    return message


def _resolved(artifact: Message) -> list[Message]:
    """The artifacts for which one stands (kubeflow/bindings.py); most stand for themselves."""
    name = artifact.get("metadata", {}).get(RESOLVED)
    if name is None:
        return [artifact]
    members = json.loads(pathlib.Path(local_path(artifact.get("uri", "")), name).read_text())
    return [
        {
            **artifact,
            "name": f"{artifact.get('name', '')}/{number}",
            "uri": member["uri"] or artifact.get("uri", ""),
            "metadata": member["metadata"],
        }
        for number, member in enumerate(members)
    ]


def is_file_based_example_gen(executor_input: Message) -> bool:
    """Whether the step resolves a span and its files before it runs, which KFP leaves to nobody."""
    return {"input_base", "input_config"} <= executor_input["inputs"].get("parameterValues", {}).keys()


def with_driver_output(executor_input: Message, driver_output: Message) -> Message:
    """The ExecutorInput with the properties that the ExampleGen's driver gave its output: span and fingerprint."""
    message: Message = json.loads(json.dumps(executor_input))
    for key, found in driver_output.get("artifacts", {}).items():
        artifact = message["outputs"]["artifacts"][key]["artifacts"][0]
        metadata = {**artifact.get("metadata", {}), **found["artifacts"][0].get("metadata", {})}
        artifact["metadata"] = _storable(metadata)
    return message


def publishable(executor_output: Message, executor_input: Message) -> Message:
    """TFX's ExecutorOutput as KFP takes it: addresses of the object store, no nulls.

    Args:
        executor_output: as TFX's entry point wrote it.
        executor_input: the launcher's, with the addresses that it will upload to.

    Raises:
        ValueError: the step moved its output: KFP would not upload it, and not say so.
    """
    message: Message = json.loads(json.dumps(executor_output))
    for key, artifacts in message.get("artifacts", {}).items():
        expected = executor_input["outputs"]["artifacts"][key]["artifacts"]
        for artifact, original in zip(artifacts.get("artifacts", []), expected, strict=True):
            if artifact.get("uri", "").rstrip("/") != local_path(original["uri"]).rstrip("/"):
                raise ValueError(
                    f"The output {key} is at {artifact.get('uri')!r}; expected {local_path(original['uri'])!r}, which "
                    "is what KFP uploads."
                )
            artifact["uri"] = original["uri"]
            artifact["metadata"] = _texts(_storable(artifact.get("metadata", {})), stored_uri)
    return message


def check_code(digest: str) -> None:
    """Raises ValueError when the image holds other code than the pipeline was compiled from."""
    own = code_digest()
    if digest != own:
        raise ValueError(
            f"The pipeline was compiled from other code ({digest[:12]}) than this image holds ({own[:12]}). Build the "
            "image and compile the pipeline from the same commit."
        )


def main(argv: list[str]) -> None:
    """Runs one step."""
    # KFP's launcher starts it with an umask of 0, and what is written to the volume would be everyone's to change.
    os.umask(0o022)
    arguments, rest = _parse(argv)
    with noted(arguments.note) as outputs:
        outputs.update(_run(arguments, rest))


@contextlib.contextmanager
def noted(file: str) -> Iterator[Message]:
    """Leaves on the volume what came of a step: KFP uploads nothing of one that failed, and keeps no words of it.

    Args:
        file: where; "" for nowhere.

    Yields:
        what the step is to fill: the properties of its outputs by key.
    """
    outputs: Message = {}
    try:
        yield outputs
    except Exception as error:
        # The boundary between TFX and a person: whatever a step raised becomes one line.
        _write_note(file, {"failed": cause(error), "refused": _objects(error)})
        raise
    _write_note(file, {"outputs": outputs})


def _objects(error: BaseException) -> bool:
    """Whether a gate objects to the data, somewhere in a chain of exceptions."""
    gate = sys.modules.get(_GATE)  # whoever raises it has imported it; other steps need not wait for it
    found: BaseException | None = error
    while gate is not None and found is not None and not isinstance(found, gate.DataAnomalyError):
        found = found.__cause__ or found.__context__
    return gate is not None and found is not None


def _write_note(file: str, note: Message) -> None:
    if file:
        write_twice(pathlib.Path(file), json.dumps(note) + "\n")


def _run(arguments: argparse.Namespace, rest: list[str]) -> Message:
    """Runs the step; returns the properties of its outputs by key."""
    check_code(arguments.code_digest)
    original: Message = json.loads(arguments.json_serialized_invocation_args)
    message = readable(original, json.loads(arguments.json_serialized_inputs_spec_args))
    with failures.kept(*_outputs(original, arguments.failures)):
        return _executed(arguments, rest, original, message)


def _outputs(executor_input: Message, folder: str) -> tuple[dict[str, pathlib.Path], pathlib.Path | None]:
    """Where each output lies, and where what a failing step leaves of them is kept."""
    listed = executor_input.get("outputs", {}).get("artifacts", {})
    uris = {key: one["artifacts"][0].get("uri", "") for key, one in listed.items() if one.get("artifacts")}
    places = {key: pathlib.Path(local_path(uri)) for key, uri in uris.items() if key != _LOGS}
    return places, failures.step_folder(folder, list(uris.values()))


def _executed(arguments: argparse.Namespace, rest: list[str], original: Message, message: Message) -> Message:
    output_file = pathlib.Path(local_path(message["outputs"]["outputFile"]))
    message["outputs"]["outputFile"] = str(output_file)
    if is_file_based_example_gen(message):
        message = _drive(message, arguments, output_file)

    light = resolving.STEPS.get(arguments.executor_class_path)
    if light is not None:
        resolving.run(light, message, output_file)
    else:
        _tfx(_namespace(arguments, message), rest)
    written = json.loads(output_file.read_text())
    published = publishable(written, original)
    output_file.write_text(json.dumps(published))
    return {
        key: artifacts["artifacts"][0].get("metadata", {})
        for key, artifacts in published.get("artifacts", {}).items()
        if artifacts.get("artifacts")
    }


def _tfx(arguments: argparse.Namespace, beam_args: list[str]) -> None:
    """Runs the step by TFX's own entry point."""
    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor

    from pipeline.run import beam_package

    with tempfile.TemporaryDirectory() as folder, beam_package.packed_in(pathlib.Path(folder, "beam")):
        kubeflow_v2_run_executor.main((arguments, beam_args))


def _drive(message: Message, arguments: argparse.Namespace, output_file: pathlib.Path) -> Message:
    """Runs the ExampleGen's driver, unless the platform has done so, as Vertex AI does."""
    if not output_file.exists():
        from tfx.orchestration.kubeflow.v2.file_based_example_gen import driver

        driver.main(_namespace(arguments, message))
    return with_driver_output(message, json.loads(output_file.read_text()))


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="kubeflow.entrypoint", allow_abbrev=False)
    for option in (
        CODE_OPTION,
        "--executor_class_path",
        "--json_serialized_invocation_args",
        "--json_serialized_inputs_spec_args",
    ):
        parser.add_argument(option, required=True)
    parser.add_argument(NOTE_OPTION, default="")
    parser.add_argument(FAILURES_OPTION, default="")
    return parser.parse_known_args(argv)


def _namespace(arguments: argparse.Namespace, message: Message) -> argparse.Namespace:
    return argparse.Namespace(
        executor_class_path=arguments.executor_class_path,
        json_serialized_invocation_args=json.dumps(message),
        json_serialized_inputs_spec_args=arguments.json_serialized_inputs_spec_args,
    )


def _texts(metadata: Message, change: Callable[[str], str]) -> Message:
    return {name: change(value) if isinstance(value, str) else value for name, value in metadata.items()}


def _storable(metadata: Message) -> Message:
    """What KFP's store can hold: it refuses nulls, and rounds what no double holds.

    Such numbers are the ids that TFX's entry point makes of names; rounded, they would be another artifact's.
    """
    return {
        name: value
        for name, value in metadata.items()
        if value is not None and not (isinstance(value, int | float) and abs(value) > _EXACT)
    }


if __name__ == "__main__":
    main(sys.argv[1:])
