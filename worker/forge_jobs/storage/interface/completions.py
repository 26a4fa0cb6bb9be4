"""Jobs that end, or wait again, in a transaction of their handler."""

from typing import Any, Protocol

from forge_jobs.model.completion import Completion, Fate
from forge_jobs.model.job import End, Postponement


class Completions(Protocol):
    """Completions of jobs in transactions that are the caller's to commit."""

    async def complete(self, end: End, *, connection: Any) -> int | None:
        """In the caller's transaction the job is done, with the result and the note of `end`.

        Return when the job had been claimed, in microseconds since the epoch; None when the claim was lost: then nothing was written. Whether the queue keeps the job is looked up.
        Until the transaction ends, nobody else can end the job or take it back; who takes many back passes over it.
        Raises InvalidInput for a connection that is in no transaction.
        """

    async def reschedule(self, postponement: Postponement, *, connection: Any) -> int | None:
        """In the caller's transaction the job waits again; as `complete`.

        A job that a user cancelled meanwhile, or whose key went to another, is dead instead.
        """

    async def fate(self, completion: Completion) -> Fate:
        """Return what became of the transaction, without waiting for one that has not ended where that is possible."""

    async def stands(self, completion: Completion, *, connection: Any) -> bool:
        """Return whether the completion is there as the caller's transaction sees it, in which the claim is not.

        A job that is gone, of a queue that keeps nothing, was completed if it is gone in this transaction only.
        """
