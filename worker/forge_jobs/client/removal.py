"""Deleting a queue: it is closed, so that nothing comes to it any more, emptied in batches, and erased.

Until it is erased it can be opened again, and it is when a job or cron is found that must not be lost. A
deletion that is interrupted goes on when it is asked for again.
"""

from contextlib import suppress
from dataclasses import replace

from forge_jobs.client.acting import who_acts, who_is_named
from forge_jobs.client.operations import Bulk, Progress
from forge_jobs.client.patience import Patience
from forge_jobs.errors import ForgeError, InvalidInput, QueueInUse, UnknownQueue
from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.model.job import State
from forge_jobs.model.queue import DEFAULT_QUEUE, QueueConfig
from forge_jobs.rules import names
from forge_jobs.rules.operations import LOCKED_FOR
from forge_jobs.storage.interface.storage import Storage

MOVED = tuple(state for state in State if state is not State.IN_PROGRESS)
KEPT = tuple(state for state in State if state is not State.DONE)
"""The states of jobs that are deleted with their queue only on request."""


class Removal:
    """One deletion of a queue: what becomes of its jobs, and who is told of its progress."""

    def __init__(
        self, storage: Storage, name: str, move_to: str | None, drop: bool, progress: Progress | None
    ) -> None:
        self._storage = storage
        self._name = name
        self._move_to = move_to
        self._drop = drop
        self._progress = progress
        self._bulk = Bulk()
        self._by: str | None = None  # whose name is noted; None: nobody's

    async def preview(self) -> dict[State, int]:
        """Return how many jobs in which states would be moved or deleted. Raises as `Queues.delete`."""
        queues = await self._checked()
        for queue in queues:
            await self._refuse_if_used(queue.name)
        return {
            state: sum([await self._storage.jobs.count(state, queue=queue.name) for queue in queues])
            for state in MOVED
        }

    async def run(self, *, managed_by: str | None, epoch: OperatorEpoch | None) -> Bulk:
        """The queue is deleted; return how many jobs were moved or deleted. Raises as `Queues.delete`."""
        self._by = who_acts() if managed_by is None else who_is_named()
        for queue in await self._checked():
            await self._remove(queue, managed_by, epoch)
        return self._bulk

    async def _remove(self, queue: QueueConfig, managed_by: str | None, epoch: OperatorEpoch | None) -> None:
        await self._refuse_if_used(queue.name)
        closed = await self._storage.removals.close(
            queue.name, crons_to=self._move_to, drop_crons=self._drop, managed_by=managed_by, epoch=epoch
        )
        name = names.closed_queue(closed)
        patience = Patience(LOCKED_FOR.total_seconds())
        try:
            while True:
                await self._refuse_if_used(name)
                locked = await self._empty(name)
                if await self._storage.removals.erase(closed.id, name=self._name, by=self._by):
                    return
                if locked and not await patience.is_left():
                    raise QueueInUse(self._name, f"another transaction keeps {locked:,} of its jobs locked")
        except BaseException:
            with suppress(ForgeError):  # else it stays closed, and the deletion can be asked for again
                await self._open(closed)
            raise

    async def _checked(self) -> list[QueueConfig]:
        """Return the queue, after those of its name whose deletion was interrupted. Raises InvalidInput, UnknownQueue."""
        all = await self._storage.queues.all(closed=True)
        queues = {queue.name: queue for queue in all if not names.is_closed(queue)}
        for wanted in (self._name, *([self._move_to] if self._move_to is not None else [])):
            names.queue(wanted)
        if self._move_to is not None and self._move_to not in queues:
            raise UnknownQueue(self._move_to, queues)
        if self._move_to is not None and self._drop:
            raise InvalidInput("Both move_to and drop are given, allowed is one of them.")
        if self._move_to == self._name:
            raise InvalidInput(f"The queue to move to is {self._move_to!r}, allowed is another queue.")
        if self._name == DEFAULT_QUEUE:
            raise InvalidInput(
                f"Queue {DEFAULT_QUEUE!r} cannot be deleted: jobs that name no queue go there."
            )
        queues_of_name = [
            queue for queue in all if queue.name == names.closed_queue(replace(queue, name=self._name))
        ] + [queue for queue in all if queue.name == self._name and not names.is_closed(queue)]
        if not queues_of_name:
            raise UnknownQueue(self._name, queues)
        return queues_of_name

    async def _refuse_if_used(self, name: str) -> None:
        """Raise QueueInUse when a job of the queue `name` runs, or a job or cron may neither be moved nor deleted."""
        running = await self._storage.jobs.find(state=State.IN_PROGRESS, queue=name, limit=1)
        if running:
            raise QueueInUse(
                self._name,
                "one of its jobs is in progress; pause the queue, and wait for the job or cancel it",
            )
        if self._move_to is not None or self._drop:
            return
        if crons := [cron.name for cron in await self._storage.crons.all() if cron.queue == name]:
            raise QueueInUse(
                self._name, f"cron {crons[0]!r} enqueues to it; say where to move it, or that it is dropped"
            )
        counts = {state: await self._storage.jobs.count(state, queue=name) for state in KEPT}
        if any(counts.values()):
            shown = ", ".join(f"{number:,} {state.value}" for state, number in counts.items() if number)
            raise QueueInUse(
                self._name, f"it has jobs ({shown}); say where to move them, or that they are dropped"
            )

    async def _empty(self, name: str) -> int:
        """The jobs of the queue `name` are moved or deleted; return how many are not, since another transaction has them locked."""
        locked = 0
        last = await self._storage.jobs.newest()
        for state in MOVED if self._move_to is not None or self._drop else (State.DONE,):
            async for moved in self._storage.removals.empty(name, state, last=last, into=self._move_to):
                locked += moved.locked
                self._bulk = self._bulk.and_then(replace(moved, locked=0), state)
                if self._progress is not None:
                    self._progress(self._bulk)
        return locked

    async def _open(self, closed: QueueConfig) -> None:
        """The queue is as it was. If a new queue of its name was made meanwhile, that one gets the jobs
        that are left."""
        if not await self._storage.removals.open(closed):
            self._move_to, self._drop = closed.name, False
            await self._empty(names.closed_queue(closed))
            await self._storage.removals.erase(closed.id)
