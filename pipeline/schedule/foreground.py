"""Keeps time in the foreground, by APScheduler: each start is a process of its own, one at a time."""

import contextlib
import datetime
import logging
import os
import queue
import signal
import subprocess
import threading
import time
import typing
import zoneinfo
from collections.abc import Callable

from pipeline.schedule.cron import Cron

if typing.TYPE_CHECKING:
    from apscheduler.schedulers.background import BackgroundScheduler
    from apscheduler.triggers.base import BaseTrigger

INTERRUPTED = 130
_JOB = "retrain"
# A sleeping laptop's waits stand still; so the clock is looked at as often as this, and a missed start is made up for.
_LOOK_SECONDS = 30.0
# A clock that was ahead is mended at once; what is less is done by slowing it down.
_SET_BACK = datetime.timedelta(minutes=1)
_LONGEST_GAP = datetime.timedelta(hours=3)
_ENDS = {
    0: "pushed, or nothing new",
    1: "a step failed",
    2: "wrong arguments or input",
    3: "refused by the gate",
    INTERRUPTED: "interrupted; the next start goes on",
}


def cron_trigger(cron: Cron, timezone: str = "") -> "BaseTrigger":
    """An APScheduler trigger that fires when `cron` matches, in the machine's time zone if none is named."""
    from apscheduler.triggers.base import BaseTrigger
    from apscheduler.triggers.cron import CronTrigger

    # On the clock on the wall, which knows no time zone; APScheduler's own leaves out what a changed clock skips.
    walls = [CronTrigger(**fields, timezone=datetime.timezone.utc) for fields in cron.apscheduler()]

    class WallClockTrigger(BaseTrigger):
        """Fires at the wall clock's times; at one that a changed clock skips, as much later as it jumps."""

        def get_next_fire_time(
            self, previous_fire_time: datetime.datetime | None, now: datetime.datetime
        ) -> datetime.datetime | None:
            if previous_fire_time is not None:  # never the same one twice
                now = max(now, previous_fire_time + datetime.timedelta(microseconds=1))
            zone = _zone(timezone)
            wall = now.astimezone(zone).replace(tzinfo=datetime.timezone.utc, fold=0)
            # A time that the clock skipped lies before `now` on the wall.
            wall -= _LONGEST_GAP
            while True:
                found = [trigger.get_next_fire_time(None, wall) for trigger in walls]
                if all(time is None for time in found):
                    return None
                wall = min(time for time in found if time is not None)
                moment = _on_the_wall(wall, zone)
                if moment >= now:
                    return moment
                wall += datetime.timedelta(seconds=1)

    return WallClockTrigger()


def _zone(timezone: str) -> datetime.tzinfo:
    import tzlocal

    return zoneinfo.ZoneInfo(timezone) if timezone else tzlocal.get_localzone()


def _on_the_wall(wall: datetime.datetime, zone: datetime.tzinfo) -> datetime.datetime:
    """The moment at which a wall clock shows `wall`; where it skips it, as much later as it jumps."""
    return wall.replace(tzinfo=zone).astimezone(datetime.timezone.utc).astimezone(zone)


def every_trigger(seconds: int) -> "BaseTrigger":
    """An APScheduler trigger that fires every so many seconds."""
    from apscheduler.triggers.base import BaseTrigger

    class EveryTrigger(BaseTrigger):
        """APScheduler's own keeps the time at which it was made, and would wait for it if the clock was ahead."""

        def get_next_fire_time(
            self, previous_fire_time: datetime.datetime | None, now: datetime.datetime
        ) -> datetime.datetime:
            return (previous_fire_time or now) + datetime.timedelta(seconds=seconds)

    return EveryTrigger()


