"""`byol kubeflow check` against stand-ins of KFP's API and of Kubernetes'; each fault is its own line."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import kubernetes.config.kube_config
import pytest
import yaml
from typer.testing import CliRunner

from kubeflow import check_run, checks, commands, entrypoint, spec_checks
from kubeflow.config import KubeflowConfig, Steps, load
from tests.component import kfp_api, kubernetes_api

MANIFESTS = pathlib.Path(checks.__file__).parent / "manifests"
IMAGE = ["--cluster-set", "image=registry.example/byol:1"]
GPU = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
KINDS = ["data", "pretrain", "probe"]


@pytest.fixture
def api(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    with kfp_api.running() as running:
        running.ends = {}
        yield running


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    """A cluster on which nothing is wrong."""
    with kubernetes_api.running() as running:
        (tmp_path / "config").write_text(json.dumps(kubernetes_api.kubeconfig(running.url)))
        location = str(tmp_path / "config")
        monkeypatch.setattr(kubernetes.config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", location)
        account, role, _ = yaml.safe_load_all((MANIFESTS / "base" / "service-account.yaml").read_text())
        running.add("serviceaccounts", account["metadata"]["name"])
        running.rules[account["metadata"]["name"]] = role["rules"]
        claim(running, "Bound", "ReadWriteMany")
        node(running, "small", cpu="2", memory="8Gi")
        node(running, "gpu-1", **{"nvidia.com/gpu": "1"}, taints=[GPU])
        node(running, "gpu-2", **{"nvidia.com/gpu": "4"}, taints=[GPU])
        yield running


def claim(cluster, phase, mode, storage_class="shared"):
    cluster.add(
        "persistentvolumeclaims",
        "byol",
        spec={"accessModes": [mode], "storageClassName": storage_class},
        status={"phase": phase},
    )


def node(cluster, name, cpu="15890m", memory="64Gi", taints=(), ready="True", **devices):
    cluster.add(
        "nodes",
        name,
        spec={"taints": list(taints)},
        status={
            "allocatable": {"cpu": cpu, "memory": memory, **devices},
            "conditions": [{"type": "Ready", "status": ready}],
        },
    )


def check(api, *arguments):
    return CliRunner().invoke(
        commands.app, ["check", "--host", api.url, *IMAGE, "--service-account", "byol-runner", *arguments]
    )


def found(ended):
    return {one["what"]: one for one in json.loads(ended.stdout)}


def test_where_all_is_well_each_thing_has_a_line_and_the_run_is_gone(api, cluster):
    ended = check(api)
    assert ended.exit_code == 0, ended.output
    whats = ["server", "image", "account", "claim", *(f"node for {kind}" for kind in KINDS)]
    whats += ["volume", "store, a write", "store, a read"]
    assert [line.split(":")[0] for line in ended.stdout.splitlines()] == [f"ok      {what}" for what in whats]
    assert "KFP 2.16.1" in ended.stdout
    assert not api.runs  # nothing is left in the list
    assert "secret-token" not in ended.output


def test_the_run_is_a_file_that_kfp_takes_without_tfx():
    kinds = dataclasses.asdict(Steps()).keys()
    steps = {kind: getattr(Steps(), kind) for kind in kinds}
    config = load(None, ["pull_secret=login"])
    made = check_run.probe(config, steps, "d" * 64)
    assert made.platform is not None
    assert not spec_checks.problems(made.spec, made.platform)
    executors = made.spec["deploymentSpec"]["executors"]
    resources = executors["exec-place-pretrain"]["container"]["resources"]
    assert resources["accelerator"] == {"type": "nvidia.com/gpu", "count": "1"}
    assert resources["cpuRequest"] == config.steps.pretrain.cpu
    for label, settings in made.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].items():
        assert label in executors
        assert settings["pvcMount"] == [{"constant": "byol", "mountPath": "/mnt/byol"}]
        assert settings["imagePullSecret"] == [{"secretName": "login"}]
    program = "import sys, kubeflow.checks; print('tfx' in sys.modules, 'tensorflow' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said == "False False\n"


def container(made, task, *replacements):
    """What a task's container does, run here."""
    one = made.spec["deploymentSpec"]["executors"][f"exec-{task}"]["container"]
    line = [*one["command"], *one["args"]]
    for old, new in replacements:
        line = [part.replace(old, str(new)) for part in line]
    line = [sys.executable if part == "python" else part for part in line]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_what_the_runs_containers_do(tmp_path):
    made = check_run.probe(KubeflowConfig(volume=str(tmp_path / "volume")), {}, entrypoint.code_digest())
    assert container(made, check_run.IMAGE).returncode == 0
    other = check_run.probe(KubeflowConfig(), {}, "0" * 64)
    assert "compiled from other code" in container(other, check_run.IMAGE).stderr
    assert container(made, check_run.VOLUME).returncode != 0  # which is not there
    (tmp_path / "volume").mkdir()
    assert container(made, check_run.VOLUME).returncode == 0
    assert not list((tmp_path / "volume").iterdir())
    # Placeholders as KFP's launcher fills them in (getPlaceholders, backend/src/v2/component/launcher_v2.go:1077).
    path = tmp_path / "store" / "probe"
    out, into = "{{$.outputs.artifacts['probe'].path}}", "{{$.inputs.artifacts['probe'].path}}"
    assert container(made, check_run.READ, (into, path)).returncode != 0
    assert container(made, check_run.WRITTEN, (out, path)).returncode == 0
    assert container(made, check_run.READ, (into, path)).returncode == 0
    path.write_text("another")
    assert container(made, check_run.READ, (into, path)).returncode != 0


