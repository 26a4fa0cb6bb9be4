"""The scouts: looks from the very beginning of a queue, for jobs that stand before its hints.

They change nothing and go beside the claims. Each rests for many times as long as it took, and one
worker sends one at a time, so that however many queues it serves they cost it the same small share.
"""

import asyncio
import time
from collections.abc import Callable
from math import inf

from forge_jobs.storage.interface.claims import Claims
from forge_jobs.storage.outage import Outage
from forge_jobs.system.own_task import OwnTask
from forge_jobs.telemetry.telemetry import Telemetry
from forge_jobs.worker.served_queue import ServedQueue

SCOUT_EVERY = 0.25  # seconds between scouts of a queue
SCOUT_WHILE_ANEW_EVERY = 60.0  # ... where looks begin at the beginning as well, if that still costs little
SCOUT_SHARE = 20  # ... and between any two of a worker so many times what the first one took


class Scouts:
    """Of one worker. `found(queue_id)` is called when jobs stand before the queue's hints. Moments are monotonic seconds."""

    def __init__(
        self, claims: Claims, telemetry: Telemetry, worker_id: int, found: Callable[[int], None]
    ) -> None:
        self._claims = claims
        self._worker_id = worker_id
        self._telemetry = telemetry
        self._found = found
        self._outages: dict[int, Outage] = {}  # by queue; of those whose last scout failed
        self._turn = asyncio.Lock()
        self._rested_at = 0.0  # when the next one may set out, to whichever queue
        self._tasks: dict[
            int, asyncio.Task[None]
        ] = {}  # by queue; one that waits for its turn, or is on its way

    def send(self, queue: ServedQueue) -> None:
        """A scout sets out to the queue as soon as it is worth its cost; one that waits for that is enough. None does where looks
        begin at the beginning themselves, but now and then.
        """
        if queue.begins_anew and time.monotonic() < queue.scouted_at + SCOUT_WHILE_ANEW_EVERY:
            return
        task = self._tasks.get(queue.id)
        if task is None or task.done():
            self._tasks[queue.id] = OwnTask(
                self._scout(queue), self._telemetry, name=f"scout of {queue.name}"
            )

    async def close(self) -> None:
        """No scout is on its way, and none waits."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _scout(self, queue: ServedQueue) -> None:
        await _until(queue.scout_at)
        try:
            async with self._turn:
                await _until(self._rested_at)
                is_before = await self._look(queue)
        except Exception as error:  # the looks go on meanwhile, and so do the scouts of other queues
            doing = f"looking for jobs of queue {queue.name} out of turn"
            await self._outages.setdefault(queue.id, Outage(doing, self._telemetry)).wait(error)
            return
        if outage := self._outages.pop(queue.id, None):
            outage.over()
        if is_before:
            self._found(queue.id)

    async def _look(self, queue: ServedQueue) -> bool:
        """Return whether jobs stand before the queue's hints. However it ends, a rest follows."""
        now = time.monotonic()
        scout = queue.hints.set_out()
        queue.scout_took = inf  # unless it comes back, nothing is known of what it costs
        try:
            front = await self._claims.front(
                queue.id,
                without_kinds=queue.left_alone_now(now),
                without_pinned_of=self._worker_id if now < queue.pinned_alone_until else None,
            )
            queue.scout_took = time.monotonic() - now
        finally:
            after = queue.scouted_at = time.monotonic()
            self._rested_at = after + SCOUT_SHARE * (after - now)
            queue.scout_at = max(after + SCOUT_EVERY, self._rested_at)
        return queue.hints.scouted(front, scout)


async def _until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.monotonic()))
