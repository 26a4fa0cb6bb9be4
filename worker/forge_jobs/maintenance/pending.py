"""Scheduled jobs whose time has come become pending. Every worker looks; no leader is needed."""

from collections.abc import Callable

from forge_jobs.storage.interface.schedule import Schedule
from forge_jobs.telemetry.events import JobsMadePending
from forge_jobs.telemetry.telemetry import Telemetry

BATCH = 1000


async def make_pending(schedule: Schedule, telemetry: Telemetry, wake: Callable[[], None]) -> float | None:
    """Make one pass; return how many seconds later the next job is due."""
    count, wait = await schedule.make_pending(limit=BATCH)
    if count:
        telemetry.emit(JobsMadePending(count))
        wake()
    if count >= BATCH:
        return 0.0
    return None if wait is None else wait.total_seconds()
