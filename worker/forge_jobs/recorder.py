"""The recorder: writes verdicts down, many at a time.

While one batch is on the wire the next gathers, so a busy worker writes large batches
and an idle one writes at once. A batch that the database did not answer is written
again: the guard of a claim makes that safe, whatever became of the first try.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from forge_jobs import backoff
from forge_jobs.attempt import Verdict, as_written
from forge_jobs.job import Claim, End, Postponement, Reason
from forge_jobs.patience import Patience
from forge_jobs.storage.interface import Storage
from forge_jobs.telemetry import ClaimsLost, JobsEnded, QueueCooled, Telemetry

LARGEST_BATCH = 1000

T = TypeVar("T")


class Recorder:
    """Takes verdicts from runners. `recorded(verdicts)` is called for each batch that the database knows."""

    def __init__(
        self, storage: Storage, telemetry: Telemetry, recorded: Callable[[Sequence[Verdict]], None]
    ) -> None:
        self._storage = storage
        self._telemetry = telemetry
        self._recorded = recorded
        self._gathered: list[Verdict] = []
        self._on_the_wire = 0
        self._arrived = asyncio.Event()
        self._patience = Patience("recording outcomes", telemetry)

    @property
    def pending(self) -> int:
        """Verdicts that the database does not know yet."""
        return len(self._gathered) + self._on_the_wire

    def add(self, verdict: Verdict) -> None:
        """The verdict will be written down."""
        self._gathered.append(verdict)
        if len(self._gathered) == 1:
            self._arrived.set()

    async def run(self) -> None:
        """Write verdicts down as they come, until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._gathered:
                await self._write_batch()

    async def flush(self) -> None:
        """Every verdict added so far is written down. Only when `run` no longer runs."""
        while self._gathered:
            await self._write_batch()

    async def _write_batch(self) -> None:
        batch = self._gathered[:LARGEST_BATCH]
        del self._gathered[:LARGEST_BATCH]
        self._on_the_wire = len(batch)
        try:
            await self._write(batch)
        except asyncio.CancelledError:
            self._gathered[:0] = batch  # `flush` writes them again, which does no harm
            raise
        finally:
            self._on_the_wire = 0

    async def _write(self, batch: Sequence[Verdict]) -> None:
        if any(verdict.throttled is not None for verdict in batch):
            await self._again(lambda: self._cool_down(batch))
        ends = [verdict.write for verdict in batch if type(verdict.write) is End]
        lost: list[int] = []
        claims = self._storage.claims
        if ends:
            lost += await self._again(lambda: claims.finish(ends))
        if len(ends) < len(batch):
            postponed = [verdict.write for verdict in batch if type(verdict.write) is Postponement]
            released = [verdict.write for verdict in batch if type(verdict.write) is Claim]
            if postponed:
                lost += await self._again(lambda: claims.postpone(postponed))
            if released:
                lost += await self._again(lambda: claims.release(released))
            for verdict in batch:
                verdict.run = as_written(verdict)
        self._recorded(batch)
        runs = [verdict.run for verdict in batch]
        if lost:
            dropped = set(lost)
            runs = [run for run in runs if run.claim.job_id not in dropped]
            self._telemetry.emit(ClaimsLost(lost))
        if runs:
            self._telemetry.emit(JobsEnded(runs))

    async def _cool_down(self, batch: Sequence[Verdict]) -> None:
        """Say until when the throttled jobs and their queues wait; the rows are read, since others throttle too."""
        queues = {queue.id: queue for queue in await self._storage.queues.all()}
        now = await self._storage.now()
        for verdict in batch:
            if verdict.throttled is None or not isinstance(verdict.write, Postponement):
                continue
            queue = queues[verdict.write.claim.queue_id]
            throttles = backoff.throttles_in_a_row(queue, now)
            delay = backoff.throttle_delay(queue, throttles, verdict.throttled.retry_after)
            verdict.write = Postponement(verdict.write.claim, Reason.THROTTLED, delay, counted=False)
            await self._storage.queues.cool_down(queue.id, delay, throttles)
            self._telemetry.emit(QueueCooled(queue.name, delay.total_seconds()))

    async def _again(self, write: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                answer = await write()
            except Exception as error:  # a verdict must not be lost, whatever went wrong
                await self._patience.wait(error)
            else:
                self._patience.over()
                return answer
