"""Cooldowns: after a throttled job its queue gives no job to anybody for a while."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from forge_jobs.errors import StorageUnavailable
from forge_jobs.model.queue import QueueConfig
from forge_jobs.rules import backoff
from forge_jobs.rules.verdict import Verdict, wait_for_cooldown
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.storage.outage import Outage
from forge_jobs.telemetry.events import ChoreFailed, QueueCooled
from forge_jobs.telemetry.telemetry import Telemetry


class Cooldowns:
    """Begins cooldowns; `outage` is the caller's."""

    def __init__(self, storage: Storage, telemetry: Telemetry, outage: Outage) -> None:
        self._storage = storage
        self._telemetry = telemetry
        self._outage = outage

    async def begin(self, verdicts: Sequence[Verdict]) -> None:
        """The queues of throttled jobs cool down, and these jobs wait as long. The queues are read first,
        since other workers throttle them too. An outage of the database is waited for, however long it is.
        """
        throttled = [verdict for verdict in verdicts if verdict.throttled is not None]
        while throttled:
            try:
                queues = {queue.id: queue for queue in await self._storage.queues.all(closed=True)}
                now = await self._storage.now()
                while throttled:
                    await self._cool_down(throttled[-1], queues, now)
                    throttled.pop()
            except StorageUnavailable as error:
                await self._outage.wait(error)
            except Exception as error:  # the jobs wait all the same
                self._telemetry.emit(ChoreFailed("cooling a queue down", error, 0.0))
                wait_for_cooldown(throttled.pop(), backoff.THROTTLE_WITHOUT_BACKOFF)
            else:
                self._outage.over()

    async def _cool_down(self, verdict: Verdict, queues: Mapping[int, QueueConfig], now: datetime) -> None:
        assert verdict.throttled is not None
        queue = queues[verdict.run.claim.queue_id]
        cooldown = backoff.cooldown(queue, now, verdict.throttled.retry_after)
        await self._storage.queues.cool_down(queue.id, cooldown.delay, cooldown.throttles)
        self._telemetry.emit(QueueCooled(queue.name, cooldown.delay.total_seconds()))
        wait_for_cooldown(verdict, cooldown.delay)
