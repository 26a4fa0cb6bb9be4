"""Queues that are deleted."""

from typing import Protocol

from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.model.queue import QueueConfig


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

    async def open(self, queue: QueueConfig) -> bool:
        """The closed queue has its name again, that of `queue`; False when another queue has got it meanwhile."""

    async def erase(self, queue_id: int) -> bool:
        """The queue is gone with its slots and counts; False while it has a job or a cron."""
