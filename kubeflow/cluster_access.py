"""What Kubernetes says of the namespace before anything runs in it, through its own client; a finding a question."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from kubeflow.config import KubeflowConfig, Step, Toleration
from kubeflow.findings import FAILED, OK, UNKNOWN, Finding

if TYPE_CHECKING:
    from kubernetes import client

_FORBIDDEN, _MISSING = (401, 403), 404
_SHARED = "ReadWriteMany"
_MANIFESTS = "kubectl apply -k kubeflow/manifests/base"
# What a step's pod does by its account's rights, at 2.5.0 and 2.17.0: Argo's executor reports its results
# (manifests/kustomize/base/pipeline/pipeline-runner-role.yaml:84), the launcher reads its settings (FromConfigMap,
# backend/src/v2/config/env.go:72), and the key of a minio:// root (minioArtifactSecretName, the same file:41).
RIGHTS = (
    ("create", "argoproj.io", "workflowtaskresults", ""),
    ("patch", "argoproj.io", "workflowtaskresults", ""),
    ("get", "", "configmaps", "kfp-launcher"),
)
MINIO_RIGHT = ("get", "", "secrets", "mlpipeline-minio-artifact")
# KFP's own account where none is given (backend/src/apiserver/config/config.json:23, and
# manifests/kustomize/base/installs/multi-user/api-service/params.env:2 at 2.17.0).
PIPELINE_RUNNER, PROFILE_ACCOUNT = "pipeline-runner", "default-editor"


class NotAskedError(RuntimeError):
    """Kubernetes was not asked, or gave no answer to this person; the message is one line."""


@dataclasses.dataclass(frozen=True)
class Node:
    """What a node offers a pod.

    Attributes:
        name, labels: as Kubernetes has them.
        taints: key, value and effect of each that keeps pods away.
        offers: allocatable amounts by resource, in cores, bytes and devices.
        why_not: why it takes no pod at all; "" if it does.
    """

    name: str
    labels: Mapping[str, str]
    taints: tuple[tuple[str, str, str], ...]
    offers: Mapping[str, float]
    why_not: str = ""

    def refuses(self, step: Step) -> str:
        """Why it could never take a step's pod, however empty it is; "" if it could."""
        if self.why_not:
            return self.why_not
        for label, value in step.node_selector:
            if self.labels.get(label) != value:
                return f"lacks the label {label}={value}"
        for taint in self.taints:
            if not any(_tolerates(toleration, taint) for toleration in step.tolerations):
                return f"has the taint {taint[0]}, which the step does not tolerate"
        wanted = {"cpu": step.cpu, "memory": step.memory_gb * 1e9}
        if step.accelerators:
            wanted[step.accelerator] = step.accelerators
        for resource, amount in wanted.items():
            if self.offers.get(resource, 0) < amount:
                return (
                    f"offers {_words(resource, self.offers.get(resource, 0))} of {_words(resource, amount)}"
                )
        return ""


def _words(resource: str, amount: float) -> str:
    if resource == "memory":
        return f"{amount / 1e9:.1f} GB"
    return f"{amount:g} {'cores' if resource == 'cpu' else resource}"


def _tolerates(toleration: Toleration, taint: tuple[str, str, str]) -> bool:
    """As the scheduler does it (ToleratesTaint, staging/src/k8s.io/api/core/v1/toleration.go of Kubernetes)."""
    key, value, effect = taint
    return (
        toleration.effect in ("", effect)
        and toleration.key in ("", key)
        and (toleration.operator == "Exists" or toleration.value == value)
    )


