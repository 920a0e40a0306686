"""Where the pipeline runs on a cluster and what each step may take; nothing of a cluster is written elsewhere.

No TFX, no kfp, so that the command line starts fast.
"""

import dataclasses
import math
import pathlib
import re
from typing import Any

from pipeline.config import BeamConfig
from trainer import settings

# Object stores whose artifacts KFP's launcher stages as files; gs:// is also what Vertex mounts.
STORES = ("minio://", "s3://", "gs://")
_OPERATORS = ("Exists", "Equal")
_EFFECTS = ("", "NoSchedule", "PreferNoSchedule", "NoExecute")
DEFAULT_ROOT = "minio://mlpipeline/v2/artifacts/byol"
EXAMPLE_IMAGE = "registry.example/byol:0.1.0"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_SECRET_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# A tag or a digest behind the last "/": a registry's port is no tag.
_PINNED = re.compile(r"([^/]+/)*[^/:@]+(:[\w][\w.-]*)?(@sha256:[0-9a-f]+)?")
_QUANTITY = re.compile(r"[0-9]+(Ki|Mi|Gi|Ti)")
# vendor.domain/resource: the name of an extended resource in Kubernetes, not a Vertex enum like NVIDIA_TESLA_T4.
# GKE's label of a TPU node: chips of the whole slice along each axis, such as 2x2 or 4x4x4.
_TOPOLOGY = "cloud.google.com/gke-tpu-topology"
_TPU = "google.com/tpu"
_DEVICE = re.compile(r"[a-z0-9.-]+\.[a-z]+/[a-z0-9.-]+")


@dataclasses.dataclass(frozen=True)
class Toleration:
    """Lets a step run on tainted nodes, as those with GPUs often are.

    Attributes:
        key, value: of the taint; no value with the operator "Exists".
        operator: "Exists" or "Equal".
        effect: "NoSchedule", "PreferNoSchedule", "NoExecute", or "" for all.
    """

    key: str
    operator: str = "Exists"
    value: str = ""
    effect: str = "NoSchedule"

    def __post_init__(self) -> None:
        if self.operator not in _OPERATORS or self.effect not in _EFFECTS:
            raise ValueError(
                f"A toleration has an operator of {', '.join(_OPERATORS)} and an effect of "
                f"{', '.join(filter(None, _EFFECTS))} or none; received {self.operator!r}, {self.effect!r}."
            )
        if self.operator == "Exists" and self.value:
            raise ValueError(f"A toleration with Exists has no value; received {self.value!r}.")


@dataclasses.dataclass(frozen=True)
class SecretVariable:
    """One key of a Kubernetes Secret as an environment variable; the value itself is never written here.

    Attributes:
        secret, key: name of the Secret, and which of its entries.
        variable: name of the environment variable.
    """

    secret: str
    key: str
    variable: str

    def __post_init__(self) -> None:
        for name, pattern in (("secret", _NAME), ("key", _SECRET_KEY), ("variable", _VARIABLE)):
            if not pattern.fullmatch(getattr(self, name)):
                # The value is not repeated: it may be the secret itself, in the wrong place.
                raise ValueError(
                    f"secrets: {name} is no name ({pattern.pattern}). Give the names of a Kubernetes Secret, of its "
                    "entry and of the environment variable; the value stays in the cluster."
                )


