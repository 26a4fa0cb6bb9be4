"""Waiting for the end of a job, by looking at it again and again; an outage of the database is waited for too."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from forge_jobs.errors import StorageUnavailable, WaitTimeout
from forge_jobs.model.job import ENDED, Job
from forge_jobs.telemetry.events import DatabaseBack, DatabaseLost
from forge_jobs.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    from forge_jobs.rules.why import Why
    from forge_jobs.storage.interface.storage import Storage

FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.5  # seconds between looks
DOING = "waiting for a job"
LAST_LOOK = timedelta(seconds=1)
"""Seconds for the last question, when the time is over: has the job ended, and if not, why?"""


async def ended(
    storage: "Storage",
    telemetry: Telemetry,
    job_id: int,
    limit: timedelta | None,
    is_open: Callable[[], bool],
    why: Callable[[int], Awaitable["Why"]],
) -> Job:
    """Return the job once it is done or dead. Raises JobNotFound, and WaitTimeout when `limit` is over.

    It is looked at once at least, also when the limit is zero.
    A database that does not answer is asked again for as long as there is time and it `is_open` here.
    """
    pause, away_since = FIRST_PAUSE, None
    timer = asyncio.timeout(None if limit is None else limit.total_seconds())
    try:
        async with timer:
            while True:
                try:
                    job = await storage.jobs.get(job_id)
                except StorageUnavailable as error:
                    if not is_open():
                        raise
                    away_since = away_since or time.monotonic()
                    telemetry.emit(DatabaseLost(DOING, str(error), pause))
                else:
                    if away_since is not None:
                        telemetry.emit(DatabaseBack(DOING, time.monotonic() - away_since))
                        away_since = None
                    if job.state in ENDED:
                        return job
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, LONGEST_PAUSE)
    except TimeoutError:
        if limit is None or not timer.expired():
            raise
    ended, reason = await _last_look(storage, job_id, why)
    if ended is not None:
        return ended
    raise WaitTimeout(job_id, limit.total_seconds(), reason)


async def _last_look(
    storage: "Storage", job_id: int, why: Callable[[int], Awaitable["Why"]]
) -> tuple[Job | None, str]:
    """Return the job if it has ended, else None and the main reason why it has not; no reason when that
    cannot be learned."""
    with suppress(StorageUnavailable, TimeoutError):
        async with asyncio.timeout(LAST_LOOK.total_seconds()):
            job = await storage.jobs.get(job_id)
            if job.state in ENDED:
                return job, ""
            reasons = (await why(job_id)).reasons
            return None, reasons[0] if reasons else ""
    return None, ""
