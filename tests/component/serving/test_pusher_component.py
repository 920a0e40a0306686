"""The Pusher as TFX runs it: blessings, standard outputs, lineage, a pipeline, and real SavedModels under a
reader."""

import json
import pathlib
import re
import threading
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from google.protobuf import text_format
from tensorflow_model_analysis.proto import config_pb2
from tensorflow_serving.apis import predict_pb2  # type: ignore[import-untyped]
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.orchestration import metadata, pipeline
from tfx.orchestration.local import local_dag_runner
from tfx.proto import pusher_pb2
from tfx.types import channel, channel_utils, standard_artifacts
from tfx.utils import path_utils

from components.serving import candidates, pusher, serving_check, serving_folder
from trainer.probe.image_decoding import decode_images


class Scale(tf.Module):
    """Multiplies by one number, which tells models apart; decodes images as the exported encoder does."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = tf.Variable(factor)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serve(self, image_bytes: Any) -> Any:
        pixels = tf.cast(decode_images(image_bytes), tf.float32)
        return {"embedding": self.factor * tf.reduce_mean(pixels, axis=[1, 2])}


def _export(folder: pathlib.Path, factor: float) -> pathlib.Path:
    module = Scale(factor)
    tf.saved_model.save(module, str(folder), signatures=module.serve)
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """Two `Model` artifacts' folders."""
    root = tmp_path_factory.mktemp("models")
    for name, factor in (("A", 1.0), ("B", 2.0)):
        _export(pathlib.Path(path_utils.serving_model_dir(str(root / name))), factor)
    return {name: root / name for name in "AB"}


def _artifact(kind: Any, uri: pathlib.Path, identifier: int, **properties: str | int) -> Any:
    artifact = kind()
    artifact.uri = str(uri)
    artifact.id = identifier
    for name, value in properties.items():
        if isinstance(value, int):
            artifact.set_int_custom_property(name, value)
        else:
            artifact.set_string_custom_property(name, value)
    return artifact


class Push:
    """The executor, called as a launcher calls it, for model A of id 1 unless told otherwise."""

    def __init__(self, exported: dict[str, pathlib.Path], folder: pathlib.Path) -> None:
        self.exported = exported
        self.folder = folder
        self.serving = folder / "serving"

    def blessing(self, name: str = "A", identifier: int = 1, blessed: int = 1) -> Any:
        return _artifact(
            standard_artifacts.ModelBlessing,
            self.folder / "blessing",
            11,
            blessed=blessed,
            current_model=str(self.exported[name]),
            current_model_id=identifier,
        )

    def infra_blessing(self, name: str = "A", identifier: int = 1, blessed: int = 1, **more: str) -> Any:
        return _artifact(
            standard_artifacts.InfraBlessing,
            self.folder / "infra_blessing",
            12,
            blessed=blessed,
            current_model=str(self.exported[name]),
            current_model_id=identifier,
            **more,
        )

    def __call__(self, name: str = "A", settings: pusher.PushSettings | None = None, **inputs: Any) -> Any:
        model = _artifact(standard_artifacts.Model, self.exported[name], {"A": 1, "B": 2}[name])
        pushed = _artifact(standard_artifacts.PushedModel, self.folder / "pushed", 0)
        pathlib.Path(pushed.uri).mkdir(exist_ok=True)
        baseline = inputs.pop("baseline_model", None)
        component = pusher.Pusher(
            baseline_model=None if baseline is None else channel.Channel(type=standard_artifacts.Model),
            model=channel_utils.as_channel([model]),
            model_blessing=channel_utils.as_channel([self.blessing()]),
            push_destination=pusher_pb2.PushDestination(
                filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=str(self.serving))
            ),
            settings=settings,
        )
        properties = component.exec_properties
        given = {"model_blessing": self.blessing(), **inputs}
        artifacts = {key: [artifact] for key, artifact in given.items() if artifact is not None}
        artifacts |= {"baseline_model": baseline} if baseline else {}
        pusher.Executor().Do({"model": [model], **artifacts}, {"pushed_model": [pushed]}, properties)
        return pushed


