"""Jobs whose time is over end: those that were not begun in time, and those that were to have ended."""

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.telemetry.events import JobsOutOfTime
from forge_jobs.telemetry.telemetry import Telemetry

BATCH = 1000
PAUSE_BETWEEN_BATCHES = 0.05  # seconds, so that many jobs that end at once slow nobody


async def expire(storage: Storage, telemetry: Telemetry, epoch: LeaderEpoch) -> float | None:
    """Make one pass as the leader of this epoch; return how many seconds later the next should come."""
    ended, next_in = await storage.time_limits.expire(epoch=epoch, limit=BATCH)
    if ended:
        telemetry.emit(JobsOutOfTime(ended))
    return None if next_in is None else max(next_in.total_seconds(), PAUSE_BETWEEN_BATCHES)
