"""The Kubernetes manifests: what the schemas let through and a cluster would not, or not as meant."""

import pathlib
import re

import pytest
import yaml

from components import serving_folder
from kubeflow.config import KubeflowConfig
from pipeline.cron import Cron

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "kubeflow" / "manifests"
VERSIONS = {
    "ServiceAccount": "v1",
    "PersistentVolumeClaim": "v1",
    "Service": "v1",
    "Role": "rbac.authorization.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
    "Deployment": "apps/v1",
    "CronJob": "batch/v1",
    "Kustomization": "kustomize.config.k8s.io/v1beta1",
}
FILES = sorted(path for path in FOLDER.rglob("*.yaml"))
DOCUMENTS = [
    (path, document)
    for path in FILES
    for document in yaml.safe_load_all(path.read_text())
    if path.name != "kustomization.yaml"
]


def named(kind):
    return [document for _, document in DOCUMENTS if document["kind"] == kind]


def pods():
    for document in named("Deployment"):
        yield document["spec"]["template"]["spec"]
    for document in named("CronJob"):
        yield document["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_every_manifest_is_in_a_kustomization_of_its_folder():
    for folder in {path.parent for path in FILES}:
        listed = yaml.safe_load((folder / "kustomization.yaml").read_text())
        assert listed["apiVersion"] == VERSIONS["Kustomization"]
        assert set(listed["resources"]) == {p.name for p in folder.glob("*.yaml")} - {"kustomization.yaml"}


def test_kinds_have_their_api_version_and_names_are_kubernetes_names():
    assert len(DOCUMENTS) >= 7
    for path, document in DOCUMENTS:
        assert document["apiVersion"] == VERSIONS[document["kind"]], path
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", document["metadata"]["name"])
        assert "namespace" not in document["metadata"]  # the kustomization's


def test_the_cron_job_runs_one_at_a_time_and_ends():
    (job,) = named("CronJob")
    Cron.parse(job["spec"]["schedule"])
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    template = job["spec"]["jobTemplate"]["spec"]
    assert template["template"]["spec"]["restartPolicy"] == "Never"  # podFailurePolicy takes no other
    assert template["activeDeadlineSeconds"] > 0
    (rule,) = template["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["operator"] == "In"
    assert rule["onExitCodes"]["containerName"] == template["template"]["spec"]["containers"][0]["name"]


def test_pods_are_not_root_and_have_limits():
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
            limits, requests = container["resources"]["limits"], container["resources"]["requests"]
            assert limits["memory"]
            assert requests["cpu"]
            # Kubernetes refuses an extended resource whose request and limit differ.
            assert limits.get("nvidia.com/gpu") == requests.get("nvidia.com/gpu")


def test_every_mount_has_its_volume_and_the_claim_is_the_one_that_the_pipeline_mounts():
    claim = named("PersistentVolumeClaim")[0]["metadata"]["name"]
    assert claim == KubeflowConfig().claim
    for pod in pods():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
        claims = [volume["persistentVolumeClaim"] for volume in volumes.values() if "emptyDir" not in volume]
        assert [one["claimName"] for one in claims] == [claim]


def test_the_server_watches_the_folder_that_is_pushed_to_and_polls_before_a_version_is_retired():
    (deployment,) = named("Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    flags = dict(argument.removeprefix("--").split("=") for argument in container["args"])
    assert flags["model_base_path"] == KubeflowConfig().folder("serving")
    assert int(flags["file_system_poll_wait_seconds"]) < serving_folder.RETIRE_AFTER_SECONDS / 2
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": int(flags["port"]), "rest": int(flags["rest_api_port"])}
    (service,) = named("Service")
    assert {port["targetPort"] for port in service["spec"]["ports"]} == ports.keys()
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert service["spec"]["selector"].items() <= labels.items()


@pytest.mark.parametrize("word", ["*", "list", "delete", "update", "watch"])
def test_the_role_may_do_nothing_in_general(word):
    (role,) = named("Role")
    for rule in role["rules"]:
        assert word not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]
        if rule["resources"] in (["secrets"], ["configmaps"]):
            assert rule["resourceNames"]
            assert rule["verbs"] == ["get"]
    (binding,) = named("RoleBinding")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"][0]["name"] == named("ServiceAccount")[0]["metadata"]["name"]


def test_no_manifest_holds_a_secret():
    for path in FILES:
        text = path.read_text().lower()
        assert "kind: secret\n" not in text
        assert not re.search(r"\b(password|token|access_key)\s*:\s*\S", text), path
