"""Statistics: what processes have handed in is added up."""

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.storage.interface.statistics import RunStatistics

BATCH = 10_000
PAUSE_BETWEEN_BATCHES = 0.05  # seconds


async def add_up(statistics: RunStatistics, epoch: LeaderEpoch) -> float | None:
    """Make one pass; return when the next should come if there is more."""
    added = await statistics.add_up(epoch=epoch, limit=BATCH)
    return PAUSE_BETWEEN_BATCHES if added >= BATCH else None
