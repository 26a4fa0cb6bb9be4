"""forge-jobs with a rate limit by key: very many keys are in use, and all jobs are of a few of them, the hot ones."""

import time
from typing import Any

from benchmarks.sides import forge as plain
from benchmarks.workload import KIND, PAYLOAD, QUEUE, Starts
from forge_jobs import Forge, KeyLimit
from forge_jobs.model.permit import PermitRequest

SCOPE = "keys"
CAPACITY, SPENT, DAY = 1000.0, 500.0, 86_400  # a key whose half is spent is in use for half a day
TOGETHER = 1000  # keys in one statement


def program(url: str, starts: Starts, *, is_limited: bool) -> Forge:
    """Return a program with one handler, which does nothing; each of its jobs takes a token of its user's."""
    forge = Forge(url)

    @forge.handler(kind=KIND, queue=QUEUE, limits=[KeyLimit(SCOPE, by="user")] if is_limited else ())
    async def nothing(pad: str, user: int) -> None:
        starts.one()

    return forge


async def fill(url: str, jobs: int, keys: int, hot: int) -> None:
    """So many jobs wait, each of the next of the hot keys, and so many keys are in use."""
    async with program(url, Starts(), is_limited=True) as forge:
        await forge.limits.set(SCOPE, CAPACITY, per=DAY)
        for first in range(0, keys, TOGETHER):
            users = range(first, min(keys, first + TOGETHER))
            await forge.storage.permits.reserve([PermitRequest(SCOPE, str(user), SPENT) for user in users])
        await forge.enqueue_many(KIND, [{**PAYLOAD, "user": number % hot} for number in range(jobs)])


async def work_through(url: str, jobs: int, is_limited: bool) -> dict[str, Any]:
    """Run all jobs."""
    starts = Starts()
    return await plain.through(program(url, starts, is_limited=is_limited), starts, url, jobs)


async def sweep(url: str) -> dict[str, Any]:
    """All that is spent flows back at once; return how long each look of the sweeper took then, in seconds."""
    looks = []
    async with program(url, Starts(), is_limited=True) as forge:
        await forge.limits.set(SCOPE, CAPACITY, per=0.000_001)
        is_more = True
        while is_more:
            began = time.monotonic()
            is_more = (await forge.storage.permits.sweep(limit=TOGETHER)).is_more
            looks.append(time.monotonic() - began)
    return {"looks": looks}
