"""Expressions of crons in words: `every.day(at="08:00")` is "0 8 * * *"."""

import re

from forge_jobs.errors import InvalidCron

CLOCK = re.compile(r"(\d{1,2}):(\d{2})")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
LONGEST_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def minute() -> str:
    """Return the expression that fires at each full minute."""
    return "* * * * *"


def minutes(count: int) -> str:
    """Return the expression that fires every `count` minutes, a divisor of 60, from the full hour on. Raises InvalidCron."""
    return f"*/{_divisor(count, 'minutes', 60)} * * * *"


def hour(*, at: int = 0) -> str:
    """Return the expression that fires each hour, `at` so many minutes past it. Raises InvalidCron."""
    return f"{_whole(at, 'at', 0, 59)} * * * *"


def hours(count: int, *, at: int = 0) -> str:
    """Return the expression that fires every `count` hours, a divisor of 24, from midnight on, `at` so many minutes past
    the hour. Raises InvalidCron.
    """
    return f"{_whole(at, 'at', 0, 59)} */{_divisor(count, 'hours', 24)} * * *"


def day(*, at: str = "00:00") -> str:
    """Return the expression that fires each day at a time like "08:00". Raises InvalidCron."""
    return f"{_clock(at)} * * *"


def weekday(*, at: str = "00:00") -> str:
    """Return the expression that fires from Monday to Friday at a time like "08:00". Raises InvalidCron."""
    return f"{_clock(at)} * * mon-fri"


def week(*days: str, at: str = "00:00") -> str:
    """Return the expression that fires each week on days like "mon" at a time like "08:00". Raises InvalidCron."""
    for one in days or (None,):
        if one not in DAYS:
            raise InvalidCron(f"day is {one!r}, allowed is one or several of {', '.join(DAYS)}.")
    return f"{_clock(at)} * * {','.join(days)}"


def month(day: int = 1, *, at: str = "00:00") -> str:
    """Return the expression that fires each month on this day, in those that have it, at a time like "08:00".

    Raises InvalidCron.
    """
    return f"{_clock(at)} {_whole(day, 'day', 1, 31)} * *"


def year(month: str, day: int = 1, *, at: str = "00:00") -> str:
    """Return the expression that fires each year in a month like "jan" on this day at a time like "08:00".

    Raises InvalidCron.
    """
    if month not in MONTHS:
        raise InvalidCron(f"month is {month!r}, allowed is one of {', '.join(MONTHS)}.")
    longest = LONGEST_MONTHS[MONTHS.index(month)]
    return f"{_clock(at)} {_whole(day, 'day', 1, longest)} {month} *"


def _clock(at: object) -> str:
    found = CLOCK.fullmatch(at) if isinstance(at, str) else None
    if found is None or int(found[1]) > 23 or int(found[2]) > 59:
        raise InvalidCron(f"at is {at!r}, allowed is a time from 00:00 to 23:59.")
    return f"{int(found[2])} {int(found[1])}"


def _divisor(count: object, what: str, of: int) -> int:
    divisors = [number for number in range(1, of) if of % number == 0]
    if isinstance(count, bool) or count not in divisors:
        raise InvalidCron(f"{what} is {count!r}, allowed is one of {', '.join(map(str, divisors))}.")
    assert isinstance(count, int)
    return count


def _whole(value: object, what: str, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidCron(f"{what} is {value!r}, allowed is {least} to {most}.")
    return value
