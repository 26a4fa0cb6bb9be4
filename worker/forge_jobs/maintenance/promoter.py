"""The promoter: jobs whose time has come become ready. Every worker runs one; no leader is needed."""

from collections.abc import Callable

from forge_jobs.storage.interface.schedule import Schedule
from forge_jobs.telemetry.events import JobsPromoted, Telemetry

BATCH = 1000


async def promote(schedule: Schedule, telemetry: Telemetry, promoted: Callable[[], None]) -> float | None:
    """Make one pass; return how many seconds later the next job is due."""
    count, wait = await schedule.promote(limit=BATCH)
    if count:
        telemetry.emit(JobsPromoted(count))
        promoted()
    if count == BATCH:
        return 0.0
    return None if wait is None else wait.total_seconds()
