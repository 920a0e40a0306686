"""What a server answers over gRPC's and REST's forms equals what TFMA predicted, row by row, on 1,000 test images."""

import base64
import json
import pathlib

import apache_beam as beam
import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from apache_beam.options.pipeline_options import PipelineOptions
from tensorflow_model_analysis import constants
from tensorflow_serving.apis import predict_pb2  # type: ignore[import-untyped]
from tfx_bsl.public import tfxio

from components import features, quality_bands, serving_check, serving_folder, serving_requests, synthetic
from components.serving_limits import ServingLimits
from pipeline import eval_config
from pipeline.config import PRESETS
from tests.component import gate_models
from trainer import networks
from trainer.architecture import EncoderConfig
from trainer.probe import serving
from trainer.probe.probe import LinearClassifier

ROWS = 1000
TINY = EncoderConfig(widths=(8, 16), blocks=(1, 1), stem_stride=2)


def _encoder():
    """A small encoder whose batch norm has seen images: its moments are not the initial ones."""
    encoder = networks.build_encoder(TINY, np.full(3, 0.5), np.full(3, 0.25), 3)
    pixels, _ = synthetic.make_images(64, np.random.default_rng(5))
    for _ in range(20):
        encoder(pixels.astype(np.float32) / 255, training=True)
    return encoder


@pytest.fixture(scope="module")
def encoder():
    return _encoder()


@pytest.fixture(scope="module")
def classifier(encoder):
    rng = np.random.default_rng(6)
    width = encoder.output_shape[-1]
    return LinearClassifier(rng.standard_normal((width, 10)).astype(np.float32), np.zeros(10, np.float32))


@pytest.fixture(scope="module")
def world(encoder, classifier, tmp_path_factory):
    """The pushed model, 1,000 test images in Examples, and TFMA's predictions by content hash."""
    root = tmp_path_factory.mktemp("rows")
    serving.export(encoder, classifier, str(root / "model"))
    pushed = serving_folder.publish(root / "model", root / "serving")
    images, labels = synthetic.make_images(ROWS, np.random.default_rng(7))
    examples = gate_models.write_examples(root / "examples", images, labels)
    return pushed.path, images, _tfma_predictions(root, str(root / "model"), examples.uri)


def _tfma_predictions(root: pathlib.Path, model: str, examples: str):
    """Runs the extractors that the Evaluator runs and writes down each row's probabilities."""
    config = tfma.utils.update_eval_config_with_defaults(
        eval_config.gate(PRESETS["demo"].gate), has_baseline=False, rubber_stamp=True
    )
    shared = tfma.default_eval_shared_model(eval_saved_model_path=model, eval_config=config)
    records = tfxio.TFExampleRecord(
        file_pattern=f"{examples}/Split-test/*", raw_record_column_name=constants.ARROW_INPUT_COLUMN
    )
    with beam.Pipeline(options=PipelineOptions(gate_models.BEAM)) as pipeline:
        extracts = pipeline | records.BeamSource() | tfma.BatchedInputsToExtracts()
        for step in quality_bands.custom_extractors(shared, config, None):
            extracts = extracts | step.stage_name >> step.ptransform
        lines = extracts | beam.Map(_line)
        lines | beam.io.WriteToText(str(root / "predictions"), shard_name_template="")
    rows = [json.loads(line) for line in (root / "predictions").read_text().splitlines()]
    return {row["hash"]: row["probabilities"] for row in rows}


def _line(extracts) -> str:
    name = np.asarray(extracts[constants.FEATURES_KEY][features.CONTENT_HASH]).reshape(-1)[0].decode()
    prediction = extracts[constants.PREDICTIONS_KEY]
    probabilities = prediction["probabilities"] if isinstance(prediction, dict) else prediction
    return json.dumps({"hash": name, "probabilities": np.asarray(probabilities).reshape(-1).tolist()})


