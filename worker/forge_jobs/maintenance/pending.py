"""Scheduled jobs whose time has come become pending. Every worker looks; no leader is needed."""

import asyncio
from collections.abc import Callable

from forge_jobs.maintenance.loop import every
from forge_jobs.model.chore import Chore
from forge_jobs.storage.interface.schedule import Schedule
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.storage.outage import Outage
from forge_jobs.telemetry.events import JobsMadePending
from forge_jobs.telemetry.telemetry import Telemetry

BATCH = 1000
EVERY = 5.0  # seconds
EVERY_WHEN_DEAF = 1.0
SOON = 60.0  # seconds; what is due later than that is looked for again


async def make_pending(schedule: Schedule, telemetry: Telemetry, wake: Callable[[], None]) -> float | None:
    """Make one pass; return how many seconds later the next job is due."""
    count, wait = await schedule.make_pending(limit=BATCH)
    if count:
        telemetry.emit(JobsMadePending(count))
        wake()
    if count >= BATCH:
        return 0.0
    return None if wait is None else wait.total_seconds()


async def keep_making_pending(
    storage: Storage,
    telemetry: Telemetry,
    wake: Callable[[], None],
    outage: Outage,
    due: asyncio.Event,
    is_idle: Callable[[Chore], bool],
) -> None:
    """Make passes for ever: at once on `due`, and now and then, but for a leader whose looks for chores say that nothing is due."""

    async def make_one() -> float | None:
        due_in = await make_pending(storage.schedule, telemetry, wake)
        return due_in if due_in is not None and due_in < SOON else None

    interval = EVERY_WHEN_DEAF if storage.wakeups.poll_only else EVERY
    await every(interval, make_one, outage=outage, wake=due, is_idle=lambda: is_idle(Chore.PENDING))
