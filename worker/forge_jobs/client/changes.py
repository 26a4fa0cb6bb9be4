"""What may be said of a job that is changed."""

from datetime import timedelta

from forge_jobs.errors import InvalidInput
from forge_jobs.model.correction import Correction
from forge_jobs.model.job import FOREVER, Job
from forge_jobs.model.moments import as_duration


def timeout_of(value: timedelta | float | None) -> timedelta | None:
    """Return the timeout of an attempt; None: no limit. Raises InvalidInput."""
    timeout = as_duration(value, "timeout")
    if timeout is not None and timeout <= timedelta(0):
        raise InvalidInput(f"timeout is {value!r}, allowed is more than zero, or None for no limit.")
    return timeout


def check_attempts(job: Job, correction: Correction) -> None:
    """Raise InvalidInput when no attempt would be left, which no worker would notice."""
    most = job.max_attempts if correction.max_attempts is None else correction.max_attempts
    counted = job.attempt if correction.attempts is None else correction.attempts
    if most != FOREVER and counted >= most:
        raise InvalidInput(
            f"Job {job.id} would have {counted} attempts of {most}, allowed is at least one that is left."
        )
