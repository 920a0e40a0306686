"""The harness that plays KFP, on steps of one line: what it does is what the sources named in it do."""

import json
import stat
import sys

import pytest

from kubeflow import check_run, entrypoint
from kubeflow.config import KubeflowConfig, Step, load
from tests.e2e import kfp_launcher
from tests.e2e.kfp_launcher import Cluster, StepFailedError
from tests.e2e.kfp_store import RefusedError, Store, staged

ROOT = "minio://bucket/root"
# Writes two outputs, of which one's name begins with the other's, and says what it was given.
MAKE = """
import json, os, pathlib, sys
given = json.loads(sys.argv[1])
places = {key: one["artifacts"][0]["uri"] for key, one in given["outputs"]["artifacts"].items()}
pod = pathlib.Path(os.environ["BYOL_STAGING_ROOT"], "minio")
made = {}
for key in ("model", "model_run"):
    folder = pod / places[key].removeprefix("minio://")
    (folder / "empty").mkdir(parents=True)
    (folder / "file").write_text(key)
    (folder / "file").chmod(0o755)
    made[key] = {"artifacts": [{"uri": places[key], "metadata": {"big": 2**60 + 1, "yes": True, "list": [1]}}]}
answer = pathlib.Path(given["outputs"]["outputFile"])
answer.parent.mkdir(exist_ok=True)  # which the launcher did not make before 2.15
answer.write_text(json.dumps({"artifacts": made}))
print("live", (pod / places["executor-logs"].removeprefix("minio://")).exists(), flush=True)
"""
TAKE = """
import json, os, sys
given = json.loads(sys.argv[1])
print(json.dumps(given["inputs"]["artifacts"]["model"]["artifacts"][0]))
print(os.environ.get("KEY"), oct(os.umask(0)))
"""
ANY = {"artifactType": {"schemaTitle": "system.Artifact"}}


def cluster(tmp_path, make=MAKE, take=TAKE, **attributes):
    def executor(program):
        command = [sys.executable, "-c", program]
        return {"container": {"image": "i", "command": command, "args": ["{{$}}"]}}

    volume = tmp_path / "volume"
    volume.mkdir(exist_ok=True)
    settings = {"pvcMount": [{"constant": "byol", "mountPath": str(volume)}]}
    secret = {"secretName": "store", "keyToEnv": [{"secretKey": "key", "envVar": "KEY"}]}
    model = {"taskOutputArtifact": {"producerTask": "make", "outputArtifactKey": "model"}}
    spec = {
        "pipelineInfo": {"name": "played"},
        "components": {
            "comp-make": {
                "executorLabel": "make",
                "outputDefinitions": {"artifacts": {"model": ANY, "model_run": ANY}},
            },
            "comp-take": {"executorLabel": "take", "inputDefinitions": {"artifacts": {"model": ANY}}},
        },
        "deploymentSpec": {"executors": {"make": executor(make), "take": executor(take)}},
        "root": {
            "dag": {
                "tasks": {
                    "make": {"componentRef": {"name": "comp-make"}, "retryPolicy": {"maxRetryCount": 1}},
                    "take": {
                        "componentRef": {"name": "comp-take"},
                        "inputs": {"artifacts": {"model": model}},
                    },
                }
            }
        },
    }
    executors = {"make": settings, "take": {**settings, "secretAsEnv": [secret]}}
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}}
    given = {
        "claims": {"byol": volume},
        "secrets": {"store": {"key": "hidden"}},
        "starts": kfp_launcher.executed,
    }
    return Cluster(tmp_path, spec, platform, **{**given, **attributes})


@pytest.mark.parametrize("release", [(2, 5), (2, 16), (2, 17)])
def test_an_artifact_reaches_the_next_step_as_the_launcher_hands_it_on(tmp_path, release):
    played = cluster(tmp_path, release=release)
    played.run(ROOT)
    told, said = (tmp_path / "logs" / "take.log").read_text().splitlines()
    given = json.loads(told)
    assert given["name"].isdecimal()
    assert given["metadata"].pop("store_session_info")
    # Doubles: 2**60 + 1 is not among them.
    assert given["metadata"] == {"display_name": "model", "big": 2**60, "yes": 1, "list": {"list": [1]}}
    assert given["type"] == {"instanceSchema": ""}
    assert said == "hidden 0o0"
    assert (tmp_path / "logs" / "make.log").read_text() == "live True\n"
    folders = {one["uri"].rpartition("/")[0] for one in played.outputs["make"].values()}
    assert len(folders) == 1
    logs = played.outputs["make"]["executor-logs"]["uri"].rpartition("/")[2]
    assert logs == ("executor-logs-0" if release == (2, 17) else "executor-logs")


