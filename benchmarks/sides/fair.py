"""forge-jobs with tenants that take turns: each job is of one, and its handler does nothing, or lasts for a while."""

import asyncio
import random
import time
from typing import Any

import asyncpg

from benchmarks.sides import forge as plain
from benchmarks.sides.told import say, until_told
from benchmarks.workload import KIND, PAYLOAD, QUEUE, Starts
from forge_jobs import Forge, Worker

NOISE = -1  # the tenant with very many jobs
TOGETHER = 100_000  # jobs in one call
TICK = 0.01  # seconds between two calls of the many tenants


def program(url: str, starts: Starts, *, is_fair: bool) -> Forge:
    """Return a program with one handler, which does nothing."""
    forge = Forge(url)

    @forge.handler(kind=KIND, queue=QUEUE, fair_by="tenant" if is_fair else None)
    async def nothing(pad: str, tenant: int, at: float = 0.0) -> None:
        starts.one()

    return forge


async def fill(url: str, jobs: int, tenants: int, is_fair: bool = True) -> None:
    """So many jobs wait, of so many tenants."""
    async with program(url, Starts(), is_fair=is_fair) as forge:
        for first in range(0, jobs, TOGETHER):
            numbers = range(first, min(jobs, first + TOGETHER))
            await forge.enqueue_many(KIND, [{**PAYLOAD, "tenant": number % tenants} for number in numbers])


async def work_through(url: str, jobs: int, is_fair: bool = True, is_pinned: bool = False) -> dict[str, Any]:
    """Run all jobs; with `is_pinned` while a transaction is open that sees the database as it was before."""
    starts = Starts()
    forge = program(url, starts, is_fair=is_fair)
    return await plain.through(forge, starts, url, jobs, is_pinned=is_pinned)


async def noise(url: str, jobs: int) -> None:
    """So many jobs of one tenant wait."""
    async with program(url, Starts(), is_fair=True) as forge:
        for first in range(0, jobs, TOGETHER):
            payloads = [{**PAYLOAD, "tenant": NOISE}] * min(TOGETHER, jobs - first)
            await forge.enqueue_many(KIND, payloads)


async def listen(url: str, seconds: float, concurrency: int, is_pinned: bool) -> dict[str, Any]:
    """Run jobs that last about so long, until told; return how long each of the many tenants has waited for its start."""
    waits: list[float] = []
    noisy = 0
    forge = Forge(url)

    @forge.handler(kind=KIND, queue=QUEUE, fair_by="tenant")
    async def lasts(pad: str, tenant: int, at: float = 0.0) -> None:
        nonlocal noisy
        if tenant == NOISE:
            noisy += 1
        else:
            waits.append(time.monotonic() - at)
        await asyncio.sleep(seconds * random.uniform(0.5, 1.5))

    pin = await asyncpg.connect(url) if is_pinned else None
    if pin is not None:
        await pin.execute(plain.PIN)
    worker = Worker(forge, queues=[QUEUE], concurrency=concurrency)
    working = asyncio.create_task(worker.run())
    while worker.session is None or not worker.session.is_registered:
        await asyncio.sleep(0.01)
    say(listening=True)
    await until_told()
    worker.stop()
    await working
    if pin is not None:
        await pin.close()
    return {"waits": waits, "noise": noisy}


async def send(url: str, tenants: int, seconds: float) -> dict[str, int]:
    """Each of the tenants enqueues a job a second, for so long; return how many were sent."""
    sent = 0
    async with program(url, Starts(), is_fair=True) as forge:
        await forge.storage.ping()
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            due = int(passed * tenants) - sent
            at = time.monotonic()
            payloads = [{**PAYLOAD, "tenant": (sent + one) % tenants, "at": at} for one in range(due)]
            await forge.enqueue_many(KIND, payloads)
            sent += due
            await asyncio.sleep(TICK)
    return {"sent": sent}