class Access:
    """One namespace of a cluster, by kubeconfig, or from a pod of the cluster by its account.

    Args:
        namespace: where steps run.
        context: of the kubeconfig; "" for the current one.
        timeout: seconds that one request may take.

    Raises:
        ValueError: there is no such context.
        NotAskedError: there is no kubeconfig.
    """

    def __init__(self, namespace: str, context: str, timeout: float) -> None:
        self._namespace, self._timeout = namespace, timeout
        self._api = _api_client(context)
        self._core = _core(self._api)

    def account(self, name: str, root: str) -> Iterator[Finding]:
        """Whether the account of the steps is there, and may do what they do by it."""
        if self._ask(self._core.read_namespaced_service_account, name, self._namespace) is None:
            yield Finding("account", FAILED, f"there is no account {name} in {self._namespace}", _MANIFESTS)
            return
        rights = [*RIGHTS, *([MINIO_RIGHT] if root.startswith("minio://") else [])]
        missing = [" ".join(filter(None, right)) for right in rights if not self._may(name, right)]
        if missing:
            said = f"{name} may not {', '.join(missing)}"
            yield Finding("account", FAILED, said, f"{_MANIFESTS} adds the role")
        else:
            yield Finding("account", OK, f"{name} may do what steps do by it")

    def _may(self, account: str, right: tuple[str, str, str, str]) -> bool:
        from kubernetes import client

        verb, group, resource, name = right
        accounts = "system:serviceaccounts"
        review = client.V1LocalSubjectAccessReview(
            metadata=client.V1ObjectMeta(namespace=self._namespace),
            spec=client.V1SubjectAccessReviewSpec(
                user=f"system:serviceaccount:{self._namespace}:{account}",
                groups=[accounts, f"{accounts}:{self._namespace}", "system:authenticated"],
                resource_attributes=client.V1ResourceAttributes(
                    namespace=self._namespace, verb=verb, group=group, resource=resource, name=name or None
                ),
            ),
        )
        ask = client.AuthorizationV1Api(self._api).create_namespaced_local_subject_access_review
        answer = self._ask(ask, self._namespace, review)
        return answer is not None and bool(answer.status.allowed)

    def claim(self, name: str) -> Iterator[Finding]:
        """Whether steps on several nodes can mount the volume."""
        claim = self._ask(self._core.read_namespaced_persistent_volume_claim, name, self._namespace)
        if claim is None:
            yield Finding("claim", FAILED, f"there is no claim {name} in {self._namespace}", _MANIFESTS)
        else:
            yield _of_claim(name, claim, self._waits_for_a_pod)

    def _waits_for_a_pod(self, storage_class: str) -> bool:
        from kubernetes import client

        found = self._ask(client.StorageV1Api(self._api).read_storage_class, storage_class)
        return found is not None and found.volume_binding_mode == "WaitForFirstConsumer"

    def secrets(self, config: KubeflowConfig) -> Iterator[Finding]:
        """Whether the Secrets that the settings name are there, with their entries; nothing of them is told."""
        wanted: dict[str, set[str]] = {config.pull_secret: set()} if config.pull_secret else {}
        for one in config.secrets:
            wanted.setdefault(one.secret, set()).add(one.key)
        for name, keys in wanted.items():
            what = f"secret {name}"
            mend = f"kubectl -n {self._namespace} create secret; a step's pod does not start without it"
            found = self._ask(self._core.read_namespaced_secret, name, self._namespace)
            lacking = sorted(keys - (found.data or {}).keys()) if found else []
            if found is None:
                yield Finding(what, FAILED, f"it is not in {self._namespace}", mend)
            elif lacking:
                yield Finding(what, FAILED, f"it has no entry {', '.join(lacking)}", mend)
            else:
                yield Finding(what, OK, "it is there, with its entries" if keys else "it is there")

    def nodes(self, kinds: Mapping[str, Step]) -> Iterator[Finding]:
        """Whether some node could take each kind of step if nothing else ran on it."""
        there = self._ask(self._core.list_node)
        found = [_node(one) for one in there.items] if there else []
        for kind, step in kinds.items():
            yield fitting(kind, step, found)

    def pods(self, run: str) -> dict[str, str]:
        """What holds each task's pod up, or ended it, by task; nothing of those that are well."""
        # Set on every pod of a run (LabelKeyWorkflowRunId, backend/src/common/util/consts.go:50 at KFP 2.17.0).
        label = {"label_selector": f"pipeline/runid={run}"}
        found = self._ask(self._core.list_namespaced_pod, self._namespace, **label)
        return {task_of(pod): words for pod in (found.items if found else []) if (words := trouble(pod))}

    def _ask(self, request: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What Kubernetes answers; None where there is no such thing."""
        import urllib3
        from kubernetes import client

        try:
            return request(*arguments, **options, _request_timeout=self._timeout)
        except client.ApiException as error:
            if error.status == _MISSING:
                return None
            forbidden = error.status in _FORBIDDEN
            why = "this person may not ask for it" if forbidden else f"it answered {error.status}"
            raise NotAskedError(f"Kubernetes was not asked: {why}") from error
        except urllib3.exceptions.HTTPError as error:
            raise NotAskedError(f"{self._api.configuration.host} cannot be reached") from error


def outside(access: Access, config: KubeflowConfig, account: str, kinds: Mapping[str, Step]) -> list[Finding]:
    """Everything that can be asked without a run; what this person may not ask is a finding as well.

    Args:
        access: of the namespace.
        config: the cluster's settings.
        account: of the steps.
        kinds: kinds of steps by name; none leaves the nodes out.
    """
    asked: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("account", lambda: access.account(account, config.pipeline_root)),
        ("claim", lambda: access.claim(config.claim)),
        ("secrets", lambda: access.secrets(config)),
    ]
    if kinds:
        asked.append(("nodes", lambda: access.nodes(kinds)))
    return [finding for what, ask in asked for finding in _unless_refused(what, ask)]


def _unless_refused(what: str, ask: Callable[[], Iterator[Finding]]) -> list[Finding]:
    try:
        return list(ask())
    except NotAskedError as error:
        return [Finding(what, UNKNOWN, str(error))]


def _of_claim(name: str, claim: "client.V1PersistentVolumeClaim", waits: Callable[[str], bool]) -> Finding:
    modes, phase = claim.spec.access_modes or [], claim.status.phase
    said = f"{name} is {phase}, {', '.join(modes)}"
    if _SHARED not in modes:
        return Finding(
            "claim",
            FAILED,
            said,
            f"steps on several nodes need {_SHARED}: another storage class, a new claim",
        )
    if phase == "Pending" and claim.spec.storage_class_name and waits(claim.spec.storage_class_name):
        return Finding("claim", OK, f"{said}; its volume is made for the first pod")
    if phase != "Bound":
        return Finding("claim", FAILED, said, f"kubectl describe pvc {name} says what it waits for")
    return Finding("claim", OK, said)


def fitting(kind: str, step: Step, nodes: Iterable[Node]) -> Finding:
    """Whether one of the nodes could take a kind of step, and else how many of them lack what."""
    what, refusals = f"node for {kind}", {node.name: node.refuses(step) for node in nodes}
    fit = [name for name, why in refusals.items() if not why]
    if fit:
        return Finding(
            what, OK, f"{fit[0]}{f' and {len(fit) - 1} more' if len(fit) > 1 else ''} could take it"
        )
    reasons = list(refusals.values())
    counted = "; ".join(f"{reasons.count(why)} {why}" for why in dict.fromkeys(reasons))
    return Finding(
        what, FAILED, f"none of {len(reasons)} nodes could take it: {counted or 'there is none'}",
        f"steps.{kind} in --cluster, or such a node; where a pool grows from none, --no-nodes",
    )  # fmt: skip


def _node(node: "client.V1Node") -> Node:
    from kubernetes.utils import parse_quantity

    ready = any(one.type == "Ready" and one.status == "True" for one in node.status.conditions or [])
    return Node(
        name=node.metadata.name,
        labels=node.metadata.labels or {},
        taints=tuple(
            (taint.key, taint.value or "", taint.effect)
            for taint in node.spec.taints or []
            if taint.effect in ("NoSchedule", "NoExecute")
        ),
        offers={
            name: float(parse_quantity(amount)) for name, amount in (node.status.allocatable or {}).items()
        },
        why_not="takes no pods (cordoned)" if node.spec.unschedulable else "" if ready else "is not ready",
    )


def task_of(pod: "client.V1Pod") -> str:
    """The task of a pod; "" if it is none's.

    Argo writes the node's name into an annotation (workflow/controller/workflowpod.go), `WORKFLOW.root.TASK.executor`
    in a run of KFP; a retry's has a number behind it.
    """
    parts = ((pod.metadata.annotations or {}).get("workflows.argoproj.io/node-name") or "").split(".")
    return parts[-2] if len(parts) > 2 and parts[-1].startswith("executor") else parts[-1]


def trouble(pod: "client.V1Pod") -> str:
    """What Kubernetes says of a pod that waits or failed; "" of one that is well."""
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return str(condition.message or condition.reason)
    for status in [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]:
        waiting, ended = status.state.waiting, status.state.terminated
        if waiting and waiting.reason not in ("PodInitializing", "ContainerCreating"):
            return f"{waiting.reason}: {waiting.message or ''}".strip(": ")
        if ended and ended.exit_code:
            return f"{status.name} ended with {ended.exit_code}: {ended.message or ended.reason}"
    return ""


def _core(api: "client.ApiClient") -> "client.CoreV1Api":
    from kubernetes import client

    return client.CoreV1Api(api)


def _api_client(context: str) -> "client.ApiClient":
    from kubernetes import client, config

    settings = client.Configuration()
    settings.retries = False
    try:
        config.load_kube_config(context=context or None, client_configuration=settings)
    except config.ConfigException as error:
        if context:
            raise ValueError(f"--context {context}: {error}") from error
        try:
            config.load_incluster_config(client_configuration=settings)
        except config.ConfigException as nowhere:
            raise NotAskedError(f"there is no kubeconfig ({' '.join(str(error).split())})") from nowhere
    return client.ApiClient(settings)
