"""A compiled pipeline, and what each of its steps gets, in KFP's own words; without TFX."""

import dataclasses
import json
import pathlib
import re
from typing import Any

import yaml

from components.staging import write_atomically
from kubeflow.config import KubeflowConfig, Step

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled pipeline.

    Attributes:
        job: the PipelineJob, which Vertex AI takes; its `pipelineSpec` is what KFP takes.
        platform: the PlatformSpec for KFP; None for Vertex AI.
    """

    job: dict[str, Any]
    platform: dict[str, Any] | None

    @property
    def spec(self) -> dict[str, Any]:
        """The PipelineSpec."""
        return dict(self.job["pipelineSpec"])

    @property
    def pipeline_root(self) -> str:
        """Where artifacts go; the server takes it beside the file, not from it."""
        return str(self.job["runtimeConfig"]["gcsOutputDirectory"])

    def text(self) -> str:
        """The file's content: two YAML documents for KFP, JSON for Vertex AI."""
        if self.platform is None:
            return json.dumps(self.job, indent=1, sort_keys=True) + "\n"
        return yaml.safe_dump_all([self.spec, self.platform], sort_keys=True)

    def write(self, path: pathlib.Path) -> None:
        """Writes the file in one rename.

        Raises:
            ValueError: for a name that the receiver would not take.
        """
        check_name(path, vertex=self.platform is None)
        write_atomically(path, self.text())


def check_name(path: pathlib.Path, vertex: bool) -> None:
    """Raises ValueError for a name that the receiver of a file would not take."""
    expected = ".json" if vertex else ".yaml"
    if path.suffix != expected:
        raise ValueError(f"The file's name ends in {expected} here; received {path}.")


def task_name(node: str) -> str:
    """A node's task on KFP: "Cifar10ExampleGen" is "cifar10-example-gen".

    KFP to 2.13 makes the pod's name of a task with retries from the task's
    (backend/src/v2/compiler/argocompiler/container.go:283 at 2.5.0), Argo takes it as it stands
    (workflow/util/pod_name.go), and Kubernetes has no upper case in the name of a pod.
    """
    return _WORD.sub("-", node).lower()


def resources(step: Step) -> dict[str, Any]:
    """One step's ResourceSpec: what it asks for is also what it may take."""
    resources: dict[str, Any] = {
        "cpuRequest": step.cpu,
        "cpuLimit": step.cpu,
        "memoryRequest": step.memory_gb,
        "memoryLimit": step.memory_gb,
    }
    if step.accelerators:
        resources["accelerator"] = {"type": step.accelerator, "count": str(step.accelerators)}
    return resources


def add_command(
    spec: dict[str, Any],
    platform: dict[str, Any],
    name: str,
    command: tuple[list[str], list[str]],
    step: Step,
    cluster: KubeflowConfig,
) -> None:
    """Adds a task that runs a command in the steps' image, with their volume and Secrets; KFP never caches it.

    Args:
        spec, platform: the PipelineSpec and the PlatformSpec.
        name: of the task.
        command: the container's command and its arguments.
        step: what it may take.
        cluster: the cluster's settings.
    """
    label = f"exec-{name}"
    spec["components"][f"comp-{name}"] = {"executorLabel": label}
    spec["deploymentSpec"]["executors"][label] = {
        "container": {
            "image": cluster.image,
            "command": command[0],
            "args": command[1],
            "resources": resources(step),
        }
    }
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    executors[label] = kubernetes_settings(step, cluster)
    spec["root"]["dag"]["tasks"][name] = {
        "taskInfo": {"name": name},
        "componentRef": {"name": f"comp-{name}"},
        "cachingOptions": {"enableCache": False},
    }


def kubernetes_settings(step: Step, cluster: KubeflowConfig) -> dict[str, Any]:
    """One step's KubernetesExecutorConfig, without the fields that are empty."""
    settings: dict[str, Any] = {
        "activeDeadlineSeconds": str(60 * step.timeout_minutes),
        "nodeSelector": {"labels": dict(step.node_selector)} if step.node_selector else None,
        "tolerations": [
            {name: value for name, value in dataclasses.asdict(toleration).items() if value}
            for toleration in step.tolerations
        ],
        "pvcMount": [{"constant": cluster.claim, "mountPath": cluster.volume}] if cluster.claim else None,
        "imagePullSecret": [{"secretName": cluster.pull_secret}] if cluster.pull_secret else None,
        "secretAsEnv": [
            {"secretName": s.secret, "keyToEnv": [{"secretKey": s.key, "envVar": s.variable}]}
            for s in cluster.secrets
        ],
    }
    if step.shared_memory:
        shared = {"mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": step.shared_memory}  # noqa: S108
        settings["emptyDirMounts"] = [{"volumeName": "shm", **shared}]
    return {name: value for name, value in settings.items() if value}
