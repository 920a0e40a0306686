"""A recurring run that finds no new data trains nothing and pushes nothing; its tasks as KFP would start them."""

import json
import shutil
import sys

import pytest

from components.data import synthetic
from kubeflow import entrypoint, new_data
from kubeflow.compiled import Compiled
from kubeflow.config import KubeflowConfig, load
from tests.e2e import kfp_launcher

ROOT = "minio://bucket/root"
WORK = "import pathlib; log = pathlib.Path('../../volume/log'); log.open('a').write('{name} ')"


def pipeline(config, failing, root):
    """Two tasks, one after the other, that say that they ran."""

    def executor(name, end):
        command = [sys.executable, "-c", WORK.format(name=name) + end]
        return {"container": {"image": config.image, "command": command}}

    one, two = {"componentRef": {"name": "comp-examples"}}, {"componentRef": {"name": "comp-pusher"}}
    spec = {
        "schemaVersion": "2.1.0",
        "pipelineInfo": {"name": "byol"},
        "components": {"comp-examples": {"executorLabel": "one"}, "comp-pusher": {"executorLabel": "two"}},
        "deploymentSpec": {
            "executors": {"one": executor("examples", ""), "two": executor("pusher", "; 1 / 0" * failing)}
        },
        "root": {"dag": {"tasks": {"examples": one, "pusher": {**two, "dependentTasks": ["examples"]}}}},
    }
    platform: dict = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {}}}}}
    return Compiled({"pipelineSpec": spec, "runtimeConfig": {"gcsOutputDirectory": root}}, platform)


@pytest.fixture
def night(tmp_path):
    """Plays one firing of a recurring run; returns what ran, and the tasks that were skipped."""
    volume = tmp_path / "volume"
    config = load(None, [f"volume={volume}", "image=registry.example/byol:1"])
    synthetic.write(volume / "data" / "span-1", train=20, test=10)

    def fire(span="latest", name="nightly", failing=False, root=ROOT):
        (volume / "log").write_text("")
        made = new_data.only_new(pipeline(config, failing, root), config, span, name)
        made.write(tmp_path / "byol.yaml")
        played = kfp_launcher.Cluster.of(
            tmp_path / "byol.yaml", tmp_path, claims={"byol": volume}, starts=kfp_launcher.executed
        )
        try:
            played.run(ROOT)
        except kfp_launcher.StepFailedError:
            return "failed"
        return (volume / "log").read_text().split(), played.skipped

    return fire


@pytest.fixture
def data(tmp_path):
    return tmp_path / "volume" / "data"


TRAINED: tuple[list, set] = (["examples", "pusher"], set())
NOTHING: tuple[list, set] = ([], {"examples", "pusher", new_data.DONE})


def test_it_trains_once_on_what_is_there_and_again_on_what_arrives(night, data):
    assert [night(), night(), night()] == [TRAINED, NOTHING, NOTHING]
    shutil.copytree(data / "span-1", data / "span-2")
    assert [night(), night()] == [TRAINED, NOTHING]
    shutil.rmtree(data / "span-2")
    synthetic.write(data / "span-2", train=30, test=10)  # delivered anew
    assert [night(), night()] == [TRAINED, NOTHING]
    shutil.copytree(data / "span-2", data / "span-1", dirs_exist_ok=True)
    assert night() == NOTHING  # the latest span alone is trained on


def test_a_run_that_failed_is_made_again(night):
    assert night(failing=True) == "failed"
    assert [night(), night()] == [TRAINED, NOTHING]


def test_two_recurring_runs_train_each_and_other_settings_train_again(night):
    assert [night(name="a"), night(name="b"), night(name="a")] == [TRAINED, TRAINED, NOTHING]
    assert [night(name="a", root="minio://other"), night(name="a", root="minio://other")] == [
        TRAINED,
        NOTHING,
    ]
    assert night(span=1, name="b") == NOTHING  # which is what the latest is


def test_a_folder_of_records_is_looked_at_whole(night, data):
    records = data / "span-1"
    for path in [*records.iterdir()]:
        path.rename(data / path.name)
    assert [night(span=None), night(span=None)] == [TRAINED, NOTHING]


def test_a_step_of_tfx_is_not_given_the_condition():
    message = {"inputs": {"parameterValues": {entrypoint.FOUND: "digest", "floor": 1}}, "outputs": {}}
    assert entrypoint.readable(json.loads(json.dumps(message)), {})["inputs"]["parameterValues"] == {
        "floor": 1
    }


def test_an_image_with_other_code_does_not_look():
    with pytest.raises(ValueError, match="compiled from other code"):
        new_data.main(["look", "0" * 64, "r", "d", "", "m", "a"])
    assert KubeflowConfig().folder("data") == "/mnt/byol/data"
