"""The pipeline as a file that open-source KFP 2 takes, or Vertex AI.

TFX compiles the same `create_pipeline` as on one machine. What its compiler leaves out is added to what it wrote: the
resources of the ExampleGen, which it ignores, retries, and the settings that only Kubernetes has (volume, tolerations,
time limits), which are a second document of the YAML file.
"""

import json
from typing import Any, Literal

from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner

from components.data.dataset import CIFAR10, DataSet
from kubeflow import bindings, packing, spec_checks
from kubeflow.compiled import Compiled, kubernetes_settings, resources, task_name
from kubeflow.config import Decided, KubeflowConfig, Step, check_engine, check_platform
from kubeflow.entrypoint import CODE_OPTION, FAILURES_OPTION, NOTE_OPTION, code_digest
from pipeline import nodes, pipeline
from pipeline.beam import beam_args
from pipeline.config import PipelineConfig

ENTRYPOINT = ("python", "-m", "kubeflow.entrypoint")
Span = int | Literal["latest"] | None
# Argo counts a task's `backoffMaxDuration` from the start of its first attempt, waiting for a node included
# (workflow/controller/operator.go:1041 at 3.5.14), so each attempt may wait this long.
PENDING_SECONDS = 3600
# Vertex AI and the specification's own words allow no more; KFP hands any value to Argo
# (backend/src/v2/compiler/argocompiler/container.go:633 at 2.16.1).
_VERTEX_RETRY_SECONDS = 3600
# A step's Examples say what data set they are of: those of a span and of a test set.
_DESCRIBED_INPUTS = 2
_OTHER_BYTES = 16 * 1024  # addresses, and what else artifacts say of themselves
# Steps that look at a span's data, besides those before them.
_LOOKING = (pipeline.LABEL_CHECK, "KeptSpan")


def compile_pipeline(
    config: PipelineConfig,
    cluster: KubeflowConfig,
    span: Span = "latest",
    vertex: bool = False,
    decided: Decided | None = None,
    data_set: DataSet | None = None,
    newest_labelled: bool = True,
) -> Compiled:
    """Compiles the pipeline.

    Args:
        config: what is trained and what it must reach.
        cluster: where it runs.
        span: "latest" takes the highest `span-N` there when the run starts, a number that one; None a plain folder.
        vertex: for Vertex AI instead of open-source KFP.
        decided: what retraining decided; without a window, the steps that look at the data and no other.
        data_set: what the data on the volume say of themselves, as the first step finds out; None for CIFAR-10.
        newest_labelled: whether the span's own test images have labels, beside a fixed test set.

    Raises:
        ValueError: when KFP would refuse the result; it says what is wrong.
    """
    check_platform(cluster, vertex)
    check_engine(config.beam, vertex)
    built = pipeline.create_pipeline(
        config,
        pipeline.Locations(
            data=cluster.folder("data"),
            pipeline_root=cluster.pipeline_root,
            metadata=None,
            checkpoints=cluster.folder("checkpoints"),
            serving=cluster.folder("serving"),
            span=span,
            schema=cluster.schema,
            test=cluster.folder("test") if cluster.test else None,
            data_set=data_set or CIFAR10,
            newest_labelled=newest_labelled,
        ),
        beam_args(config.beam),
        bindings.bindings(cluster, config.warm_start != "never", decided),
    )
    # KFP's cache key holds parameters and names of artifacts, not data: a nightly run would never run again.
    built.enable_cache = False
    command = [*ENTRYPOINT, CODE_OPTION, code_digest()]
    if not vertex:  # where a step that failed keeps its outputs
        command += [FAILURES_OPTION, cluster.folder("failures")]
    runner = kubeflow_v2_dag_runner.KubeflowV2DagRunner(
        kubeflow_v2_dag_runner.KubeflowV2DagRunnerConfig(
            default_image=cluster.image,
            default_commands=command,
            use_pipeline_spec_2_1=True,
        )
    )
    job = runner.run(built, write_out=False)
    if decided and not decided.window:
        drop_all_but(job["pipelineSpec"], {*_LOOKING})
    if decided:
        _add_notes(job["pipelineSpec"], decided.notes)
    _pack_parameters(job["pipelineSpec"], data_set or CIFAR10)
    platform: dict[str, Any] = {}
    _add_resources(job["pipelineSpec"], cluster, platform, vertex)
    if not vertex:
        rename_tasks(job["pipelineSpec"])
    compiled = Compiled(
        job, None if vertex else {"platforms": {"kubernetes": {"deploymentSpec": {"executors": platform}}}}
    )
    problems = spec_checks.problems(compiled.spec, compiled.platform, vertex)
    if problems:
        raise ValueError(f"The compiled pipeline would be refused: {' '.join(problems)}")
    return compiled


