"""The Kubernetes manifests: what the schemas let through and a cluster would not, or not as meant."""

import copy
import pathlib
import re

import jsonschema
import pytest
import typer
import yaml

from components.serving import serving_folder
from kubeflow import commands
from kubeflow.config import EXAMPLE_IMAGE, KubeflowConfig
from pipeline import cli
from pipeline.beam import beam_args
from pipeline.config import PRESETS, BeamConfig
from pipeline.root import Root
from pipeline.schedule.cron import Cron

FOLDER = pathlib.Path(__file__).resolve().parents[3] / "kubeflow" / "manifests"
VERSIONS = {
    "ServiceAccount": "v1",
    "PersistentVolumeClaim": "v1",
    "Service": "v1",
    "Role": "rbac.authorization.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
    "Deployment": "apps/v1",
    "CronJob": "batch/v1",
    "Pod": "v1",
    "InferenceService": "serving.kserve.io/v1beta1",
    "FlinkDeployment": "flink.apache.org/v1beta1",
    "Kustomization": "kustomize.config.k8s.io/v1beta1",
}
# What ours uses of KServe's schema of an InferenceService, config/crd/full/serving.kserve.io_inferenceservices.yaml of
# kserve/kserve at v0.20.0: spec.predictor, at its lines 20922 (automountServiceAccountToken), 23980 (minReplicas),
# 23983 (model; its modelFormat 24322, resources 24449, runtimeVersion 24509, storageUri 24681) and 27806
# (securityContext). Kubernetes drops fields that a schema does not have; here they are refused.
QUANTITY = {"type": ["integer", "string"], "pattern": r"^[0-9]+(\.[0-9]+)?([KMGTPE]i|[numkMGTPE])?$"}
QUANTITIES = {"type": "object", "additionalProperties": QUANTITY}


def closed(required, **properties):
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


INFERENCE_SERVICE = closed(
    ["predictor"],
    predictor=closed(
        ["model"],
        automountServiceAccountToken={"type": "boolean"},
        minReplicas={"type": "integer"},
        securityContext=closed(
            [],
            runAsNonRoot={"type": "boolean"},
            runAsUser={"type": "integer"},
            seccompProfile=closed(["type"], type={"type": "string"}),
        ),
        model=closed(
            ["modelFormat"],
            modelFormat=closed(["name"], name={"type": "string"}, version={"type": "string"}),
            runtimeVersion={"type": "string"},
            storageUri={
                "type": "string",
                "pattern": r"^pvc://[a-z0-9-]+(/.+)?$",
            },  # ParsePvcURI, pkg/utils/storage.go:59
            resources=closed([], limits=QUANTITIES, requests=QUANTITIES),
        ),
    ),
)
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
    for document in named("Pod"):
        yield document["spec"]


def image(folder: pathlib.Path, name: str) -> str:
    """The image that kustomize puts in place of a name."""
    for one in yaml.safe_load((folder / "kustomization.yaml").read_text()).get("images", []):
        if one["name"] == name:
            return f"{one['newName']}:{one['newTag']}"
    return name


def test_every_manifest_is_in_a_kustomization_of_its_folder():
    for folder in {path.parent for path in FILES}:
        listed = yaml.safe_load((folder / "kustomization.yaml").read_text())
        assert listed["apiVersion"] == VERSIONS["Kustomization"]
        assert set(listed["resources"]) == {p.name for p in folder.glob("*.yaml")} - {"kustomization.yaml"}


def test_kinds_have_their_api_version_and_names_are_kubernetes_names():
    assert len(DOCUMENTS) >= 8
    for path, document in DOCUMENTS:
        assert document["apiVersion"] == VERSIONS[document["kind"]], path
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", document["metadata"]["name"])
        assert "namespace" not in document["metadata"]  # the kustomization's


def test_every_image_has_a_tag_that_says_which_one_and_ours_is_set_in_one_place():
    ours = set()
    for path, document in DOCUMENTS:
        for found in re.findall(r"'image': '([^']+)'", str(document)):
            resolved = image(path.parent, found)
            assert KubeflowConfig(image=resolved).image == resolved  # which refuses latest, and no tag
            ours |= {resolved} if found == "byol" else set()
    assert ours == {EXAMPLE_IMAGE}


