"""Between the JSON of TensorFlow Serving's REST API and arrays, with what a request may decode to bounded."""

import base64
import binascii
import itertools
import json
import math
import re
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from pipeline.use.served_model import Signature, TensorInfo

# Numbers, strings and lists of one request, and numbers of one answer: a Python object each, of up to 100 bytes.
MAX_VALUES = 2_000_000
# Objects are larger; one is an image.
MAX_OBJECTS = 100_000
_INTEGERS: dict[str, type[np.integer[Any]]] = {
    "DT_UINT8": np.uint8,
    "DT_INT32": np.int32,
    "DT_INT64": np.int64,
}
_FLOATS = {"DT_FLOAT": np.float32, "DT_DOUBLE": np.float64}
_MARKS = (b",", b"[", b":")
_PIECE = 1 << 20
_SPACE = re.compile(r"[ \t\r\n]*")


def decompressed(data: bytes, encoding: str, limit: int) -> bytes:
    """A body as it was before its Content-Encoding.

    Raises:
        UnsupportedMediaType: the encoding is neither gzip nor none.
        BadRequest: the data are no gzip.
        RequestEntityTooLarge: more than `limit` bytes come out.
    """
    if encoding.strip().lower() in ("", "identity"):
        return data
    if encoding.strip().lower() not in ("gzip", "x-gzip"):
        raise UnsupportedMediaType(f"Content-Encoding {encoding[:40]!r} is not supported; send gzip or none.")
    unpacker = zlib.decompressobj(wbits=31)
    try:
        whole = unpacker.decompress(data, limit + 1)
    except zlib.error as error:
        raise BadRequest(f"The body is no gzip: {error}.") from error
    if len(whole) > limit:
        raise RequestEntityTooLarge(f"The body decompresses to more than {limit} bytes.")
    if not unpacker.eof:
        raise BadRequest("The body is no gzip: it ends early.")
    return whole


def json_object(data: bytes) -> dict[str, Any]:
    """The JSON object at the beginning of a body; as with TensorFlow Serving, what follows it is not looked at.

    Raises:
        BadRequest: there is none.
        RequestEntityTooLarge: it would decode to more than `MAX_VALUES` or `MAX_OBJECTS`.
    """
    _check_size(data)
    try:
        text = data.decode("utf-8-sig")
        start = _SPACE.match(text)
        body, _ = json.JSONDecoder().raw_decode(text, start.end() if start else 0)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"JSON Parse error: {error}.") from error
    if not isinstance(body, dict):
        raise BadRequest(f"Expected a JSON object, received {kind(body)}.")
    return body


def _check_size(data: bytes) -> None:
    """Counts what begins a value, before anything is decoded."""
    values, objects = sum(data.count(mark) for mark in _MARKS), data.count(b"{")
    if values > MAX_VALUES or objects > MAX_OBJECTS:  # or a text is full of commas
        values, objects = _counts_outside_texts(data)
    if values > MAX_VALUES or objects > MAX_OBJECTS:
        raise RequestEntityTooLarge(
            f"The JSON holds {values} values and {objects} objects; at most {MAX_VALUES} and {MAX_OBJECTS} are taken "
            "at once. Send fewer rows, or images as PNG or JPEG in base64."
        )


def _counts_outside_texts(data: bytes) -> tuple[int, int]:
    """The same counts without what stands in texts, a piece after the other."""
    quoted = np.frombuffer(data.replace(b"\\\\", b"").replace(b'\\"', b""), np.uint8)
    values = objects = 0
    inside = np.uint8(0)  # 1 behind an odd number of quotation marks
    for start in range(0, len(quoted), _PIECE):
        piece = quoted[start : start + _PIECE]
        parity = (np.cumsum(piece == ord('"'), dtype=np.uint8) + inside) & 1
        inside = parity[-1]
        outside = piece[parity == 0]
        values += sum(int(np.count_nonzero(outside == ord(mark))) for mark in _MARKS)
        objects += int(np.count_nonzero(outside == ord("{")))
    return values, objects


def columns_of_rows(instances: Any, signature: Signature) -> dict[str, list[Any]]:
    """Rows are values of the only input, or objects of an input each, but no mixture.

    Raises:
        BadRequest: they are something else.
    """
    if not isinstance(instances, list) or not instances:
        raise BadRequest(f'"instances" is a list of at least one row; received {kind(instances)}.')
    names = list(signature.inputs)
    if not _is_object(instances[0]):
        if len(names) > 1:
            raise BadRequest(f"Each instance is an object with the inputs {', '.join(names)}.")
        wrong = next((row for row, value in enumerate(instances) if _is_object(value)), None)
        if wrong is not None:
            raise BadRequest(f"Expected a value, received an object as instance {wrong}.")
        return {names[0]: instances}
    for row, value in enumerate(instances):
        if not isinstance(value, dict) or set(value) != set(names):
            raise BadRequest(
                f"Instance {row} is no object with the inputs {', '.join(names)}, and no others."
            )
    return {name: [row[name] for row in instances] for name in names}


