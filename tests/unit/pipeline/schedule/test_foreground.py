"""The scheduler in the foreground: real processes and real signals; only the length of a day is not real."""

import datetime
import os
import pathlib
import signal
import sys
import time

import pytest
from apscheduler.schedulers import base
from apscheduler.triggers.interval import IntervalTrigger

from pipeline.schedule.cron import Cron
from pipeline.schedule.foreground import Foreground, cron_trigger, every_trigger


@pytest.fixture(autouse=True)
def _signals_as_before():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Person:
    """Takes the lines, and sends a signal when enough of them hold a certain text."""

    def __init__(self, text: str, count: int, number: int) -> None:
        self.lines: list[str] = []
        self._wanted = text, count, number

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        text, count, number = self._wanted
        if text in line and sum(text in one for one in self.lines) == count:
            os.kill(os.getpid(), number)


def command(folder: pathlib.Path, body: str) -> list[str]:
    path = folder / "retrain.py"
    path.write_text(f"import os, pathlib, signal, sys, time\nhere = pathlib.Path({str(folder)!r})\n{body}")
    return [sys.executable, str(path)]


def test_it_starts_again_and_again_and_tells_how_each_ended(tmp_path):
    program = command(
        tmp_path,
        "count = len(list(here.glob('run-*')))\n(here / f'run-{count}').touch()\nsys.exit([0, 3, 1, 9][count])",
    )
    person = Person("Exit status", 4, signal.SIGINT)
    trigger = IntervalTrigger(seconds=0.3)
    assert Foreground(program, trigger, person, at_once=True, look_seconds=0.05).run() == 130
    told = [line.split("Exit status ")[1].split(" after")[0] for line in person.lines if "Exit" in line]
    assert told == [
        "0 (pushed, or nothing new)",
        "3 (refused by the gate)",
        "1 (a step failed)",
        "9 (unknown)",
    ]
    assert person.lines[0].startswith("Next start: 2")
    assert person.lines[0].endswith(". Ctrl-C ends it.")
    assert "Next start: 2" in person.lines[1]
    assert person.lines[-1] == "Ended."


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_reaches_the_run_as_ctrl_c_and_its_end_is_awaited(number, status, tmp_path):
    program = command(
        tmp_path,
        "def stop(*_):\n    time.sleep(0.2)\n    (here / 'kept').touch()\n    sys.exit(130)\n"
        f"signal.signal(signal.SIGINT, stop)\nos.kill({os.getpid()}, {int(number)})\ntime.sleep(60)",
    )
    person = Person("", 0, 0)
    assert Foreground(program, every_trigger(3600), person, at_once=True).run() == status
    assert (tmp_path / "kept").exists()
    assert "Exit status 130 (interrupted; the next start goes on)" in person.lines[-2]
    assert "Next start" not in person.lines[-2]
    assert person.lines[-1] == "Ended."


def test_a_second_ctrl_c_is_passed_on_too(tmp_path):
    program = command(
        tmp_path,
        "count = []\n"
        "def stop(*_):\n    count.append(1)\n    len(count) == 2 and sys.exit(130)\n"
        f"    os.kill({os.getpid()}, signal.SIGINT)\n"
        f"signal.signal(signal.SIGINT, stop)\nos.kill({os.getpid()}, signal.SIGINT)\n"
        "while True:\n    time.sleep(60)",
    )
    person = Person("", 0, 0)
    assert Foreground(program, every_trigger(3600), person, at_once=True).run() == 130
    assert "Exit status 130" in person.lines[-2]


def test_one_at_a_time(tmp_path):
    """Starts that come meanwhile are left out, and said to be."""
    program = command(
        tmp_path,
        "(here / 'lock').mkdir()\ntime.sleep(0.7)\n(here / 'lock').rmdir()\n(here / 'ended').touch()",
    )
    person = Person("Exit status", 2, signal.SIGTERM)
    assert (
        Foreground(program, IntervalTrigger(seconds=0.2), person, at_once=True, look_seconds=0.05).run() == 0
    )
    ends = [line for line in person.lines if "Exit status" in line]
    assert all("Exit status 0 " in line for line in ends), person.lines
    assert sum("still at work: this one is left out" in line for line in person.lines) >= 2


def test_a_program_that_is_gone_is_told_and_does_not_end_the_schedule(tmp_path):
    person = Person("cannot be started", 2, signal.SIGINT)
    gone = [str(tmp_path / "python")]
    assert (
        Foreground(gone, IntervalTrigger(seconds=0.2), person, at_once=True, look_seconds=0.05).run() == 130
    )
    assert f"{gone[0]} cannot be started: No such file or directory." in person.lines[1]


def test_a_machine_that_slept_makes_up_for_its_nights_by_one_start(tmp_path, monkeypatch):
    """The clock jumps by three days while the scheduler waits for tomorrow, as it does when a lid is opened again."""
    slept = {"for": datetime.timedelta(0)}

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime.now(tz) + slept["for"]

    monkeypatch.setattr(base, "datetime", Clock)
    tomorrow = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=12)
    program = command(tmp_path, "(here / f'run-{time.time_ns()}').touch()")

    class Sleeper(Person):
        def __call__(self, line):
            super().__call__(line)
            if len(self.lines) == 1:
                slept["for"] = datetime.timedelta(days=3)
            elif "Exit status" in line:
                # Long enough for a second start, if one came.
                signal.setitimer(signal.ITIMER_REAL, 0.5)

    before = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    try:
        person = Sleeper("never", 0, 0)
        start = time.monotonic()
        cron = Cron.parse(f"{tomorrow.minute} {tomorrow.hour} * * *")
        assert Foreground(program, cron_trigger(cron, "UTC"), person, look_seconds=0.1).run() == 0
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - start < 30
    assert len(list(tmp_path.glob("run-*"))) == 1
    after = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=3)
    assert after < _next_start(person.lines[1]) <= after + datetime.timedelta(days=1)


def _next_start(line: str) -> datetime.datetime:
    text = line.split("Next start: ")[1].rstrip(".")
    return datetime.datetime.strptime(text, "%Y-%m-%d %H:%M:%S %Z").replace(tzinfo=datetime.timezone.utc)
