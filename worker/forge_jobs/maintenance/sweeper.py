"""The sweeper: ended jobs past their queue's retention are forgotten."""

import time

from forge_jobs.maintenance.loop import breather
from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.telemetry.events import JobsSwept
from forge_jobs.telemetry.telemetry import Telemetry

BATCH = 1000


async def sweep(storage: Storage, telemetry: Telemetry, epoch: LeaderEpoch) -> float | None:
    """Make one pass; return when the next should come if there is more."""
    began = time.monotonic()
    jobs = await storage.history.sweep(epoch=epoch, limit=BATCH)
    if jobs:
        telemetry.emit(JobsSwept(jobs))
    return breather(began) if jobs >= BATCH else None
