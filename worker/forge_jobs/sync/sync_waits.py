"""Waiting for the ends of jobs in a thread without an event loop: looking again and again, ever less often, and where the database
tells, hearing of them.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from forge_jobs.client.waits import ANNOUNCE_AGAIN, FIRST_PAUSE, GROWTH, LONGEST_PAUSE, YOUNG
from forge_jobs.errors import StorageUnavailable, StorageUnusable, WaitTimeout
from forge_jobs.model.job import EndedJob
from forge_jobs.storage.outage import Outage
from forge_jobs.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    from forge_jobs.rules.why import Why
    from forge_jobs.storage.interface.ends import ThreadsEar
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
    suspends nowhere: the thread waits. A wait that lasts is announced to the workers, and listens on a connection that all such
    threads share.
    """
    with nullcontext() if storage.ends.ear is None else storage.ends.ear as ear:
        return await _ended(storage, telemetry, job_ids, limit, why, ear)


async def _ended(
    storage: "Storage",
    telemetry: Telemetry,
    job_ids: Sequence[int],
    limit: timedelta | None,
    why: Callable[[int], Awaitable["Why"]],
    ear: "ThreadsEar | None",
) -> list[EndedJob | None]:
    began = time.monotonic()
    hearing = _Hearing(storage, ear, began)
    until = None if limit is None else time.monotonic() + limit.total_seconds()
    ends: dict[int, EndedJob | None] = {}
    outage = Outage("waiting for a job", telemetry)
    pause, notices = FIRST_PAUSE, 0
    while left := [job_id for job_id in job_ids if job_id not in ends]:
        try:
            notices = await hearing.announced(left)
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
            hearing.rest(
                left, rest if until is None else max(0.0, min(rest, until - time.monotonic())), notices
            )
    return [ends[job_id] for job_id in job_ids]


class _Hearing:
    """What one wait does to hear of ends: nothing while it is young, or where nobody tells."""

    def __init__(self, storage: "Storage", ear: "ThreadsEar | None", began: float) -> None:
        self._storage, self._ear, self._began = storage, ear, began
        self._announced_at: float | None = None
        self._hears = False

    async def announced(self, job_ids: Sequence[int]) -> int:
        """Workers know that these jobs are waited for, if that is of use; return how many notices were heard before they are looked at."""
        now = time.monotonic()
        if self._ear is None or not self._storage.ends.are_told or now - self._began <= YOUNG:
            return 0
        self._hears = self._ear.opens()
        if self._hears and (self._announced_at is None or now - self._announced_at > ANNOUNCE_AGAIN):
            await self._storage.ends.announce(job_ids)
            self._announced_at = now
        return self._ear.notices

    def rest(self, job_ids: Sequence[int], seconds: float, notices: int) -> None:
        """So many seconds have passed, or one of the jobs may have ended."""
        if self._hears and self._ear is not None:
            self._ear.wait(job_ids, seconds, notices)
        else:
            time.sleep(seconds)


async def _reason(job_id: int, why: Callable[[int], Awaitable["Why"]]) -> str:
    """Return the main reason why a job has not ended; no reason when that cannot be learned."""
    with suppress(StorageUnavailable):
        reasons = (await why(job_id)).reasons
        return reasons[0] if reasons else ""
    return ""
