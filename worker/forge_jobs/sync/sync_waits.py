"""Waiting for the ends of jobs, or of flows, in a thread without an event loop: looking again and again, ever less often, and where the database
tells, hearing of them.
"""

import time
from collections.abc import Collection, Sequence
from contextlib import nullcontext, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from forge_jobs.client.waits import ANNOUNCE_AGAIN, FIRST_PAUSE, GROWTH, LONGEST_PAUSE, YOUNG, Reason
from forge_jobs.errors import ForgeError, StorageUnavailable, StorageUnusable, WaitTimeout
from forge_jobs.storage.outage import Outage
from forge_jobs.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    from forge_jobs.storage.interface.ends import AwaitedEnds, ThreadsEar

T = TypeVar("T")


async def ended(
    awaited: "AwaitedEnds[T]",
    telemetry: Telemetry,
    ids: Sequence[int],
    limit: timedelta | None,
    why: Reason,
) -> list[T | None]:
    """Return how these have ended, once all have; None for those that are not there. Raises WaitTimeout when `limit` is over.

    They are looked at once at least. A database that does not answer is asked again for as long as there is time. Raises
    StorageUnusable, which waiting does not cure. It
    suspends nowhere: the thread waits. A wait that lasts is announced, and listens on a connection that all such threads share.
    """
    with nullcontext() if awaited.ear is None else awaited.ear as ear:
        return await _ended(awaited, telemetry, ids, limit, why, ear)


async def _ended(
    awaited: "AwaitedEnds[T]",
    telemetry: Telemetry,
    ids: Sequence[int],
    limit: timedelta | None,
    why: Reason,
    ear: "ThreadsEar | None",
) -> list[T | None]:
    began = time.monotonic()
    hearing = _Hearing(awaited, ear, began)
    until = None if limit is None else time.monotonic() + limit.total_seconds()
    ends: dict[int, T | None] = {}
    outage = Outage(f"waiting for a {awaited.subject}", telemetry)
    pause, notices = FIRST_PAUSE, 0
    while left := [one for one in ids if one not in ends]:
        try:
            notices = await hearing.announced(left)
            ends |= await awaited.look(left)
        except StorageUnusable:
            raise
        except StorageUnavailable as error:
            rest = outage.failed(error)
        else:
            outage.over()
            rest, pause = pause, min(GROWTH * pause, LONGEST_PAUSE)
        left = [one for one in left if one not in ends]
        if left and until is not None and time.monotonic() >= until:
            assert limit is not None
            what, reason = awaited.subject.capitalize(), await _reason(left[0], why)
            raise WaitTimeout(left[0], limit.total_seconds(), reason, what)
        if left:
            hearing.rest(
                left, rest if until is None else max(0.0, min(rest, until - time.monotonic())), notices
            )
    return [ends[one] for one in ids]


class _Hearing:
    """What one wait does to hear of ends: nothing while it is young, or where nobody tells."""

    def __init__(self, awaited: "AwaitedEnds[Any]", ear: "ThreadsEar | None", began: float) -> None:
        self._awaited, self._ear, self._began = awaited, ear, began
        self._announced_at: float | None = None
        self._hears = False

    async def announced(self, ids: Sequence[int]) -> int:
        """It is known that somebody waits for these, if that is of use; return how many notices were heard before they are looked at."""
        now = time.monotonic()
        if self._ear is None or not self._awaited.are_told or now - self._began <= YOUNG:
            return 0
        self._hears = self._ear.opens()
        if self._hears and (self._announced_at is None or now - self._announced_at > ANNOUNCE_AGAIN):
            told: Collection[int] = ()
            with suppress(ForgeError):  # then looking is the only means, and says it if nothing answers
                told = await self._awaited.announce(ids)
            self._announced_at = now if len(told) == len(ids) else None
        return self._ear.notices

    def rest(self, ids: Sequence[int], seconds: float, notices: int) -> None:
        """So many seconds have passed, or one of these may have ended."""
        if self._hears and self._ear is not None:
            self._ear.wait(self._awaited.notice, ids, seconds, notices)
        else:
            time.sleep(seconds)


async def _reason(one: int, why: Reason) -> str:
    """Return why it has not ended; no reason when that cannot be learned."""
    with suppress(StorageUnavailable):
        return await why(one)
    return ""
