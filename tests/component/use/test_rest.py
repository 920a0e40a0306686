"""The small server says what the SavedModel says, refuses what is wrong, lives on, and follows new versions."""

import base64
import gzip
import http.client
import json
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from concurrent import futures

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from components.serving.serving_requests import png_bomb
from pipeline.use import http_server, rest, served_model, version_follower
from tests.component import tiny_served

PROJECT = pathlib.Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A running server over one version: folder, follower, address, and TensorFlow's own load of the model."""
    folder = tmp_path_factory.mktemp("serving")
    tiny_served.write(folder, 5, seed=1)
    follower = version_follower.VersionFollower(folder)
    server = http_server.start_server(rest.RestApp("enc", follower), "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield (
        folder,
        follower,
        f"http://127.0.0.1:{server.port}/v1/models/",
        tf.saved_model.load(str(folder / "5")),
    )
    server.stop()


def _ask(address, body=None):
    """Status and JSON of an answer; every one is JSON."""
    _, _, host, *path = address.split("/")
    connection = http.client.HTTPConnection(host, timeout=60)
    if body is None:
        connection.request("GET", "/" + "/".join(path))
    else:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", "/" + "/".join(path), data)
    answer = connection.getresponse()
    assert answer.headers["Content-Type"] == "application/json"
    try:
        return answer.status, json.load(answer)
    finally:
        connection.close()


def _b64(data: bytes) -> dict:
    return {"b64": base64.b64encode(data).decode()}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def encoded(images):
    return [tf.io.encode_png(image).numpy() for image in images]


def test_status_and_metadata(served):
    _, _, url, model = served
    status, answer = _ask(f"{url}enc")
    assert (status, answer["model_version_status"][0]["version"]) == (200, "5")
    assert answer["model_version_status"][0]["state"] == "AVAILABLE"
    status, answer = _ask(f"{url}enc/versions/5/metadata")
    assert answer["model_spec"] == {"name": "enc", "signature_name": "", "version": "5"}
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) == set(model.signatures)
    assert signatures["embed_pixels"]["inputs"]["pixels"]["dtype"] == "DT_UINT8"
    sizes = [d["size"] for d in signatures["embed_pixels"]["inputs"]["pixels"]["tensor_shape"]["dim"]]
    assert sizes == ["-1", "32", "32", "3"]


def test_rows_columns_and_names_give_the_models_numbers(served, images, encoded):
    _, _, url, model = served
    expected = model.signatures["embed_pixels"](pixels=tf.constant(images))["embedding"].numpy()
    predict = f"{url}enc:predict"
    for body in (
        {"instances": [_b64(data) for data in encoded]},
        {"instances": [{"image_bytes": _b64(data)} for data in encoded]},
        {"signature_name": "embed_pixels", "instances": images.tolist()},
        {"signature_name": "embed_pixels", "instances": [{"pixels": image.tolist()} for image in images]},
    ):
        status, answer = _ask(predict, body)
        assert status == 200, answer
        np.testing.assert_allclose(answer["predictions"], expected, rtol=1e-5, atol=1e-6)
    for body in (
        {"inputs": [_b64(data) for data in encoded]},
        {"inputs": {"image_bytes": [_b64(data) for data in encoded]}},
    ):
        status, answer = _ask(f"{url}enc/versions/5:predict", body)
        assert status == 200, answer
        np.testing.assert_allclose(answer["outputs"], expected, rtol=1e-5, atol=1e-6)


