"""What strangers do to a socket ends their own connection and nothing else; a request that was begun is answered."""

import contextlib
import http.client
import json
import resource
import socket
import threading
import time

import pytest

from pipeline.use import http_server


class Application:
    """Answers with the length of the body; waits for `released` when the address says so."""

    def __init__(self):
        self.released = threading.Event()
        self.begun = threading.Event()

    def __call__(self, environ, start_response):
        length = len(environ["wsgi.input"].read())
        if environ["PATH_INFO"] == "/wait":
            self.begun.set()
            self.released.wait(60)
        if environ["PATH_INFO"] == "/fail":
            raise RuntimeError("a fault of the application")
        size = 30_000_000 if environ["PATH_INFO"] == "/much" else 0
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps({"length": length, "fill": "x" * size}).encode()]


@pytest.fixture
def served():
    """The application, its server and the thread that serves."""
    application = Application()
    server = http_server.start_server(application, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield application, server, thread
    application.released.set()
    server.stop()
    thread.join(30)
    assert not thread.is_alive()


def _connect(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def _raw(server, data):
    """All that comes back for some bytes, until the server closes."""
    with _connect(server) as connection:
        connection.sendall(data)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while block := connection.recv(65536):
                answer += block
    return answer


def _post(server, path="/", body=b"", timeout=20):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)
    connection.request("POST", path, body)
    answer = connection.getresponse()
    try:
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
SIZED = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: "


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"P",
        b"POST / HTTP/1.1\r\nHost",
        CHUNKED,
        CHUNKED + b"5\r\nab",
        CHUNKED + b"5\r\nabcde",
        CHUNKED + b"5\r\nabcde\r\n0\r\n",
        CHUNKED + b"FFFFFFFF\r\nab",
        SIZED + b"100\r\n\r\nabc",
    ],
)
def test_a_request_that_is_cut_off_ends_alone(served, begun):
    _, server, thread = served
    for _ in range(3):
        with _connect(server) as connection:
            connection.sendall(begun)
    assert _post(server, body=b"abc") == (200, {"length": 3, "fill": ""})
    assert thread.is_alive()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\r\n\r\nnonsense\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nbad header\r\n\r\n", 400),
        (CHUNKED + b"zz\r\n", 400),
        (CHUNKED + b"-5\r\nabcde\r\n", 400),
        (CHUNKED + b"3\r\nabcde\r\n0\r\n\r\n", 400),
        (CHUNKED + b"1" * 5000, 400),
        (CHUNKED + b"0\r\n" + b"a: b\r\n" * 1000, 400),
        (SIZED + b"-1\r\n\r\n", 400),
        (SIZED + b"1\r\nContent-Length: 2\r\n\r\nab", 400),
        (SIZED + str(http_server.MAX_BODY_BYTES + 1).encode() + b"\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * http_server.MAX_HEADER_BYTES, 431),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST /fail HTTP/1.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 500),
    ],
)
def test_what_is_no_request_is_refused_in_json(served, request_bytes, status):
    _, server, thread = served
    head, body = _raw(server, request_bytes).split(b"\r\n\r\n", 1)
    assert int(head.split()[1]) == status
    assert b"Content-Type: application/json" in head
    assert set(json.loads(body)) == {"error"}
    assert _post(server)[0] == 200
    assert thread.is_alive()


def test_the_largest_body_is_taken_and_a_chunked_one_above_it_is_not(served, monkeypatch):
    _, server, _ = served
    server.adj.max_request_body_size = 100_001
    assert _post(server, body=b"a" * 100_000) == (200, {"length": 100_000, "fill": ""})
    assert b" 413 " in _raw(server, CHUNKED + b"1D4C0\r\n" + b"a" * 120_000)[:20]


