"""Plays the driver and the launcher of open-source KFP over a compiled file, without a cluster.

Written from KFP's Go sources (backend/src/v2: component/launcher_v2.go, driver/driver.go, metadata/converter.go): the
ExecutorInput with its oddities, one folder a task, object stores staged as files, outputs uploaded only from where the
launcher looks, null metadata refused, retries with what the last attempt left. Every step is a process of its own, in a
folder that is empty when it starts and gone when the next one does. Steps share the object store, through the launcher,
and the mounted volume; whatever else they count on is missing.

Most of a small step is the import of TFX, so it runs in a fork of a process that has imported it; the first task's is
started as it stands.
"""

import concurrent.futures
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator

import yaml

from kubeflow.compiled import task_name
from kubeflow.spec_checks import predecessors
from tests.e2e import warm_process
from tests.e2e.kfp_store import SCHEMES, RefusedError, Store, staged

PROJECT = pathlib.Path(__file__).resolve().parents[2]
AT_ONCE = 2
STEP_SECONDS = 400
# Linux takes no longer argument or variable (MAX_ARG_STRLEN); Argo 3.5 hands a pod its whole template in one
# (EnvVarTemplate in createWorkflowPod, workflow/controller/workflowpod.go), and KFP puts command and input into it.
LONGEST_BYTES = 128 * 1024 - 1
LOGS = "executor-logs"
POD = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LONGEST_POD_NAME = 253
# Where a pod may write besides the volume: what KFP mounts as empty folders (container.go:464 at 2.16.1), and /tmp.
# Keras asks first whether it may write at home; user 1000 of the image may not, and it takes /tmp instead.
WRITABLE = {*SCHEMES.values(), "tmp", ".local", ".cache", ".config", ".keras"}


class StepFailedError(RuntimeError):
    """A step's process ended with an error, or left what KFP refuses."""


