"""The serving check: is this model fit for a server? An `InfraBlessing`, without docker.

The exported model is loaded in a process of its own that has TensorFlow and nothing of this project
(`components.serving.serving_requests` says what is asked of it there). A model that fails is not blessed and the run
goes
on: Pusher then pushes nothing, and the evaluation of a model that cannot be served is still worth having.
"""

import base64
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components.data import dataset, features
from components.data.dataset import CIFAR10, DataSet
from components.serving import serving_folder, serving_requests
from components.serving.serving_limits import ServingLimits

REFERENCE_FILE = "serving_reference.npz"
REPORT_FILE = "report.json"
BLESSED_FILE = "INFRA_BLESSED"  # the stock InfraValidator's names
NOT_BLESSED_FILE = "INFRA_NOT_BLESSED"
PROJECT_PACKAGES = ("components", "trainer", "pipeline", "kubeflow")

# What a process needs of the environment to start. Settings of this one, like a PYTHONPATH, are not passed
# on.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR")
_LOG_TAIL = 2000  # characters of a dead process's output that its report keeps


@component
def ServingCheck(  # noqa: N802 - the name is the component's
    model: InputArtifact[standard_artifacts.Model],
    blessing: OutputArtifact[standard_artifacts.InfraBlessing],
    model_run: InputArtifact[standard_artifacts.ModelRun] = None,
    limits: Parameter[str] = "{}",
    data_set: Parameter[str] = "",
    source_digest: Parameter[str] = "",
) -> None:
    """Sends real requests to the exported model, and blesses it for a server if all are answered well.

    Args:
        model: the exported model, in Format-Serving.
        blessing: gets the int custom property `blessed`, which Pusher honours, and `reason`; which model it
            is about (`current_model`, `current_model_id`, `model_digest`), which the project's Pusher
            compares; and the folder `report.json`.
        model_run: where the trainer left `serving_reference.npz`, if the served numbers shall equal its own.
        limits: `ServingLimits` as JSON; what is left out has its default.
        data_set: what the model was trained on, as `DataSet.to_json` writes it.
        source_digest: of this component's source files: part of the cache key, and nothing else.

    Raises:
        ValueError: an unknown limit.
    """
    del source_digest
    saved_model = pathlib.Path(path_utils.serving_model_path(model.uri))
    reference = None if model_run is None else pathlib.Path(model_run.uri) / REFERENCE_FILE
    report = check_model(saved_model, reference, parse_limits(limits), dataset.from_json(data_set))
    folder = pathlib.Path(blessing.uri)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REPORT_FILE).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (folder / (BLESSED_FILE if report["passed"] else NOT_BLESSED_FILE)).touch()
    blessing.set_int_custom_property("blessed", int(report["passed"]))
    blessing.set_string_custom_property("reason", report["reason"])
    blessing.set_string_custom_property("model_digest", report["model_digest"])
    blessing.set_string_custom_property("current_model", model.uri)
    blessing.set_int_custom_property("current_model_id", int(model.id))
    if report["passed"]:
        logging.info("The model at %s passed the serving check.", model.uri)
    else:
        logging.warning("The model at %s is not fit for serving: %s", model.uri, report["reason"])


def parse_limits(text: str) -> ServingLimits:
    """Reads `ServingLimits` from JSON.

    Raises:
        ValueError: unknown names, or a value out of range.
    """
    values = json.loads(text)
    known = {field.name for field in dataclasses.fields(ServingLimits)}
    if unknown := sorted(values.keys() - known):
        raise ValueError(f"Expected limits among {', '.join(sorted(known))}, received {', '.join(unknown)}.")
    return ServingLimits(**values)


def check_model(
    saved_model: pathlib.Path,
    reference: pathlib.Path | None,
    limits: ServingLimits,
    data_set: DataSet = CIFAR10,
) -> dict[str, Any]:
    """Checks a SavedModel in a process of its own.

    Args:
        saved_model: its folder.
        reference: an .npz of the trainer's `pixels` uint8 `[n, height, width, 3]`, `embedding` float32 `[n, d]` and
            `probabilities` float32 `[n, classes]`; None leaves that comparison out.
        limits: what the model may take.
        data_set: its names and sizes, which the signatures have to have.

    Returns:
        The report: `passed`, `reason` (empty if passed), `model_digest`, `checks` (name, passed, problem,
        seconds), `figures` (latencies, memory), `limits`.
    """
    digest = ""
    found: dict[str, Any] = {"checks": [], "figures": {}}
    try:
        digest = serving_folder.model_digest(saved_model)
        pixels = _pixels(reference, data_set)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        reason = f"the model or the trainer's reference cannot be read: {error}"
    else:
        with tempfile.TemporaryDirectory(prefix="serving-check-") as name:
            folder = pathlib.Path(name)
            _write_request(folder, saved_model, reference, pixels, limits, data_set)
            found = _run_requests(folder, limits)
        reason = found.get("reason") or _summary(found["checks"])
    return {
        "passed": not reason,
        "reason": reason,
        "model_digest": digest,
        "checks": found["checks"],
        "figures": found["figures"],
        "limits": dataclasses.asdict(limits),
    }


