"""What stands on KFP for TFX's resolvers, on folders: the same answers, and nothing left behind."""

import json
import pathlib

import pytest
from tfx import types
from tfx import v1 as tfx
from tfx.dsl.input_resolution.strategies.span_range_strategy import SpanRangeStrategy
from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components.data import dataset
from components.data.anomaly_gate import newest_before
from components.data.dataset import DataSet
from components.serving import candidates, serving_folder
from kubeflow import bindings, compiler, spec_checks


def examples(folder: pathlib.Path, span: int, identity: int) -> standard_artifacts.Examples:
    artifact = standard_artifacts.Examples()
    artifact.uri = str(folder / f"{identity}")
    artifact.id = identity
    artifact.span = span  # TFX's strategy reads the property, our gate the driver's custom property
    artifact.set_int_custom_property("span", span)
    artifact.split_names = json.dumps(["train", "test"])
    (folder / f"{identity}" / "Split-train").mkdir(parents=True)
    (folder / f"{identity}" / "Split-train" / "rows").write_text(f"span {span}, read as {identity}")
    return artifact


def stored(current: standard_artifacts.Examples, store: pathlib.Path, spans: str = "every") -> list[dict]:
    output = standard_artifacts.Examples()
    output.uri = str(store.parent / "output")
    bindings.StoredSpans.EXECUTOR_SPEC.executor_class().Do(
        {"current": [current]}, {"examples": [output]}, {"store": str(store), "spans": spans}
    )
    return members(output)


def members(output: types.Artifact) -> list[dict]:
    return json.loads((pathlib.Path(output.uri) / output.get_string_custom_property("resolved")).read_text())


def accept(current: standard_artifacts.Examples, store: pathlib.Path) -> None:
    bindings.KeptSpan.EXECUTOR_SPEC.executor_class().Do({"accepted": [current]}, {}, {"store": str(store)})


def rows(uri: str) -> str:
    return (pathlib.Path(uri) / "Split-train" / "rows").read_text()


@pytest.mark.parametrize("arrived", [[1, 2, 3], [1, 3, 2], [2, 2], [5, 3, 4, 3], [0]])
def test_the_spans_so_far_are_those_that_tfxs_resolver_gives(tmp_path, arrived):
    seen = []
    for identity, span in enumerate(arrived, 1):
        current = examples(tmp_path, span, identity)
        seen.append(current)
        strategy = SpanRangeStrategy(
            range_config=tfx.proto.RangeConfig(
                static_range=tfx.proto.StaticRange(start_span_number=0, end_span_number=span)
            )
        )
        expected = strategy.resolve_artifacts(None, {"examples": seen})["examples"]
        found = stored(current, tmp_path / "store")
        accept(current, tmp_path / "store")
        # TFX lists each read of a span, and this one; the gate, which gets the list, takes the newest of each before.
        expected = [rows(one.uri) for one in newest_before(span, expected)]
        assert [rows(one["uri"]) for one in reversed(found)] == expected
        assert all(json.loads(one["metadata"]["split_names"]) == ["train", "test"] for one in found)
    assert len(list((tmp_path / "store").glob("span-*/*"))) == len(set(arrived))  # an older read is removed


def test_a_kept_span_says_what_data_set_it_is_of(tmp_path):
    """Else the AnomalyGate takes it for CIFAR-10's, and refuses the next span of the same data."""
    fabrics = DataSet("fabrics", "swatches", ("wool", "silk"), 24, 40)
    first = examples(tmp_path, 1, 1)
    first.set_string_custom_property("data_set", fabrics.to_json())
    accept(first, tmp_path / "store")
    (kept,) = stored(examples(tmp_path, 2, 2), tmp_path / "store")
    assert dataset.from_json(kept["metadata"]["data_set"]) == fabrics


def test_a_span_is_not_compared_with_one_that_was_refused(tmp_path):
    store = tmp_path / "store"
    assert stored(examples(tmp_path, 1, 1), store) == []
    accept(examples(tmp_path, 1, 2), store)
    stored(examples(tmp_path, 2, 3), store)  # which a gate then refuses
    assert [rows(one["uri"]) for one in stored(examples(tmp_path, 3, 4), store)] == ["span 1, read as 2"]


