"""Queues that are asked together: a worker of many queues asks several of them in one statement.

A statement costs as much as some tens of short jobs, whether it finds any or not. Only queues that are as plain as can be
are asked together: what has slots, tokens, large payloads or jobs to be passed over is asked by itself, and so is
a queue for which something failed, until that is over.
"""

import time
from collections.abc import Callable, Sequence
from itertools import groupby

from forge_jobs.model.job import LARGE_PAYLOAD, Claim
from forge_jobs.model.worker import Standing
from forge_jobs.storage.interface.claims import AskedQueue, Claims
from forge_jobs.telemetry.events import ChoreFailed
from forge_jobs.telemetry.telemetry import Telemetry
from forge_jobs.worker.hints import Outing
from forge_jobs.worker.queues_aside import is_away
from forge_jobs.worker.served_queue import LARGEST_ROOM, Pauses, ServedQueue, mean_size

CAUTION = 16  # payloads of a queue that nothing is known of are not larger, on average, than so many of those of the others
SPARE = 2  # times the jobs that are wanted, which are expected of the queues that are asked
MOST_TOGETHER = 500  # queues in one statement
APART = 10.0  # seconds in which each queue is asked by itself, after it failed to ask several together: that shows which it is


class Together:
    """Of one worker. `failed()` is called when it is not known what a claim took."""

    def __init__(
        self, claims: Claims, telemetry: Telemetry, worker_id: int, failed: Callable[[], None]
    ) -> None:
        self._claims = claims
        self._telemetry = telemetry
        self._worker_id = worker_id
        self._failed = failed
        self._apart_until = 0.0  # monotonic seconds
        self._mean: float = LARGE_PAYLOAD  # bytes of payloads in the last claims

    def first_of(self, due: Sequence[ServedQueue], start: int, share: int, wanted: int) -> list[ServedQueue]:
        """Return those from `start` on that may be asked together for `share` jobs each, until they are likely to have
        `wanted`, though some have fewer than the last time.
        """
        now, expected = time.monotonic(), 0
        together: list[ServedQueue] = []
        if now < self._apart_until:
            return together
        for queue in due[start : start + MOST_TOGETHER]:
            if expected >= SPARE * wanted or not _is_plain(queue, now):
                break
            together.append(queue)
            if queue.is_unknown:
                queue.mean = min(queue.mean, CAUTION * self._mean)
            if queue.is_full():
                expected += min(share, queue.most)
        return together

    async def ask(
        self, queues: Sequence[ServedQueue], share: int, wanted: int, pauses: Pauses, standing: Standing
    ) -> list[tuple[ServedQueue, Outing, list[Claim], bool]]:
        """Claim up to `wanted` jobs, `share` of each queue at most; return for those queues that were looked at what they gave,
        and whether that was all that they were asked for.
        """
        outings, asked = [], []
        for queue in queues:
            queue.asked_under, queue.paused_then, queue.woken = queue.limits, pauses, False
            outings.append(queue.hints.set_out())
            begins = {} if queue.begins_anew else queue.hints.options()
            asked.append(AskedQueue(queue.id, min(share, queue.most), **begins))
        limit = min(
            wanted, *(queue.most for queue in queues)
        )  # the payloads of all have to fit into one room
        try:
            claims = await self._claims.claim_from(asked, self._worker_id, limit=limit, standing=standing)
        except Exception as error:
            if is_away(error):
                raise
            self._failed()
            self._apart_until = time.monotonic() + APART
            self._telemetry.emit(ChoreFailed("claiming jobs from several queues", error, APART))
            return []
        if claims:
            self._mean += (mean_size(claims) - self._mean) / 2
        gave = {queue_id: list(its) for queue_id, its in groupby(claims, lambda claim: claim.queue_id)}
        answers = []
        left = limit
        for queue, outing, of_it in zip(queues, outings, asked, strict=True):
            if not left:
                break  # it was not looked at
            its = gave.get(queue.id, [])
            left -= len(its)
            answers.append((queue, outing, its, len(its) == of_it.limit or not left))
        return answers


def _is_plain(queue: ServedQueue, now: float) -> bool:
    return (
        queue.is_claimed_ahead
        and queue.weight == 1.0
        and queue.room == LARGEST_ROOM
        and not queue.is_asked_alone
        and not queue.throttled
        and not queue.paused_kinds
        and now >= queue.aside_until
        and now >= queue.pinned_alone_until
        and not queue.left_alone_now(now)
    )