@dataclasses.dataclass(frozen=True)
class Step:
    """What one step may take.

    Attributes:
        cpu: cores, request and limit.
        memory_gb: gigabytes (10^9 bytes), request and limit.
        accelerator: the resource's name in Kubernetes, "nvidia.com/gpu" or "google.com/tpu"; "" for none.
            On Vertex AI its own name, such as "NVIDIA_TESLA_T4".
        accelerators: how many.
        node_selector: pairs of label and value that a node must have.
        tolerations: taints that the step stands.
        shared_memory: size of /dev/shm, such as "2Gi"; "" leaves the runtime's 64 MiB.
        retries: how often a failed step is run again.
        backoff_seconds: before the first of these; doubled each time.
        timeout_minutes: after which the step's pod is killed.
    """

    cpu: float = 2.0
    memory_gb: float = 8.0
    accelerator: str = ""
    accelerators: int = 0
    node_selector: tuple[tuple[str, str], ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    shared_memory: str = ""
    retries: int = 1
    backoff_seconds: int = 60
    timeout_minutes: int = 60

    def __post_init__(self) -> None:
        for name in ("cpu", "memory_gb"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"A step's {name} is above 0; received {value}.")
        if bool(self.accelerator) != (self.accelerators > 0):
            raise ValueError(
                f"An accelerator has a name and a count above 0, or neither; received "
                f"{self.accelerator!r} and {self.accelerators}."
            )
        _check_slice(self)
        if self.shared_memory and not _QUANTITY.fullmatch(self.shared_memory):
            raise ValueError(f"shared_memory is a size such as 2Gi; received {self.shared_memory!r}.")
        if min(self.retries, self.backoff_seconds) < 0 or self.timeout_minutes < 1:
            raise ValueError(
                "A step's retries and backoff_seconds are at least 0 and timeout_minutes at least 1; received "
                f"{self.retries}, {self.backoff_seconds} and {self.timeout_minutes}."
            )


def _check_slice(step: Step) -> None:
    """Refuses a TPU slice of several hosts: GKE gives a pod to each of them, and a step of KFP is one pod."""
    topology = dict(step.node_selector).get(_TOPOLOGY)
    if step.accelerator != _TPU or topology is None:
        return
    sides = topology.split("x")
    chips = math.prod(int(side) for side in sides) if all(side.isdecimal() for side in sides) else 0
    if chips != step.accelerators:
        raise ValueError(
            f"A slice of topology {topology!r} has {chips or 'no known number of'} chips and a step asks for "
            f"{step.accelerators}: a step is one pod and takes one host whole. Give a topology of one host, such as "
            "2x2 with accelerators 4 or 2x4 with 8; slices of several hosts cannot be used from a pipeline's step."
        )


@dataclasses.dataclass(frozen=True)
class Steps:
    """The kinds of steps.

    Attributes:
        data: every step that is none of the others.
        pretrain: the Pretrainer. It resumes from its checkpoints, so a retry costs little.
        probe: LinearProbe and RandomProbe, which embed every training image once.
    """

    data: Step = Step()
    pretrain: Step = Step(
        cpu=8.0,
        memory_gb=32.0,
        accelerator="nvidia.com/gpu",
        accelerators=1,
        tolerations=(Toleration("nvidia.com/gpu"),),
        shared_memory="2Gi",
        retries=3,
        timeout_minutes=24 * 60,
    )
    probe: Step = Step(
        cpu=8.0,
        memory_gb=32.0,
        accelerator="nvidia.com/gpu",
        accelerators=1,
        tolerations=(Toleration("nvidia.com/gpu"),),
        shared_memory="2Gi",
        retries=2,
        timeout_minutes=4 * 60,
    )


@dataclasses.dataclass(frozen=True)
class KubeflowConfig:
    """The cluster as the pipeline sees it.

    Attributes:
        image: what every step runs in, with a tag that is not "latest" or, best, by digest: "registry/byol@sha256:...".
        pipeline_root: where KFP keeps artifacts: minio://, s3:// or gs://. With a namespace of a multi-user
            installation the default is the one that `for_namespace` makes of it.
        claim: the PersistentVolumeClaim of what outlives a run: record files, checkpoints, served versions. On
            Vertex AI "", and `volume` is a bucket's mount.
        volume: where it is mounted in each step.
        data, checkpoints, serving, store, networks: folders in it; `store` keeps the Examples of accepted spans,
            `networks` what a warm start needs of the served models.
        failures: folder in it with what failed steps had found, of the last 20 runs with such steps.
        test: folder in it with a test set that stays the same from span to span; "" takes each span's own test images.
        schema: the reviewed schema in the image.
        pull_secret: name of the Secret for a private registry; "" for none.
        secrets: see SecretVariable; every step gets them.
        run_hours: after which `byol kubeflow retrain` ends a run of its own that is still at work: a step that no node
            can take waits without a limit.
        steps: see its class.
    """

    image: str = EXAMPLE_IMAGE
    pipeline_root: str = DEFAULT_ROOT
    claim: str = "byol"
    volume: str = "/mnt/byol"
    data: str = "data"
    checkpoints: str = "checkpoints"
    serving: str = "serving"
    store: str = "spans"
    networks: str = "networks"
    failures: str = "failures"
    test: str = ""
    schema: str = "/opt/byol/components/data/schema.pbtxt"
    pull_secret: str = ""
    secrets: tuple[SecretVariable, ...] = ()
    run_hours: float = 72.0
    steps: Steps = Steps()

    def __post_init__(self) -> None:
        if not (math.isfinite(self.run_hours) and self.run_hours > 0):
            raise ValueError(f"run_hours is above 0; received {self.run_hours}.")
        if not self.pipeline_root.startswith(STORES):
            raise ValueError(
                f"pipeline_root is a folder in an object store ({', '.join(STORES)}), which KFP's launcher stages; "
                f"received {self.pipeline_root!r}."
            )
        if not self.volume.startswith("/"):
            raise ValueError(f"volume is an absolute path in the container; received {self.volume!r}.")
        for name in ("claim", "pull_secret"):
            value = getattr(self, name)
            if value and not _NAME.fullmatch(value):
                raise ValueError(f"{name} is a Kubernetes name (a-z, 0-9, -, .); received {value!r}.")
        match = _PINNED.fullmatch(self.image)
        if match is None or not (match[2] or match[3]) or match[2] == ":latest":
            raise ValueError(
                "image has a tag other than latest, or a digest (@sha256:...): a schedule runs what was tested; "
                f"received {self.image!r}."
            )

    def folder(self, name: str) -> str:
        """The path of "data", "checkpoints", "serving", "store", "networks", "failures" or "test" in a step."""
        return f"{self.volume.rstrip('/')}/{getattr(self, name).strip('/')}"


EVERY, NOTHING, NOW = "every", "none", "served"


@dataclasses.dataclass(frozen=True)
class Decided:
    """What retraining decided before a run; without it, a run takes what is there when it starts.

    Attributes:
        compared: kept spans that this run's data is compared with.
        baseline: served version to compare the model with; None before the first push.
        window: kept spans that are trained on; empty for a run that only looks at data, and keeps what passes.
        parent: served version whose networks a warm start begins with; None for random weights.
        notes: folder on the volume in which each step leaves what came of it.
    """

    compared: tuple[int, ...]
    baseline: int | None
    window: tuple[int, ...]
    parent: int | None
    notes: str


def for_namespace(config: KubeflowConfig, namespace: str) -> KubeflowConfig:
    """The configuration in a profile of a multi-user installation; a pipeline root that was chosen stays.

    From KFP 2.15 on a profile may not write below `v2/artifacts`, but below the folder that the controller gives it
    (manifests/kustomize/base/installs/multi-user/pipelines-profile-controller/sync.py:207 and 403 at 2.16.1).
    """
    if not namespace or config.pipeline_root != DEFAULT_ROOT:
        return config
    root = f"minio://mlpipeline/private-artifacts/{namespace}/v2/artifacts/byol"
    return dataclasses.replace(config, pipeline_root=root)


def check_platform(config: KubeflowConfig, vertex: bool) -> None:
    """Refuses settings that the platform would ignore or never schedule.

    Raises:
        ValueError: it says which one, and what is expected there.
    """
    _check_accelerators(config, vertex)
    if not vertex:
        if not config.claim:
            raise ValueError(
                "claim is empty; KFP's pods keep nothing without a PersistentVolumeClaim: name one."
            )
        return
    if not config.pipeline_root.startswith("gs://"):
        raise ValueError(f"pipeline_root is in gs:// on Vertex AI; received {config.pipeline_root!r}.")
    if config.claim or not config.volume.startswith("/gcs/"):
        raise ValueError(
            "claim is '' and volume a folder below /gcs/, where Vertex AI mounts buckets; received "
            f"{config.claim!r} and {config.volume!r}."
        )
    steps = {field.name: getattr(config.steps, field.name) for field in dataclasses.fields(config.steps)}
    only_kubernetes = {"pull_secret": config.pull_secret, "secrets": config.secrets} | {
        f"steps.{name}.node_selector": step.node_selector for name, step in steps.items()
    }
    given = [name for name, value in only_kubernetes.items() if value]
    if given:
        raise ValueError(f"Vertex AI knows no {', '.join(given)}; leave them empty.")


def check_engine(beam: BeamConfig, vertex: bool) -> None:
    """Refuses an engine whose workers would not see the files of a step.

    A step's inputs and outputs lie in its own pod until KFP's launcher has moved them; Dataflow's workers see the
    bucket that Vertex AI's steps name.

    Raises:
        ValueError: which engine, why not, and which ones there are.
    """
    known = ("local", "processes", *(("dataflow",) if vertex else ()))
    if beam.engine not in known:
        where = "Vertex AI" if vertex else "Kubeflow Pipelines"
        raise ValueError(
            f"beam.engine={beam.engine} cannot serve a step of {where}: its workers do not see the step's files, "
            f"which lie in the step's own pod while it works. Expected one of {', '.join(known)}."
        )


def _check_accelerators(config: KubeflowConfig, vertex: bool) -> None:
    for field in dataclasses.fields(config.steps):
        kind = getattr(config.steps, field.name).accelerator
        if kind and bool(_DEVICE.fullmatch(kind)) == vertex:
            expected = (
                "Vertex AI's, such as NVIDIA_TESLA_T4" if vertex else "Kubernetes', such as nvidia.com/gpu"
            )
            raise ValueError(f"steps.{field.name}.accelerator is {kind!r}; expected a name of {expected}.")


def load(path: pathlib.Path | None, assignments: list[str]) -> KubeflowConfig:
    """The configuration of a YAML file, or the default, with each "group.name=value" applied.

    Raises:
        ValueError: an unknown setting, a value that is none, or a file that is no mapping.
        OSError: the file cannot be read.
    """
    config = KubeflowConfig()
    if path is not None:
        config = settings.from_dict(KubeflowConfig, _merged(dataclasses.asdict(config), _read(path), ""))
    return settings.override(config, assignments)


def _read(path: pathlib.Path) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no mapping of settings; `byol kubeflow settings` lists them.")  # noqa: TRY004
    return values


def _merged(defaults: dict[str, Any], values: dict[str, Any], prefix: str) -> dict[str, Any]:
    """`defaults` with `values` in their place, group by group."""
    for name, value in values.items():
        if name not in defaults:
            raise ValueError(settings.unknown_setting(prefix + name, [prefix + known for known in defaults]))
        if isinstance(defaults[name], dict) and isinstance(value, dict):
            _merged(defaults[name], value, f"{prefix}{name}.")
        else:
            defaults[name] = value
    return defaults