def no_account(cluster):
    cluster.things["serviceaccounts"].clear()


def without(resource):
    def change(cluster):
        rules = cluster.rules["byol-runner"]
        cluster.rules["byol-runner"] = [rule for rule in rules if resource not in rule["resources"]]

    return change


@pytest.mark.parametrize(
    ("change", "what", "said", "mend"),
    [
        (no_account, "account", "there is no account byol-runner", "manifests/base"),
        (without("workflowtaskresults"), "account", "patch argoproj.io workflowtaskresults", "adds the role"),
        (without("secrets"), "account", "may not get secrets mlpipeline-minio-artifact", "adds the role"),
        (lambda c: c.things["persistentvolumeclaims"].clear(), "claim", "no claim byol", "manifests/base"),
        (lambda c: claim(c, "Bound", "ReadWriteOnce"), "claim", "ReadWriteOnce", "storage class"),
        (lambda c: claim(c, "Lost", "ReadWriteMany"), "claim", "is Lost", "describe pvc"),
        (lambda c: claim(c, "Pending", "ReadWriteMany"), "claim", "is Pending", "describe pvc"),
    ],
)
def test_what_is_wrong_from_outside_is_one_line_and_no_run_is_made(api, cluster, change, what, said, mend):
    change(cluster)
    ended = check(api, "--json")
    assert ended.exit_code == 1
    one = found(ended)[what]
    assert one["state"] == "failed"
    assert said in one["said"]
    assert mend in one["mend"]
    assert [name for name, other in found(ended).items() if other["state"] == "failed"] == [what]
    assert found(ended)["run"]["state"] == "unknown"
    assert not api.runs


def test_a_claim_may_wait_for_its_first_pod(api, cluster):
    claim(cluster, "Pending", "ReadWriteMany")
    cluster.add("storageclasses", "shared", provisioner="x", volumeBindingMode="WaitForFirstConsumer")
    assert check(api).exit_code == 0


TAKEN = {"taints": [GPU], "nvidia.com/gpu": "1"}


