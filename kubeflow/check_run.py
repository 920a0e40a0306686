"""The short run of `byol kubeflow check`: a task for each thing that only a step of KFP can find out. No TFX.

The object store is written and read by KFP's launcher, as in every run: one task leaves an output, another takes it.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

from kubeflow.compiled import Compiled, add_command
from kubeflow.config import KubeflowConfig, Step
from kubeflow.findings import FAILED, OK, Finding
from kubeflow.server import ENDED, Server

_ARTIFACT = {"artifactType": {"schemaTitle": "system.Artifact", "schemaVersion": "0.0.1"}}
_OUTPUT, _WORD = "probe", "byol"
IMAGE, VOLUME, WRITTEN, READ = "image", "volume", "store-written", "store-read"
_PLACE = "place-"
_SMALL = Step(cpu=0.5, memory_gb=1.0)
_MINUTES = 10
_MENDS = {
    IMAGE: "push the image that is built of this commit and give it as `image`; pull_secret, if it is private",
    VOLUME: "kubectl apply -k kubeflow/manifests/owner, once; with NFS and root squash, on the NFS server",
    WRITTEN: "pipeline_root, the key in the Secret mlpipeline-minio-artifact, the bucket's policy and region",
    READ: "the bucket's policy: KFP's launcher lists and reads below pipeline_root",
}
# Reads, writes and deletes; `set -e` ends it at the first that it may not.
_VOLUME_SCRIPT = (
    'f="$0/.byol-check-$$"; echo byol > "$f"; test "$(cat "$f")" = byol; rm "$f"; ls "$0" > /dev/null'
)


def probe(config: KubeflowConfig, kinds: Mapping[str, Step], code_digest: str) -> Compiled:
    """The run as a file that KFP takes.

    Args:
        config: the cluster's settings; every task gets the volume, the Secrets and the image of a step.
        kinds: kinds of steps by name, for each of which a pod that does nothing is placed.
        code_digest: that the image has to hold.
    """
    check = "import sys; from kubeflow.entrypoint import check_code; check_code(sys.argv[1])"
    path = f"{{{{$.%sputs.artifacts['{_OUTPUT}'].path}}}}"
    # A shell makes $0 of the argument behind the script.
    shell = ["sh", "-ec"]
    commands: dict[str, tuple[list[str], list[str], Step]] = {
        IMAGE: (["python", "-c", check], [code_digest], _SMALL),
        VOLUME: (shell, [_VOLUME_SCRIPT, config.volume], _SMALL),
        WRITTEN: (shell, [f'mkdir -p "$(dirname "$0")"; printf {_WORD} > "$0"', path % "out"], _SMALL),
        READ: (shell, [f'test "$(cat "$0")" = {_WORD}', path % "in"], _SMALL),
    }
    commands |= {_PLACE + kind: (shell, ["exit 0"], step) for kind, step in kinds.items()}
    spec: dict[str, Any] = {
        "schemaVersion": "2.1.0",
        "sdkVersion": "byol",
        "pipelineInfo": {"name": "byol-check"},
        "deploymentSpec": {"executors": {}},
        "components": {},
        "root": {"dag": {"tasks": {}}},
    }
    platform: dict[str, Any] = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {}}}}}
    for name, (command, arguments, step) in commands.items():
        limited = dataclasses.replace(step, timeout_minutes=_MINUTES)
        add_command(spec, platform, name, (command, arguments), limited, config)
    components, tasks = spec["components"], spec["root"]["dag"]["tasks"]
    components[f"comp-{WRITTEN}"]["outputDefinitions"] = {"artifacts": {_OUTPUT: _ARTIFACT}}
    components[f"comp-{READ}"]["inputDefinitions"] = {"artifacts": {_OUTPUT: _ARTIFACT}}
    source = {"taskOutputArtifact": {"producerTask": WRITTEN, "outputArtifactKey": _OUTPUT}}
    tasks[READ] |= {"dependentTasks": [WRITTEN], "inputs": {"artifacts": {_OUTPUT: source}}}
    return Compiled(
        {"pipelineSpec": spec, "runtimeConfig": {"gcsOutputDirectory": config.pipeline_root}},
        platform,
    )


def findings(
    server: Server,
    run: str,
    tasks: Mapping[str, str],
    wait_seconds: float,
    troubles: Callable[[str], Mapping[str, str]],
    poll_seconds: float,
) -> list[Finding]:
    """Waits for a run of `probe`, and says what came of each task; a run that is not over by then is ended.

    Args:
        server: where.
        run: its id.
        tasks: the run's tasks, with what each asks about.
        wait_seconds: how long it may take; a pod that no node takes would wait for ever.
        troubles: what Kubernetes says of a run's pods, by task.
        poll_seconds: between two looks.
    """
    deadline = time.monotonic() + wait_seconds
    while (state := server.state(run)) not in ENDED and time.monotonic() < deadline:
        time.sleep(min(poll_seconds, max(0.0, deadline - time.monotonic())))
    states = server.task_states(run)
    words = troubles(run) if state != "SUCCEEDED" else {}
    found = [
        _finding(task, what, states.get(task, ""), words.get(task) or words.get(f"{task}-driver", ""), run)
        for task, what in tasks.items()
    ]
    if state == "SUCCEEDED":
        server.forget(run)
    elif state not in ENDED:
        server.terminate(run)
    return found


def asked(kinds: Mapping[str, Step]) -> dict[str, str]:
    """The tasks of `probe`, with what each asks about."""
    own = {IMAGE: "image", VOLUME: "volume", WRITTEN: "store, a write", READ: "store, a read"}
    return {**own, **{_PLACE + kind: f"node for {kind}" for kind in kinds}}


def _finding(task: str, what: str, state: str, trouble: str, run: str) -> Finding:
    if state == "SUCCEEDED":
        return Finding(what, OK, "a step of a run did it")
    kind = task.removeprefix(_PLACE)
    mend = _MENDS.get(task, f"steps.{kind} in --cluster, or a node that offers it")
    came = {"FAILED": "its step failed", "": "its step was not started"}.get(
        state, f"its step is {state} still"
    )
    why = (
        trouble
        or f"kubectl describe pod and kubectl logs, of pods with the label pipeline/runid={run}, say why"
    )
    return Finding(what, FAILED, f"{came}: {why.rstrip('.')}", mend)