@pytest.fixture
def push(exported: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> Push:
    return Push(exported, tmp_path)


def _served(serving: pathlib.Path) -> float:
    """The factor of the model that a server would serve, from a real request."""
    version = max(int(path.name) for path in serving.iterdir() if path.name.isdecimal())
    image = tf.io.encode_png(np.full((32, 32, 3), 100, np.uint8))
    answer = tf.saved_model.load(str(serving / str(version))).signatures["serving_default"](
        image_bytes=image[tf.newaxis]
    )
    return float(answer["embedding"][0, 0]) / 100


def test_a_blessed_model_is_pushed_with_the_stock_outputs(push: Push) -> None:
    pushed = push(
        settings=pusher.PushSettings(lineage={"preset": "demo"}), infra_blessing=push.infra_blessing()
    )
    assert pushed.get_int_custom_property("pushed") == 1
    version = pushed.get_string_custom_property("pushed_version")
    assert pushed.get_string_custom_property("pushed_destination") == str(push.serving / version)
    assert _served(push.serving) == 1.0
    assert (pathlib.Path(pushed.uri) / "saved_model.pb").exists()
    record = json.loads((push.serving / version / "serving.json").read_text())
    assert record["lineage"]["preset"] == "demo"
    assert record["lineage"]["inputs"]["model_blessing"][0]["properties"]["current_model_id"] == 1
    assert record["lineage"]["inputs"]["model"][0]["uri"] == str(push.exported["A"])
    assert pushed.get_string_custom_property("model_digest") == record["digest"]


def test_a_model_is_pushed_only_over_the_one_that_it_was_compared_with(push: Push) -> None:
    first, second = (_artifact(standard_artifacts.Model, push.exported[name], 7) for name in "AB")
    before = push(baseline_model=[second])
    assert before.get_int_custom_property("overtaken") == 1
    assert "what is served became nothing" in before.get_string_custom_property("not_pushed_reason")
    assert serving_folder.versions(push.serving) == []

    blessing = push.blessing("B", 2)
    served = push("B", model_blessing=blessing, baseline_model=[])
    assert served.get_int_custom_property("pushed") == 1
    again = push(
        "B", model_blessing=blessing, baseline_model=[first]
    )  # a push that was killed is told as done
    assert again.get_int_custom_property("pushed") == 1
    assert again.get_int_custom_property("is_new_version") == 0

    late = push(baseline_model=[first])
    assert (late.get_int_custom_property("pushed"), late.get_int_custom_property("overtaken")) == (0, 1)
    assert _served(push.serving) == 2.0
    right = push(baseline_model=[second])
    assert right.get_int_custom_property("pushed") == 1
    (record,) = [version.record for version in serving_folder.versions(push.serving) if version.served]
    assert "baseline_model" not in record["lineage"]["inputs"]


def test_with_manual_approval_a_blessed_model_waits_and_an_approval_pushes_it(push: Push) -> None:
    manual = pusher.PushSettings(approval="manual", lineage={"preset": "demo"})
    for _ in range(2):  # a retry holds it once
        held = push(settings=manual)
        assert held.get_int_custom_property("pushed") == 0
        assert "waits for approval" in held.get_string_custom_property("not_pushed_reason")
    candidate = candidates.waiting(push.serving)
    assert candidate is not None
    assert held.get_string_custom_property("candidate") == candidate.name
    assert held.get_string_custom_property("model_digest") == candidate.digest
    assert serving_folder.versions(push.serving) == []
    candidates.approve(push.serving, "ada")
    assert _served(push.serving) == 1.0
    (version,) = serving_folder.versions(push.serving)
    assert version.record["lineage"]["preset"] == "demo"
    assert version.record["lineage"]["inputs"]["model"][0]["uri"] == str(push.exported["A"])
    assert (
        push(settings=manual).get_int_custom_property("pushed") == 1
    )  # what is served already waits for nobody


def test_a_retry_reports_the_version_that_is_there(push: Push) -> None:
    first, second = push(), push()
    assert second.get_int_custom_property("pushed") == 1
    for key in ("pushed_version", "pushed_destination"):
        assert second.get_string_custom_property(key) == first.get_string_custom_property(key)
    assert (
        first.get_int_custom_property("is_new_version"),
        second.get_int_custom_property("is_new_version"),
    ) == (1, 0)
    assert len(serving_folder.versions(push.serving)) == 1


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("blessing of A", "is about the model at"),
        ("blessing of another id", "is about the model of id 9, not 2"),
        ("not blessed", "was not blessed by the evaluation"),
        ("no blessing", "nothing has judged the model"),
        ("nameless blessing", "does not say which model it is about"),
        ("unfit for serving", "did not pass the serving check .*: latency: too slow"),
        ("serving check of A", "is about the model at"),
    ],
)
def test_a_model_without_blessings_of_its_own_is_not_pushed(push: Push, case: str, words: str) -> None:
    own = push.blessing("B", 2)
    inputs: dict[str, Any] = {
        "blessing of A": {"model_blessing": push.blessing("A", 1)},
        "blessing of another id": {"model_blessing": push.blessing("B", 9)},
        "not blessed": {"model_blessing": push.blessing("B", 2, blessed=0)},
        "no blessing": {"model_blessing": None},
        "nameless blessing": {
            "model_blessing": _artifact(standard_artifacts.ModelBlessing, push.folder, 3, blessed=1)
        },
        "unfit for serving": {
            "model_blessing": own,
            "infra_blessing": push.infra_blessing("B", 2, blessed=0, reason="latency: too slow"),
        },
        "serving check of A": {"model_blessing": own, "infra_blessing": push.infra_blessing("A", 1)},
    }[case]
    pushed = push("B", **inputs)
    assert pushed.get_int_custom_property("pushed") == 0
    assert not push.serving.exists()
    assert re.search(words, pushed.get_string_custom_property("not_pushed_reason"))


