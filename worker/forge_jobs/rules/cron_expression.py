"""A cron expression as numbers, and the local times that it names, in any direction.

`cron_times` asks `parse` for Fields and then for one time after another, and decides what a local time
means in a time zone. Times here are naive and whole seconds.
"""

import re
from bisect import bisect_left, bisect_right
from calendar import monthrange
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

from forge_jobs.errors import InvalidCron

ALIASES: Mapping[str, str] = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

LONGEST_EXPRESSION = 256

# The fifth Monday of a February comes every 28 years, and every 40 around 2100.
_HORIZON = 50 * 12  # months

_LAST = -1  # the last weekday of its kind in a month

_FIELDS = ("second", "minute", "hour", "day", "month", "weekday")
_LARGEST = {"second": 59, "minute": 59, "hour": 23, "day": 31, "month": 12, "weekday": 7}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_ALLOWED = {
    "second": "0 to 59",
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day": "1 to 31, or L for the month's last",
    "month": "1 to 12 or jan to dec",
    "weekday": "0 to 7 (0 and 7 are Sunday) or sun to sat, with L5 for the last Friday and 5#2 for the second",
}

_VALUE = r"\d{1,2}|[a-z]{3}"
_ITEM = re.compile(rf"(?:\*|(?P<low>{_VALUE})(?:-(?P<high>{_VALUE}))?)(?:/(?P<step>\d{{1,2}}))?")
# What else croniter understands (random, hashed, nearest working day) is not let through.
_EXTRA = {"day": re.compile(r"l"), "weekday": re.compile(rf"l[0-7]|(?:{_VALUE})#[1-5]")}


