"""Bulk operations: changes of all jobs that match, made in steps."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from forge_jobs.model.operation import NewOperation, Operation

BATCH = 1_000
"""How many jobs are changed in one transaction, so that transactions are short and progress is seen."""

KEPT_FOR = timedelta(days=30)
"""For so long an operation that has ended is kept."""


# A step walks over the jobs that match, along an index from the front. A job is met once at most in a round: none that was
# enqueued, and no ended one that ended, after the operation was asked for. A job that another transaction has locked at that
# moment is not waited for.


class Operations(Protocol):
    """Operations as people ask for them, and as they are worked off."""

    async def add(self, operation: NewOperation) -> Operation:
        """The operation is there, with no step made; those that ended long ago are forgotten. Raises UnknownQueue."""

    async def get(self, operation_id: int) -> Operation:
        """Return the operation. Raises UnknownOperation."""

    async def all(self, *, limit: int = 100) -> list[Operation]:
        """Return operations, the newest first."""

    async def due(self) -> tuple[Sequence[int], timedelta | None]:
        """Return those whose next step is due, and how long until the next one of the others is (None: there is none)."""

    async def step(self, operation_id: int, *, limit: int = BATCH) -> Operation | None:
        """The next step is made: one transaction with up to `limit` jobs and the note of how far the operation is.

        So whoever makes the next one goes on where this one ended, however that was. Nothing happens while somebody else
        makes a step, before the next one is due, and when none is left: None. Return the operation. Raises KeyBusy as `Jobs.retry` does; then nothing was changed.
        """

    async def failed(self, operation_id: int, error: str) -> bool:
        """It is noted why the last step could not be made; the next one is due a second later. False: it was noted before."""

    async def cancel(self, operation_id: int, *, by: str | None = None) -> bool:
        """No further step is made; what was done stays done. False: none was left. Who did it is noted. Raises UnknownOperation."""