def test_kubeflow_writes_names_for_ids_and_the_address_decides(push: Push) -> None:
    blessing = push.blessing("B", 0)
    blessing.set_string_custom_property("current_model_id", "projects/1/artifacts/77")
    assert push("B", model_blessing=blessing).get_int_custom_property("pushed") == 1
    other = push.blessing("A", 0)
    other.set_string_custom_property("current_model_id", "projects/1/artifacts/77")
    assert push("B", model_blessing=other).get_int_custom_property("pushed") == 0


def test_a_pushed_model_card_leaves_the_model_loadable_and_another_models_card_is_refused(push: Push) -> None:
    folder = push.folder / "card"
    folder.mkdir()
    (folder / serving_folder.CARD_MARKDOWN_FILE).write_text("# Model card")
    card = _artifact(
        standard_artifacts.ModelEvaluation,
        folder,
        6,
        current_model=str(push.exported["A"]),
        current_model_id=1,
    )
    pushed = push(card=card)
    path = pathlib.Path(pushed.get_string_custom_property("pushed_destination"))
    assert (path / serving_folder.CARD_MARKDOWN_FILE).read_text() == "# Model card"
    assert list(tf.saved_model.load(str(path)).signatures) == ["serving_default"]

    refused = push("B", model_blessing=push.blessing("B", 2), card=card)
    assert refused.get_int_custom_property("pushed") == 0
    assert "is about the model at" in refused.get_string_custom_property("not_pushed_reason")


def test_a_model_that_changed_since_its_check_stops_the_run(push: Push) -> None:
    with pytest.raises(ValueError, match="is not the one that was judged"):
        push(infra_blessing=push.infra_blessing(model_digest="sha256:0"))
    digest = serving_folder.model_digest(path_utils.serving_model_dir(str(push.exported["A"])))
    pushed = push(infra_blessing=push.infra_blessing(model_digest=digest))
    assert pushed.get_int_custom_property("pushed") == 1


def test_a_model_that_was_rolled_back_from_is_not_pushed_by_a_retry(push: Push) -> None:
    push("A")
    push("B", model_blessing=push.blessing("B", 2))
    assert _served(push.serving) == 2.0
    serving_folder.rollback(push.serving)
    assert _served(push.serving) == 1.0
    again = push("B", model_blessing=push.blessing("B", 2))
    assert again.get_int_custom_property("pushed") == 0
    assert "was rolled back from" in again.get_string_custom_property("not_pushed_reason")
    assert _served(push.serving) == 1.0