@dataclasses.dataclass
class Cluster:
    """A cluster that runs compiled pipelines one after the other.

    Attributes:
        folder: everything of it.
        spec, platform: of the compiled file.
        release: of KFP, as a pair of numbers.
        claims: the PersistentVolumeClaims that there are, with the folders of their volumes.
        secrets: the Secrets that there are, with their entries.
        refusing: task -> how many objects of its first attempt's outputs the store takes before it refuses one.
        outputs: task -> output key -> RuntimeArtifact, as KFP's metadata store has them; a later run replaces them.
        parameters: task -> output parameter -> text.
        skipped: tasks whose condition was not met, and those that waited for them, in the last run.
        ran: tasks in the order in which they ended.
        attempts: task -> how often it was started in this run.
        pods: names of the pods that were made in this run.
        starts: how a container's command is started; by default by `forked` once one was executed.
    """

    folder: pathlib.Path
    spec: dict
    platform: dict
    release: tuple[int, int] = (2, 16)
    claims: dict = dataclasses.field(default_factory=dict)
    secrets: dict = dataclasses.field(default_factory=dict)
    refusing: dict = dataclasses.field(default_factory=dict)
    outputs: dict = dataclasses.field(default_factory=dict)
    parameters: dict = dataclasses.field(default_factory=dict)
    skipped: set = dataclasses.field(default_factory=set)
    ran: list = dataclasses.field(default_factory=list)
    attempts: dict = dataclasses.field(default_factory=dict)
    pods: list = dataclasses.field(default_factory=list)
    starts: Callable | None = None
    _identities: Iterator[int] = dataclasses.field(default_factory=lambda: itertools.count(1))

    @classmethod
    def of(cls, compiled: pathlib.Path, folder: pathlib.Path, **attributes) -> "Cluster":
        spec, platform = yaml.safe_load_all(compiled.read_text())
        return cls(folder, spec, platform, **attributes)

    def run(self, root: str, only: set[str] | None = None) -> None:
        """Runs every task, or those of the nodes in `only` with what an earlier run left for the others."""
        only = None if only is None else {task_name(node) for node in only}
        tasks = self.spec["root"]["dag"]["tasks"]
        waiting = {name: self._before(task) for name, task in tasks.items() if only is None or name in only}
        # GenerateOutputURI(pipelineRoot, pipelineName, runID), backend/src/v2/metadata/client.go:420 at 2.17.0
        address = f"{root}/{self.spec['pipelineInfo']['name']}/{uuid.uuid4()}"
        self.skipped = set()
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            running: dict[concurrent.futures.Future, str] = {}
            while waiting or running:
                for name in [name for name, before in waiting.items() if not before & waiting.keys()]:
                    if waiting[name] & set(running.values()):
                        continue
                    before = waiting.pop(name)
                    # What waits for a skipped task is omitted (`depends`, argocompiler/dag.go:710 at 2.16.1).
                    if before & self.skipped or not self._triggers(tasks[name]):
                        self.skipped.add(name)
                        continue
                    running[pool.submit(self._task, name, tasks[name], address)] = name
                done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in done:
                    name = running.pop(future)
                    self.outputs[name] = future.result()
                    self.ran.append(name)

    @staticmethod
    def _before(task: dict) -> set[str]:
        return predecessors(task)

    def _given(self, task: dict) -> dict:
        """A task's input parameters."""
        given = {}
        for key, source in task.get("inputs", {}).get("parameters", {}).items():
            made = source.get("taskOutputParameter")
            given[key] = (
                self.parameters[made["producerTask"]][made["outputParameterKey"]]
                if made
                else source["runtimeValue"]["constant"]
            )
        return given

    def _triggers(self, task: dict) -> bool:
        """Of the conditions that the driver evaluates (driver/container.go:87 at 2.16.1) those that our files have."""
        condition = task.get("triggerPolicy", {}).get("condition")
        if not condition:
            return True
        match = re.fullmatch(r"inputs\.parameter_values\['(\w+)'\] != '(\w*)'", condition)
        assert match, condition
        return self._given(task)[match[1]] != match[2]

    def _task(self, name: str, task: dict, run: str) -> dict:
        """All attempts of a task: each has a new pod, and the addresses, the store and the volume of the one before."""
        # One folder a task, with one salt (provisionOutputs, backend/src/v2/driver/driver.go:729 at 2.16.1).
        address = f"{run}/{name}/{uuid.uuid4()}"
        retries = task.get("retryPolicy", {}).get("maxRetryCount", 0)
        for attempt in range(retries + 1):
            self.attempts[name] = attempt + 1
            self.pods.append(pod_name(self.spec["pipelineInfo"]["name"], name, task, self.release, attempt))
            try:
                return self._step(
                    name, task, address, self.refusing.get(name) if attempt == 0 else None, attempt
                )
            except StepFailedError:
                if attempt == retries:
                    raise
        raise AssertionError("A task has one attempt at least.")

    def _step(self, name: str, task: dict, address: str, objects: int | None, attempt: int) -> dict:
        component = self.spec["components"][task["componentRef"]["name"]]
        container = self.spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        settings = self._settings(component["executorLabel"])
        pod = self.folder / "pods" / name
        shutil.rmtree(pod, ignore_errors=True)
        pod.mkdir(parents=True)
        executor_input = self._executor_input(task, component, address, pod, attempt)
        for artifacts in executor_input["inputs"]["artifacts"].values():
            uri = artifacts["artifacts"][0]["uri"]
            self.store.download(uri, staged(uri, pod))
        for artifacts in executor_input["outputs"]["artifacts"].values():
            staged(artifacts["artifacts"][0]["uri"], pod).parent.mkdir(parents=True, exist_ok=True)
        for parameter in executor_input["outputs"]["parameters"].values():
            pathlib.Path(parameter["outputFile"]).parent.mkdir(parents=True, exist_ok=True)
        command = filled_in([*container["command"], *container.get("args", [])], executor_input, pod)
        variables = {**environment(pod), **self._from_secrets(settings)}
        check_sizes(command, variables)
        # The log is an output like others, and is written while the step works (getLogWriter, launcher_v2.go).
        live = staged(executor_input["outputs"]["artifacts"][LOGS]["artifacts"][0]["uri"], pod)
        limit = min(STEP_SECONDS, int(settings.get("activeDeadlineSeconds", STEP_SECONDS)))
        status = (self.starts or (forked if self.ran else executed))(command, pod, live, variables, limit)
        log = self.folder / "logs" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        shutil.copyfile(live, log)
        try:
            if status:
                raise StepFailedError(f"{name} ended with {status}:\n{log.read_text()[-3000:]}")
            strayed = {path.name for path in pod.iterdir()} - WRITABLE
            if strayed:
                raise StepFailedError(
                    f"{name} wrote to a root that may be read-only: {', '.join(sorted(strayed))}"
                )
            published = self._publish(executor_input, pod, objects)
            self.parameters[name] = {
                key: pathlib.Path(parameter["outputFile"]).read_text()
                for key, parameter in executor_input["outputs"]["parameters"].items()
            }
        except StepFailedError:
            # Of a step that failed, its log alone (uploadOutputArtifacts, launcher_v2.go:787 at 2.17.0).
            self._upload({LOGS: executor_input["outputs"]["artifacts"][LOGS]}, pod, None)
            raise
        shutil.rmtree(pod)
        return published

    def _settings(self, executor: str) -> dict:
        """What the platform document gives a pod, as far as its claim and its Secrets are there."""
        settings = self.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].get(executor, {})
        for mount in settings.get("pvcMount", []):
            if self.claims.get(mount["constant"]) != pathlib.Path(mount["mountPath"]):
                raise StepFailedError(
                    f"{executor} mounts {mount}; there are the claims {self.claims}: the pod stays Pending"
                )
        return settings

    def _from_secrets(self, settings: dict) -> dict[str, str]:
        variables = {}
        for secret in settings.get("secretAsEnv", []):
            for pair in secret["keyToEnv"]:
                try:
                    variables[pair["envVar"]] = self.secrets[secret["secretName"]][pair["secretKey"]]
                except KeyError as error:
                    raise StepFailedError(
                        f"CreateContainerConfigError: there is no {error} for {secret}"
                    ) from error
        return variables

    @property
    def store(self) -> Store:
        return Store(self.folder / "store", bare_prefix=self.release < (2, 17))

    def _executor_input(
        self, task: dict, component: dict, address: str, pod: pathlib.Path, attempt: int
    ) -> dict:
        inputs = task.get("inputs", {})
        made = component.get("outputDefinitions", {}).get("artifacts", {})
        outputs = {key: definition["artifactType"] for key, definition in made.items()}
        outputs[LOGS] = {"schemaTitle": "system.Artifact"}
        # Each attempt's log has an address of its own from 2.17 on (qualifyExecutorLogsURI, launcher_v2.go:538).
        names = {LOGS: f"{LOGS}-{attempt}"} if self.release >= (2, 17) else {}
        # Of an output only a key is known; 2.15 put it into `name` as well (driver.go:738 at 2.16.1).
        named = self.release >= (2, 15)
        return {
            "inputs": {
                "parameterValues": self._given(task),
                "artifacts": {
                    key: {"artifacts": [self._input(**source["taskOutputArtifact"])]}
                    for key, source in inputs.get("artifacts", {}).items()
                },
            },
            "outputs": {
                # provisionOutputs, driver.go:752 at 2.16.1; the launcher makes the folder (prepareOutputFolders).
                "parameters": {
                    key: {"outputFile": str(pod / "tmp/kfp/outputs" / key)}
                    for key in component.get("outputDefinitions", {}).get("parameters", {})
                },
                "artifacts": {
                    key: {
                        "artifacts": [
                            {
                                **({"name": key} if named else {}),
                                "type": kind,
                                "uri": f"{address}/{names.get(key, key)}",
                                "metadata": {},
                            }
                        ]
                    }
                    for key, kind in outputs.items()
                },
                # In the task's folder from 2.15 on (driver.go:757 at 2.16.1), before in /tmp (launcher_v2.go:526).
                "outputFile": str(
                    staged(address, pod) / "output_metadata.json"
                    if named
                    else pod / "tmp/kfp_outputs/output_metadata.json"
                ),
            },
        }

    def _input(self, producerTask: str, outputArtifactKey: str) -> dict:  # noqa: N803 - the specification's names
        # The metadata store does not hand the type's schema on.
        return {**self.outputs[producerTask][outputArtifactKey], "type": {"instanceSchema": ""}}

    def _publish(self, executor_input: dict, pod: pathlib.Path, objects: int | None) -> dict:
        """Uploads outputs and merges their metadata, as `uploadOutputArtifacts` does."""
        path = pathlib.Path(executor_input["outputs"]["outputFile"])
        written = json.loads(path.read_text()) if path.exists() else {}
        artifacts = executor_input["outputs"]["artifacts"]
        for key, listed in artifacts.items():
            found = (written.get("artifacts", {}).get(key, {}).get("artifacts") or [{}])[0]
            if None in found.get("metadata", {}).values():
                raise StepFailedError(
                    f"{key} has null metadata, which KFP's store refuses: {found['metadata']}"
                )
            (artifact,) = listed["artifacts"]
            artifact["uri"] = found.get("uri") or artifact["uri"]
            artifact["metadata"] = {**artifact["metadata"], **found.get("metadata", {})}
        self._upload(artifacts, pod, objects)
        return {key: self._recorded(key, listed["artifacts"][0]) for key, listed in artifacts.items()}

    def _upload(self, artifacts: dict, pod: pathlib.Path, objects: int | None) -> None:
        for listed in artifacts.values():
            uri = listed["artifacts"][0]["uri"]
            # An address that is no object store's is not uploaded, with a warning in a log that nobody reads.
            if not uri.startswith(tuple(SCHEMES)) or not staged(uri, pod).exists():
                continue
            try:
                taken = self.store.upload(staged(uri, pod), uri, objects)
            except RefusedError as error:
                raise StepFailedError(str(error)) from error
            objects = None if objects is None else objects - taken

    def _recorded(self, key: str, artifact: dict) -> dict:
        """An artifact as the metadata store hands it on (RecordArtifact, toRuntimeArtifact)."""
        session = json.dumps({"Provider": "minio", "Params": {"fromEnv": "false"}})
        metadata = {name: as_stored(value) for name, value in artifact["metadata"].items()}
        return {
            **artifact,
            "name": str(next(self._identities)),
            "metadata": {"display_name": key, "store_session_info": session, **metadata},
        }

    def path(self, task: str, key: str) -> pathlib.Path:
        """Where an artifact of a node lies in the object store."""
        return self.store.path(self.outputs[task_name(task)][key]["uri"])


