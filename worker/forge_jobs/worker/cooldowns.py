"""Cooldowns: after a throttled job its queue gives no job to anybody for a while."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from forge_jobs.errors import StorageBusy, StorageUnavailable
from forge_jobs.model.queue import QueueConfig
from forge_jobs.rules import backoff
from forge_jobs.rules.verdict import Verdict, wait_for_cooldown
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.storage.outage import Outage
from forge_jobs.telemetry.events import ChoreFailed, QueueCooled
from forge_jobs.telemetry.telemetry import Telemetry

PATIENCE = 1.0  # seconds for which outcomes wait until the queues of throttled jobs cool down
SHORTEST = timedelta(seconds=1)


class Cooldowns:
    """Begins cooldowns; `outage` is the caller's."""

    def __init__(self, storage: Storage, telemetry: Telemetry, outage: Outage) -> None:
        self._storage = storage
        self._telemetry = telemetry
        self._outage = outage

    async def begin(self, verdicts: Sequence[Verdict]) -> None:
        """The queues of throttled jobs cool down, and these jobs wait as long. The queues are read first,
        since other workers throttle them too. An outage of the database is waited for, however long it is; a row that
        somebody has locked, or a connection that others use, is not, since other outcomes wait for this one.
        """
        throttled = [verdict for verdict in verdicts if verdict.throttled is not None]
        while throttled:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._begin(throttled)
            except (TimeoutError, StorageBusy) as error:
                why = str(error) or f"The database did not answer within {PATIENCE:g} s."
                self._telemetry.emit(ChoreFailed("cooling a queue down", StorageBusy(why), 0.0))
                while throttled:
                    _wait(throttled.pop())
            except StorageUnavailable as error:
                await self._outage.wait(error)
            except Exception as error:  # the jobs wait all the same
                self._telemetry.emit(ChoreFailed("cooling a queue down", error, 0.0))
                _wait(throttled.pop())
            else:
                self._outage.over()

    async def _begin(self, throttled: list[Verdict]) -> None:
        queues = {queue.id: queue for queue in await self._storage.queues.all(closed=True)}
        now = await self._storage.now()
        while throttled:
            await self._cool_down(throttled[-1], queues, now)
            throttled.pop()

    async def _cool_down(self, verdict: Verdict, queues: Mapping[int, QueueConfig], now: datetime) -> None:
        assert verdict.throttled is not None
        queue = queues[verdict.run.claim.queue_id]
        cooldown = backoff.cooldown(queue, now, verdict.throttled.retry_after)
        await self._storage.queues.cool_down(queue.id, cooldown.delay, cooldown.throttles)
        self._telemetry.emit(QueueCooled(queue.name, cooldown.delay.total_seconds()))
        wait_for_cooldown(verdict, cooldown.delay)


def _wait(verdict: Verdict) -> None:
    """The job waits, although its queue does not cool down."""
    after = None if verdict.throttled is None else verdict.throttled.retry_after
    wait_for_cooldown(verdict, backoff.THROTTLE_WITHOUT_BACKOFF if after is None else max(after, SHORTEST))