def test_several_outputs_and_strings(served, encoded):
    _, _, url, model = served
    expected = model.signatures["classify"](image_bytes=tf.constant(encoded))
    body = {"signature_name": "classify", "instances": [_b64(data) for data in encoded]}
    rows = _ask(f"{url}enc:predict", body)[1]["predictions"]
    assert [row["label"].encode() for row in rows] == expected["label"].numpy().tolist()
    np.testing.assert_allclose(
        [row["probabilities"] for row in rows], expected["probabilities"].numpy(), rtol=1e-5, atol=1e-6
    )
    body = {"signature_name": "classify", "inputs": [_b64(data) for data in encoded]}
    outputs = _ask(f"{url}enc:predict", body)[1]["outputs"]
    assert outputs["label_names"][0] == [name.decode() for name in expected["label_names"].numpy()[0]]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "JSON Parse error"),
        (b"[" * 100_000, "JSON Parse error"),
        (b"[1]", "Expected a JSON object"),
        ({}, "either"),
        ({"instances": [_b64(b"")], "inputs": []}, "either"),
        ({"instances": []}, "at least one row"),
        ({"instances": 3}, "at least one row"),
        ({"instances": [3]}, "takes strings"),
        ({"instances": [{"b64": "!"}]}, "base64"),
        ({"instances": [{"other": "x"}]}, "image_bytes, and no others"),
        ({"inputs": {"other": ["x"]}}, "image_bytes"),
        ({"signature_name": "none", "instances": ["x"]}, "not found in"),
        ({"signature_name": ["x"], "instances": ["x"]}, "not found in"),
        ({"signature_name": "embed_pixels", "instances": [[1, 2], [3]]}, "pixels"),
        ({"signature_name": "embed_pixels", "instances": [1]}, r"shape [1], expected [-1, 32, 32, 3]"),
        ({"signature_name": "embed_pixels", "instances": [[[[256] * 3] * 32] * 32]}, "outside 0 to 255"),
        ({"signature_name": "embed_pixels", "instances": [[[[10**30] * 3] * 32] * 32]}, "pixels"),
        ({"signature_name": "embed_pixels", "instances": [[[[0.5] * 3] * 32] * 32]}, "expected DT_UINT8"),
        ({"instances": ["a text"]}, "Picture 0 cannot be read: no picture of a kind that is read"),
        ({"instances": [_b64(png_bomb(20_000))]}, "20000x20000 are more than"),
        ({"signature_name": "evaluate", "instances": ["no Example"]}, "Could not parse example"),
    ],
)
def test_what_is_wrong_is_refused_and_the_server_lives(served, encoded, body, said):
    _, _, url, _ = served
    status, answer = _ask(f"{url}enc:predict", body)
    assert status == 400, answer
    assert set(answer) == {"error"}
    assert said in answer["error"]
    assert "\n" not in answer["error"]
    assert _ask(f"{url}enc:predict", {"instances": [_b64(encoded[0])]})[0] == 200


