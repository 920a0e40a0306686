"""Warm-up requests inside a SavedModel, as TensorFlow Serving takes them: its first answer is as fast as its second.

`assets.extra/tf_serving_warmup_requests` is a TFRecord of `PredictionLog` messages, at most 1,000. TensorFlow Serving
runs them before it calls a version available, and does not serve a version that fails at one of them.
"""

import os
import pathlib
from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2  # type: ignore[import-untyped]

FILE = "assets.extra/tf_serving_warmup_requests"
MAX_RECORDS = 1000
_DEFAULT_SIGNATURE = "serving_default"

# A signature's name, and its inputs by name: arrays of a row each, object arrays of bytes for strings.
Request = tuple[str, Mapping[str, np.ndarray]]


def write(model: str | os.PathLike[str], requests: Iterable[Request]) -> None:
    """Writes the requests into an exported model.

    Args:
        model: the folder with `saved_model.pb` in it.
        requests: in the order in which a server shall run them.
    """
    path = os.path.join(os.fspath(model), FILE)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.TFRecordWriter(path) as writer:
        for name, inputs in requests:
            writer.write(_log(name, inputs).SerializeToString(deterministic=True))


def read(model: pathlib.Path) -> list[Request]:
    """The requests to `:predict` that a model brings along; none if it brings none.

    Raises:
        ValueError: the file is damaged, or holds more requests than TensorFlow Serving takes.
    """
    path = model / FILE
    if not path.is_file():
        return []
    try:
        records = [record.numpy() for record in tf.data.TFRecordDataset(str(path)).take(MAX_RECORDS + 1)]
        logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
        found = [_request(log.predict_log.request) for log in logs if log.HasField("predict_log")]
    except (tf.errors.OpError, DecodeError, TypeError, ValueError) as error:
        raise ValueError(
            f"Expected warm-up requests in {path}, received a file that cannot be read: {error}."
        ) from error
    if len(records) > MAX_RECORDS:
        raise ValueError(f"Expected at most {MAX_RECORDS} warm-up requests, received more in {path}.")
    return found


def _log(name: str, inputs: Mapping[str, np.ndarray]) -> prediction_log_pb2.PredictionLog:
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = name  # the model's name is the server's choice
    for key, values in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(values))
    return prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))


def _request(request: predict_pb2.PredictRequest) -> Request:
    inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
    return request.model_spec.signature_name or _DEFAULT_SIGNATURE, inputs
