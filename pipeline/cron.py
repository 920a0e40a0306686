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
        if cron.weekday is None and cron.day and cron.month:
            most = max(_MOST_DAYS.get(month, 31) for month in cron.month)
            if min(cron.day) > most:
                raise ValueError(f"No month of {text!r} has a day {min(cron.day)}: it would never run.")
        return cron

    def kubeflow(self) -> str:
        """Six fields, the first one seconds, as Kubeflow Pipelines reads them."""
        return " ".join(["0", *(_text(getattr(self, name)) for name in _FIELDS)])

    def five_fields(self) -> str:
        """As cron and Kubernetes read it."""
        return " ".join(_text(getattr(self, name)) for name in _FIELDS)

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
