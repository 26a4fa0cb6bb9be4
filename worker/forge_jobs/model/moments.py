"""Durations and moments that a program may give."""

from datetime import UTC, datetime, timedelta

from forge_jobs.errors import InvalidInput

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

LONGEST = timedelta(days=365_000)
"""No duration is longer, so that every moment that is made with one can be written down."""


EARLIEST, LATEST = datetime(2, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
"""What is beyond these becomes these: in every time zone they are moments, and to no database "for ever"."""


def as_duration(value: timedelta | float | None, name: str) -> timedelta | None:
    """Return `value` (a timedelta, or seconds) as a timedelta from zero to LONGEST, or None.

    Raises InvalidInput when it is none of these.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, timedelta | int | float):
        raise InvalidInput(f"{name} is {value!r}, allowed is a timedelta or seconds.")
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not 0 <= seconds <= LONGEST.total_seconds():  # neither is what is not a number
        raise InvalidInput(f"{name} is {value!r}, allowed is zero to {LONGEST.days:,} days.")
    return value if isinstance(value, timedelta) else timedelta(seconds=value)


def stored_duration(seconds: float | None) -> timedelta | None:
    """Return what a database holds as a number of seconds; what others wrote there that is too long is LONGEST."""
    return None if seconds is None else timedelta(seconds=min(seconds, LONGEST.total_seconds()))


def as_moment(value: object, name: str) -> datetime:
    """Return `value` in UTC, at least EARLIEST and at most LATEST. Raises InvalidInput when it has no time zone."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InvalidInput(f"{name} is {value!r}, allowed is a datetime with a time zone.")
    if value.year < EARLIEST.year:
        return EARLIEST
    return LATEST if value.year >= LATEST.year else value.astimezone(UTC)
