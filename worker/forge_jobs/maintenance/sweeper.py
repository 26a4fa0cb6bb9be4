"""The sweeper: ended jobs past their queue's retention are forgotten."""

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.storage.interface.history import History
from forge_jobs.telemetry.events import JobsSwept
from forge_jobs.telemetry.telemetry import Telemetry

BATCH = 1000
PAUSE_BETWEEN_BATCHES = 0.05  # seconds between batches, so that sweeping a big history slows nobody


async def sweep(history: History, telemetry: Telemetry, epoch: LeaderEpoch) -> float | None:
    """Make one pass; return when the next should come if there is more."""
    count = await history.sweep(epoch=epoch, limit=BATCH)
    if count:
        telemetry.emit(JobsSwept(count))
    return PAUSE_BETWEEN_BATCHES if count >= BATCH else None
