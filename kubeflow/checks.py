"""`byol kubeflow check`: the server, then Kubernetes from outside, then one short run if nothing has failed so far."""

import dataclasses
import pathlib
import re
import time
from collections.abc import Mapping

from kubeflow import check_run
from kubeflow.cluster_access import PIPELINE_RUNNER, PROFILE_ACCOUNT, Access, NotAskedError, outside
from kubeflow.config import EXAMPLE_IMAGE, KubeflowConfig, Step
from kubeflow.findings import FAILED, OK, UNKNOWN, Finding, merged
from kubeflow.server import Server, ServerError

OLDEST = (2, 5)
_KFPS_NAMESPACE = "kubeflow"
_POLL_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is to be checked.

    Attributes:
        config: the cluster's settings.
        namespace: of a multi-user installation; "" for none.
        account: of the steps; "" for KFP's own.
        context: of the kubeconfig; "" for the current one.
        wait_seconds: how long the run may take.
        timeout: seconds that one request may take.
        poll_seconds: between two looks at the run.
    """

    config: KubeflowConfig
    namespace: str
    account: str
    context: str
    wait_seconds: float
    timeout: float
    poll_seconds: float = _POLL_SECONDS


def server(
    host: str, namespace: str, token: str, timeout: float, authorities: pathlib.Path | None
) -> "Server | Finding":
    """The server, or why there is none to be asked."""
    try:
        return Server(host, namespace, token, timeout, authorities)
    except ServerError as error:
        return Finding("server", FAILED, str(error).rstrip("."), "--host, --token-file or --ca-file")


def findings(asked: Asked, server: "Server | Finding", with_run: bool, with_nodes: bool) -> list[Finding]:
    """Every answer, in the order of the questions.

    Raises:
        ValueError: there is no such context in the kubeconfig.
    """
    found = [server if isinstance(server, Finding) else of_server(server, asked.config.pipeline_root)]
    found.append(_image(asked.config))
    kinds = {
        field.name: getattr(asked.config.steps, field.name)
        for field in dataclasses.fields(asked.config.steps)
    }
    access: Access | None = None
    try:
        access = Access(asked.namespace or _KFPS_NAMESPACE, asked.context, asked.timeout)
    except NotAskedError as error:
        found.append(
            Finding("account, claim, secrets, nodes", UNKNOWN, str(error), "--context, or the run alone")
        )
    if access is not None:
        found += outside(access, asked.config, _account(asked), kinds if with_nodes else {})
    if not with_run:
        return found
    if isinstance(server, Finding) or any(one.state == FAILED for one in found):
        return [*found, Finding("run", UNKNOWN, "none was made, as something has failed already")]
    try:
        return merged(found, _of_run(asked, server, access, kinds))
    except ServerError as error:
        return [*found, Finding("run", FAILED, str(error).rstrip("."), "what the server says")]


def of_server(server: Server, pipeline_root: str) -> Finding:
    """Whether a server is new enough and is asked as it wants to be."""
    try:
        version, multi_user, misplaced = server.version, server.multi_user, server.misplaced(pipeline_root)
    except ServerError as error:
        return Finding("server", FAILED, str(error).rstrip("."), "--host or --token-file")
    said = f"KFP {version or 'of an unknown release'}{', multi-user' if multi_user else ''}"
    match = re.match(r"v?(\d+)\.(\d+)", version)
    if misplaced:
        return Finding("server", FAILED, said, misplaced.rstrip("."))
    if match is None:
        return Finding("server", UNKNOWN, said, "compare with 2.5, the oldest that takes the file")
    if (int(match[1]), int(match[2])) < OLDEST:
        return Finding("server", FAILED, said, "KFP 2.5 or newer; older ones refuse fields of the file")
    return Finding("server", OK, said)


def _image(config: KubeflowConfig) -> Finding:
    if config.image == EXAMPLE_IMAGE:
        return Finding("image", FAILED, f"it is still the example {config.image}", "image in --cluster")
    return Finding("image", UNKNOWN, f"whether {config.image} holds this code is found by a run")


def _account(asked: Asked) -> str:
    return asked.account or (PROFILE_ACCOUNT if asked.namespace else PIPELINE_RUNNER)


def _of_run(asked: Asked, server: Server, access: Access | None, kinds: Mapping[str, Step]) -> list[Finding]:
    from kubeflow.entrypoint import code_digest

    def troubles(run: str) -> Mapping[str, str]:
        try:
            return access.pods(run) if access else {}
        except NotAskedError:
            return {}

    compiled = check_run.probe(asked.config, kinds, code_digest())
    name = f"byol-check {time.strftime('%Y-%m-%d %H:%M:%S')}"
    run = server.submit(compiled, name, "byol", asked.account)
    tasks = check_run.asked(kinds)
    return check_run.findings(server, run, tasks, asked.wait_seconds, troubles, asked.poll_seconds)
