"""The compiled pipeline, every container's command run in its own process, against the run of the local runner."""

import dataclasses
import json
import pathlib
import shutil

import ml_metadata as mlmd
import numpy as np
import pytest
import tensorflow_model_analysis as tfma
import yaml
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy
from tfx.orchestration import metadata
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import path_utils

from components.data import cifar10, dataset, synthetic
from components.data.dataset import DataSet
from components.gate import verdict
from components.serving import serving_folder
from kubeflow import bindings, compiled, compiler, description
from kubeflow.config import Decided, KubeflowConfig
from pipeline import eval_config, pipeline
from pipeline.config import PRESETS
from pipeline.root import Root
from tests.e2e import byol_command, kfp_launcher
from trainer import settings
from trainer.byol import warm_start

ROOT = "minio://mlpipeline/v2/artifacts/byol"
# Their first attempt did its work, on the volume as well, and then the store refused what they left.
REFUSED = ("spans-so-far", "kept-span", "pusher", "kept-networks")


def cluster_config(volume: pathlib.Path) -> KubeflowConfig:
    return settings.override(
        KubeflowConfig(),
        [f"volume={volume}", f"schema={pipeline.SCHEMA_FILE}", "image=registry.example/byol:test"],
    )


@pytest.fixture(scope="module")
def cluster(small_data, tmp_path_factory) -> kfp_launcher.Cluster:
    """A cluster after one run of the pipeline, on the data and with the settings of `first_run`."""
    folder = tmp_path_factory.mktemp("cluster")
    volume = folder / "volume"
    shutil.copytree(small_data, volume / "data")
    config = settings.override(PRESETS["demo"], [*byol_command.SMALL, "warm_start=encoder"])
    data_set = description.described(small_data, "latest")
    assert data_set == synthetic.DRAWN  # no class and no name of CIFAR-10
    file = compiler.compile_pipeline(config, cluster_config(volume), data_set=data_set)
    file.write(folder / "byol.yaml")
    ready = kfp_launcher.Cluster.of(
        folder / "byol.yaml", folder, claims={"byol": volume}, refusing=dict.fromkeys(REFUSED, 0)
    )
    ready.run(ROOT)
    return ready


def metrics(folder: pathlib.Path) -> dict[str, float]:
    (_, values), *_ = [item for item in tfma.load_eval_result(str(folder)).slicing_metrics if item[0] == ()]
    return {name: value["doubleValue"] for name, value in values[""][""].items() if "doubleValue" in value}


def served(folder: pathlib.Path) -> serving_folder.Version:
    return next(version for version in serving_folder.versions(folder) if version.served)


@pytest.mark.timeout(900)
def test_every_container_ran_and_pushed_an_encoder_with_the_local_runs_metrics(cluster, first_run):
    """Slow (two minutes on two cores): every task of the file, each in a process of its own.

    For the one claim that matters here: what is compiled for KFP is the pipeline that was tested locally.
    """
    assert sorted(cluster.ran) == sorted(cluster.spec["root"]["dag"]["tasks"])
    containers = [e for e in cluster.spec["deploymentSpec"]["executors"].values() if "container" in e]
    assert len(cluster.ran) == len(containers) == len(cluster.spec["deploymentSpec"]["executors"])

    pushed, local = served(cluster.folder / "volume/serving"), served(Root(first_run.root).serving)
    for name in ("metrics", "thresholds", "code_digest"):
        assert pushed.record["lineage"][name] == local.record["lineage"][name]
    # It may start from an earlier encoder, and there was none.
    assert {**pushed.record["lineage"]["settings"], "warm_start": "never"} == local.record["lineage"][
        "settings"
    ]
    # The same weights, bit for bit.
    weights = "variables/variables.data-00000-of-00001"
    assert pushed.record["files"][weights] == local.record["files"][weights]
    found = metrics(cluster.path(pipeline.EVALUATOR, "evaluation"))
    assert found[eval_config.ACCURACY] == first_run.summary["linear_accuracy"]
    assert cluster.outputs[compiled.task_name(pipeline.PUSHER)]["pushed_model"]["metadata"]["pushed"] == 1
    assert cluster.outputs[compiled.task_name(pipeline.PUSHER)]["pushed_model"]["metadata"][
        "pushed_version"
    ] == str(pushed.number)


