"""Waiting for the ends of jobs in a thread without an event loop: looking again and again, ever less often."""

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from forge_jobs.client.waits import FIRST_PAUSE, GROWTH, LONGEST_PAUSE
from forge_jobs.errors import StorageUnavailable, StorageUnusable, WaitTimeout
from forge_jobs.model.job import EndedJob
from forge_jobs.storage.outage import Outage
from forge_jobs.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    from forge_jobs.rules.why import Why
    from forge_jobs.storage.interface.storage import Storage


async def ended(
    storage: "Storage",
    telemetry: Telemetry,
    job_ids: Sequence[int],
    limit: timedelta | None,
    why: Callable[[int], Awaitable["Why"]],
) -> list[EndedJob | None]:
    """Return how these jobs have ended, once all have; None for those that are not there. Raises WaitTimeout when `limit` is over.

    They are looked at once at least. A database that does not answer is asked again for as long as there is time. It
    suspends nowhere: the thread waits.
    """
    until = None if limit is None else time.monotonic() + limit.total_seconds()
    ends: dict[int, EndedJob | None] = {}
    outage = Outage("waiting for a job", telemetry)
    pause = FIRST_PAUSE
    while left := [job_id for job_id in job_ids if job_id not in ends]:
        try:
            ends |= await storage.ends.look(left)
        except StorageUnusable:
            raise
        except StorageUnavailable as error:
            rest = outage.failed(error)
        else:
            outage.over()
            rest, pause = pause, min(GROWTH * pause, LONGEST_PAUSE)
        left = [job_id for job_id in left if job_id not in ends]
        if left and until is not None and time.monotonic() >= until:
            assert limit is not None
            raise WaitTimeout(left[0], limit.total_seconds(), await _reason(left[0], why))
        if left:
            time.sleep(rest if until is None else max(0.0, min(rest, until - time.monotonic())))
    return [ends[job_id] for job_id in job_ids]


async def _reason(job_id: int, why: Callable[[int], Awaitable["Why"]]) -> str:
    """Return the main reason why a job has not ended; no reason when that cannot be learned."""
    with suppress(StorageUnavailable):
        reasons = (await why(job_id)).reasons
        return reasons[0] if reasons else ""
    return ""
