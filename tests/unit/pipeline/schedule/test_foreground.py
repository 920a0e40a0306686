"""The scheduler in the foreground: real processes and real signals; only the length of a day is not real."""

import datetime
import itertools
import os
import pathlib
import signal
import sys
import time
import zoneinfo

import pytest
from apscheduler.schedulers import base
from apscheduler.triggers.interval import IntervalTrigger

from pipeline.schedule import foreground
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


@pytest.mark.parametrize("every", [True, False])
def test_a_clock_that_was_ahead_at_the_start_puts_no_start_off_once_it_is_right(every, tmp_path, monkeypatch):
    ahead = {"by": datetime.timedelta(days=1000)}

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime.now(tz) + ahead["by"]

    monkeypatch.setattr(base, "datetime", Clock)
    monkeypatch.setattr(foreground, "_clock", lambda: datetime.datetime.now().astimezone() + ahead["by"])

    class Mender(Person):
        def __call__(self, line):
            super().__call__(line)
            ahead["by"] = datetime.timedelta(0)

    person = Mender("The clock was set back", 1, signal.SIGTERM)
    trigger = every_trigger(3600) if every else cron_trigger(Cron.parse("0 3 * * *"), "UTC")
    program = command(tmp_path, "")
    assert Foreground(program, trigger, person, look_seconds=0.05).run() == 0
    now = datetime.datetime.now().astimezone()
    before, after = (
        datetime.datetime.strptime(line.split("Next start: ")[1][:19], "%Y-%m-%d %H:%M:%S").astimezone()
        for line in person.lines[:2]
    )
    assert before - now > datetime.timedelta(days=998)
    assert after - now < datetime.timedelta(days=2)


def _next_start(line: str) -> datetime.datetime:
    text = line.split("Next start: ")[1].rstrip(".")
    return datetime.datetime.strptime(text, "%Y-%m-%d %H:%M:%S %Z").replace(tzinfo=datetime.timezone.utc)


def _changes(zone):
    """The days of 2026 on which the zone's clocks change, as midnights of UTC."""
    days = [
        datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc) + datetime.timedelta(n)
        for n in range(366)
    ]
    return [
        day for day, next_day in itertools.pairwise(days)
        if day.astimezone(zone).utcoffset() != next_day.astimezone(zone).utcoffset()
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["0 0 * * *", "30 0 * * *", "30 2 * * *"])
def test_no_night_is_missed_and_none_comes_twice_in_any_zone_whose_clocks_change(text):
    """Around each change of 2026; Santiago and Cairo skip midnight. Other days are like those before and after."""
    zones = [zoneinfo.ZoneInfo(name) for name in sorted(zoneinfo.available_timezones())]
    changing = {str(zone): (zone, days) for zone in zones if (days := _changes(zone))}
    assert {"America/Santiago", "Africa/Cairo", "Europe/Berlin"} <= set(changing)
    seen = set()
    for zone, days in changing.values():
        rules = tuple((day, day.astimezone(zone).utcoffset()) for day in days)
        if rules in seen:  # an alias, or a neighbour whose clocks change alike
            continue
        seen.add(rules)
        trigger = cron_trigger(Cron.parse(text), str(zone))
        for day in days:
            fire, nights = day - datetime.timedelta(2), []
            for _ in range(4):
                fire = trigger.get_next_fire_time(None, fire + datetime.timedelta(microseconds=1))
                nights.append(fire.date())
            first = nights[0]
            assert nights == [first + datetime.timedelta(n) for n in range(4)], (str(zone), day)


def test_a_start_in_the_hour_that_is_skipped_comes_an_hour_later():
    santiago = zoneinfo.ZoneInfo("America/Santiago")
    trigger = cron_trigger(Cron.parse("30 0 * * *"), "America/Santiago")
    evening = datetime.datetime(2024, 9, 7, 20, tzinfo=santiago)
    fire = trigger.get_next_fire_time(None, evening)
    assert fire.isoformat() == "2024-09-08T01:30:00-03:00"
    assert trigger.get_next_fire_time(fire, fire).isoformat() == "2024-09-09T00:30:00-03:00"
