"""forge-jobs with jobs that wait for signals."""

import asyncio
import random
import time

from benchmarks.sides import forge as plain
from benchmarks.sides.told import say, until_told
from benchmarks.workload import CONCURRENCY, PAYLOAD, QUEUE, Starts
from forge_jobs import Context, Forge, State, Worker

KIND = "waits"
FILL_BATCH = 10_000
LOOK_EVERY = 0.2  # seconds


def waiting(forge: Forge, woken: list[float]) -> Forge:
    """The program has a handler whose jobs wait."""

    @forge.handler(kind=KIND, queue=QUEUE)
    async def waits(ctx: Context, pad: str) -> None:
        await ctx.wait_for("go")
        woken.append(time.monotonic())

    return forge


async def fill(url: str, jobs: int, waits: int) -> None:
    """So many jobs are pending, and so many others wait for a signal."""
    forge = waiting(plain.program(url, Starts()), [])
    async with forge:
        for start in range(0, waits, FILL_BATCH):
            await forge.enqueue_many(KIND, [PAYLOAD] * min(FILL_BATCH, waits - start))
        worker = Worker(forge, queues=[QUEUE], concurrency=CONCURRENCY)
        working = asyncio.create_task(worker.run())
        while await forge.storage.jobs.count(State.WAITING) < waits:
            await asyncio.sleep(LOOK_EVERY)
        worker.stop()
        await working
    await plain.fill(url, jobs)


async def listen(url: str) -> dict[str, list[float]]:
    """Run what is woken, until told; return when each handler went on, in their order."""
    woken: list[float] = []
    worker = Worker(waiting(Forge(url), woken), queues=[QUEUE], concurrency=CONCURRENCY)
    working = asyncio.create_task(worker.run())
    while worker.session is None or not worker.session.is_registered:
        await asyncio.sleep(0.01)
    say(listening=True)
    await until_told()
    worker.stop()
    await working
    return {"starts": woken}


async def send(url: str, jobs: int, pause: float) -> dict[str, list[float]]:
    """Wake one job after another, about `pause` seconds apart; return when each call was made and returned."""
    called, returned = [], []
    async with Forge(url) as forge:
        ids = [job.id for job in await forge.jobs.list(state=State.WAITING, limit=jobs)]
        for job_id in ids:
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            called.append(time.monotonic())
            await forge.signal("go", {"by": "ada"}, job=job_id)
            returned.append(time.monotonic())
    return {"called": called, "returned": returned}