@pytest.mark.parametrize(
    ("both", "said"),
    [
        (None, "none of 1 nodes could take it: 1 offers 2 cores of 8 cores"),
        ({"taints": [GPU]}, "2 offers 0 nvidia.com/gpu of 1 nvidia.com/gpu"),
        ({**TAKEN, "memory": "16Gi"}, "2 offers 17.2 GB of 32.0 GB"),
        ({**TAKEN, "taints": [{**GPU, "key": "team"}]}, "2 has the taint team"),
        ({**TAKEN, "ready": "Unknown"}, "2 is not ready"),
    ],
)
def test_a_step_that_no_node_could_take_is_named_with_what_they_lack(api, cluster, both, said):
    for name in ("gpu-1", "gpu-2"):
        del cluster.things["nodes"][name]
        if both:
            node(cluster, name, **both)
    ended = check(api, "--json")
    assert ended.exit_code == 1
    states = {what: one["state"] for what, one in found(ended).items() if what.startswith("node for")}
    assert states == {"node for data": "ok", "node for pretrain": "failed", "node for probe": "failed"}
    assert said in found(ended)["node for pretrain"]["said"]
    # Where a pool grows from none, only the run can tell.
    assert check(api, "--no-nodes").exit_code == 0


def settings(tmp_path, text):
    (tmp_path / "cluster.yaml").write_text(text)
    return ["--cluster", str(tmp_path / "cluster.yaml")]


def test_a_selector_is_asked_of_the_labels(api, cluster, tmp_path):
    selecting = settings(tmp_path, "steps: {pretrain: {node_selector: [[pool, gpu]]}}")
    ended = check(api, "--json", *selecting)
    assert "lacks the label pool=gpu" in found(ended)["node for pretrain"]["said"]
    cluster.things["nodes"]["gpu-1"]["metadata"]["labels"] = {"pool": "gpu"}
    assert check(api, *selecting).exit_code == 0


def test_secrets_are_there_with_their_entries_and_none_is_told(api, cluster, tmp_path):
    named = "pull_secret: login\nsecrets: [{secret: store, key: accesskey, variable: KEY}]"
    secrets = [*settings(tmp_path, named), "--json"]
    one = found(check(api, *secrets))
    assert (one["secret login"]["state"], one["secret store"]["state"]) == ("failed", "failed")
    cluster.add("secrets", "login", data={})
    cluster.add("secrets", "store", data={"secretkey": "aGlkZGVu"})
    one = found(check(api, *secrets))
    assert one["secret login"]["state"] == "ok"
    assert "has no entry accesskey" in one["secret store"]["said"]
    cluster.add("secrets", "store", data={"accesskey": "aGlkZGVu"})
    ended = check(api, *secrets)
    assert ended.exit_code == 0
    assert "aGlkZGVu" not in ended.output


def test_what_a_person_may_not_ask_is_no_fault_and_the_run_tells_it(api, cluster):
    cluster.forbidden = {"nodes", "localsubjectaccessreviews", "persistentvolumeclaims", "pods"}
    outside = found(check(api, "--json", "--no-run"))
    assert {what for what, one in outside.items() if one["state"] == "unknown"} == {
        "account",
        "claim",
        "nodes",
        "image",
    }
    assert not api.runs
    api.ends = {"place-pretrain": "FAILED"}
    ended = check(api, "--json")
    assert ended.exit_code == 1
    states = {what: one["state"] for what, one in found(ended).items()}
    assert (states["node for data"], states["node for pretrain"], states["volume"]) == ("ok", "failed", "ok")