@pytest.mark.parametrize("job", named("CronJob"), ids=lambda job: job["metadata"]["name"])
def test_a_cron_job_retrains_one_at_a_time_and_ends(job):
    Cron.parse(job["spec"]["schedule"])
    assert job["spec"]["timeZone"]
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    assert (
        job["spec"]["startingDeadlineSeconds"] > 100
    )  # fewer, and the controller may miss the start altogether
    template = job["spec"]["jobTemplate"]["spec"]
    assert template["template"]["spec"]["restartPolicy"] == "Never"  # podFailurePolicy takes no other
    assert 0 < template["activeDeadlineSeconds"] < 24 * 3600  # over before the next one is due
    (rule,) = template["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    # `byol retrain`: 2 wrong input, 3 refused. 1 is a fault, which is tried again, and 0 is pushed or nothing new.
    assert rule["onExitCodes"]["operator"] == "In"
    assert rule["onExitCodes"]["values"] == [2, 3]
    assert rule["onExitCodes"]["containerName"] == template["template"]["spec"]["containers"][0]["name"]


def test_the_cron_job_writes_where_kfp_does_so_that_the_server_sees_it():
    pod = cron_job("byol-nightly")
    byol, command, *arguments = pod["containers"][0]["command"]
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert (byol, command) == ("byol", "retrain")
    parameters = typer.main.get_group(cli.app).commands["retrain"].params
    assert options.keys() <= {name for parameter in parameters for name in parameter.opts}
    assert {parameter.opts[0] for parameter in parameters if parameter.required} <= options.keys()
    assert options["--preset"] in PRESETS
    assert options["--data"] == KubeflowConfig().folder("data")
    assert str(Root(pathlib.Path(options["--root"])).serving) == KubeflowConfig().folder("serving")


def cron_job(name):
    (job,) = [document for document in named("CronJob") if document["metadata"]["name"] == name]
    return job["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_the_cron_job_for_kfp_calls_the_command_with_options_that_there_are():
    byol, group, command, *arguments = cron_job("byol-retrain")["containers"][0]["command"]
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert (byol, group, command) == ("byol", "kubeflow", "retrain")
    parameters = typer.main.get_group(commands.app).commands["retrain"].params
    assert options.keys() <= {name for parameter in parameters for name in parameter.opts}
    assert {parameter.opts[0] for parameter in parameters if parameter.required} <= options.keys()
    assert options["--root"] == KubeflowConfig().volume
    assert (
        60 * float(options["--wait"])
        < named("CronJob")[0]["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"]
    )


def restricted(pod) -> bool:
    """What Pod Security's level `restricted` asks of a pod (k8s.io/pod-security-admission, policy/check_*.go)."""
    return all(
        {**pod["securityContext"], **container["securityContext"]}.get("runAsNonRoot") is True
        and {**pod["securityContext"], **container["securityContext"]}.get("runAsUser") != 0
        and container["securityContext"]["allowPrivilegeEscalation"] is False
        and container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        for container in [*pod["containers"], *pod.get("initContainers", [])]
    ) and pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


def owner():
    return next(pod["spec"] for pod in named("Pod") if pod["metadata"]["name"] == "byol-owner")


def test_pods_pass_restricted_but_for_the_one_that_hands_the_volume_over():
    assert [pod for pod in pods() if not restricted(pod)] == [owner()]


def test_pods_write_nowhere_else_and_have_limits():
    for pod in pods():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert "privileged" not in security
            limits, requests = container["resources"]["limits"], container["resources"]["requests"]
            assert limits["memory"]
            assert requests["cpu"]
            # Kubernetes refuses an extended resource whose request and limit differ.
            assert limits.get("nvidia.com/gpu") == requests.get("nvidia.com/gpu")


def test_the_one_container_that_is_root_may_change_owners_and_nothing_else():
    (container,) = owner()["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}
    assert container["command"] == ["chown", "1000:1000", KubeflowConfig().volume]
    assert owner()["restartPolicy"] == "Never"
    assert owner()["activeDeadlineSeconds"] > 0


def test_what_must_end_has_no_sidecar():
    ending = [pod["metadata"] for pod in named("Pod")]
    ending += [job["spec"]["jobTemplate"]["spec"]["template"]["metadata"] for job in named("CronJob")]
    assert len(ending) == 4
    for metadata in ending:
        assert metadata["annotations"] == metadata["labels"] == {"sidecar.istio.io/inject": "false"}


def test_the_inference_service_is_what_kserves_schema_takes():
    (service,) = named("InferenceService")
    jsonschema.validate(service["spec"], INFERENCE_SERVICE)
    # ParseDeploymentMode, pkg/constants/constants.go:571: the old name of what is now Standard, which 0.15 has not.
    assert service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "RawDeployment"
    changes: list[dict] = [{"runtimeVersion": 2.19}, {"storageUrl": "pvc://byol"}, {"modelFormat": {}}]
    for change in changes:
        wrong = copy.deepcopy(service["spec"])
        wrong["predictor"]["model"] |= change
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, INFERENCE_SERVICE)


def test_kserve_serves_the_folder_that_is_pushed_to_with_the_servers_version():
    (service,) = named("InferenceService")
    model = service["spec"]["predictor"]["model"]
    assert model["storageUri"] == f"pvc://{KubeflowConfig().claim}/{KubeflowConfig().serving}"
    (deployment,) = named("Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"].endswith(f":{model['runtimeVersion']}")


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
    service = next(
        one for one in named("Service") if one["metadata"]["name"] == deployment["metadata"]["name"]
    )
    assert {port["targetPort"] for port in service["spec"]["ports"]} == ports.keys()
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert service["spec"]["selector"].items() <= labels.items()


def test_flinks_task_managers_have_the_pool_where_beam_asks_for_it_and_every_pod_has_the_volume():
    (flink,) = named("FlinkDeployment")
    spec = flink["spec"]
    templates = [spec[part]["podTemplate"]["spec"] for part in ("jobManager", "taskManager")]
    _, job_server = templates[0]["containers"]
    _, workers = templates[1]["containers"]
    arguments = beam_args(BeamConfig(engine="flink", endpoint="byol-flink-jobs:8099"))
    assert f"--environment_config=localhost:{workers['command'][-1]}" in arguments
    assert workers["image"] == EXAMPLE_IMAGE
    assert spec["flinkVersion"] == "v1_19"
    assert "/flink:1.19" in spec["image"]
    assert "/beam_flink1.19_job_server:" in job_server["image"]
    assert spec["flinkConfiguration"]["taskmanager.network.sort-shuffle.min-buffers"] == "32"
    for template in templates:
        (claim,) = [one for one in template["volumes"] if "persistentVolumeClaim" in one]
        assert claim["persistentVolumeClaim"]["claimName"] == KubeflowConfig().claim
        for container in template["containers"]:
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert mounts["volume"] == KubeflowConfig().volume
    service = next(one for one in named("Service") if one["metadata"]["name"] == "byol-flink-jobs")
    ports = {port["name"]: port["containerPort"] for port in job_server["ports"]}
    assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]} == ports


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