def test_a_second_attempt_after_the_store_refused_the_first_ones_outputs_repeats_nothing_on_the_volume(
    cluster,
):
    """The launcher uploads when a step has ended, so a step that is tried again may have done all its work."""
    assert {name: count for name, count in cluster.attempts.items() if count > 1} == dict.fromkeys(REFUSED, 2)
    assert len(serving_folder.versions(cluster.folder / "volume/serving")) == 1
    volume = cluster.folder / "volume"
    assert [path.parent.name for path in volume.glob("spans/*/*")] == ["span-3"]
    assert len(list((volume / "networks").iterdir())) == 1


def test_the_span_was_resolved_when_the_run_started(cluster):
    examples = cluster.outputs[compiled.task_name("Cifar10ExampleGen")]["examples"]["metadata"]
    assert examples["custom:span"] == 3
    assert (
        "data_batch_1.bin" in examples["input_fingerprint"] or "num_files:1" in examples["input_fingerprint"]
    )
    assert not (cluster.folder / "volume/checkpoints").exists() or not list(
        (cluster.folder / "volume/checkpoints").rglob("*.keras")
    )


def resolved(cluster, task: str) -> list:
    return json.loads((cluster.path(task, "model") / "resolved.json").read_text())


def test_a_first_run_has_no_baseline_and_starts_anew(cluster):
    assert resolved(cluster, pipeline.SERVED_MODEL) == resolved(cluster, pipeline.WARM_START) == []
    assert started_from(cluster) == {"policy": "never"}


def started_from(cluster) -> dict:
    folder = pathlib.Path(path_utils.serving_model_path(str(cluster.path(pipeline.PRETRAINER, "model"))))
    return json.loads((folder / "pretraining.json").read_text())["warm_start"]


def test_bindings_give_the_resolvers_answer(cluster, first_run, tmp_path):
    """On the local run's own store and folders: same model, same Examples."""
    store = mlmd.MetadataStore(metadata.sqlite_metadata_connection_config(str(Root(first_run.root).metadata)))

    def artifacts(type_class, producer):
        # As the pipeline's own resolver does: the Evaluators' blessings are evidence and decide nothing.
        kind = store.get_artifact_type(type_class.TYPE_NAME)
        found = [a for a in store.get_artifacts_by_type(type_class.TYPE_NAME) if f"/{producer}/" in a.uri]
        return [artifact_utils.deserialize_artifact(kind, artifact) for artifact in found]

    answer = LatestBlessedModelStrategy().resolve_artifacts(
        store,
        {
            "model": artifacts(standard_artifacts.Model, pipeline.LINEAR_PROBE),
            "model_blessing": artifacts(standard_artifacts.ModelBlessing, pipeline.VERDICT),
        },
    )
    ours = standard_artifacts.Model()
    ours.uri = str(tmp_path / "model")
    bindings.ServedModel.EXECUTOR_SPEC.executor_class().Do(
        {}, {"model": [ours]}, {"serving": str(Root(first_run.root).serving), "version": "served"}
    )
    assert serving_folder.model_digest(
        path_utils.serving_model_path(ours.uri)
    ) == serving_folder.model_digest(path_utils.serving_model_path(answer["model"][0].uri))
    assert json.loads((tmp_path / "model" / "resolved.json").read_text()) == [{"uri": "", "metadata": {}}]


def test_a_later_run_starts_from_the_served_encoder_and_is_compared_with_it(cluster):
    """Slow (half a minute): four steps again, now that something is served. The Evaluator gets the same model."""
    first = path_utils.serving_model_path(str(cluster.path(pipeline.PRETRAINER, "model")))
    cluster.release = (2, 5)  # the oldest that takes the file
    cluster.run(
        ROOT, only={pipeline.SERVED_MODEL, pipeline.EVALUATOR, pipeline.WARM_START, pipeline.PRETRAINER}
    )
    assert len(resolved(cluster, pipeline.SERVED_MODEL)) == len(resolved(cluster, pipeline.WARM_START)) == 1
    base = warm_start.read_warm_start("encoder", first)
    assert base is not None
    assert started_from(cluster) == {"policy": "encoder", "weights": base.digest()}
    found = verdict.Evaluation(str(cluster.path(pipeline.EVALUATOR, "evaluation"))).comparison()
    assert found["result"] == verdict.EQUAL
    assert (found["change"], found["images_gained"], found["images_lost"]) == (0, 0, 0)
    assert found["interval"][0] < 0 < found["interval"][1]


