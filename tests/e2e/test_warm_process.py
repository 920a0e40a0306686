"""A warm process is what the command would have been: its words, its status, a session of its own, and its end."""

import os
import signal
import time

import pytest

from tests.e2e import byol_command, warm_process

FOREVER = "python -m timeit -s import\ttime time.sleep(1000)"


def words(command):
    return [word.replace("\t", " ") for word in command.split(" ")]


def test_words_and_status_are_the_commands(tmp_path):
    said = tmp_path / "out", tmp_path / "err"
    run = (byol_command.PROJECT, byol_command.environment(), said, 60)
    assert warm_process.run(words("python -m this"), *run) == 0
    assert "Readability counts." in said[0].read_text()
    assert warm_process.run(words(f"python -m json.tool {tmp_path / 'none'}"), *run) == 2
    assert "No such file" in said[1].read_text()


def test_a_kill_of_its_session_ends_it(tmp_path):
    process = byol_command.start(words(FOREVER)[2:], tmp_path / "said")
    assert process.pid is not None
    deadline = time.monotonic() + 60
    while os.getpgid(process.pid) != process.pid:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def test_one_that_takes_too_long_is_ended(tmp_path):
    said = tmp_path / "out", tmp_path / "err"
    with pytest.raises(TimeoutError, match=r"did not end within 0\.5 s"):
        warm_process.run(words(FOREVER), byol_command.PROJECT, byol_command.environment(), said, 0.5)