class Foreground:
    """Runs a command again and again until Ctrl-C or SIGTERM.

    A start that comes while the one before is still at work is left out; starts that were missed, by a machine that
    slept, are made up for by one.

    Args:
        command: the program and its arguments.
        trigger: of APScheduler.
        say: told each line for the person.
        at_once: whether the first start does not wait for the trigger.
        look_seconds: how often the clock is looked at.
    """

    def __init__(
        self,
        command: list[str],
        trigger: "BaseTrigger",
        say: Callable[[str], None],
        at_once: bool = False,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        self._command = command
        self._trigger = trigger
        self._say = say
        self._at_once = at_once
        self._look_seconds = look_seconds
        self._child: subprocess.Popen[bytes] | None = None
        self._seen = _clock()
        self._stopping = threading.Event()
        self._guard = threading.Lock()
        # Its put() may be called by a signal's handler.
        self._news: queue.SimpleQueue[int] = queue.SimpleQueue()

    def run(self) -> int:
        """Blocks until a signal ends it.

        Returns:
            The exit status: 130 after Ctrl-C, 0 after SIGTERM.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda received, _frame: self._news.put(received))
        self._seen = _clock()
        scheduler = self._scheduler()
        scheduler.start(paused=True)
        self._say(f"{self._next_start(scheduler)} Ctrl-C ends it.")
        scheduler.resume()
        received = self._wait(scheduler)
        self._stop_child()
        scheduler.shutdown()
        self._say("Ended.")
        return INTERRUPTED if received == signal.SIGINT else 0

    def _scheduler(self) -> "BackgroundScheduler":
        """In the background, so that the main thread is free for signals."""
        from apscheduler.events import EVENT_JOB_MAX_INSTANCES
        from apscheduler.schedulers.background import BackgroundScheduler

        # What it warns of is told by the listener below.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        scheduler = BackgroundScheduler()
        scheduler.add_job(
            lambda: self._start(scheduler),
            self._trigger,
            id=_JOB,
            max_instances=1,
            coalesce=True,
            misfire_grace_time=None,
            **({"next_run_time": _clock()} if self._at_once else {}),
        )
        scheduler.add_listener(
            lambda _event: self._say(f"{_now()}  The last start is still at work: this one is left out."),
            EVENT_JOB_MAX_INSTANCES,
        )
        return scheduler

    def _wait(self, scheduler: "BackgroundScheduler") -> int:
        """The signal that came."""
        while True:
            with contextlib.suppress(queue.Empty):
                # Besides signals, it is news that a start has ended.
                if news := self._news.get(timeout=self._look_seconds):
                    return news
            if (now := _clock()) < self._seen - _SET_BACK:
                scheduler.reschedule_job(_JOB, trigger=self._trigger)
                self._say(f"{_now()}  The clock was set back. {self._next_start(scheduler)}")
            self._seen = now
            scheduler.wakeup()

    def _start(self, scheduler: "BackgroundScheduler") -> None:
        """One start, in a thread of the scheduler's."""
        begun = time.monotonic()
        with self._guard:
            if self._stopping.is_set():
                return
            try:
                # A session of its own: Ctrl-C at the terminal reaches it through us alone.
                self._child = subprocess.Popen(
                    self._command, stdin=subprocess.DEVNULL, start_new_session=True
                )
            except OSError as error:
                self._say(f"{_now()}  {self._command[0]} cannot be started: {error.strerror}.")
                return
        status = self._child.wait()
        with self._guard:
            self._child = None
            stopping = self._stopping.is_set()
        told = _ENDS.get(status, f"signal {-status}" if status < 0 else "unknown")
        end = f"{_now()}  Exit status {status} ({told}) after {time.monotonic() - begun:.0f} s."
        self._say(end if stopping else f"{end} {self._next_start(scheduler)}")
        self._news.put(0)

    def _next_start(self, scheduler: "BackgroundScheduler") -> str:
        job = scheduler.get_job(_JOB)
        if job is None or job.next_run_time is None:
            return "There is no further start."
        return f"Next start: {job.next_run_time:%Y-%m-%d %H:%M:%S %Z}."

    def _stop_child(self) -> None:
        """Passes Ctrl-C on, as often as it comes, until the child has ended."""
        while True:
            with self._guard:
                self._stopping.set()
                if self._child is None:
                    return
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._child.pid, signal.SIGINT)
            self._news.get()


def _clock() -> datetime.datetime:
    return datetime.datetime.now().astimezone()


def _now() -> str:
    return f"{_clock():%Y-%m-%d %H:%M:%S}"
