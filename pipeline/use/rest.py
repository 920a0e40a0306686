"""A small server with TensorFlow Serving's REST API, for where `tensorflow_model_server` is not installed.

    GET  /v1/models/NAME[/versions/N]             which version is served
    GET  /v1/models/NAME[/versions/N]/metadata    its signatures
    POST /v1/models/NAME[/versions/N]:predict     {"signature_name": ..., "instances": [...]} or {"inputs": ...}

It serves the highest version of a serving folder and follows new ones without a gap. A request that is wrong gets
status 4xx and {"error": ...}; the server goes on. Pictures are read as an import reads them: more kinds than the
exported graph takes, upright, and over white where they are transparent. docs/decisions/0071-serve.md says what the
server is not.
"""

import contextlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from werkzeug.exceptions import BadRequest, HTTPException, NotFound
from werkzeug.wrappers import Request, Response

from components.data.pictures import PictureError
from pipeline.use import http_server, json_values, memory
from pipeline.use.sent_pictures import IMAGE_BYTES, as_encoder_takes
from pipeline.use.served_model import RejectedInputError, Signature, TensorInfo
from pipeline.use.version_follower import LoadedVersion, VersionFollower

DEFAULT_SIGNATURE = "serving_default"
MAX_BODY_BYTES = http_server.MAX_BODY_BYTES
# From where on a body, and an answer, waits for other large ones.
LARGE_BYTES = http_server.LARGE_BODY_BYTES
LARGE_VALUES = 100_000
LOG = logging.getLogger("byol.serve")
# TensorFlow Serving's two patterns, for POST and for GET.
_MODEL = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<number>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_POST = re.compile(_MODEL + r":(?P<method>classify|regress|predict)", re.IGNORECASE)
_GET = re.compile(_MODEL + r"(?:/(?P<method>metadata))?", re.IGNORECASE)
_LARGEST_VERSION = 2**63 - 1


