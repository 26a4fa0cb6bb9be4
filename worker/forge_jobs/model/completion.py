"""Completion of a job in a transaction of its handler: what was written there, and what became of that."""

from enum import StrEnum

import msgspec

from forge_jobs.model.run import Outcome


class Completion(msgspec.Struct, frozen=True, gc=False):
    """What an attempt has written of its own job in a transaction that is not ours.

    The ids prove the claim, and `claimed_at` tells it from a later one: a job that was rescheduled gives its attempt
    back, and may come to the same worker again.
    """

    job_id: int
    worker_id: int
    attempt: int
    claimed_at: (
        int | None
    )  # microseconds since the epoch, database clock; None: the statement was not answered
    outcome: Outcome  # DONE or RESCHEDULED


class Fate(StrEnum):
    """What became of the transaction in which a job was completed."""

    COMMITTED = "committed"
    CANCELLED = "cancelled"  # committed; a user had cancelled the job, or it lost its key: it is dead instead of scheduled
    OVERDUE = "overdue"  # committed; it was to be scheduled for after its deadline: it is dead instead
    UNDONE = "undone"  # rolled back, the whole or a savepoint of it; the claim holds
    OPEN = "open"  # neither
    LOST = "lost"  # rolled back, and the claim was taken back since

    @property
    def stands(self) -> bool:
        """Whether the transaction was committed."""
        return self in (Fate.COMMITTED, Fate.CANCELLED, Fate.OVERDUE)
