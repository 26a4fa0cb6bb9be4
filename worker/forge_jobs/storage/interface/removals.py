"""Queues that are deleted."""

from collections.abc import AsyncIterator
from typing import Protocol

from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.model.facts import Moved
from forge_jobs.model.job import State
from forge_jobs.model.queue import QueueConfig
from forge_jobs.storage.interface.operations import BATCH


class Removals(Protocol):
    """How a queue goes: it is closed, its jobs are moved or deleted in batches, and it is erased; or it is opened again."""

    async def close(
        self,
        name: str,
        *,
        crons_to: str | None = None,
        drop_crons: bool = False,
        managed_by: str | None = None,
        epoch: OperatorEpoch | None = None,
    ) -> QueueConfig:
        """No job comes to the queue any more and none is claimed; workers are told. Return the queue as it was.

        Its name is `names.closed_queue` until it is erased or opened, so that nobody finds it. Its
        crons, and kinds that are declared for it, are of `crons_to` from now on; or its crons are gone. Transactions that began
        before, and may enqueue to it, are waited for. Raises UnknownQueue, Managed, QueueInUse: a cron enqueues to it
        and may neither be moved nor dropped, or such a transaction does not end; then the queue is open again.
        """

    def empty(
        self, queue: str, state: State, *, last: int, into: str | None = None, limit: int = BATCH
    ) -> AsyncIterator[Moved]:
        """The jobs of the queue in this state, which is not in progress, are deleted, or are jobs of `into`, at their old places.

        Each batch of up to `limit` is one transaction, and is done when it is yielded; whoever stops and begins again goes
        on. A job is met once at most: none with an id above `last`, and no ended one that ended after the call. A job that
        another transaction has locked at that moment is not waited for; it is counted as `locked`. Raises UnknownQueue.
        """

    async def open(self, queue: QueueConfig) -> bool:
        """The closed queue has its name again, that of `queue`; False when another queue has got it meanwhile."""

    async def erase(self, queue_id: int, *, name: str | None = None, by: str | None = None) -> bool:
        """The queue, which had this name, is gone with its slots and counts; False while it has a job or a cron."""