def test_remote_destinations_and_bad_settings_are_refused_at_construction(push: Push) -> None:
    model = channel_utils.as_channel([_artifact(standard_artifacts.Model, push.exported["A"], 1)])
    with pytest.raises(ValueError, match="received gs://bucket/serving"):
        pusher.Pusher(
            model=model,
            model_blessing=channel_utils.as_channel([push.blessing()]),
            push_destination=pusher_pb2.PushDestination(
                filesystem=pusher_pb2.PushDestination.Filesystem(base_directory="gs://bucket/serving")
            ),
        )
    with pytest.raises(ValueError, match="keep_versions of at least 1, received 0"):
        pusher.PushSettings(keep_versions=0)
    with pytest.raises(ValueError, match="Expected times of at least 0 s"):
        pusher.PushSettings(retire_after_seconds=-1)


@pytest.mark.parametrize("with_baseline", [False, True])
def test_metrics_and_thresholds_of_the_evaluation_are_in_the_record(push: Push, with_baseline: bool) -> None:
    baseline = 'model_specs { name: "baseline" is_baseline: true label_key: "label" prediction_key: "old" }'
    config = text_format.Parse(
        f"""
        model_specs {{ name: "candidate" label_key: "label" prediction_key: "prediction" }}
        {baseline if with_baseline else ""}
        """
        """
        slicing_specs {}
        metrics_specs {
          metrics { class_name: "ExampleCount" }
          metrics {
            class_name: "MeanPrediction"
            threshold { value_threshold { lower_bound { value: 0.25 } } }
          }
        }
        """,
        config_pb2.EvalConfig(),
    )
    frame = pd.DataFrame(
        {"label": [0.0, 1.0, 1.0, 0.0], "prediction": [0.1, 0.9, 0.8, 0.2], "old": [0.9] * 4}
    )
    evaluation = _artifact(standard_artifacts.ModelEvaluation, push.folder / "evaluation", 5)
    tfma.analyze_raw_data(frame, config, output_path=evaluation.uri)
    pushed = push(evaluation=evaluation)
    record = json.loads((pathlib.Path(pushed.uri) / "serving.json").read_text())
    assert record["lineage"]["metrics"]["example_count"] == 4
    assert record["lineage"]["metrics"]["mean_prediction"] == pytest.approx(0.5)
    limits = record["lineage"]["thresholds"]["MeanPrediction"]
    assert limits["threshold"]["value_threshold"]["lower_bound"] == 0.25


def test_the_data_that_the_card_names_are_in_the_record(push: Push) -> None:
    data = {"spans": [{"span": 7, "splits": {"test": {"rows": 6, "sha256": "ab"}}}], "fixed_test": None}
    (push.folder / "card").mkdir()
    card = _artifact(
        standard_artifacts.ModelEvaluation,
        push.folder / "card",
        6,
        data=json.dumps(data),
        current_model=str(push.exported["A"]),
        current_model_id=1,
    )
    record = json.loads((pathlib.Path(push(card=card).uri) / "serving.json").read_text())
    assert record["lineage"]["data"] == data


