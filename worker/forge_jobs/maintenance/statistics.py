"""Statistics: what processes have handed in is added up."""

import time

from forge_jobs.maintenance.loop import breather
from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.storage.interface.statistics import RunStatistics

BATCH = 10_000


async def add_up(statistics: RunStatistics, epoch: LeaderEpoch) -> float | None:
    """Make one pass; return when the next should come if there is more."""
    began = time.monotonic()
    added = await statistics.add_up(epoch=epoch, limit=BATCH)
    return breather(began) if added >= BATCH else None