def test_a_run_of_retraining_takes_the_spans_that_were_decided_and_no_others(tmp_path):
    store = tmp_path / "store"
    for number in (1, 2, 3, 5):
        accept(examples(tmp_path, number, number), store)
    current = examples(tmp_path, 4, 4)
    assert [rows(one["uri"]) for one in stored(current, store, "[1, 3]")] == [
        "span 1, read as 1",
        "span 3, read as 3",
    ]
    output = standard_artifacts.Examples()
    output.uri = str(tmp_path / "window")
    window = bindings.KeptWindow.EXECUTOR_SPEC.executor_class()
    window.Do({}, {"examples": [output]}, {"store": str(store), "spans": "[2, 3, 5]"})
    assert [one["metadata"]["custom:span"] for one in members(output)] == [2, 3, 5]
    with pytest.raises(ValueError, match=r"no Examples of span 7; expected those of 3, 7"):
        window.Do({}, {"examples": [output]}, {"store": str(store), "spans": "[3, 7]"})


def test_no_argument_grows_with_the_spans_that_are_kept(tmp_path):
    """KFP's launcher gets all properties of a step's inputs in one argument, of which Linux takes 128 KiB."""
    folder = tmp_path / ("x" * 60)  # as long as a volume's path may be
    for number in range(1000):
        copy = folder / f"span-{number}" / "1"
        copy.mkdir(parents=True)
        (copy / "resolved.json").write_text(json.dumps({"split_names": "[]", "custom:span": number}))
    output = standard_artifacts.Examples()
    output.uri = str(tmp_path / "output")
    bindings.StoredSpans.EXECUTOR_SPEC.executor_class().Do(
        {"current": [examples(tmp_path, 1000, 1)]},
        {"examples": [output]},
        {"store": str(folder), "spans": "every"},
    )
    assert len(members(output)) == 1000
    assert len(json.dumps(members(output))) > 32 * 1024
    assert len(output.get_string_custom_property("resolved")) < 100


def test_a_run_of_retraining_is_compared_with_the_version_that_was_decided(tmp_path):
    volume = Installation(tmp_path)
    volume.run("a")
    first = str(serving_folder.versions(volume.serving)[0].number)
    volume.run("b")
    assert volume.base("later", first) == "heads of a"
    assert volume.base("first", "none") is None
    with pytest.raises(ValueError, match="has no version 7, which was served when this run was decided on"):
        volume.base("gone", "7")


def saved_model(folder: pathlib.Path, content: str) -> pathlib.Path:
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_text(content)
    return folder


class Installation:
    """A volume, and runs that each pretrain, push and keep."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.serving, self.store = folder, folder / "serving", folder / "networks"

    def run(self, name: str, *, pushed: bool = True, held: bool = False, keep_versions: int = 3) -> None:
        pretrained = standard_artifacts.Model()
        pretrained.uri = str(self.folder / "artifacts" / f"pretrained-{name}")
        folder = pathlib.Path(path_utils.serving_model_dir(pretrained.uri))
        folder.mkdir(parents=True)
        (folder / "networks.npz").write_text(f"heads of {name}")
        push = standard_artifacts.PushedModel()
        push.set_int_custom_property("pushed", int(pushed and not held))
        model = saved_model(self.folder / "artifacts" / f"model-{name}", name)
        if held:  # as the Pusher does with gate.approval=manual
            candidate = candidates.hold(model, self.serving, {}, retire_after_seconds=0)
            push.set_string_custom_property("candidate", candidate.name)
            push.set_string_custom_property("model_digest", candidate.digest)
        elif pushed:
            publication = serving_folder.publish(
                model, self.serving, keep_versions=keep_versions, retire_after_seconds=0
            )
            push.set_string_custom_property("model_digest", publication.digest)
        self.keep(pretrained, push)

    def keep(self, pretrained: standard_artifacts.Model, push: standard_artifacts.PushedModel) -> None:
        bindings.KeptNetworks.EXECUTOR_SPEC.executor_class().Do(
            {"pretrained": [pretrained], "pushed_model": [push]},
            {},
            {"serving": str(self.serving), "store": str(self.store)},
        )

    def base(self, name: str, version: str = "served") -> str | None:
        """What a warm start of the run would read: the resolved artifact's file, in the place where a Trainer looks."""
        model = standard_artifacts.Model()
        model.uri = str(self.folder / "artifacts" / f"base-{name}")
        bindings.ServedNetworks.EXECUTOR_SPEC.executor_class().Do(
            {},
            {"model": [model]},
            {"serving": str(self.serving), "store": str(self.store), "version": version},
        )
        found = members(model)
        if not found:
            return None
        assert found == [{"uri": "", "metadata": {}}]
        return (pathlib.Path(path_utils.serving_model_path(model.uri)) / "networks.npz").read_text()

    def kept(self) -> int:
        return len(list(self.store.iterdir())) if self.store.exists() else 0


