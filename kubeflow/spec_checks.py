"""What KFP's own compiler and driver refuse, said before anything is sent: one sentence a problem.

`kfp.components.load_component_from_file` loads specifications that the server refuses, so it is no test.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf import json_format

SCHEMA_VERSION = "2.1.0"
_VERTEX_TASK = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?")
# Part of a pod's name (backend/src/v2/compiler/argocompiler/container.go:283 at 2.5.0; Argo's workflow/util/pod_name.go
# does not lower it), of which Kubernetes takes a-z, 0-9 and -; and, with what KFP appends, of a template's in Argo.
_TASK = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# Linux gives one argument no more (MAX_ARG_STRLEN), and a step whose argument is longer cannot be started.
MAX_ARGUMENT_BYTES = 128 * 1024 - 1
_PIPELINE = re.compile(r"[a-z0-9][a-z0-9-]{0,127}")
_RUNS = {"container", "importer"}  # "resolver" and "customJob": not implemented on open-source KFP
_DEVICE = re.compile(r"[a-z0-9.-]+\.[a-z]+/[a-z0-9.-]+")
# Fields of kfp-kubernetes' KubernetesExecutorConfig that backends of KFP 2.0 to 2.16 read alike.
_PLATFORM_FIELDS = {
    "activeDeadlineSeconds",
    "emptyDirMounts",
    "imagePullSecret",
    "nodeSelector",
    "pvcMount",
    "secretAsEnv",
    "tolerations",
}

Spec = Mapping[str, Any]


def problems(spec: Spec, platform: Spec | None = None, vertex: bool = False) -> list[str]:
    """Everything in a compiled pipeline that the server would refuse or never schedule; none if it is good.

    Args:
        spec: the PipelineSpec, as the first document of the YAML file holds it.
        platform: the PlatformSpec, its second document.
        vertex: accelerators have Vertex AI's names.
    """
    # Only here: the steps that use this module's other half would wait for it.
    from kfp.pipeline_spec import pipeline_spec_pb2

    try:
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    except json_format.ParseError as error:
        return [f"It is no PipelineSpec: {error}."]
    found = list(_header(spec))
    found += _components(spec)
    found += _tasks(spec, vertex)
    found += _accelerators(spec, vertex)
    if not found and (circle := _circle(spec)):
        found.append(f"Tasks wait for each other: {circle}.")
    if platform is not None:
        found += _platform(spec, platform)
        found += _retries(spec, platform)
    return found


def _header(spec: Spec) -> Iterator[str]:
    if spec.get("schemaVersion") != SCHEMA_VERSION:
        yield f"schemaVersion is {spec.get('schemaVersion')!r}; open-source KFP takes {SCHEMA_VERSION!r}."
    name = spec.get("pipelineInfo", {}).get("name", "")
    if not _PIPELINE.fullmatch(name):
        yield f"The pipeline's name is {name!r}; it is made of a-z, 0-9 and -."
    if not tasks_of(spec):
        yield "There is no task."


def _components(spec: Spec) -> Iterator[str]:
    executors = executors_of(spec)
    for name, component in spec.get("components", {}).items():
        label = component.get("executorLabel")
        if label not in executors:
            yield f"Component {name} has the executor {label!r}, which does not exist."
            continue
        kinds = set(executors[label])
        if len(kinds) != 1 or kinds - _RUNS:
            yield f"Executor {label} is {', '.join(sorted(kinds))}; open-source KFP runs containers and importers."
        container = executors[label].get("container")
        if container is not None and not (container.get("image") and container.get("command")):
            yield f"Executor {label} has no image or no command."
        longest = max((len(a.encode()) for a in (container or {}).get("args", [])), default=0)
        if longest > MAX_ARGUMENT_BYTES:
            yield f"Executor {label} has an argument of {longest} bytes; Linux takes {MAX_ARGUMENT_BYTES} at most."


def _tasks(spec: Spec, vertex: bool) -> Iterator[str]:
    tasks, components = tasks_of(spec), spec.get("components", {})
    for name, task in tasks.items():
        if not (_VERTEX_TASK if vertex else _TASK).fullmatch(name):
            letters = "a-z, A-Z" if vertex else "a-z"
            yield f"Task {name} has a name that no pod can have; it is 1 to 63 of {letters}, 0-9 and -, no - at an end."
        reference = task.get("componentRef", {}).get("name")
        if reference not in components:
            yield f"Task {name} runs the component {reference!r}, which does not exist."
            continue
        if task.get("cachingOptions", {}).get("enableCache"):
            yield f"Task {name} may be cached, and KFP's cache key does not see the data: new data would be ignored."
        for dependency in task.get("dependentTasks", []):
            if dependency not in tasks:
                yield f"Task {name} waits for {dependency}, which does not exist."
        yield from _artifacts(name, task, spec)
        yield from _parameters(name, task, spec)
        yield from _constants(name, task)


def _artifacts(name: str, task: Spec, spec: Spec) -> Iterator[str]:
    wanted = _definitions(task, spec, "inputDefinitions", "artifacts")
    given = task.get("inputs", {}).get("artifacts", {})
    for key, definition in wanted.items():
        if key not in given and not definition.get("isOptional"):
            yield f"Task {name} is not given its input {key}."
    for key, source in given.items():
        producer = source.get("taskOutputArtifact", {})
        other = tasks_of(spec).get(producer.get("producerTask"))
        made = _definitions(other, spec, "outputDefinitions", "artifacts") if other is not None else {}
        if producer.get("outputArtifactKey") not in made:
            yield f"Task {name} takes {key} from {dict(producer)}, which does not exist."


def _parameters(name: str, task: Spec, spec: Spec) -> Iterator[str]:
    wanted = _definitions(task, spec, "inputDefinitions", "parameters")
    given = task.get("inputs", {}).get("parameters", {})
    known = spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    for key, definition in wanted.items():
        if key not in given and not definition.get("isOptional") and "defaultValue" not in definition:
            yield f"Task {name} is not given its parameter {key}."
    for key, source in given.items():
        if key not in wanted:
            yield f"Task {name} is given the parameter {key}, which its component does not have."
        if "componentInputParameter" in source and source["componentInputParameter"] not in known:
            yield f"Task {name} takes {key} from a parameter of the pipeline that does not exist."
        producer = source.get("taskOutputParameter")
        if producer is not None:
            other = tasks_of(spec).get(producer.get("producerTask"))
            made = _definitions(other, spec, "outputDefinitions", "parameters") if other is not None else {}
            if producer.get("outputParameterKey") not in made:
                yield f"Task {name} takes {key} from {dict(producer)}, which does not exist."


def _accelerators(spec: Spec, vertex: bool) -> Iterator[str]:
    for label, executor in executors_of(spec).items():
        accelerator = executor.get("container", {}).get("resources", {}).get("accelerator")
        if accelerator is None:
            continue
        kind = str(accelerator.get("type", ""))
        if bool(_DEVICE.fullmatch(kind)) == vertex:
            yield (
                f"Executor {label} asks for the accelerator {kind!r}; Kubernetes knows names such as nvidia.com/gpu, "
                "Vertex AI such as NVIDIA_TESLA_T4."
            )
        if int(accelerator.get("count", 0)) < 1:
            yield f"Executor {label} asks for no accelerator of type {kind}."


def _circle(spec: Spec) -> str:
    """Names of tasks that wait for each other; "" if there is an order."""
    tasks = tasks_of(spec)
    waiting = {name: predecessors(task) for name, task in tasks.items()}
    while True:
        ready = [name for name, before in waiting.items() if not before & waiting.keys()]
        if not ready:
            return ", ".join(sorted(waiting))
        for name in ready:
            del waiting[name]


def _platform(spec: Spec, platform: Spec) -> Iterator[str]:
    from kfp.pipeline_spec import pipeline_spec_pb2

    try:
        json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    except json_format.ParseError as error:
        yield f"It is no PlatformSpec: {error}."
        return
    for name, single in platform.get("platforms", {}).items():
        if name != "kubernetes":
            yield f"There is no platform {name}; KFP knows kubernetes."
        for label, settings in single.get("deploymentSpec", {}).get("executors", {}).items():
            if label not in executors_of(spec):
                yield f"The platform has settings for {label}, which is no executor."
            for field in sorted(settings.keys() - _PLATFORM_FIELDS):
                yield f"The platform's settings for {label} hold {field}, which older backends refuse."


def _constants(name: str, task: Spec) -> Iterator[str]:
    """What a task is given must hold no placeholder.

    The launcher fills in every placeholder, wherever it stands (getPlaceholders, backend/src/v2/component/
    launcher_v2.go:1077 at 2.17.0), and Argo its own before that.
    """
    constants = {
        key: source["runtimeValue"]["constant"]
        for key, source in task.get("inputs", {}).get("parameters", {}).items()
        if "constant" in source.get("runtimeValue", {})
    }
    for key, value in constants.items():
        if "{{" in str(value):
            yield f"The parameter {key} of {name} holds {{{{, which KFP and Argo take for a variable; rename it."


def _retries(spec: Spec, platform: Spec) -> Iterator[str]:
    """Argo counts `backoffMaxDuration` from the first attempt, and ends a later one's pod by it.

    See workflow/controller/operator.go:1041-1093 of Argo 3.5.14. Without the field nothing is tried again from KFP
    2.14 on, where it becomes 0 (backend/src/v2/compiler/argocompiler/container.go:633 and 644 at 2.16.1).
    """
    executors = (
        platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    )
    for name, task in tasks_of(spec).items():
        policy = task.get("retryPolicy")
        if not policy or not policy.get("maxRetryCount"):
            continue
        label = spec["components"].get(task["componentRef"]["name"], {}).get("executorLabel")
        attempts = (policy["maxRetryCount"] + 1) * int(
            executors.get(label, {}).get("activeDeadlineSeconds", 0)
        )
        until = _seconds(policy.get("backoffMaxDuration", "0s"))
        if until <= attempts:
            yield (
                f"Task {name} is tried again for {until:g} s after its first start; expected more than the "
                f"{attempts} s that its attempts may take."
            )


def _seconds(duration: str) -> float:
    """A protobuf Duration in JSON, such as "60s"."""
    return float(duration.removesuffix("s"))


def tasks_of(spec: Spec) -> dict[str, Any]:
    """The tasks by name."""
    return dict(spec.get("root", {}).get("dag", {}).get("tasks", {}))


def executors_of(spec: Spec) -> dict[str, Any]:
    """The executors by label."""
    return dict(spec.get("deploymentSpec", {}).get("executors", {}))


def predecessors(task: Spec) -> set[str]:
    """Names of the tasks that a task waits for."""
    inputs = task.get("inputs", {})
    sources = [*inputs.get("artifacts", {}).values(), *inputs.get("parameters", {}).values()]
    producers = [
        source.get("taskOutputArtifact", source.get("taskOutputParameter", {})) for source in sources
    ]
    return {*task.get("dependentTasks", []), *(p["producerTask"] for p in producers if "producerTask" in p)}


def _definitions(task: Spec, spec: Spec, side: str, kind: str) -> dict[str, Any]:
    component = spec.get("components", {}).get(task.get("componentRef", {}).get("name"), {})
    return dict(component.get(side, {}).get(kind, {}))
