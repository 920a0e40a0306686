"""Cron's fields: against the dates that crontab(5) means, and against another implementation."""

import datetime
import os
import re
import shutil
import subprocess
import zoneinfo

import pytest
from apscheduler.triggers.cron import CronTrigger

from pipeline.schedule.cron import Cron
from pipeline.schedule.foreground import cron_trigger

START = datetime.datetime(2026, 11, 23, tzinfo=datetime.timezone.utc)  # a Monday


@pytest.mark.parametrize(
    ("text", "kubeflow"),
    [
        ("0 3 * * *", "0 0 3 * * *"),
        ("*/15 * * * *", "0 0,15,30,45 * * * *"),
        ("0 3 * * 0", "0 0 3 * * 0"),
        ("0 3 * * 7", "0 0 3 * * 0"),
        ("0 3 * * Fri-7", "0 0 3 * * 0,5,6"),
        ("30 1-5/2 1,15 JAN *", "0 30 1,3,5 1,15 1 *"),
        ("*/1 3 1-31 * *", "0 * 3 " + ",".join(map(str, range(1, 32))) + " * *"),
    ],
)
def test_kubeflow_gets_six_fields_that_mean_the_same(text, kubeflow):
    assert Cron.parse(text).kubeflow() == kubeflow
    assert Cron.parse(Cron.parse(text).five_fields()) == Cron.parse(text)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("0 3 * *", "received 4 in"),
        ("0 0 3 * * *", "received 6 in"),
        ("60 3 * * *", "minute of '60 3 * * *' is '60'; expected 0 to 59"),
        ("0 24 * * *", "hour of"),
        ("0 3 0 * *", "day of"),
        ("0 3 * 13 *", "month of"),
        ("0 3 * * 8", "weekday of"),
        ("0 3 * * mon-", "weekday of"),
        ("0 5-3 * * *", "ends before it starts"),
        ("*/0 * * * *", "step '0'"),
        ("5/15 * * * *", "write a range before /"),
        ("0 3 30 2 *", "No month of '0 3 30 2 *' has a day 30"),
        ("@daily", "received 1 in"),
        ("0 3 ? * *", "day of"),
        ("0 ³ * * *", "hour of"),
        ("0 3 */2 * 1", "day of '0 3 */2 * 1' is '*/2' beside a weekday, which schedulers read differently"),
        ("0 3 13 * 5,*/3", "weekday of '0 3 13 * 5,*/3' is '5,*/3' beside a day"),
    ],
)
def test_what_is_no_schedule_is_refused(text, part):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is what is tested
        Cron.parse(text)
    assert part in str(error.value)


def test_a_day_or_a_weekday_is_enough_when_both_are_restricted():
    cron = Cron.parse("0 3 13 * 5")
    days = [
        START + datetime.timedelta(days=day, hours=3)
        for day in range(60)
        if cron.matches(START + datetime.timedelta(days=day, hours=3))
    ]
    assert {day.isoweekday() for day in days if day.day != 13} == {5}
    assert [day.date().isoformat() for day in days if day.day == 13] == ["2026-12-13", "2027-01-13"]


@pytest.mark.parametrize("text", ["7 */6 * * *", "0 3 * * 1-5", "15,45 0-12/3 * 11,12 *", "0 3 1-7 * *"])
def test_another_implementation_fires_at_the_same_minutes(text):
    minute, hour, day, month, weekday = text.split()
    names = {"1-5": "mon-fri"}.get(weekday, weekday)
    trigger = CronTrigger(minute=minute, hour=hour, day=day, month=month, day_of_week=names, timezone="UTC")
    expected, moment = [], START
    end = START + datetime.timedelta(days=21)
    while (moment := trigger.get_next_fire_time(None, moment)) and moment < end:
        expected.append(moment.replace(tzinfo=datetime.timezone.utc))
        moment += datetime.timedelta(minutes=1)
    minutes = (START + datetime.timedelta(minutes=n) for n in range(21 * 24 * 60))
    cron = Cron.parse(text)
    assert [m for m in minutes if cron.matches(m)] == expected


# With every trap: Sunday as 0 and 7, a day or a weekday, a day that the month lacks, the end of a leap February.
SCHEDULES = [
    "0 3 * * *",
    "0 3 * * 0",
    "0 3 * * 7",
    "0 3 * * 1",
    "*/20 1,13 13 * 5",
    "30 2 31 * *",
    "15 4 29 2 *",
    "0 12 30 2 1",
    "0 12 1-7 3,12 sat",
]
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


