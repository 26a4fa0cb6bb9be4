"""The result of one attempt."""

from enum import StrEnum

import msgspec

from forge_jobs.model.job import Claim


class Outcome(StrEnum):
    """How one attempt ended, for counting."""

    DONE = "done"
    FAILED = "failed"  # will be retried
    DEAD = "dead"
    CANCELLED = "cancelled"  # dead, because a user cancelled it
    EXPIRED = "expired"  # the job was not begun in time, and its handler not called
    SUPERSEDED = "superseded"  # dead, because its key went to another job, or was removed
    THROTTLED = "throttled"
    RESCHEDULED = "rescheduled"
    HANDED_BACK = "handed_back"  # the attempt is not counted
    LOST = "lost"  # its worker was lost


class Run(msgspec.Struct, frozen=True, gc=False):
    """One attempt that ended."""

    claim: Claim
    queue: str
    outcome: Outcome
    wait: float  # seconds from ready to handler start
    duration: float  # seconds that the handler ran
    error: str | None = None
    retry_in: float | None = None  # seconds
    timed_out: bool = False
    is_grave: bool = False  # a failure that is more than a warning, as its handler says
    counts_anew: bool = False  # as a first attempt, since it ran well for long
    counted: bool = True  # False: it was handed back, and its job ended since its time was over
