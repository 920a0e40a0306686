"""What a server answers over gRPC and REST equals what TFMA predicted, row by row, on 1,000 test images."""

import base64
import json
import pathlib
import threading
import urllib.request
from concurrent import futures

import apache_beam as beam
import grpc  # type: ignore[import-untyped]
import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from apache_beam.options.pipeline_options import PipelineOptions
from tensorflow_model_analysis import constants
from tensorflow_serving.apis import (  # type: ignore[import-untyped]
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tfx_bsl.public import tfxio

from components.data import features, synthetic
from components.gate import quality_bands
from components.serving import serving_check, serving_folder, serving_requests
from components.serving.serving_limits import ServingLimits
from pipeline import eval_config
from pipeline.config import PRESETS
from pipeline.use import http_server, rest, version_follower
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


@pytest.fixture(scope="module")
def pngs(world):
    _, images, _ = world
    return [tf.io.encode_png(image).numpy() for image in images]


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """TensorFlow Serving's service as TensorFlow Serving answers it, which cannot be installed here.

    The model is restored by the saved graph's own operation; a request's names become tensors by the SignatureDef.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            loaded = tf.compat.v1.saved_model.load(self._session, ["serve"], str(path))
        self._signatures = loaded.signature_def

    def Predict(self, request, context):  # noqa: N802 - the service's name
        signature = self._signatures[request.model_spec.signature_name]
        feed = {signature.inputs[name].name: tf.make_ndarray(v) for name, v in request.inputs.items()}
        try:
            answer = self._session.run({name: t.name for name, t in signature.outputs.items()}, feed)
        except tf.errors.InvalidArgumentError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message.splitlines()[0])
        response = predict_pb2.PredictResponse()
        for name, values in answer.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(values))
        return response


@pytest.fixture(scope="module")
def grpc_stub(world):
    """A client of a running gRPC server."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(world[0]), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)
    server.stop(None).wait()


def _predict(stub, images):
    """The probabilities that a PredictRequest over the wire gives: float [images, 10]."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "encoder", "classify"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(images, tf.string, [len(images)]))
    return tf.make_ndarray(stub.Predict(request, timeout=60).outputs["probabilities"])


def test_grpc_answers_equal_tfmas_predictions_row_by_row(grpc_stub, pngs, expected):
    answers = [_predict(grpc_stub, pngs[start : start + 250]) for start in range(0, ROWS, 250)]
    np.testing.assert_allclose(np.concatenate(answers), expected, atol=1e-5)


@pytest.mark.parametrize(
    "image",
    [serving_requests.png_bomb(20_000), b"", b"A text file.\n", serving_requests.ANIMATED_GIF],
    ids=["bomb of 20,000 x 20,000", "zero bytes", "text file", "animated GIF"],
)
def test_an_image_of_a_stranger_is_an_error_of_its_request_and_the_server_lives(
    grpc_stub, pngs, expected, image
):
    with pytest.raises(grpc.RpcError) as refused:
        _predict(grpc_stub, [pngs[0], image])
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    np.testing.assert_allclose(_predict(grpc_stub, pngs[:1]), expected[:1], atol=1e-5)


def test_rest_answers_equal_tfmas_predictions_row_by_row(world, pngs, expected):
    """REST's row form, {"instances": [{"b64": ...}, ...]}, over HTTP to the server of `byol serve`."""
    app = rest.RestApp("encoder", version_follower.VersionFollower(world[0].parent))
    server = http_server.start_server(app, "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    answers = []
    for start in range(0, ROWS, 250):
        rows = [{"b64": base64.b64encode(png).decode()} for png in pngs[start : start + 250]]
        body = json.dumps({"signature_name": "classify", "instances": rows}).encode()
        address = f"http://127.0.0.1:{server.port}/v1/models/encoder:predict"
        with urllib.request.urlopen(urllib.request.Request(address, body), timeout=60) as reply:
            answers += [row["probabilities"] for row in json.load(reply)["predictions"]]
    server.stop()
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