def by_hand(text: str, start: datetime.datetime, days: int) -> list[datetime.datetime]:
    """Minutes that crontab(5) means, from its words, without the class under test; `start` is a midnight in UTC."""

    def values(field, top):
        found = set()
        for part in field.lower().split(","):
            span, _, step = part.partition("/")
            first, _, last = span.replace("sat", "6").partition("-")
            ends = (0, top) if span == "*" else (int(first), int(last or first))
            found |= {
                value for value in range(ends[0], ends[1] + 1) if (value - ends[0]) % int(step or 1) == 0
            }
        return sorted(found)

    minute, hour, day, month, weekday = text.split()
    found = []
    for number in range(days):
        date = start + datetime.timedelta(days=number)
        on_day = date.day in values(day, 31)
        on_weekday = date.strftime("%w") in map(str, values(weekday.replace("7", "0"), 6))
        today = on_day or on_weekday if "*" not in (day, weekday) else on_day and on_weekday
        if today and date.month in values(month, 12):
            found += [date.replace(hour=h, minute=m) for h in values(hour, 23) for m in values(minute, 59)]
    return found


def fires(text: str, timezone: str, start: datetime.datetime, end: datetime.datetime):
    """What APScheduler's trigger gives, asked as its scheduler asks."""
    trigger, before, now, found = cron_trigger(Cron.parse(text), timezone), None, start, []
    while (moment := trigger.get_next_fire_time(before, now)) and moment < end:
        found.append(moment.astimezone(datetime.timezone.utc))
        before = now = moment
    return found


@pytest.mark.parametrize("text", SCHEDULES)
def test_apscheduler_fires_when_crontab_says(text):
    start = datetime.datetime(2028, 2, 1, tzinfo=datetime.timezone.utc)
    expected = by_hand(text, start, 60)
    assert expected
    assert fires(text, "UTC", start, start + datetime.timedelta(days=60)) == expected


def test_sunday_is_sunday():
    """By name, APScheduler's 0 would be Monday."""
    found = fires("0 3 * * 0", "UTC", START, START + datetime.timedelta(days=28))
    assert [moment.date().isoformat() for moment in found] == [
        "2026-11-29",
        "2026-12-06",
        "2026-12-13",
        "2026-12-20",
    ]


@pytest.mark.parametrize(("year", "month", "day"), [(2027, 3, 27), (2026, 10, 24)])
def test_no_night_is_missed_when_the_clocks_change(year, month, day):
    """3:00 comes once in each night; 2:30 comes in each, moved or twice where the clocks leave out or repeat it."""
    start = datetime.datetime(year, month, day, tzinfo=BERLIN)
    end = start + datetime.timedelta(days=3)
    found = fires("0 3 * * *", "Europe/Berlin", start, end)
    assert [f"{moment.astimezone(BERLIN):%d %H:%M}" for moment in found] == [
        f"{one} 03:00" for one in (day, day + 1, day + 2)
    ]
    half_past = fires("30 2 * * *", "Europe/Berlin", start, end)
    nights = [moment.astimezone(BERLIN).date().day for moment in half_past]
    assert sorted(set(nights)) == [day, day + 1, day + 2]
    assert len(nights) in (
        {3, 4} if month == 10 else {3}
    )  # APScheduler 3.11 starts at both 2:30, 3.10 at one
    if month == 3:
        assert half_past[1].astimezone(BERLIN).isoformat() == "2027-03-28T03:30:00+02:00"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("text", SCHEDULES)
def test_systemd_starts_when_crontab_says(text):
    start = datetime.datetime(2028, 2, 1, tzinfo=datetime.timezone.utc)
    expected = by_hand(text, start, 40)
    found = set()
    for event in Cron.parse(text).systemd("UTC"):
        told = subprocess.run(
            # The base is left out, and midnight may be meant.
            ["systemd-analyze", "calendar", "--iterations=300", "--base-time=2028-01-31 23:59:59 UTC", event],
            env={**os.environ, "TZ": "UTC", "LC_ALL": "C"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        found |= set(re.findall(r"(\d{4}-\d\d-\d\d \d\d:\d\d):00 UTC", told))
    end = (start + datetime.timedelta(days=40)).strftime("%Y-%m-%d %H:%M")
    assert sorted(moment for moment in found if moment < end) == [
        moment.strftime("%Y-%m-%d %H:%M") for moment in expected
    ]
    assert Cron.parse(text).systemd("Europe/Berlin")[0].endswith(":00 Europe/Berlin")
