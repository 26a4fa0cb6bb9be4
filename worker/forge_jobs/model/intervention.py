"""What somebody did by hand, to a job or to something else."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from forge_jobs.model.job import State


class Deed(StrEnum):
    """What somebody did; those of operations are named as `Move` is."""

    CANCELLED = "cancelled"
    RETRIED = "retried"
    HURRIED = "run now"
    COMPLETED = "completed"
    FAILED = "failed"
    CHANGED = "changed"
    DELETED = "deleted"
    UNPINNED = "unpinned"
    PINNED = "pinned"  # to another version of the program
    MOVED = "moved"
    REPRIORITISED = "reprioritised"
    REMOVED = "removed"  # by its key
    SIGNALLED = "signalled"
    PAUSED = "paused"
    RESUMED = "resumed"
    GIVEN_UP = "given up"  # a worker
    EMPTIED = "emptied"  # a rate limit
    RESET = "reset"  # a key of a rate limit
    DISMISSED = "dismissed"  # an owner


@dataclass(frozen=True, slots=True)
class Intervention:
    """One deed, and who did it."""

    job_id: int | None  # None: it was done to something else
    at: datetime
    what: Deed
    by: str  # as that program said: a name that it was given, or its user and host
    role: str | None  # of the server; None: the database has none
    was: State | None  # before; None: not known
    becomes: State | None  # after it; None: the job is gone, or it is not known
    operation_id: int | None = None  # of which it was a part; None: of none
    subject: str | None = None  # to what it was done, like "queue mail" or "flow 7"; None: to the job
    note: str | None = None  # what else is known of it


MOST_OF_ONE = 100
"""So many deeds are kept of a job, the newest, besides those of operations."""
