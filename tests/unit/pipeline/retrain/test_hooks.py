"""Hooks: real commands, and a real server on this machine that fails, refuses, redirects or says nothing."""

import base64
import contextlib
import dataclasses
import http.server
import json
import os
import pathlib
import signal
import socket
import sys
import threading
import time

import pytest

from components.gate.misses import Miss
from pipeline.retrain import hook_file
from pipeline.retrain.hooks import Event, HookConfig, deliver

MISS = Miss("accuracy", "cat", 0.6, 0.5)
EVENT = Event(
    kind="pushed",
    at="2026-11-24T03:00:00+00:00",
    root="/data/nightly",
    run_id="2026-11-24T02:00:00.000001",
    spans=(7, 8),
    version=12,
    accuracy=0.935,
    reason='"better" by 2 points: 50 % of $HOME; it\'s fine',
    seconds=61.5,
    missed=(MISS,),
)
TOLD = {
    **dataclasses.asdict(EVENT),
    "spans": [7, 8],
    "findings": [],
    "missed": [dataclasses.asdict(MISS)],
    "text": EVENT.text,
}


def config(hook, kind="pushed", **changes):
    return HookConfig(**{f"on_{kind}": hook, "wait_seconds": 0.01, "timeout_seconds": 20, **changes})


def script(folder: pathlib.Path, body: str) -> str:
    """A Python program as a command line."""
    path = folder / "a hook.py"
    path.write_text(f"import json, os, pathlib, sys, time\nhere = pathlib.Path({str(folder)!r})\n{body}")
    return f"{sys.executable} '{path}' one 'two words'"


@contextlib.contextmanager
def server(statuses, headers=()):
    """Answers POSTs with one status after the other; yields its address and what it received."""
    received = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, dict(self.headers), body))
            self.send_response(statuses[min(len(received), len(statuses)) - 1])
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()

        def do_GET(self):
            self.do_POST()

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{served.server_port}", received
        finally:
            served.shutdown()
            thread.join()


def test_a_command_gets_the_event_on_stdin_and_in_its_environment(tmp_path):
    command = script(
        tmp_path,
        "told = {name: value for name, value in os.environ.items() if name.startswith('BYOL_')}\n"
        "(here / 'told').write_text(json.dumps([json.load(sys.stdin), told, sys.argv[1:]]))",
    )
    assert deliver(EVENT, config(command)) == []
    event, environment, arguments = json.loads((tmp_path / "told").read_text())
    assert event == TOLD
    assert arguments == ["one", "two words"]
    assert environment == {
        "BYOL_EVENT": "pushed",
        "BYOL_AT": EVENT.at,
        "BYOL_ROOT": "/data/nightly",
        "BYOL_RUN_ID": EVENT.run_id,
        "BYOL_SPANS": "7,8",
        "BYOL_VERSION": "12",
        "BYOL_ACCURACY": "0.935",
        "BYOL_REASON": EVENT.reason,
        "BYOL_SECONDS": "61.5",
        "BYOL_MISSED": "accuracy | cat | 60.00% | 50.00% | 10.00 points",
        "BYOL_ID": EVENT.id,
        "BYOL_BY": "",
        "BYOL_FINDINGS": "",
        "BYOL_REPORT": "",
        "BYOL_TEXT": EVENT.text,
    }


def test_only_the_hook_of_the_kind_runs_and_what_is_unknown_is_empty(tmp_path):
    command = script(tmp_path, "(here / os.environ['BYOL_EVENT']).write_text(os.environ['BYOL_VERSION'])")
    hooks = config(command, kind="failed")
    failed = dataclasses.replace(
        EVENT, kind="failed", version=None, run_id=None, accuracy=None, reason="x" * 10**6 + "\0"
    )
    assert deliver(EVENT, hooks) == []
    assert deliver(dataclasses.replace(EVENT, kind="refused"), hooks) == []
    assert deliver(failed, hooks) == []
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir() if path.suffix == ""] == [
        ("failed", "")
    ]