@pytest.mark.parametrize(
    ("task", "what", "mend"),
    [
        ("image", "image", "built of this commit"),
        ("volume", "volume", "manifests/owner"),
        ("store-written", "store, a write", "pipeline_root"),
        ("store-read", "store, a read", "bucket's policy"),
        ("place-probe", "node for probe", "steps.probe"),
    ],
)
def test_a_step_that_failed_is_told_with_what_kubernetes_says_of_its_pod(api, cluster, task, what, mend):
    api.ends = {task: "FAILED"}
    # The annotation is Argo's (workflow/controller/workflowpod.go, AnnotationKeyNodeName).
    cluster.add(
        "pods",
        "byol-check-abc-1",
        status={
            "containerStatuses": [
                {
                    "name": "main",
                    "image": "i",
                    "imageID": "",
                    "ready": False,
                    "restartCount": 0,
                    "state": {"terminated": {"exitCode": 1, "message": "it may not"}},
                }
            ]
        },
    )
    pod = cluster.things["pods"]["byol-check-abc-1"]["metadata"]
    pod["annotations"] = {"workflows.argoproj.io/node-name": f"byol-check-abc.root.{task}.executor"}
    ended = check(api, "--json")
    assert ended.exit_code == 1
    (failed,) = [one for one in found(ended).values() if one["state"] == "failed"]
    assert failed["what"] == what
    assert "main ended with 1: it may not" in failed["said"]
    assert mend in failed["mend"]
    (run,) = api.runs  # stays, with its logs
    assert any(f"labelSelector=pipeline%2Frunid%3D{run}" in asked for asked in cluster.asked)


def test_a_pod_that_no_node_takes_ends_the_check_and_not_the_night(api, cluster):
    api.ends = {"place-pretrain": "PENDING"}
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu"
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    cluster.add("pods", "p", status={"conditions": [condition]})
    name = "byol-check-abc.root.place-pretrain.executor"
    cluster.things["pods"]["p"]["metadata"]["annotations"] = {"workflows.argoproj.io/node-name": name}
    ended = check(api, "--json", "--wait", "0.001")
    assert ended.exit_code == 1
    one = found(ended)["node for pretrain"]
    assert one["said"] == f"its step is PENDING still: {message}"
    assert api.ended == list(api.runs)  # terminated


@pytest.mark.parametrize(
    ("version", "multi_user", "state", "said"),
    [
        ("2.5.0", False, "ok", "KFP 2.5.0"),
        ("2.4.1", False, "failed", "2.5 or newer"),
        ("unknown", False, "unknown", "oldest"),
        ("2.17.0", True, "failed", "--namespace"),
    ],
)
def test_a_server_is_new_enough_and_asked_as_it_wants(api, cluster, version, multi_user, state, said):
    api.version, api.multi_user = version, multi_user
    one = found(check(api, "--json", "--no-run"))["server"]
    assert one["state"] == state
    assert said in one["said"] + one["mend"]


def test_without_a_server_kubernetes_is_asked_all_the_same(api, cluster):
    ended = CliRunner().invoke(
        commands.app,
        ["check", "--host", "http://127.0.0.1:9", *IMAGE, "--service-account", "byol-runner", "--json"],
    )
    assert ended.exit_code == 1
    states = {what: one["state"] for what, one in found(ended).items()}
    assert states["server"] == "failed"
    assert states["claim"] == "ok"


def test_without_a_kubeconfig_the_run_alone_answers(api, monkeypatch, tmp_path):
    none = str(tmp_path / "none")
    monkeypatch.setattr(kubernetes.config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", none)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    ended = check(api, "--json")
    assert ended.exit_code == 0
    states = {what: one["state"] for what, one in found(ended).items()}
    assert states["account, claim, secrets, nodes"] == "unknown"
    assert states["volume"] == "ok"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--context", "elsewhere"], "elsewhere"),
        (["--cluster-set", "claim="], "claim is empty"),
        (["--token-file", "/none"], "token cannot be read"),
        (["--cluster-set", "steps.data.cpu=-1"], "cpu is above 0"),
    ],
)
def test_wrong_arguments_end_with_2_and_ask_nothing_of_the_cluster(api, cluster, arguments, said):
    ended = check(api, *arguments)
    assert ended.exit_code == 2
    assert said in " ".join(ended.output.split())
    assert not api.runs
    assert not cluster.asked


def test_the_example_image_is_a_fault(api, cluster):
    ended = check(api, "--json", "--cluster-set", "image=registry.example/byol:0.1.0")
    assert ended.exit_code == 1
    assert found(ended)["image"]["state"] == "failed"
    assert not api.runs