def test_idle_and_slow_clients_leave_room_for_others_and_are_closed(served, monkeypatch):
    """More connections than are allowed, silent or in the midst of a request: the next client is answered at once."""
    _, server, _ = served
    monkeypatch.setattr(http_server, "CONNECTIONS", 20)
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(_connect(server)) for _ in range(60)]
        for connection in held[::2]:
            with contextlib.suppress(OSError):
                connection.sendall(SIZED + b"100\r\n\r\na")
        began = time.monotonic()
        assert _post(server)[0] == 200
        assert time.monotonic() - began < 5
        assert len(server.active_channels) <= 21
        server.adj.channel_timeout = 0
        deadline = time.monotonic() + 10
        while server.active_channels and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not server.active_channels


def test_a_client_that_drips_loses_its_connection(served, monkeypatch):
    _, server, _ = served
    monkeypatch.setattr(http_server, "EXCHANGE_SECONDS", 1)
    with _connect(server) as connection:
        connection.sendall(SIZED + b"1000\r\n\r\n")
        deadline = time.monotonic() + 15
        with contextlib.suppress(OSError):
            while time.monotonic() < deadline:
                connection.sendall(b"a")
                time.sleep(0.1)
        assert time.monotonic() < deadline


def test_a_client_that_does_not_take_its_answer_holds_no_worker(served):
    _, server, _ = served
    with contextlib.ExitStack() as stack:
        for _ in range(http_server.SMALL_WORKERS + 2):
            connection = stack.enter_context(_connect(server))
            connection.sendall(b"GET /much HTTP/1.1\r\n\r\n" * 2)
        assert _post(server)[0] == 200


def test_large_requests_leave_small_ones_their_workers(served):
    application, server, _ = served
    large = b"a" * (http_server.LARGE_BODY_BYTES + 1)
    threads = [threading.Thread(target=_post, args=(server, "/wait", large, 60)) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert application.begun.wait(20)
    for _ in range(3):
        assert _post(server)[0] == 200
    application.released.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_what_has_come_in_is_answered_before_the_end(served):
    application, server, thread = served
    answers = []
    asked = threading.Thread(target=lambda: answers.append(_post(server, "/wait", b"abc", 60)))
    asked.start()
    assert application.begun.wait(20)
    server.stop()
    time.sleep(0.3)
    with pytest.raises(OSError):  # noqa: PT011 - nobody listens any more
        _connect(server).close()
    assert thread.is_alive()
    application.released.set()
    asked.join(20)
    thread.join(20)
    assert answers == [(200, {"length": 3, "fill": ""})]
    assert not thread.is_alive()


def test_a_request_that_is_arriving_is_waited_for_and_one_that_stopped_arriving_is_not(served, monkeypatch):
    _, server, thread = served
    monkeypatch.setattr(http_server, "ARRIVAL_SECONDS", 1.0)
    with _connect(server) as arriving, _connect(server) as stuck:
        stuck.sendall(SIZED + b"100\r\n\r\nab")
        arriving.sendall(SIZED + b"10\r\n\r\nab")
        time.sleep(0.5)
        server.stop()
        for _ in range(8):
            time.sleep(0.3)
            arriving.sendall(b"a")
        assert arriving.recv(100).startswith(b"HTTP/1.1 200")
    thread.join(10)
    assert not thread.is_alive()


def test_many_requests_leave_neither_threads_nor_memory(served):
    _, server, _ = served
    for _ in range(200):
        _post(server)
    threads, before = threading.active_count(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2000):
        _post(server)
    assert threading.active_count() == threads
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4 * 1024  # KiB


def test_who_has_had_a_turn_goes_behind_who_waits():
    turns, order = http_server.Turns(1), []
    waiting = threading.Event()

    def other():
        waiting.set()
        with turns.one():
            order.append("other")

    with turns.one():
        thread = threading.Thread(target=other)
        thread.start()
        waiting.wait()
        while not turns._waiting:
            time.sleep(0.001)
    with turns.one():
        order.append("first again")
    thread.join()
    assert order == ["other", "first again"]
