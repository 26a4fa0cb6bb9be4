"""What somebody did to a job by hand."""

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
    MOVED = "moved"
    REPRIORITISED = "reprioritised"


@dataclass(frozen=True, slots=True)
class Intervention:
    """One deed, and who did it."""

    job_id: int
    at: datetime
    what: Deed
    by: str  # as that program said: a name that it was given, or its user and host
    role: str | None  # of the server; None: the database has none
    was: State  # before
    becomes: State | None  # after it; None: the job is gone
    operation_id: int | None = None  # of which it was a part; None: of none