def drop_all_but(spec: dict[str, Any], wanted: set[str]) -> None:
    """Leaves these tasks of a PipelineSpec, what they wait for, and nothing else."""
    tasks = spec["root"]["dag"]["tasks"]
    keep, found = set[str](), wanted & tasks.keys()
    while found:
        keep |= found
        found = {before for name in found for before in spec_checks.predecessors(tasks[name])} - keep
    spec["root"]["dag"]["tasks"] = {name: task for name, task in tasks.items() if name in keep}
    components = {tasks[name]["componentRef"]["name"] for name in keep}
    spec["components"] = {name: one for name, one in spec["components"].items() if name in components}
    labels = {one["executorLabel"] for one in spec["components"].values()}
    executors = spec["deploymentSpec"]["executors"]
    spec["deploymentSpec"]["executors"] = {name: one for name, one in executors.items() if name in labels}


def _add_notes(spec: dict[str, Any], folder: str) -> None:
    """Tells each step where to leave what came of it."""
    executors = spec["deploymentSpec"]["executors"]
    for name, task in spec["root"]["dag"]["tasks"].items():
        executor = executors[spec["components"][task["componentRef"]["name"]]["executorLabel"]]
        if "container" in executor:
            executor["container"]["command"] += [NOTE_OPTION, f"{folder}/{name}.json"]


def _pack_parameters(spec: dict[str, Any], data_set: DataSet) -> None:
    """Packs long parameters, for `kubeflow.entrypoint` to unpack.

    Raises:
        ValueError: they are still too long, with the descriptions that a step's Examples bring along.
    """
    brought = _DESCRIBED_INPUTS * len(json.dumps(data_set.to_json()))
    for name, task in spec["root"]["dag"]["tasks"].items():
        parameters = task.get("inputs", {}).get("parameters", {})
        values = [source["runtimeValue"] for source in parameters.values() if "runtimeValue" in source]
        for value in values:
            value["constant"] = packing.packed(value["constant"])
        size = len(json.dumps(values)) + brought + _OTHER_BYTES
        if size > spec_checks.MAX_ARGUMENT_BYTES:
            raise ValueError(
                f"What {name} would be told of {data_set.name} has {size} bytes and is one argument of its container, "
                f"of which Linux takes {spec_checks.MAX_ARGUMENT_BYTES}. Shorten its {data_set.classes} label names or "
                "train with `byol run`."
            )


def rename_tasks(spec: dict[str, Any]) -> None:
    """Gives each task of a PipelineSpec the name that pods can have; components and executors keep theirs.

    Raises:
        ValueError: two nodes would be one task.
    """
    tasks = spec["root"]["dag"]["tasks"]
    renamed = {task_name(node): task for node, task in tasks.items()}
    if len(renamed) < len(tasks):
        raise ValueError(f"Nodes differ in upper case alone: {', '.join(sorted(tasks))}; rename one of them.")
    for name, task in renamed.items():
        task["taskInfo"] = {**task.get("taskInfo", {}), "name": name}
        if "dependentTasks" in task:
            task["dependentTasks"] = [task_name(node) for node in task["dependentTasks"]]
        inputs = task.get("inputs", {})
        for source in [*inputs.get("artifacts", {}).values(), *inputs.get("parameters", {}).values()]:
            for producer in source.values():
                if isinstance(producer, dict) and "producerTask" in producer:
                    producer["producerTask"] = task_name(producer["producerTask"])
    spec["root"]["dag"]["tasks"] = renamed


def retry_policy(task: str, step: Step, vertex: bool = False) -> dict[str, Any] | None:
    """How often a node's task is tried again, and until when; None for not at all.

    A data gate that refuses refuses again: there is no exit code by which KFP could tell that from a fault.
    """
    if not step.retries or task in nodes.DATA_GATES:
        return None
    waits = step.backoff_seconds * (2**step.retries - 1)
    attempts = (step.retries + 1) * (60 * step.timeout_minutes + PENDING_SECONDS)
    return {
        "maxRetryCount": step.retries,
        "backoffDuration": f"{step.backoff_seconds}s",
        "backoffFactor": 2.0,
        "backoffMaxDuration": f"{_VERTEX_RETRY_SECONDS if vertex else attempts + waits}s",
    }


def step_of(task: str, cluster: KubeflowConfig) -> Step:
    """What a task may take."""
    if task == pipeline.PRETRAINER:
        return cluster.steps.pretrain
    if task in (pipeline.LINEAR_PROBE, pipeline.RANDOM_PROBE):
        return cluster.steps.probe
    return cluster.steps.data


def _add_resources(
    spec: dict[str, Any], cluster: KubeflowConfig, platform: dict[str, Any], vertex: bool
) -> None:
    """Writes each step's resources into `spec` and its Kubernetes settings into `platform`, by executor."""
    executors = spec["deploymentSpec"]["executors"]
    for name, task in spec["root"]["dag"]["tasks"].items():
        label = spec["components"][task["componentRef"]["name"]]["executorLabel"]
        task["cachingOptions"] = {"enableCache": False}
        if "container" not in executors[label]:
            continue
        step = step_of(name, cluster)
        executors[label]["container"]["resources"] = resources(step)
        policy = retry_policy(name, step, vertex)
        if policy:
            task["retryPolicy"] = policy
        platform[label] = kubernetes_settings(step, cluster)
