"""What a program may say of the time limits of its jobs."""

from datetime import datetime, timedelta

from forge_jobs.errors import InvalidInput
from forge_jobs.model.moments import as_moment
from forge_jobs.model.time_limit import Limit
from forge_jobs.rules.duration import checked_duration, in_words
from forge_jobs.rules.words import to_the_second


def limit(value: object, name: str) -> Limit | None:
    """Return a moment as it is, and timedelta or seconds as a timedelta. Raises InvalidInput."""
    if value is None:
        return None
    if isinstance(value, datetime):
        return as_moment(value, name)
    duration = checked_duration(value, name)
    if not duration:
        raise InvalidInput(f"{name} is {value!r}, allowed is more than 0 s, or a moment.")
    return duration


def duration(value: object, name: str) -> timedelta | None:
    """Return timedelta or seconds as a timedelta: a moment is no limit of jobs that come again and again.

    Raises InvalidInput.
    """
    known = limit(value, name)
    if isinstance(known, datetime):
        raise InvalidInput(f"{name} is {value!r}, allowed is a timedelta or a number of seconds.")
    return known


def check(
    run_at: datetime | None, delay_ends: datetime | None, start_by: Limit | None, deadline: Limit | None
) -> None:
    """Raise InvalidInput when no attempt can be in time, as far as that is known."""
    for name, value in (("start_by", start_by), ("deadline", deadline)):
        if isinstance(value, datetime) and run_at is not None and value <= run_at:
            raise InvalidInput(
                f"{name} is {to_the_second(value)}, allowed is a moment after run_at, which is {to_the_second(run_at)}."
            )
        if isinstance(value, datetime) and delay_ends is not None and value <= delay_ends:
            raise InvalidInput(
                f"{name} is {to_the_second(value)}, "
                f"allowed is a moment after the delay, which ends at {to_the_second(delay_ends)}."
            )
    if isinstance(start_by, datetime) and isinstance(deadline, datetime) and deadline <= start_by:
        raise InvalidInput(
            f"deadline is {to_the_second(deadline)}, "
            f"allowed is a moment after start_by, which is {to_the_second(start_by)}."
        )
    if isinstance(start_by, timedelta) and isinstance(deadline, timedelta) and deadline <= start_by:
        raise InvalidInput(
            f"deadline is {in_words(deadline)}, allowed is more than start_by, which is {in_words(start_by)}."
        )