def test_a_reader_of_real_models_never_fails(
    exported: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    serving = tmp_path / "serving"
    sources = [pathlib.Path(path_utils.serving_model_dir(str(exported[name]))) for name in "AB"]
    done = threading.Event()
    factors: set[float] = set()
    failures: list[BaseException] = []

    def read() -> None:
        while not done.is_set():
            for path in serving.glob("[0-9]*"):
                try:
                    factors.add(float(tf.saved_model.load(str(path)).factor))
                except (OSError, ValueError, tf.errors.OpError) as error:
                    failures.append(error)

    serving_folder.publish(sources[0], serving)
    reader = threading.Thread(target=read)
    reader.start()
    for index in range(1, 10):
        serving_folder.publish(sources[index % 2], serving, keep_versions=2)
    done.set()
    reader.join()
    assert failures == []
    assert factors == {1.0, 2.0}
    assert len(serving_folder.versions(serving)) == 10


def test_a_predict_request_is_answered_as_tensorflow_serving_answers(push: Push) -> None:
    """TensorFlow Serving maps a request's names to tensors by the SignatureDef and runs a session on them."""
    pushed = push("B", model_blessing=push.blessing("B", 2))
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "encoder"
    request.model_spec.version.value = int(pushed.get_string_custom_property("pushed_version"))
    images = [tf.io.encode_png(np.full((32, 32, 3), value, np.uint8)).numpy() for value in (10, 20)]
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(images, tf.string, [2]))
    bad = predict_pb2.PredictRequest()
    bad.CopyFrom(request)
    bad.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([b"text"], tf.string, [1]))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        path = pushed.get_string_custom_property("pushed_destination")
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], path)
        signature = loaded.signature_def["serving_default"]
        answers = []
        for sent in (request, bad, request):
            received = predict_pb2.PredictRequest.FromString(sent.SerializeToString())
            assert received.inputs.keys() == signature.inputs.keys()
            for name, tensor in received.inputs.items():
                assert tensor.dtype == signature.inputs[name].dtype
            feed = {signature.inputs[k].name: tf.make_ndarray(v) for k, v in received.inputs.items()}
            fetch = {name: info.name for name, info in signature.outputs.items()}
            try:
                answers.append(session.run(fetch, feed)["embedding"])
            except tf.errors.InvalidArgumentError as error:
                answers.append(error)
    np.testing.assert_array_equal(answers[0], [[20.0] * 3, [40.0] * 3])
    np.testing.assert_array_equal(answers[2], answers[0])
    assert isinstance(answers[1], tf.errors.InvalidArgumentError)


@component
def MakeModel(model: OutputArtifact[standard_artifacts.Model], factor: Parameter[float]) -> None:  # noqa: N802
    _export(pathlib.Path(path_utils.serving_model_dir(model.uri)), factor)


@component
def Bless(  # noqa: N802
    model: InputArtifact[standard_artifacts.Model], blessing: OutputArtifact[standard_artifacts.ModelBlessing]
) -> None:
    blessing.set_int_custom_property("blessed", 1)
    blessing.set_string_custom_property("current_model", model.uri)
    blessing.set_int_custom_property("current_model_id", model.id)


def _run_pipeline(root: pathlib.Path, factor: float, *, check: bool) -> Any:
    connection = metadata.sqlite_metadata_connection_config(str(root / "metadata.sqlite"))
    make = MakeModel(factor=factor)
    bless = Bless(model=make.outputs["model"])
    checked = serving_check.ServingCheck(model=make.outputs["model"])
    push = pusher.Pusher(
        model=make.outputs["model"],
        model_blessing=bless.outputs["blessing"],
        infra_blessing=checked.outputs["blessing"] if check else None,
        push_destination=pusher_pb2.PushDestination(
            filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=str(root / "serving"))
        ),
    )
    local_dag_runner.LocalDagRunner().run(
        pipeline.Pipeline(
            pipeline_name="push",
            pipeline_root=str(root / "runs"),
            components=[make, bless, *([checked] if check else []), push],
            metadata_connection_config=connection,
            enable_cache=True,
        )
    )
    with metadata.Metadata(connection) as handler:
        return max(handler.store.get_artifacts_by_type("PushedModel"), key=lambda artifact: artifact.id)


def test_in_a_pipeline_models_are_pushed_once_and_unfit_ones_not(tmp_path: pathlib.Path) -> None:
    first = _run_pipeline(tmp_path, 1.0, check=False)
    assert first.custom_properties["pushed"].int_value == 1
    assert _served(tmp_path / "serving") == 1.0
    _run_pipeline(tmp_path, 1.0, check=False)
    assert len(serving_folder.versions(tmp_path / "serving")) == 1  # from the cache
    record = serving_folder.versions(tmp_path / "serving")[0].record
    assert record["lineage"]["run_id"]
    assert record["lineage"]["inputs"]["model"][0]["id"] > 0
    # This model lacks three of the contract's signatures: the serving check says so, and it is not pushed.
    unfit = _run_pipeline(tmp_path, 3.0, check=True)
    assert unfit.custom_properties["pushed"].int_value == 0
    assert "missing signatures: classify" in unfit.custom_properties["not_pushed_reason"].string_value
    assert _served(tmp_path / "serving") == 1.0
