"""The history of a job: what the database still knows of it, moment by moment."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Happened(StrEnum):
    """What happened to a job at a moment."""

    ENQUEUED = "enqueued"
    DUE = "due"  # when it is to run next
    STEP = "step"  # its handler has done one
    SLEPT = "slept"  # its handler has begun to sleep
    PROGRESS = "progress"  # the last that its handler reported
    FAILED = "failed"  # an attempt, or its worker was lost
    CLAIMED = "claimed"  # by the worker that has it now
    CANCEL_REQUESTED = "cancel requested"
    BY_HAND = "by hand"  # somebody did something to it
    STARTED = "started"  # its last attempt
    DONE = "done"
    DEAD = "dead"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One line of a job's history. None: it does not apply, or is not known."""

    at: datetime
    what: Happened
    attempt: int | None = None
    worker: str | None = None  # the worker's label
    note: str | None = None
    by: str | None = None  # who did it by hand
