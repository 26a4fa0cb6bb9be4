"""forge-jobs with groups: jobs that are blocked beside others, and jobs that hand the place of their group over."""

import time

import asyncpg

from benchmarks.sides import forge as plain
from benchmarks.sides.told import Usage
from benchmarks.workload import CONCURRENCY, KIND, PAYLOAD, QUEUE, Starts
from forge_jobs import Forge, Worker
from forge_jobs.telemetry.events import Event, JobsEnded

GROUP = "benchmark"
FILL_BATCH = 10_000


async def fill(url: str, jobs: int, blocked: int) -> None:
    """So many jobs are pending, and so many others of their queue are blocked."""
    await plain.fill(url, jobs)
    async with plain.program(url, Starts()) as forge:
        await forge.groups.pause(GROUP)
        for start in range(0, blocked, FILL_BATCH):
            await forge.enqueue_many(KIND, [PAYLOAD] * min(FILL_BATCH, blocked - start), group=GROUP)


async def stand_in_line(url: str, jobs: int) -> None:
    """So many jobs are of one group, which runs one at a time."""
    async with plain.program(url, Starts()) as forge:
        for start in range(0, jobs, FILL_BATCH):
            await forge.enqueue_many(KIND, [PAYLOAD] * min(FILL_BATCH, jobs - start), group=GROUP)


async def hand_over(url: str, jobs: int, is_pinned: bool) -> dict[str, object]:
    """Run the jobs of the group one after the other; return when each handler began."""
    starts: list[float] = []
    forge, ended = Forge(url), 0

    @forge.handler(kind=KIND, queue=QUEUE)
    async def nothing(pad: str) -> None:
        starts.append(time.monotonic())

    worker = Worker(forge, queues=[QUEUE], concurrency=CONCURRENCY)

    def heard(event: Event) -> None:
        nonlocal ended
        if isinstance(event, JobsEnded):
            ended += len(event.runs)
            if ended >= jobs:
                worker.stop()

    forge.telemetry.subscribe(heard)
    pin = await asyncpg.connect(url) if is_pinned else None
    if pin is not None:
        await pin.execute(plain.PIN)
    before = Usage.now()
    await worker.run()
    used = before.until(Usage.now())
    if pin is not None:
        await pin.close()
    return {"starts": starts, "cpu": used["cpu"]}