def test_unknown_addresses_methods_and_large_bodies(served):
    _, _, url, _ = served
    assert _ask(f"{url}other")[0] == 404
    assert _ask(f"{url}enc/versions/4")[0] == 404
    assert _ask(f"{url}enc/versions/{10**30}")[0] == 400
    assert _ask(f"{url}enc/labels/stable")[0] == 400
    for method in ("classify", "regress"):
        status, answer = _ask(f"{url}enc:{method}", {"examples": [{}]})
        assert status == 400
        assert "Use :predict" in answer["error"]
    assert _ask(f"{url}enc:predict")[0] == 400
    assert _ask(f"{url}enc", {})[0] == 400
    connection = http.client.HTTPConnection(url.split("/")[2], timeout=30)
    connection.putrequest("POST", "/v1/models/enc:predict")
    connection.putheader("Content-Length", str(rest.MAX_BODY_BYTES + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    assert _ask(f"{url}enc")[0] == 200


def test_gzip_and_base64_with_line_ends_give_the_same_answer(served, encoded):
    _, _, url, _ = served
    text = base64.encodebytes(encoded[0]).decode().rstrip("=\n")
    body = {"instances": [{"b64": text}]}
    expected = _ask(f"{url}enc:predict", {"instances": [_b64(encoded[0])]})
    assert expected[0] == 200
    assert _ask(f"{url}enc:predict", body) == expected
    connection = http.client.HTTPConnection(url.split("/")[2], timeout=60)
    packed = gzip.compress(json.dumps(body).encode())
    for path in ("/v1/models/enc:predict", "/V1/Models/enc:PREDICT"):
        connection.request("POST", path, packed, {"Content-Encoding": "gzip"})
        answer = connection.getresponse()
        assert (answer.status, json.load(answer)) == expected
    connection.close()


@settings(max_examples=150, deadline=None)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS"]),
    path=st.lists(
        st.sampled_from(
            ["/v1", "/models", "/enc", "/versions", "/labels", "/5", ":predict", ":", "/", "/metadata", "%00"]
        )
        | st.text(max_size=4).map(lambda text: urllib.parse.quote(text, safe="/:")),
        max_size=8,
    ).map("".join),
    body=st.binary(max_size=40)
    | st.dictionaries(
        st.sampled_from(["instances", "inputs", "signature_name"]),
        st.sampled_from(
            ["embed_pixels", "classify", "", [], [[]], [{}], {}, None, 1, [{"b64": "YQ"}], [{"b64": 1}]]
        ),
    ).map(lambda body: json.dumps(body).encode()),
)
def test_every_address_under_the_fuzzer_is_answered_in_json(served, method, path, body):
    _, _, url, _ = served
    connection = http.client.HTTPConnection(url.split("/")[2], timeout=60)
    connection.request(method, "/" + path.lstrip("/"), body)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    assert answer.status < 500
    assert method == "HEAD" or (set(json.loads(data)) == {"error"}) == (answer.status != 200)


BODIES = st.one_of(
    st.binary(max_size=200),
    st.integers(1, 20_000).map(lambda depth: b'{"instances":' + b"[" * depth),
    st.integers(1, 20_000).map(lambda depth: b'{"inputs":' + b'{"a":' * depth),
    st.text("aA4+/=-_ \r\n", max_size=12).map(
        lambda text: json.dumps({"instances": [{"b64": text}]}).encode()
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["b64", "x"]), inner),
        max_leaves=8,
    ).map(lambda rows: json.dumps({"signature_name": "embed_pixels", "instances": rows}).encode()),
    st.just(b'{"instances":[' + b"0," * 3_000_000 + b"0]}"),
)


@settings(max_examples=100, deadline=None)
@given(
    body=BODIES,
    packed=st.sampled_from(["", "gzip", "cut gzip", "unpacked", "br"]),
    chunks=st.booleans(),
    cut=st.booleans(),
)
def test_every_body_under_the_fuzzer_is_refused_in_json(served, body, packed, chunks, cut):
    """Nothing of this can be answered: each is an error of the client's, told in JSON, or its connection is closed."""
    _, _, url, _ = served
    data = gzip.compress(body) if "gzip" in packed else body
    data = data[:-4] if packed == "cut gzip" else data
    encoding = {"": "", "br": "br"}.get(packed, "gzip")
    head = "POST /v1/models/enc:predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    head += f"Content-Encoding: {encoding}\r\n" if encoding else ""
    head += "Transfer-Encoding: chunked\r\n\r\n" if chunks else f"Content-Length: {len(data)}\r\n\r\n"
    sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data) if chunks and data else data
    sent = b"0\r\n\r\n" if chunks and not data else sent
    host, port = url.split("/")[2].split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head.encode() + (sent[: len(sent) // 2] if cut else sent))
        if cut and sent:
            connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    if answer or not cut:
        status, error = answer.split(b" ")[1], json.loads(answer.split(b"\r\n\r\n", 1)[1])
        assert status in (b"400", b"413", b"415")
        assert set(error) == {"error"}
    assert _ask(f"{url}enc")[0] == 200


def test_large_json_is_decoded_and_written_one_request_at_a_time(served, images, monkeypatch):
    _, _, url, _ = served
    monkeypatch.setattr(rest, "LARGE_BYTES", 100)
    monkeypatch.setattr(rest, "LARGE_VALUES", 1)
    at_work, most, lock = [0], [0], threading.Lock()

    def counted(real):
        def call(*arguments):
            with lock:
                at_work[0] += 1
                most[0] = max(most[0], at_work[0])
            time.sleep(0.02)
            try:
                return real(*arguments)
            finally:
                with lock:
                    at_work[0] -= 1

        return call

    for name in ("_decoded", "_encoded"):
        monkeypatch.setattr(rest, name, counted(getattr(rest, name)))
    body = {"signature_name": "embed_pixels", "instances": images.tolist()}
    with futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: _ask(f"{url}enc:predict", body), range(12)))
    assert {status for status, _ in answers} == {200}
    assert most == [1]


