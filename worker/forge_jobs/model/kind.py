"""What programs declare of a kind of job: the options of its handler, and who answers for it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from forge_jobs.model.redaction import Redacted


class OnLost(StrEnum):
    """What becomes of a job whose worker was lost."""

    RETRY = "retry"  # the attempt counts, and the job waits as after a failure
    REFUND = "refund"  # the attempt does not count, as often as the job has attempts
    DEAD = "dead"  # it may have done what must not be done twice


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind as its row says. None: its handler says nothing, so the queue's or the general default holds."""

    kind: str
    queue: str | None = None
    priority: int | None = None
    max_attempts: int | None = None  # FOREVER: no end
    timeout: timedelta | None = None
    codec: str = "json"
    title: str | None = None  # for people
    owner: str | None = None  # who answers for it
    docs: str | None = None  # a link
    start_by: timedelta | None = None  # from when a job is due
    deadline: timedelta | None = None
    on_lost: str | None = None  # an OnLost, or one of a later release; None: RETRY
    redact: Redacted = False  # what is not shown of its jobs
    most_bytes: int | None = None  # of a payload that is merged; None: MAX_PAYLOAD
    sealed: bool = False  # whether its codec hides what it writes: no other one may be used then
    slots: int | None = None  # how many slots of its worker a job takes; None: one
    unpublished: tuple[
        str, ...
    ] = ()  # options that its handler says of each job, and whoever enqueues by name has to say
    declared_at: datetime | None = None  # when this was written, database clock
    declared_by: str | None = None  # the host and process that wrote it