@dataclass(frozen=True, slots=True)
class Fields:
    """What an expression allows. `days` and `weekdays` are None when they allow every day.

    When both restrict, a day that either allows is allowed. Weekdays count from 0, Sunday;
    an `nth` is (weekday, its number in the month, or -1 for the last).
    """

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    months: frozenset[int]
    days: frozenset[int] | None = None
    last_day: bool = False
    weekdays: frozenset[int] | None = None
    nth: frozenset[tuple[int, int]] = frozenset()

    @property
    def every_hour(self) -> bool:
        """Whether no hour of the day is left out."""
        return len(self.hours) == 24

    def after(self, moment: datetime) -> datetime | None:
        """Return the first time later than `moment`, None when there is none in fifty years."""
        start = moment.replace(microsecond=0) + timedelta(seconds=1)
        for day in self._days_from(start.date()):
            local = self._time_from(start.time() if day == start.date() else time.min)
            if local is not None:
                return datetime.combine(day, local)
        return None

    def until(self, moment: datetime) -> datetime | None:
        """Return the last time that is not later than `moment`, None when there is none in fifty years."""
        for day in self._days_back_from(moment.date()):
            local = self._time_until(moment.time() if day == moment.date() else time.max)
            if local is not None:
                return datetime.combine(day, local)
        return None

    def _days_from(self, start: date) -> Iterator[date]:
        for year, month in _months(start, 1):
            if month in self.months:
                days = (date(year, month, day) for day in self._days_of(year, month))
                yield from (day for day in days if day >= start)

    def _days_back_from(self, start: date) -> Iterator[date]:
        for year, month in _months(start, -1):
            if month in self.months:
                days = (date(year, month, day) for day in reversed(self._days_of(year, month)))
                yield from (day for day in days if day <= start)

    def _days_of(self, year: int, month: int) -> list[int]:
        first, length = monthrange(year, month)  # Monday is 0 here
        return [day for day in range(1, length + 1) if self._allows(day, length, (first + day) % 7)]

    def _allows(self, day: int, length: int, weekday: int) -> bool:
        by_day = self.days is not None and (day in self.days or (self.last_day and day == length))
        by_weekday = self.weekdays is not None and (
            weekday in self.weekdays
            or (weekday, (day + 6) // 7) in self.nth
            or ((weekday, _LAST) in self.nth and day + 7 > length)
        )
        return by_day or by_weekday or (self.days is None and self.weekdays is None)

    def _time_from(self, start: time) -> time | None:
        second = _at_least(self.seconds, start.second)
        minute = _at_least(self.minutes, start.minute + (second is None))
        hour = _at_least(self.hours, start.hour + (minute is None))
        if hour is None:
            return None
        if minute is None or hour > start.hour:
            return time(hour, self.minutes[0], self.seconds[0])
        if second is None or minute > start.minute:
            return time(hour, minute, self.seconds[0])
        return time(hour, minute, second)

    def _time_until(self, end: time) -> time | None:
        second = _at_most(self.seconds, end.second)
        minute = _at_most(self.minutes, end.minute - (second is None))
        hour = _at_most(self.hours, end.hour - (minute is None))
        if hour is None:
            return None
        if minute is None or hour < end.hour:
            return time(hour, self.minutes[-1], self.seconds[-1])
        if second is None or minute < end.minute:
            return time(hour, minute, self.seconds[-1])
        return time(hour, minute, second)


def parse(expression: str) -> Fields:
    """Return what `expression` allows.

    Five fields (minute, hour, day, month, weekday), six with seconds first, or an alias such
    as @daily. Raises InvalidCron, naming the field that is wrong, and when no day would ever come.
    """
    if not isinstance(expression, str) or len(expression) > LONGEST_EXPRESSION or not expression.isascii():
        shown = repr(expression)[: LONGEST_EXPRESSION + 2]
        raise InvalidCron(
            f"The cron expression is {shown}, {_shape()}, in at most {LONGEST_EXPRESSION} characters."
        )
    parts = _parts(expression)
    for name, part in zip(_FIELDS, parts, strict=True):
        _check(expression, name, part)
    fields = _fields(expression, parts)
    if fields.after(datetime(2000, 1, 1)) is None:
        raise InvalidCron(
            f"The cron expression is {expression!r}, which names no day that ever comes; {_shape()}."
        )
    return fields


def _parts(expression: str) -> list[str]:
    """Return the six fields, in lower case."""
    text = expression.lower().strip()
    parts = ALIASES.get(text, text).split()
    if len(parts) == 5:
        return ["0", *parts]
    if len(parts) != 6:
        problem = "no known alias" if text.startswith("@") else f"{len(parts)} fields"
        raise InvalidCron(f"The cron expression is {expression!r}, which is {problem}; {_shape()}.")
    return parts


def _shape() -> str:
    return (
        "allowed are five fields (minute hour day month weekday), six with seconds first, "
        f"or one of {', '.join(ALIASES)}"
    )


def _check(expression: str, name: str, part: str) -> None:
    if part == "?" and name in _EXTRA:
        return
    extra = _EXTRA.get(name)
    for item in part.split(","):
        match = _ITEM.fullmatch(item)
        if not (_is_sound(name, match) if match else extra and extra.fullmatch(item)):
            raise _wrong(expression, name, part)


def _is_sound(name: str, item: re.Match[str]) -> bool:
    """Whether croniter reads `item` as everybody does: it takes "5-5" for "*", and miscounts steps over the end."""
    low, high, step = item["low"], item["high"], item["step"]
    if step is not None and not 1 <= int(step) <= _LARGEST[name]:
        return False
    if high is None:
        return True
    first, last = _number(low), _number(high)
    return first < last or (first > last and step is None)


def _number(value: str) -> int:
    for values, least in ((_MONTHS, 1), (_WEEKDAYS, 0)):
        if value in values:
            return values.index(value) + least
    return int(value) if value.isdigit() else 0


def _wrong(expression: str, name: str, part: str) -> InvalidCron:
    return InvalidCron(
        f"The {name} of the cron expression {expression!r} is {part!r}, allowed is {_ALLOWED[name]}; also lists (1,2), "
        f"ranges of two different values (1-5), and steps (*/2) of 1 to {_LARGEST[name]} that do not run past the end."
    )


def _fields(expression: str, parts: Sequence[str]) -> Fields:
    read = _read(parts)
    if read is None:
        raise _culprit(expression, parts)
    expanded, nth = read
    minutes, hours, days, months, weekdays, seconds = expanded
    numbered = frozenset(
        (int(day), n if isinstance(n, int) else _LAST) for day, numbers in nth.items() for n in numbers
    )
    return Fields(
        seconds=_numbers(seconds, range(60)),
        minutes=_numbers(minutes, range(60)),
        hours=_numbers(hours, range(24)),
        months=frozenset(_numbers(months, range(1, 13))),
        days=_restriction(days, range(1, 32)),
        last_day="l" in days,
        weekdays=frozenset() if numbered else _restriction(weekdays, range(7)),
        nth=numbered,
    )


def _read(parts: Sequence[str]) -> tuple[Sequence[Sequence[int | str]], Mapping[Any, Iterable[Any]]] | None:
    """Return what croniter makes of the fields; None when it refuses them."""
    from croniter import (
        CroniterError,
        croniter,
    )  # which takes longer than the rest, and few processes have crons

    try:
        return croniter.expand(" ".join(parts), second_at_beginning=True)
    except CroniterError:
        return None


def _culprit(expression: str, parts: Sequence[str]) -> InvalidCron:
    """Return the error for the field that croniter refuses when all others are `*`."""
    for index, name in enumerate(_FIELDS):
        alone = ["*"] * len(_FIELDS)
        alone[index] = parts[index]
        if _read(alone) is None:
            return _wrong(expression, name, parts[index])
    return InvalidCron(f"The cron expression {expression!r} cannot be understood; {_shape()}.")


def _numbers(values: Iterable[int | str], everything: Sequence[int]) -> tuple[int, ...]:
    if "*" in (value for value in values if isinstance(value, str)):
        return tuple(everything)
    return tuple(sorted(value for value in values if isinstance(value, int)))


def _restriction(values: Sequence[int | str], everything: Sequence[int]) -> frozenset[int] | None:
    """Return the allowed values, None when all are: then the field does not restrict, however it is written."""
    numbers = frozenset(_numbers(values, everything))
    return None if len(numbers) == len(everything) else numbers


def _months(start: date, step: int) -> Iterator[tuple[int, int]]:
    """Yield (year, month) from that of `start` on, for fifty years; dates end with the year 9998."""
    first = start.year * 12 + start.month - 1
    for count in range(_HORIZON):
        year, month = divmod(first + count * step, 12)
        if not 1 < year < 9999:
            return
        yield year, month + 1


def _at_least(values: Sequence[int], least: int) -> int | None:
    index = bisect_left(values, least)
    return values[index] if index < len(values) else None


def _at_most(values: Sequence[int], most: int) -> int | None:
    index = bisect_right(values, most)
    return values[index - 1] if index else None