def columns(inputs: Any, signature: Signature) -> dict[str, Any]:
    """Columns are the value of the only input, or an object with an input each; others in it are not looked at.

    Raises:
        BadRequest: an input is missing.
    """
    names = list(signature.inputs)
    if _is_object(inputs) and set(names) <= set(inputs):
        return {name: inputs[name] for name in names}
    if len(names) > 1 or _is_object(inputs):
        raise BadRequest(
            f'"inputs" is an object with the inputs {", ".join(names)}; received {kind(inputs)}.'
        )
    return {names[0]: inputs}


def to_array(values: Any, name: str, info: TensorInfo) -> np.ndarray:
    """JSON values -> an array of the input's dtype and shape.

    Raises:
        BadRequest: when they are none; it names the input, what was received and what was expected.
    """
    if info.dtype == "DT_STRING":
        if not isinstance(values, list):
            raise BadRequest(f'Input {name} is a list of strings or {{"b64": ...}}; received {kind(values)}.')
        array = np.empty(len(values), dtype=object)
        for row, value in enumerate(values):
            array[row] = _bytes(value, name)
        return array
    numbers, shape = _numbers(values, name, info)
    if info.dtype in _FLOATS:
        try:
            return np.array(numbers, _FLOATS[info.dtype]).reshape(shape)
        except OverflowError as error:
            raise BadRequest(f"Input {name} has a number that no float can be: {error}.") from error
    limits = np.iinfo(_INTEGERS[info.dtype])
    if numbers and (min(numbers) < limits.min or max(numbers) > limits.max):
        raise BadRequest(f"Input {name} has values outside {limits.min} to {limits.max}.")
    return np.array(numbers, _INTEGERS[info.dtype]).reshape(shape)


def _numbers(values: Any, name: str, info: TensorInfo) -> tuple[list[Any], list[int]]:
    """All numbers of nested lists in a row, and the lists' lengths, which are the input's shape.

    Nothing is given to NumPy before it is known to be numbers: it would pad texts to the longest.
    """
    expected = list(info.shape)
    level: list[Any] = [values]
    shape: list[int] = []
    for size in expected:
        if not set(map(type, level)) <= {list}:
            raise BadRequest(f"Input {name} has shape {shape}, expected {expected}.")
        lengths = set(map(len, level)) or {max(size, 0)}
        if len(lengths) > 1:
            raise BadRequest(f"Input {name} has lists of different lengths, expected {expected}.")
        shape += lengths
        if size not in (-1, shape[-1]):
            raise BadRequest(f"Input {name} has shape {shape}, expected {expected}.")
        level = list(itertools.chain.from_iterable(level))
    allowed: set[type] = (
        {int, float} if info.dtype in _FLOATS else {int} if info.dtype in _INTEGERS else set()
    )
    if not set(map(type, level)) <= allowed:
        wrong = next(value for value in level if type(value) not in allowed)
        raise BadRequest(
            f"Input {name} has {kind(wrong)} among its values, expected {info.dtype} {expected}."
        )
    return level, shape


def _bytes(value: Any, name: str) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, dict) and not _is_object(value):
        try:
            return from_base64(value["b64"])
        except (binascii.Error, ValueError) as error:
            raise BadRequest(f"Input {name} has a value that is no base64: {error}.") from error
    raise BadRequest(f'Input {name} takes strings or {{"b64": ...}}; received {kind(value)}.')


def from_base64(text: str) -> bytes:
    """Decodes as TensorFlow Serving does: white space is left out, the padding is all there or not at all.

    Raises:
        ValueError: it is no base64.
    """
    joined = "".join(text.split()) if re.search(r"\s", text) else text
    bare = joined.rstrip("=")
    needed = -len(bare) % 4
    if len(joined) - len(bare) not in (0, needed):
        raise ValueError("wrong padding")
    return base64.b64decode(bare + "=" * needed, validate=True)


def answer_values(rows: int, signature: Signature) -> int:
    """How many values an answer will hold, before it is worked out.

    Raises:
        RequestEntityTooLarge: more than `MAX_VALUES`.
    """
    width = sum(math.prod(max(size, 1) for size in info.shape[1:]) for info in signature.outputs.values())
    if rows * width > MAX_VALUES:
        raise RequestEntityTooLarge(
            f"The answer would hold {rows} rows of {width} values, at most {MAX_VALUES} values are given at once. "
            f"Send at most {MAX_VALUES // width} rows."
        )
    return rows * width


def plain(name: str, values: np.ndarray) -> list[Any]:
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


def rows_of_columns(columns: Mapping[str, list[Any]]) -> list[Any]:
    """By row: values of an only output, otherwise objects."""
    if len(columns) == 1:
        return next(iter(columns.values()))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def kind(value: Any) -> str:
    """What a JSON value is, in a few words."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 1 << 64:
        return "a huge number"
    return {dict: "an object", str: "a string", type(None): "null"}.get(type(value), str(value)[:40])


def _is_object(value: Any) -> bool:
    """Whether it is an object that is no `{"b64": "..."}`."""
    if not isinstance(value, dict):
        return False
    return set(value) != {"b64"} or not isinstance(value["b64"], str)
