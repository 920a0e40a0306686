"""JSON as TensorFlow Serving takes it: what is lenient, what is refused, and how much a request may decode to."""

import base64
import contextlib
import gzip
import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from pipeline.use import json_values
from pipeline.use.served_model import Signature, TensorInfo

PIXELS = TensorInfo("DT_UINT8", (-1, 2, 3), "pixels:0")
FLOATS = TensorInfo("DT_FLOAT", (-1, 2), "floats:0")
TEXTS = TensorInfo("DT_STRING", (-1,), "texts:0")
ONE = Signature({"pixels": PIXELS}, {"out": FLOATS}, "tensorflow/serving/predict")
TWO = Signature({"floats": FLOATS, "texts": TEXTS}, {"out": FLOATS}, "tensorflow/serving/predict")


@pytest.mark.parametrize("length", range(5))
def test_base64_with_line_ends_and_with_or_without_padding(length):
    data = bytes(range(250, 250 + length))
    text = base64.b64encode(data).decode()
    for form in (text, text.rstrip("="), "\r\n".join(text), f" {text}\n"):
        assert json_values.from_base64(form) == data


@pytest.mark.parametrize("text", ["a", "ab=", "abc==", "abcd=", "====", "a*cd", "äbcd", "ab=cd", "abcd===="])
def test_what_is_no_base64_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        json_values.from_base64(text)


def test_gzip_is_taken_up_to_its_bound_and_other_encodings_are_refused():
    assert json_values.decompressed(gzip.compress(b"abc"), "gzip", 3) == b"abc"
    assert json_values.decompressed(b"abc", "", 3) == b"abc"
    with pytest.raises(RequestEntityTooLarge):
        json_values.decompressed(gzip.compress(b"abcd"), "gzip", 3)
    for broken in (b"abc", gzip.compress(b"abc")[:-4], b""):
        with pytest.raises(BadRequest):
            json_values.decompressed(broken, "gzip", 3)
    with pytest.raises(UnsupportedMediaType):
        json_values.decompressed(b"abc", "br", 3)


def test_a_gzip_bomb_costs_no_more_than_the_bound():
    bomb = gzip.compress(bytes(200_000_000))
    tracemalloc.start()
    with pytest.raises(RequestEntityTooLarge):
        json_values.decompressed(bomb, "gzip", 1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize("body", [b"\xef\xbb\xbf{}", b" \r\n\t{}", b"{} and what follows"])
def test_json_is_read_as_tensorflow_serving_reads_it(body):
    assert json_values.json_object(body) == {}


@pytest.mark.parametrize("part", [b"[],", b"{},", b"0,", b'"",', b"[[[[[0]]]]],", b'{"a":0},', b'"\\"",'])
def test_what_decodes_to_much_is_refused_before_it_is_decoded(part):
    body = b'{"instances":[' + part * (15_000_000 // len(part)) + b"0]}"
    tracemalloc.start()
    with pytest.raises(RequestEntityTooLarge, match="at most"):
        json_values.json_object(body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * len(body)


def test_marks_within_texts_are_no_values():
    text = 'a,"[{:\\' * 500_000
    assert json_values.json_object(json.dumps({"instances": [text]}).encode()) == {"instances": [text]}


def test_texts_of_very_different_lengths_cost_what_they_are():
    """NumPy alone would pad each of them to the longest."""
    values = [[["x" * 1_000_000, 0, 0], [0, 0, 0]]] + [[["", 0, 0], [0, 0, 0]]] * 1000
    tracemalloc.start()
    with pytest.raises(BadRequest, match="among its values"):
        json_values.to_array(values, "pixels", PIXELS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def test_arrays_have_the_values_and_the_shape_that_were_sent():
    values = np.arange(12).reshape(2, 2, 3)
    np.testing.assert_array_equal(json_values.to_array(values.tolist(), "pixels", PIXELS), values)
    assert json_values.to_array(values.tolist(), "pixels", PIXELS).dtype == np.uint8
    np.testing.assert_array_equal(
        json_values.to_array([[1, 2.5]], "floats", FLOATS), np.array([[1, 2.5]], np.float32)
    )
    assert json_values.to_array([], "pixels", PIXELS).shape == (0, 2, 3)


@pytest.mark.parametrize(
    "values",
    [
        [[True, 1]],
        [[None, 1]],
        [["1", 1]],
        [[[1], 1]],
        [[1, 2, 3]],
        [[1]],
        [1],
        1,
        [[1, 10**400]],
        [[1, 2], 3],
    ],
)
def test_what_is_no_array_of_floats_is_refused(values):
    with pytest.raises(BadRequest, match="floats"):
        json_values.to_array(values, "floats", FLOATS)


def test_rows_are_all_objects_or_none_and_columns_may_have_company():
    row = {"floats": [1, 2], "texts": "a"}
    assert json_values.columns_of_rows([row], TWO) == {"floats": [[1, 2]], "texts": ["a"]}
    for rows in ([row, [1]], [{**row, "more": 1}], [{"floats": [1, 2]}], [[1, 2]], [], 3):
        with pytest.raises(BadRequest):
            json_values.columns_of_rows(rows, TWO)
    with pytest.raises(BadRequest, match="instance 1"):
        json_values.columns_of_rows([[1], {"pixels": [1]}], ONE)
    assert json_values.columns({**row, "more": 1}, TWO) == row
    with pytest.raises(BadRequest):
        json_values.columns({"floats": [1, 2]}, TWO)


def test_an_answer_that_would_be_too_large_is_refused_before_it_is_made():
    json_values.answer_values(json_values.MAX_VALUES // 2, ONE)
    with pytest.raises(RequestEntityTooLarge, match="Send at most"):
        json_values.answer_values(json_values.MAX_VALUES // 2 + 1, ONE)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just({"b64": "YQ"}),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["floats", "texts", "pixels", "b64", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


def _arrays(values, signature, by_row):
    """The arrays of a request, or None where it is refused as the client's fault."""
    read = json_values.columns_of_rows if by_row else json_values.columns
    try:
        named = read(values, signature)
        return {
            name: json_values.to_array(named[name], name, info) for name, info in signature.inputs.items()
        }
    except (BadRequest, RequestEntityTooLarge):
        return None


@settings(max_examples=300, deadline=None)
@given(values=JSON, signature=st.sampled_from([ONE, TWO]), by_row=st.booleans())
def test_any_json_becomes_arrays_of_the_signature_or_is_refused(values, signature, by_row):
    arrays = _arrays(values, signature, by_row)
    for name, info in signature.inputs.items() if arrays else ():
        assert arrays[name].ndim == len(info.shape)
        assert all(want in (-1, got) for want, got in zip(info.shape, arrays[name].shape, strict=True))


@settings(max_examples=200, deadline=None)
@given(start=st.sampled_from([b"", b'{"instances":', b'{"inputs":{']), rest=st.binary(max_size=60))
def test_any_bytes_are_an_object_or_are_refused(start, rest):
    with contextlib.suppress(BadRequest):
        assert isinstance(json_values.json_object(start + rest), dict)