def test_a_command_that_fails_is_tried_again(tmp_path):
    command = script(
        tmp_path, "(here / str(time.time_ns())).touch()\nsys.exit(len(list(here.iterdir())) < 4)"
    )
    assert deliver(EVENT, config(command)) == []
    assert len(list(tmp_path.iterdir())) == 4  # three attempts and the program


def test_a_failure_comes_back_as_a_sentence(tmp_path):
    (sentence,) = deliver(EVENT, config(script(tmp_path, "sys.exit(7)"), attempts=2))
    assert (
        f"on_pushed ({sys.executable}) was not delivered in 2 attempts: it ended with status 7;" in sentence
    )
    assert "expected status 0" in sentence
    assert "two words" not in sentence
    (sentence,) = deliver(EVENT, config(script(tmp_path, "os.kill(os.getpid(), 9)"), attempts=1))
    assert "it ended by signal 9" in sentence


def test_the_wait_doubles(monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    with server([500]) as (address, _):
        deliver(EVENT, config(f"http://{address}", attempts=4, wait_seconds=0.5))
    assert waits == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: "no-such-program --token s3cret", "No such file or directory"),
        (lambda path: path.write_text("#!/bin/sh\n") and str(path), "Permission denied"),
        (lambda path: (path.write_text("words\n") and path.chmod(0o755)) or str(path), "Exec format error"),
    ],
)
def test_a_command_that_cannot_be_started_is_not_tried_again(make, reason, tmp_path):
    (sentence,) = deliver(EVENT, config(make(tmp_path / "hook"), wait_seconds=60))
    assert "in 1 attempt: it cannot be started" in sentence
    assert reason in sentence
    assert "s3cret" not in sentence


def test_a_command_that_hangs_is_ended_with_its_children(tmp_path):
    """The parent goes by SIGTERM; its child ignores that, and holds on to the output."""
    child = (
        "import os, pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"pathlib.Path({str(tmp_path / 'new')!r}).write_text(str(os.getpid())); "
        f"os.rename({str(tmp_path / 'new')!r}, {str(tmp_path / 'child')!r}); time.sleep(600)"
    )
    command = script(
        tmp_path, f"import subprocess\nsubprocess.Popen([sys.executable, '-c', {child!r}])\ntime.sleep(600)"
    )
    (sentence,) = deliver(EVENT, config(command, attempts=1, timeout_seconds=1.5))
    assert "took more than 1.5 s and was ended" in sentence
    child_process = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while _alive(child_process):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _alive(process: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_ctrl_c_ends_the_hook_and_is_passed_on(tmp_path):
    command = script(
        tmp_path,
        "(here / 'pid').write_text(str(os.getpid()))\n"
        f"os.kill({os.getpid()}, {int(signal.SIGINT)})\ntime.sleep(600)",
    )
    with pytest.raises(KeyboardInterrupt):
        deliver(EVENT, config(command))
    assert not _alive(int((tmp_path / "pid").read_text()))


def test_a_server_that_fails_twice_gets_the_event_the_third_time():
    with server([500, 503, 204]) as (address, received):
        assert deliver(EVENT, config(f"http://us%40er:pass%3Aword@{address}/hook/s3cret?token=t")) == []
    assert len(received) == 3
    path, headers, body = received[2]
    assert path == "/hook/s3cret?token=t"
    assert headers["Content-Type"] == "application/json"
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"us@er:pass:word").decode()
    assert json.loads(body) == TOLD


@pytest.mark.parametrize(
    ("status", "attempts", "fix"),
    [
        (401, 1, "Check the user, password or token"),
        (404, 1, "Check the address"),
        (302, 1, "Give the final address"),
        (408, 3, "Check the address"),
        (429, 3, "Check the address"),
        (500, 3, "Check the address"),
    ],
)
def test_an_answer_is_final_or_not_by_its_status(status, attempts, fix):
    with server([status], [("Location", "/elsewhere"), ("Retry-After", "3600")]) as (address, received):
        (sentence,) = deliver(EVENT, config(f"http://user:pw@{address}/s3cret?t=s3cret"))
    assert len(received) == attempts
    assert {path for path, _, _ in received} == {"/s3cret?t=s3cret"}
    assert f"(http://{address}/...) was not delivered in {attempts} attempt" in sentence
    assert f"the answer was status {status}" in sentence
    assert "expected 200 to 299" in sentence
    assert fix in sentence
    assert "s3cret" not in sentence
    assert "pw" not in sentence


