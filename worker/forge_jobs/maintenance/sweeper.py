"""The sweeper: ended jobs past their queue's retention are forgotten, and keys of rate limits that nobody uses."""

import time

from forge_jobs.maintenance.loop import breather
from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.telemetry.events import JobsSwept
from forge_jobs.telemetry.telemetry import Telemetry

BATCH = 1000


async def sweep(
    storage: Storage, telemetry: Telemetry, epoch: LeaderEpoch, *, are_limits: bool = True
) -> float | None:
    """Make one pass; return when the next should come if there is more. `are_limits`: there may be rate limits."""
    began = time.monotonic()
    jobs = await storage.history.sweep(epoch=epoch, limit=BATCH)
    if jobs:
        telemetry.emit(JobsSwept(jobs))
    is_more = False
    if are_limits:
        is_more = await storage.permits.give_back(limit=BATCH)
        is_more |= await storage.permits.sweep(limit=BATCH)
    return breather(began) if jobs >= BATCH or is_more else None
