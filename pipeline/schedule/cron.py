"""A schedule in cron's five fields, checked, and put into the words of schedulers that read them differently."""

import dataclasses
import datetime

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = ("minute", "hour", "day", "month", "weekday")
# Both ends are included; cron knows Sunday as 0 and as 7.
_RANGES = {"minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "weekday": (0, 7)}
_NAMES = {
    "month": {name: number for number, name in enumerate(_MONTHS, start=1)},
    "weekday": {name: number for number, name in enumerate(_WEEKDAYS)},
}
_MOST_DAYS = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}


@dataclasses.dataclass(frozen=True)
class Cron:
    """When something happens, to the minute; what crontab(5) means by `minute hour day month weekday`.

    Attributes:
        minute, hour, day, month, weekday: the values that match, ascending; weekday 0 is Sunday. None is `*`.
    """

    minute: tuple[int, ...] | None
    hour: tuple[int, ...] | None
    day: tuple[int, ...] | None
    month: tuple[int, ...] | None
    weekday: tuple[int, ...] | None

    @classmethod
    def parse(cls, text: str) -> "Cron":
        """Reads five fields.

        Raises:
            ValueError: another number of fields, a value out of range, or a day that no month has.
        """
        fields = text.split()
        if len(fields) != len(_FIELDS):
            raise ValueError(
                f"A schedule has five fields, `minute hour day month weekday`, such as '0 3 * * *' for 3:00 each day; "
                f"received {len(fields)} in {text!r}."
            )
        cron = cls(*(_values(name, field, text) for name, field in zip(_FIELDS, fields, strict=True)))
        if cron.weekday is None and not _day_exists(cron):
            raise ValueError(f"No month of {text!r} has a day {min(cron.day or ())}: it would never run.")
        for one, other in (("day", "weekday"), ("weekday", "day")):
            step = fields[_FIELDS.index(one)]
            if "*" in step and None not in (cron.day, cron.weekday):
                raise ValueError(
                    f"The {one} of {text!r} is {step!r} beside a {other}, which schedulers read differently: as both, "
                    f"or as either of them. Write out which {one}s, such as 1,3,5, for either of them."
                )
        return cron

    def kubeflow(self) -> str:
        """Six fields, the first one seconds, as Kubeflow Pipelines reads them."""
        return " ".join(["0", *(_text(getattr(self, name)) for name in _FIELDS)])

    def five_fields(self) -> str:
        """As cron and Kubernetes read it."""
        return " ".join(_text(getattr(self, name)) for name in _FIELDS)

    def systemd(self, timezone: str = "") -> tuple[str, ...]:
        """Events for OnCalendar= of a timer, any of which starts it; in the machine's time zone if none is named."""
        return tuple(_calendar_event(one, timezone) for one in self._alternatives())

    def apscheduler(self) -> tuple[dict[str, str], ...]:
        """Arguments of APScheduler 3's CronTrigger, to be joined by an OrTrigger."""
        return tuple(
            {
                "minute": _text(one.minute),
                "hour": _text(one.hour),
                "day": _text(one.day),
                "month": _text(one.month),
                # By name: its 0 is Monday.
                "day_of_week": _names(one.weekday),
                # What is left out is 0, or all of them, by what else is given.
                "second": "0",
            }
            for one in self._alternatives()
        )

    def _alternatives(self) -> "tuple[Cron, ...]":
        """The same as schedules that restrict the day or the weekday: others want both of them to match."""
        if self.day is None or self.weekday is None:
            return (self,)
        by_day, by_weekday = (dataclasses.replace(self, **{name: None}) for name in ("weekday", "day"))
        return (by_day, by_weekday) if _day_exists(by_day) else (by_weekday,)

    def matches(self, moment: datetime.datetime) -> bool:
        """Whether the minute of `moment`, in its own time zone, is one of the schedule's."""
        day = self.day is None or moment.day in self.day
        weekday = self.weekday is None or moment.isoweekday() % 7 in self.weekday
        # crontab(5): with both fields restricted, either is enough.
        days = day or weekday if self.day is not None and self.weekday is not None else day and weekday
        return (
            days
            and (self.minute is None or moment.minute in self.minute)
            and (self.hour is None or moment.hour in self.hour)
            and (self.month is None or moment.month in self.month)
        )


def _values(name: str, field: str, text: str) -> tuple[int, ...] | None:
    """The values of one field."""
    found: set[int] = set()
    for part in field.split(","):
        span, slash, step = part.partition("/")
        if slash and (not step.isdecimal() or int(step) == 0):
            raise ValueError(f"The {name} of {text!r} has the step {step!r}; expected a number above 0.")
        low, high = _RANGES[name]
        if span != "*":
            first, dash, last = span.partition("-")
            if slash and not dash:
                raise ValueError(
                    f"The {name} of {text!r} is {part!r}, which schedulers read differently; write a range before /."
                )
            low = _number(name, first, text)
            high = _number(name, last, text) if dash else low
            if low > high:
                raise ValueError(
                    f"The {name} of {text!r} has the range {span!r}, which ends before it starts."
                )
        elif name == "weekday":
            high = 6
        found.update(range(low, high + 1, int(step) if slash else 1))
    if name == "weekday":
        found = {value % 7 for value in found}
    # `*/1` is `*`, but `1-31` is not: a day that is restricted changes what the weekday means.
    return (
        None if field.split("/", maxsplit=1)[0] == "*" and len(found) == _size(name) else tuple(sorted(found))
    )


def _size(name: str) -> int:
    low, high = _RANGES[name]
    return 7 if name == "weekday" else high - low + 1


def _number(name: str, value: str, text: str) -> int:
    low, high = _RANGES[name]
    number = _NAMES.get(name, {}).get(value.lower())
    if number is None and value.isdecimal() and value.isascii():
        number = int(value)
    if number is None or not low <= number <= high:
        raise ValueError(f"The {name} of {text!r} is {value!r}; expected {low} to {high}.")
    return number


def _text(values: tuple[int, ...] | None) -> str:
    return "*" if values is None else ",".join(map(str, values))


def _names(weekdays: tuple[int, ...] | None) -> str:
    return "*" if weekdays is None else ",".join(_WEEKDAYS[number] for number in weekdays)


def _day_exists(cron: Cron) -> bool:
    """Whether any of the months has any of the days."""
    most = max(_MOST_DAYS.get(month, 31) for month in cron.month or (1,))
    return cron.day is None or min(cron.day) <= most


def _calendar_event(cron: Cron, timezone: str) -> str:
    weekdays = "" if cron.weekday is None else f"{_names(cron.weekday)} "
    date = f"*-{_text(cron.month)}-{_text(cron.day)}"
    return f"{weekdays}{date} {_text(cron.hour)}:{_text(cron.minute)}:00 {timezone}".rstrip()
