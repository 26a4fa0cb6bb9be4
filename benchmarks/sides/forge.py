"""forge-jobs, used as its documents say: a worker that runs in this process, on uvloop."""

import asyncio
import random
import time
from typing import Any

import asyncpg

from benchmarks.sides.told import Usage, say, until_told
from benchmarks.workload import CONCURRENCY, KIND, PAYLOAD, QUEUE, WARM_UP, Starts
from forge_jobs import Forge, Worker
from forge_jobs.model.run import Outcome
from forge_jobs.telemetry.events import Event, JobsEnded

FILL_BATCH = 100_000
PIN = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM forge_jobs.queue"


def program(url: str, starts: Starts) -> Forge:
    """Return a program with one handler, which does nothing."""
    forge = Forge(url)

    @forge.handler(kind=KIND, queue=QUEUE)
    async def nothing(pad: str) -> None:
        starts.one()

    return forge


async def prepare(url: str) -> None:
    """The tables and the queue are there."""
    async with program(url, Starts()):
        pass


async def fill(url: str, jobs: int, delay: float | None = None) -> None:
    """So many jobs wait, ready or for `delay` seconds."""
    async with program(url, Starts()) as forge:
        for start in range(0, jobs, FILL_BATCH):
            payloads = [PAYLOAD] * min(FILL_BATCH, jobs - start)
            if delay is None:
                await forge.enqueue_many(KIND, payloads)
            else:
                await forge.enqueue_many(KIND, payloads, delay=delay)


async def enqueue(url: str, jobs: int) -> dict[str, Any]:
    """Enqueue many jobs with one call, after a small one that opened the connection."""
    async with program(url, Starts()) as forge:
        await forge.enqueue_many(KIND, [dict(PAYLOAD) for _ in range(WARM_UP)])
        payloads = [dict(PAYLOAD) for _ in range(jobs)]
        began = time.monotonic()
        answers = await forge.enqueue_many(KIND, payloads)
        return {"seconds": time.monotonic() - began, "jobs": len(answers)}


async def work_through(
    url: str, jobs: int, concurrency: int = CONCURRENCY, is_pinned: bool = False
) -> dict[str, Any]:
    """Run all jobs; with `is_pinned` while a transaction is open that sees the database as it was before."""
    starts = Starts()
    return await through(program(url, starts), starts, url, jobs, concurrency, is_pinned)


async def through(
    forge: Forge,
    starts: Starts,
    url: str,
    jobs: int,
    concurrency: int = CONCURRENCY,
    is_pinned: bool = False,
) -> dict[str, Any]:
    """Run all jobs with this program, as `work_through`."""
    worker = Worker(forge, queues=[QUEUE], concurrency=concurrency)
    done = 0
    last = 0.0

    def heard(event: Event) -> None:
        nonlocal done, last
        if isinstance(event, JobsEnded):
            done += sum(run.outcome is Outcome.DONE for run in event.runs)
            if done >= jobs:
                last = last or time.monotonic()
                worker.stop()

    forge.telemetry.subscribe(heard)
    pin = await asyncpg.connect(url) if is_pinned else None
    if pin is not None:
        await pin.execute(PIN)
    before = Usage.now()
    await worker.run()
    used = before.until(Usage.now())
    if pin is not None:
        await pin.close()
    return {"seconds": last - starts.first, "jobs": done, "started": starts.count, "cpu": used["cpu"]}


async def idle(url: str, settle: float, seconds: float) -> dict[str, float]:
    """Have nothing to do, and report it after a time to settle down."""
    worker = Worker(program(url, Starts()), queues=[QUEUE], concurrency=CONCURRENCY)
    working = asyncio.create_task(worker.run())
    await asyncio.sleep(settle)
    before = Usage.now()
    await asyncio.sleep(seconds)
    after = Usage.now()
    worker.stop()
    await working
    return before.until(after)


async def listen(url: str) -> dict[str, list[float]]:
    """Run jobs as they come, until told; return when the handler of each began, in their order."""
    starts: list[float] = []
    forge = Forge(url)

    @forge.handler(kind=KIND, queue=QUEUE)
    async def nothing(pad: str) -> None:
        starts.append(time.monotonic())

    worker = Worker(forge, queues=[QUEUE], concurrency=CONCURRENCY)
    working = asyncio.create_task(worker.run())
    while worker.session is None or not worker.session.is_registered:
        await asyncio.sleep(0.01)
    say(listening=True)
    await until_told()
    worker.stop()
    await working
    return {"starts": starts}


async def send(url: str, jobs: int, pause: float) -> dict[str, list[float]]:
    """Enqueue one job after another, about `pause` seconds apart; return when each call was made and returned."""
    called, returned = [], []
    async with program(url, Starts()) as forge:
        await forge.storage.ping()
        for _ in range(jobs):
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            called.append(time.monotonic())
            await forge.enqueue(KIND, PAYLOAD)
            returned.append(time.monotonic())
    return {"called": called, "returned": returned}