def test_a_warm_start_begins_with_the_networks_of_what_is_served_after_a_rollback_too(tmp_path):
    volume = Installation(tmp_path)
    assert volume.base("before") is None
    volume.run("a")
    volume.run("b")
    assert volume.base("later") == "heads of b"
    serving_folder.rollback(volume.serving)
    assert volume.base("after the rollback") == "heads of a"


def test_what_was_not_pushed_is_not_kept(tmp_path):
    volume = Installation(tmp_path)
    volume.run("a")
    volume.run("refused", pushed=False)
    assert volume.base("later") == "heads of a"
    assert volume.kept() == 1


def test_a_candidate_that_is_approved_later_is_a_base_of_warm_starts(tmp_path):
    volume = Installation(tmp_path)
    volume.run("a")
    volume.run("b", held=True)
    volume.run("refused", pushed=False)  # a later run leaves what waits
    assert volume.base("meanwhile") == "heads of a"
    candidates.approve(volume.serving, "ada", "fine")
    assert volume.base("approved") == "heads of b"
    serving_folder.rollback(volume.serving)
    assert volume.base("after the rollback") == "heads of a"


def test_networks_of_a_candidate_that_was_replaced_or_rejected_are_removed(tmp_path):
    volume = Installation(tmp_path)
    volume.run("a")
    volume.run("b", held=True)
    volume.run("c", held=True)
    assert volume.kept() == 2
    candidates.reject(volume.serving, "ada", "cats became dogs")
    volume.run("refused", pushed=False)
    assert volume.kept() == 1
    assert volume.base("later") == "heads of a"


def test_networks_go_with_the_version_that_they_are_of(tmp_path):
    volume = Installation(tmp_path)
    for name in "abc":
        volume.run(name, keep_versions=2)
    assert len(serving_folder.versions(volume.serving)) == volume.kept() == 2
    assert volume.base("later") == "heads of c"


def test_a_served_model_whose_networks_nobody_kept_gives_no_base(tmp_path):
    volume = Installation(tmp_path)
    volume.run("a")
    serving_folder.publish(saved_model(tmp_path / "foreign", "foreign"), volume.serving)
    assert volume.base("later") is None


@pytest.mark.parametrize("digest", ["", "../../etc", "sha256:../x", "sha256:" + "A" * 64])
def test_a_digest_that_is_none_is_never_a_path(tmp_path, digest):
    pretrained = standard_artifacts.Model()
    pretrained.uri = str(tmp_path / "pretrained")
    with pytest.raises(ValueError, match="expected sha256: and 64 hex digits"):
        bindings.keep_networks(pretrained, digest, tmp_path / "store")
    assert bindings.kept_networks(digest, tmp_path) is None


def test_both_are_tasks_that_kfp_takes_the_one_without_outputs_too():
    base = bindings.ServedNetworks(serving="/mnt/serving", store="/mnt/networks", version="served")
    pusher = tfx.components.Pusher(
        model=base.outputs["model"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory="/mnt/serving")
        ),
    )
    kept = bindings.KeptNetworks(
        pretrained=base.outputs["model"],
        pushed_model=pusher.outputs["pushed_model"],
        serving="/mnt/serving",
        store="/mnt/networks",
    )
    runner = kubeflow_v2_dag_runner.KubeflowV2DagRunner(
        kubeflow_v2_dag_runner.KubeflowV2DagRunnerConfig(
            default_image="registry.example/byol:test", use_pipeline_spec_2_1=True
        )
    )
    built = tfx.dsl.Pipeline(
        "byol", "minio://bucket/root", components=[base, pusher, kept], enable_cache=False
    )
    spec = runner.run(built, write_out=False)["pipelineSpec"]
    for task in spec["root"]["dag"]["tasks"].values():
        task["cachingOptions"] = {"enableCache": False}
    compiler.rename_tasks(spec)
    assert not spec_checks.problems(spec)
    assert spec_checks.predecessors(spec["root"]["dag"]["tasks"]["kept-networks"]) == {
        "served-networks",
        "pusher",
    }
