"""A pushed model brings the requests that make a server's first answer as fast as its second."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2  # type: ignore[import-untyped]

from components.serving import serving_folder, warm_up
from pipeline.use import served_model, version_follower
from tests.component import tiny_served
from trainer.probe import serving


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serving")
    tiny_served.write(folder, 5, seed=1)
    return folder / "5"


@pytest.fixture
def folder(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "5")
    return tmp_path


def test_the_file_is_what_tensorflow_serving_reads_and_each_signature_answers_it(exported):
    """Read as saved_model_warmup_util.cc reads it, without what wrote it, and run by the saved names of the tensors."""
    records = list(tf.data.TFRecordDataset(str(exported / "assets.extra" / "tf_serving_warmup_requests")))
    assert 0 < len(records) <= 1000
    model = tf.saved_model.load(str(exported))
    asked = set()
    for record in records:
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        name = request.model_spec.signature_name
        inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        (rows,) = {len(value) for value in inputs.values()}
        asked.add((name, rows))
        for output in model.signatures[name](**inputs).values():
            assert len(output) == rows
    assert asked == {(name, rows) for name in model.signatures for rows in serving.WARM_UP_ROWS}


def test_a_push_carries_the_requests_along(exported, tmp_path):
    pushed = serving_folder.publish(exported, tmp_path / "served").path
    assert (pushed / warm_up.FILE).read_bytes() == (exported / warm_up.FILE).read_bytes()


def test_the_same_export_has_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        warm_up.write(tmp_path / name, serving.warm_up_requests((32, 32, 3)))
    assert (tmp_path / "a" / warm_up.FILE).read_bytes() == (tmp_path / "b" / warm_up.FILE).read_bytes()


def test_a_version_is_warm_before_it_answers(folder, monkeypatch):
    asked = []
    real = served_model.ServedModel.call

    def call(self, signature, inputs, turn=None):
        asked.append(signature)
        return real(self, signature, inputs, turn)

    monkeypatch.setattr(served_model.ServedModel, "call", call)
    follower = version_follower.VersionFollower(folder)
    assert set(asked) == set(follower.current.model.signatures)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def _no_record(path):
    path.write_bytes(b"no TFRecord at all, but long enough to be looked at")


def _no_log(path):
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"\xff\xff")


def _too_many(path):
    row = {"pixels": np.zeros((1, 32, 32, 3), np.uint8)}
    warm_up.write(path.parent.parent, [("embed_pixels", row)] * (warm_up.MAX_RECORDS + 1))


def _unknown_signature(path):
    warm_up.write(path.parent.parent, [("other", {"pixels": np.zeros((1, 32, 32, 3), np.uint8)})])


def _unknown_input(path):
    warm_up.write(path.parent.parent, [("embed_pixels", {"other": np.zeros(1, np.uint8)})])


def _wrong_type(path):
    warm_up.write(path.parent.parent, [("embed_pixels", {"pixels": np.array([b"text"], dtype=object)})])


def _no_image(path):
    warm_up.write(
        path.parent.parent, [("serving_default", {"image_bytes": np.array([b"text"], dtype=object)})]
    )


@pytest.mark.parametrize(
    "damage",
    [_cut, _no_record, _no_log, _too_many, _unknown_signature, _unknown_input, _wrong_type, _no_image],
)
def test_a_version_that_fails_at_its_own_requests_is_passed_over_as_tensorflow_serving_does(
    exported, folder, damage, caplog
):
    shutil.copytree(exported, folder / "6")
    damage(folder / "6" / warm_up.FILE)
    assert version_follower.VersionFollower(folder).current.number == 5
    assert "Version 6 is passed over" in caplog.text


def test_a_model_without_requests_is_served(folder):
    shutil.rmtree(folder / "5" / "assets.extra")
    assert warm_up.read(folder / "5") == []
    assert version_follower.VersionFollower(folder).current.number == 5
