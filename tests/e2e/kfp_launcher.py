"""Plays the driver and the launcher of open-source KFP over a compiled file, without a cluster.

Written from KFP's Go sources (backend/src/v2/component/launcher_v2.go): the ExecutorInput with its oddities, object
stores staged as files, outputs uploaded only from where the launcher looks, null metadata refused. Every step is a
process of its own, in a folder that is empty when it starts and gone when the next one does. Steps share the object
store, through the launcher, and the mounted volume; whatever else they count on is missing.

Most of a small step is the import of TFX, so it runs in a fork of a process that has imported it; the first task's is
started as it stands.
"""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import uuid

import yaml

from kubeflow.compiler import task_name
from tests.e2e import warm_process

PROJECT = pathlib.Path(__file__).resolve().parents[2]
SCHEMES = {"minio://": "minio", "s3://": "s3", "gs://": "gcs"}
AT_ONCE = 2
STEP_SECONDS = 400


class StepFailedError(RuntimeError):
    """A step's process ended with an error, or left what KFP refuses."""


@dataclasses.dataclass
class Cluster:
    """A cluster that runs compiled pipelines one after the other.

    Attributes:
        folder: everything of it.
        spec, platform: of the compiled file.
        outputs: task -> output key -> RuntimeArtifact, as KFP's metadata store has them; a later run replaces them.
        ran: tasks in the order in which they ended.
    """

    folder: pathlib.Path
    spec: dict
    platform: dict
    outputs: dict = dataclasses.field(default_factory=dict)
    ran: list = dataclasses.field(default_factory=list)

    @classmethod
    def of(cls, compiled: pathlib.Path, folder: pathlib.Path) -> "Cluster":
        spec, platform = yaml.safe_load_all(compiled.read_text())
        return cls(folder, spec, platform)

    def run(self, root: str, only: set[str] | None = None) -> None:
        """Runs every task, or those of the nodes in `only` with what an earlier run left for the others."""
        only = None if only is None else {task_name(node) for node in only}
        tasks = self.spec["root"]["dag"]["tasks"]
        waiting = {name: self._before(task) for name, task in tasks.items() if only is None or name in only}
        run_id = str(uuid.uuid4())
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            running: dict[concurrent.futures.Future, str] = {}
            while waiting or running:
                for name in [name for name, before in waiting.items() if not before & waiting.keys()]:
                    if waiting[name] & set(running.values()):
                        continue
                    del waiting[name]
                    running[pool.submit(self._step, name, tasks[name], f"{root}/byol/{run_id}/{name}")] = name
                done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in done:
                    name = running.pop(future)
                    self.outputs[name] = future.result()
                    self.ran.append(name)

    @staticmethod
    def _before(task: dict) -> set[str]:
        sources = task.get("inputs", {}).get("artifacts", {}).values()
        return {*task.get("dependentTasks", []), *(s["taskOutputArtifact"]["producerTask"] for s in sources)}

    def _step(self, name: str, task: dict, address: str) -> dict:
        component = self.spec["components"][task["componentRef"]["name"]]
        container = self.spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        pod = self.folder / "pods" / name
        shutil.rmtree(pod, ignore_errors=True)
        pod.mkdir(parents=True)
        executor_input = self._executor_input(task, component, address, pod)
        for artifacts in executor_input["inputs"]["artifacts"].values():
            self._copy(
                self._in_store(artifacts["artifacts"][0]["uri"]), artifacts["artifacts"][0]["uri"], pod
            )
        for artifacts in executor_input["outputs"]["artifacts"].values():
            staged(artifacts["artifacts"][0]["uri"], pod).parent.mkdir(parents=True)
        text = json.dumps(executor_input)
        command = [
            part.replace("{{$}}", text) for part in [*container["command"], *container.get("args", [])]
        ]
        log = self.folder / "logs" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        status = (forked if self.ran else executed)(command, pod, log)
        if status:
            raise StepFailedError(f"{name} ended with {status}:\n{log.read_text()[-3000:]}")
        published = self._publish(executor_input, pod)
        shutil.rmtree(pod)
        return published

    def _executor_input(self, task: dict, component: dict, address: str, pod: pathlib.Path) -> dict:
        inputs = task.get("inputs", {})
        made = component.get("outputDefinitions", {}).get("artifacts", {})
        outputs = {key: definition["artifactType"] for key, definition in made.items()}
        outputs["executor-logs"] = {"schemaTitle": "system.Artifact", "schemaVersion": "0.0.1"}
        return {
            "inputs": {
                "parameterValues": {
                    key: value["runtimeValue"]["constant"]
                    for key, value in inputs.get("parameters", {}).items()
                },
                "artifacts": {
                    key: {"artifacts": [self._input(**source["taskOutputArtifact"])]}
                    for key, source in inputs.get("artifacts", {}).items()
                },
            },
            "outputs": {
                "artifacts": {
                    key: {
                        "artifacts": [
                            {
                                "name": key,
                                "type": kind,
                                "uri": f"{address}/{uuid.uuid4()}/{key}",
                                "metadata": {},
                            }
                        ]
                    }
                    for key, kind in outputs.items()
                },
                "outputFile": str(pod / "tmp/kfp_outputs/output_metadata.json"),
            },
        }

    def _input(self, producerTask: str, outputArtifactKey: str) -> dict:  # noqa: N803 - the specification's names
        # The metadata store does not hand the type's schema on.
        return {**self.outputs[producerTask][outputArtifactKey], "type": {"instanceSchema": ""}}

    def _publish(self, executor_input: dict, pod: pathlib.Path) -> dict:
        """Uploads outputs and merges their metadata, as `uploadOutputArtifacts` does."""
        path = pathlib.Path(executor_input["outputs"]["outputFile"])
        written = json.loads(path.read_text()) if path.exists() else {}
        published = {}
        for key, artifacts in executor_input["outputs"]["artifacts"].items():
            artifact = artifacts["artifacts"][0]
            found = (written.get("artifacts", {}).get(key, {}).get("artifacts") or [{}])[0]
            if None in found.get("metadata", {}).values():
                raise StepFailedError(
                    f"{key} has null metadata, which KFP's store refuses: {found['metadata']}"
                )
            artifact = {
                **artifact,
                "uri": found.get("uri") or artifact["uri"],
                "metadata": {**artifact["metadata"], **found.get("metadata", {})},
            }
            # An address that is no object store's is not uploaded, with a warning in a log that nobody reads.
            if artifact["uri"].startswith(tuple(SCHEMES)) and staged(artifact["uri"], pod).exists():
                shutil.copytree(staged(artifact["uri"], pod), self._in_store(artifact["uri"]))
            published[key] = artifact
        return published

    def _in_store(self, uri: str) -> pathlib.Path:
        return self.folder / "store" / uri.replace("://", "/")

    def path(self, task: str, key: str) -> pathlib.Path:
        """Where an artifact of a node lies in the object store."""
        return self._in_store(self.outputs[task_name(task)][key]["uri"])

    @staticmethod
    def _copy(source: pathlib.Path, uri: str, pod: pathlib.Path) -> None:
        shutil.copytree(source, staged(uri, pod))