@pytest.fixture(scope="module")
def expected(world):
    """TFMA's probabilities in the order of the images: float [1000, 10]."""
    _, images, predicted = world
    assert len(predicted) == ROWS
    return np.array([predicted[name.decode()] for name in features.content_hashes(images)])


def _pngs(images):
    return [tf.io.encode_png(image).numpy() for image in images]


def test_grpc_answers_equal_tfmas_predictions_row_by_row(world, expected):
    """As TensorFlow Serving does: a PredictRequest off the wire, mapped to tensors by the SignatureDef."""
    path, images, _ = world
    encoded, answers = _pngs(images), []
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], str(path)).signature_def["classify"]
        for start in range(0, ROWS, 250):
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = "classify"
            batch = tf.make_tensor_proto(encoded[start : start + 250], tf.string, [250])
            request.inputs["image_bytes"].CopyFrom(batch)
            received = predict_pb2.PredictRequest.FromString(request.SerializeToString())
            feed = {signature.inputs[k].name: tf.make_ndarray(v) for k, v in received.inputs.items()}
            response = predict_pb2.PredictResponse()
            value = session.run(signature.outputs["probabilities"].name, feed)
            response.outputs["probabilities"].CopyFrom(tf.make_tensor_proto(value))
            read = predict_pb2.PredictResponse.FromString(response.SerializeToString())
            answers.append(tf.make_ndarray(read.outputs["probabilities"]))
    np.testing.assert_allclose(np.concatenate(answers), expected, atol=1e-5)


def test_rest_answers_equal_tfmas_predictions_row_by_row(world, expected):
    """REST's row form: {"instances": [{"b64": ...}, ...]} in, JSON numbers out."""
    path, images, _ = world
    classify = tf.saved_model.load(str(path)).signatures["classify"]
    answers = []
    for start in range(0, ROWS, 250):
        body = json.dumps(
            {
                "instances": [
                    {"b64": base64.b64encode(png).decode()} for png in _pngs(images[start : start + 250])
                ]
            }
        )
        instances = [base64.b64decode(row["b64"]) for row in json.loads(body)["instances"]]
        answer = classify(image_bytes=tf.constant(instances))
        reply = json.dumps({"predictions": answer["probabilities"].numpy().tolist()})
        answers += json.loads(reply)["predictions"]
    np.testing.assert_allclose(np.array(answers), expected, atol=1e-5)


def test_an_export_with_the_initial_moments_of_a_target_network_is_refused(encoder, classifier, tmp_path):
    """The target network's batch norm may never have seen an image; the trainer's numbers are the online network's."""
    pixels, _ = synthetic.make_images(40, np.random.default_rng(8))
    embedding = np.asarray(encoder(pixels.astype(np.float32) / 255, training=False))
    logits = embedding @ classifier.kernel + classifier.bias
    odds = np.exp(logits - logits.max(1, keepdims=True))
    reference = tmp_path / serving_check.REFERENCE_FILE
    np.savez(reference, pixels=pixels, embedding=embedding, probabilities=odds / odds.sum(1, keepdims=True))
    for name, network, passes in (
        ("online", encoder, True),
        ("target", _with_initial_moments(encoder), False),
    ):
        folder = tmp_path / name
        folder.mkdir()
        serving.export(network, classifier, str(folder / "model"))
        serving_check._write_request(
            folder,
            folder / "model",
            reference,
            serving_check._pixels(reference),
            ServingLimits(),
        )
        session = serving_requests.Session(folder)
        session.load()
        if passes:
            serving_requests.check_reference(session)
            continue
        with pytest.raises(serving_requests.CheckFailedError, match="the served embedding and the trainer's"):
            serving_requests.check_reference(session)


def _with_initial_moments(encoder):
    target = keras.models.clone_model(encoder)
    target.set_weights(encoder.get_weights())
    for layer in target._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(np.zeros(layer.moving_mean.shape))
            layer.moving_variance.assign(np.ones(layer.moving_variance.shape))
    return target
