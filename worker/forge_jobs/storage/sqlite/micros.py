"""Time as SQLite keeps it here: whole microseconds, since the epoch for moments."""

from datetime import UTC, datetime, timedelta
from typing import overload

from forge_jobs.model.moments import EPOCH, MICROSECOND

LAST = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
"""The latest moment that Python can read back; what would be later becomes this."""


@overload
def micros(value: datetime | timedelta) -> int: ...
@overload
def micros(value: datetime | timedelta | None) -> int | None: ...
def micros(value: datetime | timedelta | None) -> int | None:
    """Return a moment or a duration in microseconds, at most LAST."""
    if value is None:
        return None
    return min(((value - EPOCH) if isinstance(value, datetime) else value) // MICROSECOND, LAST)


@overload
def moment(value: int) -> datetime: ...
@overload
def moment(value: int | None) -> datetime | None: ...
def moment(value: int | None) -> datetime | None:
    """Return microseconds since the epoch as an aware datetime."""
    return None if value is None else EPOCH + timedelta(microseconds=value)


@overload
def duration(value: int) -> timedelta: ...
@overload
def duration(value: int | None) -> timedelta | None: ...
def duration(value: int | None) -> timedelta | None:
    """Return microseconds as a timedelta."""
    return None if value is None else timedelta(microseconds=value)


def later(now: int, delay: timedelta) -> int:
    """Return the moment `delay` after `now`, at most LAST."""
    return min(now + micros(delay), LAST)