def as_stored(value):
    """A property after the metadata store: numbers are doubles, lists lie in a struct (converter.go:118 at 2.16.1)."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        rounded = float(value)
        return int(rounded) if rounded.is_integer() else rounded
    if isinstance(value, list | dict):
        return {"list" if isinstance(value, list) else "struct": value}
    return value


def filled_in(parts: list[str], executor_input: dict, pod: pathlib.Path) -> list[str]:
    """A command with its placeholders filled in (getPlaceholders, launcher_v2.go:1077 at 2.17.0)."""
    places = {"{{$}}": json.dumps(executor_input)}
    for side in ("inputs", "outputs"):
        for key, listed in executor_input[side]["artifacts"].items():
            uri = listed["artifacts"][0]["uri"]
            places[f"{{{{$.{side}.artifacts['{key}'].uri}}}}"] = uri
            places[f"{{{{$.{side}.artifacts['{key}'].path}}}}"] = str(staged(uri, pod))
    for key, value in executor_input["inputs"]["parameterValues"].items():
        text = value if isinstance(value, str) else json.dumps(value)
        places[f"{{{{$.inputs.parameters['{key}']}}}}"] = text
    for key, parameter in executor_input["outputs"]["parameters"].items():
        places[f"{{{{$.outputs.parameters['{key}'].output_file}}}}"] = parameter["outputFile"]
    filled = []
    for part in parts:
        for place, text in places.items():
            part = part.replace(place, text)  # noqa: PLW2901
        filled.append(part)
    return filled


def check_sizes(command: list[str], variables: dict[str, str]) -> None:
    """Refuses what Linux does: "Argument list too long"."""
    template = "".join(command)
    for what, text in (
        [("argument", part) for part in command] + list(variables.items()) + [("template", template)]
    ):
        if len(text.encode()) > LONGEST_BYTES:
            raise StepFailedError(
                f"The {what} that begins {text[:40]!r} has {len(text.encode())} bytes: too long"
            )


def pod_name(pipeline: str, task: str, task_spec: dict, release: tuple[int, int], attempt: int) -> str:
    """The name of a task's pod, refused where Kubernetes would.

    A template's name is the task's where it has retries to 2.13 (argocompiler/container.go:283 at 2.5.0), else KFP's
    (container.go:366 at 2.16.1). Argo makes the pod's of the workflow, the template and a digest, and lowers nothing
    (workflow/util/pod_name.go).
    """
    template = "system-container-impl"
    if "retryPolicy" in task_spec:
        template = f"{task}-{template}" if release < (2, 14) else f"retry-{template}"
    digest = int(hashlib.sha256(f"{task}({attempt})".encode()).hexdigest()[:8], 16)
    prefix = f"{pipeline}-x7k2p-{template}"[: LONGEST_POD_NAME - 11]
    name = f"{prefix}-{digest}"
    if not POD.fullmatch(name):
        raise StepFailedError(f"{name} is no name of a pod")
    return name


def executed(
    command: list[str], pod: pathlib.Path, log: pathlib.Path, variables: dict[str, str], seconds: float
) -> int:
    """Starts a container's command as it stands; returns its exit status."""
    with log.open("w") as file:
        return subprocess.run(
            command,
            cwd=pod,
            env=variables,
            stdout=file,
            stderr=file,
            timeout=seconds,
            umask=0,  # the launcher's
            check=False,
        ).returncode


def forked(
    command: list[str], pod: pathlib.Path, log: pathlib.Path, variables: dict[str, str], seconds: float
) -> int:
    """Runs a container's command in a fork of a process that has imported TFX; returns its exit status."""
    try:
        return warm_process.run(command, pod, variables, (log, log), seconds, umask=0)
    except TimeoutError as error:
        raise StepFailedError(f"{error}\n{log.read_text()[-3000:]}") from error


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
