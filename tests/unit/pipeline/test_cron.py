"""Cron's fields: against the dates that crontab(5) means, and against another implementation."""

import datetime

import pytest
from apscheduler.triggers.cron import CronTrigger

from pipeline.cron import Cron

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
    assert [m for m in minutes if Cron.parse(text).matches(m)] == expected