@pytest.mark.parametrize(("bare", "also"), [(True, True), (False, False)])
def test_a_download_goes_by_the_bare_prefix_before_217_and_brings_files_alone(tmp_path, bare, also):
    store, local = Store(tmp_path / "store", bare), tmp_path / "pod" / "model"
    for name in ("model", "model_run"):
        made = tmp_path / "made" / name
        (made / "empty").mkdir(parents=True)
        (made / "run.sh").write_text(name)
        (made / "run.sh").chmod(0o755)
        (made / "link").symlink_to("run.sh")
        store.upload(made, f"{ROOT}/{name}")
    store.download(f"{ROOT}/model", local)
    assert {path.name for path in local.iterdir()} == {"run.sh", "link"}
    assert not (local / "link").is_symlink()
    assert stat.S_IMODE((local / "run.sh").stat().st_mode) == 0o644
    assert (tmp_path / "pod" / "model_run" / "run.sh").exists() is also


def test_a_link_to_a_folder_cannot_be_uploaded(tmp_path):
    (tmp_path / "made" / "folder").mkdir(parents=True)
    (tmp_path / "made" / "link").symlink_to("folder")
    with pytest.raises(IsADirectoryError):
        Store(tmp_path / "store", True).upload(tmp_path / "made", f"{ROOT}/made")


def test_a_retry_finds_what_the_attempt_before_left_at_the_same_address(tmp_path):
    first = (
        'mark = pathlib.Path("../../volume/mark")\nname = "new" if mark.exists() else "old"\nmark.touch()\n'
    )
    make = MAKE.replace("made = {}", first + "made = {}").replace('folder / "file"', "folder / name")
    played = cluster(tmp_path, make=make, refusing={"make": 1})
    played.run(ROOT)
    assert played.attempts == {"make": 2, "take": 1}
    # Of the first attempt one object was taken; keys of another name stay beside the second's.
    assert {path.name for path in played.path("make", "model").iterdir()} == {"old", "new"}
    with pytest.raises(RefusedError):
        played.store.upload(tmp_path / "volume", f"{ROOT}/x", 0)


def test_of_a_step_that_failed_its_log_alone_is_in_the_store(tmp_path):
    played = cluster(tmp_path, make=MAKE + 'print("why it failed")\nsys.exit(3)')
    with pytest.raises(StepFailedError, match="make ended with 3"):
        played.run(ROOT)
    left = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert [path.name for path in left] == ["executor-logs"]
    assert "why it failed" in left[0].read_text()
    assert played.attempts == {"make": 2}


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"claims": {}}, "stays Pending"),
        ({"secrets": {"store": {}}}, "CreateContainerConfigError"),
        ({"make": MAKE + "# " + "x" * kfp_launcher.LONGEST_BYTES}, "too long"),
        ({"make": MAKE + 'open("stray", "w").close()'}, "root that may be read-only: stray"),
        ({"make": MAKE.replace('"list": [1]', '"list": None')}, "null metadata"),
    ],
)
def test_what_a_cluster_would_refuse_fails(tmp_path, attributes, said):
    with pytest.raises(StepFailedError, match=said):
        cluster(tmp_path, **attributes).run(ROOT)


@pytest.mark.parametrize(("release", "fine"), [((2, 13), False), ((2, 14), True)])
def test_upper_case_in_a_task_with_retries_is_no_pods_name_before_214(release, fine):
    retried = {"retryPolicy": {"maxRetryCount": 1}}
    assert kfp_launcher.pod_name("byol", "lower", retried, release, 0)
    if fine:
        assert kfp_launcher.pod_name("byol", "Upper", retried, release, 0)
    else:
        with pytest.raises(StepFailedError, match="is no name of a pod"):
            kfp_launcher.pod_name("byol", "Upper", retried, release, 0)


@pytest.mark.parametrize("release", [(2, 5), (2, 16)])
def test_the_run_of_check_passes_there(tmp_path, release):
    volume = tmp_path / "volume"
    volume.mkdir()
    config = load(None, [f"volume={volume}"])
    made = check_run.probe(config, {"data": Step()}, entrypoint.code_digest())
    path = tmp_path / "check.yaml"
    made.write(path)
    played = Cluster.of(
        path, tmp_path, claims={"byol": volume}, release=release, starts=kfp_launcher.executed
    )
    played.run(KubeflowConfig().pipeline_root)
    assert sorted(played.ran) == sorted(check_run.asked({"data": Step()}))
    written = staged(played.outputs["store-written"]["probe"]["uri"], tmp_path / "store")
    assert written.read_text() == "byol"