class RestApp:
    """The WSGI application.

    Args:
        name: of the model in the addresses.
        follower: where the served version comes from.
    """

    def __init__(self, name: str, follower: VersionFollower) -> None:
        self.name = name
        self.follower = follower
        # One network at work for each core: more would only take memory.
        self._turns = http_server.Turns(os.cpu_count() or 1)
        # JSON becomes many times its size: what is large is decoded and written one request at a time.
        self._large = http_server.Turns(1)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answers one request."""
        status, answer = self._answer(Request(environ))
        response = Response(answer, status, mimetype="application/json")
        return response(environ, start_response)

    def _answer(self, request: Request) -> tuple[int, str]:
        try:
            return 200, self._act(request)
        except HTTPException as error:
            return error.code or 500, _json({"error": str(error.description)})
        except Exception as error:
            # The boundary between one request and the server: whatever went wrong ends this request alone.
            LOG.exception("A request failed.")
            return 500, _json({"error": f"Internal error: {type(error).__name__}"})

    def _act(self, request: Request) -> str:
        found = {"POST": _POST, "GET": _GET}.get(request.method, _POST).fullmatch(request.path)
        if found is None or request.method not in ("POST", "GET"):
            raise BadRequest(f"Malformed request: {request.method} {request.path[:200]}")
        version = self._version(found["name"], found["number"], found["label"])
        method = (found["method"] or "status").lower()
        if method == "predict":
            return self._predict(version, request)
        if method in ("classify", "regress"):
            raise BadRequest(
                f"Expected {method} signature method_name to be tensorflow/serving/{method}. Was: "
                "tensorflow/serving/predict, as of all signatures of this model. Use :predict."
            )
        return _json(_status(version) if method == "status" else self._metadata(version))

    def _version(self, name: str, number: str | None, label: str | None) -> LoadedVersion:
        current = self.follower.current
        if name != self.name:
            raise NotFound(
                f"Servable not found for request: Latest({name[:200]}). The model here is {self.name}."
            )
        if label is not None:
            raise BadRequest(f"Unrecognized servable version label: {label[:200]}. There are no labels here.")
        if number is not None and len(number) < 30 and int(number) == current.number:
            return current
        if number is not None and (len(number) >= 30 or int(number) > _LARGEST_VERSION):
            raise BadRequest(f"Failed to convert version: {number[:40]} to numeric.")
        if number is not None:
            raise NotFound(
                f"Servable not found for request: Specific({name}, {number}). Served is version {current.number}."
            )
        return current

    def _metadata(self, version: LoadedVersion) -> dict[str, Any]:
        signatures = {name: _described(signature) for name, signature in version.model.signatures.items()}
        return {
            "model_spec": {"name": self.name, "signature_name": "", "version": str(version.number)},
            "metadata": {"signature_def": {"signature_def": signatures}},
        }

    def _predict(self, version: LoadedVersion, request: Request) -> str:
        encoding = request.headers.get("Content-Encoding", "")
        with self._turn(encoding or (request.content_length or 0) > LARGE_BYTES):
            name, by_row, inputs = _decoded(request.get_data(cache=False), encoding, version.model.signatures)
        signature = version.model.signatures[name]
        rows = max(map(len, inputs.values()), default=0)
        values = json_values.answer_values(rows, signature)
        try:
            if IMAGE_BYTES in inputs:
                height, width = version.model.signatures["embed_pixels"].inputs["pixels"].shape[1:3]
                inputs[IMAGE_BYTES] = as_encoder_takes(inputs[IMAGE_BYTES], height, width, self._turns.one)
            outputs = version.model.call(name, inputs, self._turns.one)
        except (RejectedInputError, PictureError) as error:
            raise BadRequest(str(error)) from error
        with self._turn(values > LARGE_VALUES):
            return _encoded(outputs, by_row, signature)

    @contextlib.contextmanager
    def _turn(self, large: object) -> Iterator[None]:
        """One after the other if it is large; what it took goes back to the system."""
        if not large:
            yield
            return
        with self._large.one():
            try:
                yield
            finally:
                memory.give_back()


def _decoded(
    data: bytes, encoding: str, signatures: Mapping[str, Signature]
) -> tuple[str, bool, dict[str, np.ndarray]]:
    """A body of `:predict` -> the signature's name, whether it came by row, and its inputs.

    Raises:
        HTTPException: it is none.
    """
    body = json_values.json_object(json_values.decompressed(data, encoding, MAX_BODY_BYTES))
    name = body.get("signature_name", "")
    if name == "":
        name = DEFAULT_SIGNATURE
    if not isinstance(name, str) or name not in signatures:
        raise BadRequest(f"Serving signature name: {str(name)[:100]!r} not found in {sorted(signatures)}.")
    if ("instances" in body) == ("inputs" in body):
        raise BadRequest(
            'Expected a JSON object with either "instances", row by row, or "inputs", by column.'
        )
    signature, by_row = signatures[name], "instances" in body
    columns = (
        json_values.columns_of_rows(body["instances"], signature)
        if by_row
        else json_values.columns(body["inputs"], signature)
    )
    inputs = {key: json_values.to_array(columns[key], key, info) for key, info in signature.inputs.items()}
    if len(set(map(len, inputs.values()))) > 1:
        raise BadRequest("The inputs have different numbers of rows.")
    return name, by_row, inputs


def _encoded(outputs: Mapping[str, np.ndarray], by_row: bool, signature: Signature) -> str:
    """Outputs as the body of an answer."""
    plain = {name: json_values.plain(name, outputs[name]) for name in signature.outputs}
    if by_row:
        return _json({"predictions": json_values.rows_of_columns(plain)})
    return _json({"outputs": next(iter(plain.values())) if len(plain) == 1 else plain})


def _json(answer: dict[str, Any]) -> str:
    return json.dumps(answer) + "\n"


def _status(version: LoadedVersion) -> dict[str, Any]:
    state = {
        "version": str(version.number),
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    return {"model_version_status": [state]}


def _described(signature: Signature) -> dict[str, Any]:
    """As TensorFlow Serving writes a SignatureDef: 64-bit numbers as strings, defaults spelt out."""
    return {
        "inputs": {name: _tensor(info) for name, info in signature.inputs.items()},
        "outputs": {name: _tensor(info) for name, info in signature.outputs.items()},
        "method_name": signature.method,
        "defaults": {},
    }


def _tensor(info: TensorInfo) -> dict[str, Any]:
    shape = {"dim": [{"size": str(size), "name": ""} for size in info.shape], "unknown_rank": False}
    return {"dtype": info.dtype, "tensor_shape": shape, "name": info.tensor_name}
