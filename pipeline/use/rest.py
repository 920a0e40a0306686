"""A small server with TensorFlow Serving's REST API, for where `tensorflow_model_server` is not installed.

    GET  /v1/models/NAME[/versions/N]             which version is served
    GET  /v1/models/NAME[/versions/N]/metadata    its signatures
    POST /v1/models/NAME[/versions/N]:predict     {"signature_name": ..., "instances": [...]} or {"inputs": ...}

It serves the highest version of a serving folder and follows new ones without a gap. A request that is wrong gets
status 4xx and {"error": ...}; the server goes on. docs/decisions/0071-serve.md says what it is not.
"""

import base64
import binascii
import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from werkzeug.exceptions import BadRequest, HTTPException, NotFound
from werkzeug.routing import Map, Rule
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from pipeline.use.served_model import RejectedInputError, Signature, TensorInfo
from pipeline.use.version_follower import LoadedVersion, VersionFollower

DEFAULT_SIGNATURE = "serving_default"
MAX_BODY_BYTES = 64 * 1024 * 1024
# A client that sends nothing for so long loses its connection and frees its thread.
IDLE_SECONDS = 30
LOG = logging.getLogger("byol.serve")
_RANGES: dict[str, type[np.integer[Any]]] = {"DT_UINT8": np.uint8, "DT_INT32": np.int32, "DT_INT64": np.int64}
_FLOATS = {"DT_FLOAT": np.float32, "DT_DOUBLE": np.float64}


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
        self._places = threading.BoundedSemaphore(os.cpu_count() or 1)
        self._actions: dict[str, Callable[[LoadedVersion, Request], dict[str, Any]]] = {
            "status": lambda version, _: _status(version),
            "metadata": lambda version, _: self._metadata(version),
            "predict": self._predict,
        }
        self._urls = Map(
            [
                Rule(f"/v1/models/<name>{version}{suffix}", endpoint=endpoint, methods=[method])
                for version in ("", "/versions/<int:number>")
                for suffix, endpoint, method in (
                    ("", "status", "GET"),
                    ("/metadata", "metadata", "GET"),
                    (":predict", "predict", "POST"),
                )
            ]
        )

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answers one request."""
        request = Request(environ)
        request.max_content_length = MAX_BODY_BYTES
        status, answer = self._answer(request)
        response = Response(json.dumps(answer, indent=2) + "\n", status, mimetype="application/json")
        return response(environ, start_response)

    def _answer(self, request: Request) -> tuple[int, dict[str, Any]]:
        try:
            endpoint, values = self._urls.bind_to_environ(request.environ).match()
            return 200, self._actions[endpoint](self._version(**values), request)
        except HTTPException as error:
            return error.code or 500, {"error": str(error.description)}
        except Exception as error:
            # The boundary between one request and the server: whatever went wrong ends this request alone.
            LOG.exception("A request failed.")
            return 500, {"error": f"Internal error: {type(error).__name__}"}

    def _version(self, name: str, number: int | None = None) -> LoadedVersion:
        current = self.follower.current
        if name != self.name:
            raise NotFound(f"Servable not found for request: Latest({name}). The model here is {self.name}.")
        if number not in (None, current.number):
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

    def _predict(self, version: LoadedVersion, request: Request) -> dict[str, Any]:
        body = _json_object(request.get_data())
        signature_name = body.get("signature_name", "") or DEFAULT_SIGNATURE
        signatures = version.model.signatures
        if not isinstance(signature_name, str) or signature_name not in signatures:
            raise BadRequest(f"Serving signature name: {signature_name!r} not found in {sorted(signatures)}.")
        if ("instances" in body) == ("inputs" in body):
            raise BadRequest(
                'Expected a JSON object with either "instances", row by row, or "inputs", by column.'
            )
        signature = signatures[signature_name]
        by_row = "instances" in body
        columns = (
            _columns_of_rows(body["instances"], signature) if by_row else _columns(body["inputs"], signature)
        )
        inputs = {name: to_array(columns[name], name, info) for name, info in signature.inputs.items()}
        if len({len(values) for values in inputs.values()}) > 1:
            raise BadRequest("The inputs have different numbers of rows.")
        try:
            with self._places:
                outputs = version.model.call(signature_name, inputs)
        except RejectedInputError as error:
            raise BadRequest(str(error)) from error
        plain = {name: _plain(name, outputs[name]) for name in signature.outputs}
        return {"predictions": _rows(plain)} if by_row else {"outputs": _only(plain)}


class _Handler(WSGIRequestHandler):
    """A request a line in the log, not on the terminal, and no waiting for ever."""

    timeout = IDLE_SECONDS

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's name
        LOG.debug("%s " + message, self.address_string(), *args)


def start_server(app: RestApp, host: str, port: int) -> BaseWSGIServer:
    """Opens the port; the caller runs `serve_forever`. Port 0 takes a free one, `server.port`.

    Raises:
        OSError: the port cannot be opened.
    """
    import socket

    # Opened here because werkzeug ends the process when a port is taken.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=128) as listener:
        return make_server(
            host, port, app, threaded=True, request_handler=_Handler, fd=os.dup(listener.fileno())
        )


def to_array(values: Any, name: str, info: TensorInfo) -> np.ndarray:
    """JSON values -> an array of the input's dtype and shape.

    Raises:
        BadRequest: when they are none; it names the input, what was received and what was expected.
    """
    if info.dtype == "DT_STRING":
        if not isinstance(values, list):
            raise BadRequest(
                f'Input {name} is a list of strings or {{"b64": ...}}; received {_kind(values)}.'
            )
        array = np.empty(len(values), dtype=object)
        for row, value in enumerate(values):
            array[row] = _bytes(value, name)
        return array
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"Input {name} is no array of numbers: {error}.") from error
    if isinstance(values, list) and not values:
        array = np.zeros((0, *info.shape[1:]), np.int64)
    shape = list(info.shape)
    if array.ndim != len(shape) or any(
        want not in (-1, got) for got, want in zip(array.shape, shape, strict=True)
    ):
        raise BadRequest(f"Input {name} has shape {list(array.shape)}, expected {shape}.")
    if info.dtype in _FLOATS and array.dtype.kind in "iuf":
        return array.astype(_FLOATS[info.dtype])
    if info.dtype in _RANGES and array.dtype.kind in "iu":
        limits = np.iinfo(_RANGES[info.dtype])
        if array.size and (array.min() < limits.min or array.max() > limits.max):
            raise BadRequest(f"Input {name} has values outside {limits.min} to {limits.max}.")
        return array.astype(_RANGES[info.dtype])
    raise BadRequest(f"Input {name} is {array.dtype}, expected {info.dtype}.")


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"JSON Parse error: {error}.") from error
    if not isinstance(body, dict):
        raise BadRequest(f"Expected a JSON object, received {_kind(body)}.")
    return body


def _columns_of_rows(instances: Any, signature: Signature) -> dict[str, list[Any]]:
    """Rows are values of the only input, or objects of an input each."""
    if not isinstance(instances, list) or not instances:
        raise BadRequest(f'"instances" is a list of at least one row; received {_kind(instances)}.')
    names = list(signature.inputs)
    rows = [row if _names_inputs(row, names) else {names[0]: row} for row in instances]
    if len(names) > 1 and not all(_names_inputs(row, names) for row in instances):
        raise BadRequest(f"Each instance is an object with the inputs {', '.join(names)}.")
    return {name: [row[name] for row in rows] for name in names}


def _columns(inputs: Any, signature: Signature) -> dict[str, Any]:
    names = list(signature.inputs)
    if _names_inputs(inputs, names):
        return dict(inputs)
    if len(names) > 1 or isinstance(inputs, dict):
        raise BadRequest(
            f'"inputs" is an object with the inputs {", ".join(names)}; received {_kind(inputs)}.'
        )
    return {names[0]: inputs}


def _names_inputs(value: Any, names: list[str]) -> bool:
    return isinstance(value, dict) and set(value) == set(names)


def _bytes(value: Any, name: str) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadRequest(f"Input {name} has a value that is no base64: {error}.") from error
    raise BadRequest(f'Input {name} takes strings or {{"b64": ...}}; received {_kind(value)}.')


def _plain(name: str, values: np.ndarray) -> list[Any]:
    """An output as JSON takes it: bytes as text, or as base64 where the output's name says so."""
    rows: list[Any] = values.tolist()
    if values.dtype != object:
        return rows
    return [_text(name, row) for row in rows]


def _text(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_text(name, part) for part in value]
    if name.endswith("_bytes"):
        return {"b64": base64.b64encode(value).decode("ascii")}
    return value.decode("utf-8", "replace")


def _rows(columns: Mapping[str, list[Any]]) -> list[Any]:
    """By row: values of an only output, otherwise objects."""
    if len(columns) == 1:
        return next(iter(columns.values()))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _only(columns: Mapping[str, list[Any]]) -> Any:
    return next(iter(columns.values())) if len(columns) == 1 else dict(columns)


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return {dict: "an object", str: "a string", type(None): "null"}.get(type(value), str(value)[:40])


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