def test_a_server_that_is_not_there_or_not_a_server():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (sentence,) = deliver(EVENT, config(f"http://user:pw@127.0.0.1:{port}/s3cret"))
    assert "in 3 attempts: no answer (Connection refused)" in sentence
    assert "s3cret" not in sentence
    assert "pw" not in sentence
    (sentence,) = deliver(EVENT, config(f"http://{'a' * 64}.invalid/s3cret", attempts=1))
    assert "no answer (" in sentence
    assert "s3cret" not in sentence


def test_a_server_that_trickles_its_answer_is_left_after_the_timeout():
    """Each byte comes within any timeout of the socket, and the answer never ends."""
    done = threading.Event()

    def trickle(listening):
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            while not done.wait(0.05):
                connection.sendall(b"H")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=trickle, args=(listening,))
        thread.start()
        start = time.monotonic()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        (sentence,) = deliver(EVENT, config(address, attempts=1, timeout_seconds=0.4))
        seconds = time.monotonic() - start
        done.set()
        thread.join()
    assert "no answer within 0.4 s" in sentence
    assert 0.4 <= seconds < 5


@pytest.mark.parametrize(
    "hook", ["https://", "http://user:s3cret/x@host/", "http://host:0/s3cret", "run 's3cret", "  ", "a\0b"]
)
def test_what_can_never_work_is_refused_before_training(hook):
    with pytest.raises(ValueError, match="on_refused is neither a command line") as error:
        config(hook, kind="refused")
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    "hook",
    [
        "htps://s3cret@host/",
        "slack://s3cret",
        "http:/://s3cret",
        "https:/s3cret",
        "https//s3cret",
        "ttps:s3cret",
    ],
)
def test_a_misspelt_address_is_no_command(hook):
    with pytest.raises(ValueError, match="on_failed begins as an address does") as error:
        config(hook, kind="failed")
    assert "s3cret" not in str(error.value)
    config("curl --data @- htps://host/", kind="failed")  # as an argument it is the command's own affair


def test_patience_is_checked_and_secrets_are_not_shown():
    with pytest.raises(ValueError, match="at least 1 attempt"):
        HookConfig(attempts=0)
    with pytest.raises(ValueError, match="no event 'published'"):
        dataclasses.replace(EVENT, kind="published")  # type: ignore[arg-type]
    assert "s3cret" not in repr(HookConfig(on_pushed="http://s3cret@host/"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("on_failed = https://s3cret@host/", r"is no file of hooks \(line 1\)"),
        ("[hooks]\nhttps://s3cret@host/", r"is no file of hooks \(line 2\)"),
        ("[other]\non_failed = s3cret", "is no file of hooks; expected"),
        ("[hooks]\non_failure = s3cret", "names 'on_failure'"),
        ("[hooks]\non_failed = htps://s3cret", "on_failed begins as an address does"),
        ("[hooks]\non_failed = a s3cret\n[hooks]\n", "is no file of hooks"),
    ],
)
def test_a_file_that_names_no_hooks_is_refused_without_a_word_of_it(text, message, tmp_path):
    path = tmp_path / "hooks.ini"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        hook_file.chosen(path, {})
    assert "s3cret" not in str(error.value)
    assert str(path) in str(error.value)


def test_hooks_of_a_file_are_taken_as_they_stand_and_the_command_line_goes_before(tmp_path):
    path = tmp_path / "hooks.ini"
    path.write_text(
        "# ours\n[hooks]\non_failed = https://u:p%41x@host/?a=b;c#d\non_pushed = reload --gently\n"
    )
    found = hook_file.chosen(path, {"on_pushed": "other", "on_refused": ""})
    assert (found.on_failed, found.on_pushed, found.on_refused) == (
        "https://u:p%41x@host/?a=b;c#d", "other", "",
    )  # fmt: skip
    path.chmod(0o644)
    assert "can be read by every user" in hook_file.open_to_others(path)
    path.chmod(0o640)
    assert hook_file.open_to_others(path) == ""
