"""What a handler may decide, raised from the handler.

Anything else that is raised is a failure, retried with the queue's backoff; what is
returned is the result. `attempt` turns these into what `storage` writes down.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any


def as_duration(value: timedelta | float | None, name: str) -> timedelta | None:
    """Return `value` (a timedelta, or seconds) as a timedelta that is not negative, or None.

    Raises ValueError when it is negative or neither of the two.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, timedelta | int | float):
        raise ValueError(f"{name} is {value!r}, allowed is a timedelta or seconds.")
    duration = value if isinstance(value, timedelta) else timedelta(seconds=value)
    if duration < timedelta(0):
        raise ValueError(f"{name} is {value!r}, allowed is zero or more.")
    return duration


class Decision(Exception):
    """The root of what a handler may decide; not itself raised."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # An exception is made again from its message; ours are made from more, and come out of processes.
        return _decided, (type(self), self.args, vars(self))


def _decided(decision: type[Decision], args: tuple[Any, ...], facts: dict[str, Any]) -> Decision:
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
        if at.tzinfo is None:
            raise ValueError(f"Reschedule.at is {at!r}, allowed is a datetime with a time zone.")
        self.at = at
        super().__init__(f"rescheduled to {at.isoformat()}")


class Throttled(Decision):
    """The world said "not so fast": run again after `retry_after`. Costs no attempt.

    The whole queue cools down until then, since its other jobs would hear the same.
    When None, the wait grows from the queue's backoff with each throttle in a row.
    """

    def __init__(self, retry_after: timedelta | float | None = None, reason: str = "throttled") -> None:
        self.retry_after = as_duration(retry_after, "Throttled.retry_after")
        self.reason = str(reason)
        super().__init__(reason)
