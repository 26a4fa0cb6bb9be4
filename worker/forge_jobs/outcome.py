"""What a handler may decide, raised from the handler.

Anything else that is raised is a failure, retried with the queue's backoff; what is
returned is the result. `attempt` turns these into what `storage` writes down.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from forge_jobs.errors import InvalidInput

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


def as_moment(value: datetime, name: str) -> datetime:
    """Return `value` in UTC, at least EARLIEST and at most LATEST. Raises InvalidInput when it has no time zone."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InvalidInput(f"{name} is {value!r}, allowed is a datetime with a time zone.")
    if value.year < EARLIEST.year:
        return EARLIEST
    return LATEST if value.year >= LATEST.year else value.astimezone(UTC)


class Decision(Exception):
    """The root of what a handler may decide; not itself raised."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # An exception is made again from its message; ours are made from more, and come out of processes.
        return decided, (type(self), self.args, vars(self))


def decided(decision: type[Decision], args: tuple[Any, ...], facts: dict[str, Any]) -> Decision:
    """Return the decision that has these facts."""
    made = decision.__new__(decision, *args)
    made.args = args
    vars(made).update(facts)
    return made


class Dead(Decision):
    """The job can never succeed: it is dead at once, whatever attempts are left."""

    def __init__(self, reason: str = "given up by its handler") -> None:
        self.reason = str(reason)
        super().__init__(reason)


class Retry(Decision):
    """This attempt failed; run again after `after`, or after the queue's backoff when None.

    Costs an attempt: at the last one the job is dead.
    """

    def __init__(
        self, after: timedelta | float | None = None, reason: str = "retry asked for by its handler"
    ) -> None:
        self.after = as_duration(after, "Retry.after")
        self.reason = str(reason)
        super().__init__(reason)


class Reschedule(Decision):
    """Nothing failed; run the job again at `at` (an aware datetime). Costs no attempt."""

    def __init__(self, at: datetime) -> None:
        self.at = as_moment(at, "Reschedule.at")
        super().__init__(f"rescheduled to {self.at.isoformat()}")


class Throttled(Decision):
    """The world said "not so fast": run again after `retry_after`. Costs no attempt.

    The whole queue cools down until then, since its other jobs would hear the same.
    When None, the wait grows from the queue's backoff with each throttle in a row.
    """

    def __init__(self, retry_after: timedelta | float | None = None, reason: str = "throttled") -> None:
        self.retry_after = as_duration(retry_after, "Throttled.retry_after")
        self.reason = str(reason)
        super().__init__(reason)


class HandedBack(Decision):
    """Who stops the worker told what the handler had started to end, too: the job is pending again, as if not begun.

    Only for what comes with the worker: it would claim such a job again at once if it did not stop.
    """


DECISIONS: tuple[type[Decision], ...] = (Dead, Retry, Reschedule, Throttled, HandedBack)
