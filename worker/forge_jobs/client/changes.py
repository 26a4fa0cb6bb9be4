"""What may be said of a job that is changed."""

from datetime import datetime, timedelta

from forge_jobs.errors import InvalidInput
from forge_jobs.model.correction import Correction
from forge_jobs.model.job import FOREVER, LAST_ATTEMPT, Job
from forge_jobs.model.moments import as_duration, as_moment
from forge_jobs.model.unset import UNSET, Unset
from forge_jobs.rules import names
from forge_jobs.rules.checks import whole
from forge_jobs.rules.duration import checked_duration


def timeout_of(value: timedelta | float | None) -> timedelta | None:
    """Return the timeout of an attempt; None: no limit. Raises InvalidInput."""
    timeout = as_duration(value, "timeout")
    if timeout is not None and timeout <= timedelta(0):
        raise InvalidInput(f"timeout is {value!r}, allowed is more than zero, or None for no limit.")
    return timeout


def correction_of(
    queue: str | None,
    priority: int | None,
    attempts: int | None,
    max_attempts: int | Unset | None,
    timeout: timedelta | float | Unset | None,
    *,
    delay: timedelta | float | None,
    run_at: datetime | None,
) -> Correction:
    """Return what is changed, as `Jobs.change` says. Raises InvalidInput."""
    if delay is not None and run_at is not None:
        raise InvalidInput("delay and run_at are both given, allowed is one of them.")
    correction = Correction(
        queue=None if queue is None else names.queue(queue),
        priority=None if priority is None else names.priority(priority),
        attempts=None if attempts is None else whole(attempts, "attempts", least=0, most=LAST_ATTEMPT),
        max_attempts=None if isinstance(max_attempts, Unset) else names.max_attempts(max_attempts),
        timeout=UNSET if isinstance(timeout, Unset) else timeout_of(timeout),
        delay=None if delay is None else checked_duration(delay, "delay"),
        run_at=None if run_at is None else as_moment(run_at, "run_at"),
    )
    if correction == Correction():
        raise InvalidInput(
            "Nothing to change is given, allowed are "
            "queue, priority, attempts, max_attempts, timeout, and delay or run_at."
        )
    return correction


def check_attempts(job: Job, correction: Correction) -> None:
    """Raise InvalidInput when no attempt would be left, which no worker would notice."""
    most = job.max_attempts if correction.max_attempts is None else correction.max_attempts
    counted = job.attempt if correction.attempts is None else correction.attempts
    if most != FOREVER and counted >= most:
        raise InvalidInput(
            f"Job {job.id} would have {counted} attempts of {most}, allowed is at least one that is left."
        )