def _summary(checks: list[dict[str, Any]]) -> str:
    failed = [f"{check['check']}: {check['problem']}" for check in checks if not check["passed"]]
    if not failed:
        return ""
    more = f" (and {len(failed) - 1} more of {len(checks)} checks)" if len(failed) > 1 else ""
    return failed[0] + more


def _write_request(
    folder: pathlib.Path,
    saved_model: pathlib.Path,
    reference: pathlib.Path | None,
    pixels: Any,
    limits: ServingLimits,
    data_set: DataSet = CIFAR10,
) -> None:
    """Writes what `serving_requests` reads."""
    np.save(folder / "pixels.npy", pixels)
    request = {
        "model": str(saved_model.resolve()),
        "reference": None if reference is None else str(reference.resolve()),
        "limits": dataclasses.asdict(limits),
        "label_names": list(data_set.label_names),
        "project_packages": list(PROJECT_PACKAGES),
        "examples": [base64.b64encode(example).decode("ascii") for example in _examples(pixels)],
    }
    (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")


def _run_requests(folder: pathlib.Path, limits: ServingLimits) -> dict[str, Any]:
    """Runs `serving_requests` and returns its report, with a `reason` if it died."""
    died = _death(folder, limits)
    report = folder / REPORT_FILE
    found: dict[str, Any] = {"checks": [], "figures": {}}
    if report.exists():
        found = json.loads(report.read_text(encoding="utf-8"))
    if died is not None:
        reached = _tail(folder / "progress").splitlines()
        found["reason"] = f"{reached[-1] if reached else 'before the first check'}: {died}"
    return found


def _death(folder: pathlib.Path, limits: ServingLimits) -> str | None:
    """Runs the process and says what it died of; None if it ended well."""
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    # The trainer may hold the accelerator's memory, and latencies shall be comparable: hence the CPU.
    environment |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    with (folder / "progress").open("wb") as progress, (folder / "log").open("wb") as log:
        try:
            status = subprocess.run(
                [sys.executable, "-I", serving_requests.__file__, str(folder)],
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=progress,
                stderr=log,
                timeout=limits.timeout_seconds,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return f"it took more than the {limits.timeout_seconds:g} s it may take"
    if status == serving_requests.MEMORY_EXIT_STATUS:
        return f"its process passed the memory limit of {limits.max_memory_mb:g} MiB"
    return f"its process died with status {status}: {_tail(folder / 'log')}" if status else None


def _pixels(reference: pathlib.Path | None, data_set: DataSet = CIFAR10) -> Any:
    """uint8 [257, height, width, 3]: the reference's images over and over, or noise where there is none."""
    shape = (serving_requests.LARGE_BATCH, *data_set.shape)
    if reference is not None:
        with np.load(reference, allow_pickle=False) as arrays:
            if "pixels" in arrays.files and len(arrays["pixels"]) > 1:
                pixels = arrays["pixels"]
                return np.resize(pixels, shape).astype(np.uint8)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _examples(pixels: Any) -> list[bytes]:
    """One serialized raw Example for each image, as the ExampleGen writes it."""
    figures = features.image_figures(pixels)
    hashes = features.content_hashes(pixels)
    return [
        tf.train.Example(
            features=tf.train.Features(
                feature={
                    features.IMAGE: _bytes_feature(pixels[row].tobytes()),
                    features.CONTENT_HASH: _bytes_feature(hashes[row]),
                    features.LABEL: tf.train.Feature(int64_list=tf.train.Int64List(value=[0])),
                    **{
                        name: tf.train.Feature(float_list=tf.train.FloatList(value=[values[row]]))
                        for name, values in figures.items()
                    },
                }
            )
        ).SerializeToString()
        for row in range(len(pixels))
    ]


def _bytes_feature(value: bytes) -> Any:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _tail(path: pathlib.Path) -> str:
    return path.read_bytes()[-_LOG_TAIL:].decode("utf-8", errors="replace").strip()