def test_the_same_file_takes_a_span_that_arrives_later(cluster):
    synthetic.write(cluster.folder / "volume/data/span-4", train=100, test=20)
    cluster.run(ROOT, only={"Cifar10ExampleGen", pipeline.SPANS_SO_FAR})
    assert (
        cluster.outputs[compiled.task_name("Cifar10ExampleGen")]["examples"]["metadata"]["custom:span"] == 4
    )
    spans = json.loads((cluster.path(pipeline.SPANS_SO_FAR, "examples") / "resolved.json").read_text())
    assert [one["metadata"]["custom:span"] for one in spans] == [3]  # which the gates let through


FABRICS = DataSet("fabrics", "stripes", ("wool & silk", "<script>", "été"), 24, 40, unlabelled=True)


def deliver(folder: pathlib.Path, data_set: DataSet, seed: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for name, count in (("data_batch_1.bin", 90), ("test_batch.bin", 30)):
        labels = np.arange(count) % data_set.classes
        if data_set.unlabelled and name.startswith("data"):
            labels[-15:] = dataset.UNLABELLED
        # What tells the classes apart, so that no two pictures are one, and no figure is odd.
        images = rng.integers(60, 190, (count, *data_set.shape), dtype=np.uint8)
        (folder / name).write_bytes(cifar10.encode_records(images, labels, data_set))
    (folder / dataset.FILE).write_text(data_set.to_json())


def test_pictures_of_another_size_and_other_classes_pass_the_data_gates_span_after_span(tmp_path):
    """What trains on the rows is told of them as in the whole run above."""
    volume = tmp_path / "volume"
    deliver(volume / "data" / "span-1", FABRICS, 1)
    config = settings.override(PRESETS["demo"], [*byol_command.SMALL[:-2], "gate.class_floors=(0.0,)"])
    target = cluster_config(volume)
    decided = Decided((), None, (), None, f"{volume}/notes")
    first = compiler.compile_pipeline(config, target, decided=decided, data_set=FABRICS)
    first.write(tmp_path / "first.yaml")
    played = kfp_launcher.Cluster.of(
        tmp_path / "first.yaml", tmp_path, claims={"byol": volume}, starts=kfp_launcher.forked
    )
    played.run(ROOT)
    assert [path.parent.name for path in volume.glob("spans/*/*")] == ["span-1"]

    deliver(volume / "data" / "span-2", dataclasses.replace(FABRICS, name="November"), 2)
    second = compiler.compile_pipeline(
        config, target, decided=dataclasses.replace(decided, compared=(1,)), data_set=FABRICS
    )
    second.write(tmp_path / "second.yaml")
    played.spec, played.platform = yaml.safe_load_all((tmp_path / "second.yaml").read_text())
    played.run(ROOT)
    assert sorted(path.parent.name for path in volume.glob("spans/*/*")) == ["span-1", "span-2"]


@pytest.mark.parametrize(
    ("compiled_for", "said"),
    [
        (None, "made for CIFAR-10 (10 classes"),
        (
            dataclasses.replace(FABRICS, label_names=("wool", "silk", "felt")),
            "Label 0 is 'wool & silk' there and",
        ),
        (dataclasses.replace(FABRICS, height=40, width=24), "40x24 pixels"),
    ],
)
def test_other_data_than_was_compiled_for_end_the_first_step(compiled_for, said, tmp_path):
    volume = tmp_path / "volume"
    deliver(volume / "data" / "span-1", FABRICS, 1)
    config = settings.override(PRESETS["demo"], [*byol_command.SMALL[:-2], "gate.class_floors=(0.0,)"])
    file = compiler.compile_pipeline(config, cluster_config(volume), data_set=compiled_for)
    file.write(tmp_path / "byol.yaml")
    played = kfp_launcher.Cluster.of(
        tmp_path / "byol.yaml", tmp_path, claims={"byol": volume}, starts=kfp_launcher.forked
    )
    with pytest.raises(kfp_launcher.StepFailedError) as error:
        played.run(ROOT, only={"Cifar10ExampleGen"})
    words = " ".join(str(error.value).split())
    assert f"{volume}/data/span-1 holds fabrics (3 classes" in words
    assert said in words
    assert "byol kubeflow` takes it by --data-set" in words