def test_pictures_that_take_long_follow_quick_ones_a_few_in_a_turn(served, monkeypatch):
    """However quick the first rows were, a turn never holds more encoded pictures than its bound."""
    _, follower, _, _ = served
    model, parts = follower.current.model, []

    def part(_, inputs):
        parts.append(len(inputs["image_bytes"]))
        return {"embedding": np.zeros((parts[-1], 4))}

    monkeypatch.setattr(model, "_part", part)
    rows = np.array([b"x"] * 100, dtype=object)
    answer = model.call("serving_default", {"image_bytes": rows}, http_server.Turns(1).one)
    assert len(answer["embedding"]) == sum(parts) == 100
    assert parts[0] == 1
    assert max(parts) == served_model.ENCODED_ROWS_AT_ONCE


def test_versions_switch_under_load_and_a_bad_one_is_passed_over(served, images):
    """Requests run through the switch: each answer is the old model's or the new one's, and none fails."""
    folder, follower, url, old_model = served
    body = {"signature_name": "embed_pixels", "instances": images.tolist()}
    answers, finished = [], threading.Event()

    def load():
        while not finished.is_set():
            answers.append(_ask(f"{url}enc:predict", body))

    thread = threading.Thread(target=load)
    thread.start()
    tiny_served.write(folder, 6, seed=2)
    follower.look()
    after = _ask(f"{url}enc:predict", body)
    finished.set()
    thread.join()
    expected = [
        model.signatures["embed_pixels"](pixels=tf.constant(images))["embedding"].numpy()
        for model in (old_model, tf.saved_model.load(str(folder / "6")))
    ]
    assert np.abs(expected[0] - expected[1]).max() > 1e-3
    np.testing.assert_allclose(after[1]["predictions"], expected[1], rtol=1e-5, atol=1e-6)
    assert len(answers) >= 2
    for status, answer in answers:
        assert status == 200
        assert any(np.allclose(answer["predictions"], e, rtol=1e-5, atol=1e-6) for e in expected)
    assert _ask(f"{url}enc/versions/6")[0] == 200
    assert _ask(f"{url}enc/versions/5")[0] == 404

    (folder / "7").mkdir()
    (folder / "7" / "saved_model.pb").write_bytes(b"no graph")
    follower.look()
    assert follower.current.number == 6
    assert _ask(f"{url}enc:predict", body)[0] == 200


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_ended(tmp_path, ending):
    """Slow: the real command in its own process. Either signal ends it with status 0, and its port is free again."""
    (tmp_path / "serving").mkdir()
    tiny_served.write(tmp_path / "serving", 5, seed=1)
    command = [
        *[sys.executable, "-m", "pipeline.cli", "serve"],
        *["--root", str(tmp_path), "--port", "0", "--builtin"],
    ]
    with subprocess.Popen(
        command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = process.stdout.readline()
        url = said.split(": ", 1)[1].split(" ")[0]
        assert _ask(url)[1]["model_version_status"][0]["version"] == "5"
        taken = url.split("/")[2].split(":")[1]
        second = subprocess.run(
            [*command[:-2], taken, "--builtin"],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert second.returncode == 2
        assert second.stderr == (
            f"Cannot listen on 127.0.0.1, port {taken}: Address already in use. Choose another --port or --host.\n"
        )
        shutil.rmtree(tmp_path / "serving" / "5")  # a server outlives its folder
        assert _ask(url)[0] == 200
        process.send_signal(ending)
        assert process.wait(timeout=30) == 0
        assert "Traceback" not in process.stderr.read()
    with socket.create_server(("127.0.0.1", int(taken))):
        pass