def executed(command: list[str], pod: pathlib.Path, log: pathlib.Path) -> int:
    """Starts a container's command as it stands; returns its exit status."""
    with log.open("w") as file:
        return subprocess.run(
            command,
            cwd=pod,
            env=environment(pod),
            stdout=file,
            stderr=file,
            timeout=STEP_SECONDS,
            check=False,
        ).returncode


def forked(command: list[str], pod: pathlib.Path, log: pathlib.Path) -> int:
    """Runs a container's command in a fork of a process that has imported TFX; returns its exit status."""
    try:
        return warm_process.run(command, pod, environment(pod), (log, log), STEP_SECONDS)
    except TimeoutError as error:
        raise StepFailedError(f"{error}\n{log.read_text()[-3000:]}") from error


def staged(uri: str, pod: pathlib.Path) -> pathlib.Path:
    """The file or folder in a pod as which the launcher stages an artifact."""
    scheme = next(scheme for scheme in SCHEMES if uri.startswith(scheme))
    return pod / SCHEMES[scheme] / uri.removeprefix(scheme)


def environment(pod: pathlib.Path) -> dict[str, str]:
    """What a container has: the image's Python and code, and a root of its own for staged artifacts."""
    (pod / "tmp").mkdir(exist_ok=True)
    return {
        "PATH": f"{pathlib.Path(sys.executable).parent}:{os.defpath}",
        "PYTHONPATH": str(PROJECT),
        "HOME": str(pod),
        "TMPDIR": str(pod / "tmp"),
        "BYOL_STAGING_ROOT": str(pod),
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
