"""Jobs whose time is over end: those that were not begun in time, and those that were to have ended."""

import time

from forge_jobs.maintenance.loop import breather
from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.telemetry.events import JobsOutOfTime
from forge_jobs.telemetry.telemetry import Telemetry

BATCH = 1000
SHORTEST_REST = 0.05  # seconds, while somebody has locked what is due


async def expire(storage: Storage, telemetry: Telemetry, epoch: LeaderEpoch) -> float | None:
    """Make one pass as the leader of this epoch; return how many seconds later the next should come."""
    began = time.monotonic()
    ended, next_in = await storage.time_limits.expire(epoch=epoch, limit=BATCH)
    if ended:
        telemetry.emit(JobsOutOfTime(ended))
    if next_in is None:
        return None
    return max(next_in.total_seconds(), breather(began) if len(ended) >= BATCH else SHORTEST_REST)
