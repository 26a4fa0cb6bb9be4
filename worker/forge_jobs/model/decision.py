"""What a handler may decide, raised from the handler.

Anything else that is raised is a failure, retried with the queue's backoff; what is
returned is the result. `attempt` turns these into what `storage` writes down.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from forge_jobs.errors import InvalidInput
from forge_jobs.model.moments import as_duration, as_moment

T = TypeVar("T")


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


def asked(checked: Callable[[Any, str], T], decision: BaseException, name: str) -> T | None:
    """Return the value that a decision asks for; None when it has none, as a subclass may, or one that is not allowed."""
    try:
        return checked(getattr(decision, name), name)
    except BaseException:
        return None


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
    """Nothing failed; run the job again at `at` (an aware datetime), after `after` (a timedelta or seconds), or now.

    The next run is a first attempt: those so far count no more. Raises InvalidInput when both are given.
    """

    def __init__(self, at: datetime | None = None, *, after: timedelta | float | None = None) -> None:
        if at is not None and after is not None:
            raise InvalidInput("Reschedule is given at and after, allowed is one of them.")
        self.at = None if at is None else as_moment(at, "Reschedule.at")
        self.after = as_duration(0 if at is None and after is None else after, "Reschedule.after")
        super().__init__(
            f"rescheduled to {self.at.isoformat()}" if self.at else f"rescheduled in {self.after}"
        )


class Throttled(Decision):
    """The world said "not so fast": run again after `retry_after`. Costs no attempt.

    The whole queue cools down until then, since its other jobs would hear the same.
    When None, the wait grows from the queue's backoff with each throttle in a row.
    """

    def __init__(self, retry_after: timedelta | float | None = None, reason: str = "throttled") -> None:
        self.retry_after = as_duration(retry_after, "Throttled.retry_after")
        self.reason = str(reason)
        super().__init__(reason)


class AwaitsTurn(Decision):
    """The job runs again at `at`, when its turn has come. Costs no attempt, and no other job is held up.

    Raised by `ctx.rate_limit.acquire` with a key, not by handlers.
    """

    def __init__(self, at: datetime, reason: str) -> None:
        self.at = as_moment(at, "AwaitsTurn.at")
        self.reason = str(reason)
        super().__init__(f"waits until {self.at.isoformat()}: {reason}")


class NoSignal(Dead, TimeoutError):
    """What a handler waited for did not come in time. Each attempt of the job is told so at this place, so it is dead where its
    handler lets this through.

    Raised by `ctx.wait_for` and its like, not by handlers.
    """


class CircularWait(Dead):
    """The job for whose end a handler waits waits for the end of this one, itself or by others: neither would ever end. Each attempt is
    told so at this place, so the job is dead where its handler lets this through.

    Raised by `ctx.wait_for_job`, not by handlers.
    """


class Asleep(BaseException):
    """The job runs again at `until`, when a sleep of its handler ends; None: when what it waits for in the step ends that. Costs no attempt.

    Raised by `ctx.sleep` and `ctx.wait_for`, not by handlers, and no Exception: a handler that catches those does not catch it.
    """

    def __init__(self, until: datetime | None, name: str) -> None:
        self.until = until
        self.name = name
        super().__init__(
            f"waits in step {name!r}"
            if until is None
            else f"sleeps in step {name!r} until {until.isoformat()}"
        )

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Asleep, (self.until, self.name)


class ItemsLeft(Decision):
    """Some items of the job have failed. `then` says what becomes of it: Dead, Retry, Throttled, Reschedule or AwaitsTurn.

    Its payload is `payload` from now on, or `if_dead` when it is dead; None: as it was. Raised for handlers that take a
    list, not by them.
    """

    def __init__(self, then: Decision, payload: bytes | None, if_dead: bytes | None) -> None:
        self.then = then
        self.payload = payload
        self.if_dead = if_dead
        super().__init__(str(then))


class HandedBack(Decision):
    """Who stops the worker told what the handler had started to end, too: the job is pending again, as if not begun.

    Only for what comes with the worker: it would claim such a job again at once if it did not stop.
    """


DECISIONS: tuple[type[Decision], ...] = (Dead, Retry, Reschedule, Throttled, HandedBack)
