"""pgqueuer, with the settings that its documents recommend for throughput, on asyncpg and uvloop.

Durable tables (as ours), its autovacuum settings, one connection for each queue manager,
no limit of concurrent tasks. A job is done when the statement that deletes it and writes
its log has returned.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries
from pgqueuer.types import QueueExecutionMode

from benchmarks.sides.told import Usage, say, until_told
from benchmarks.workload import ENCODED, KIND, Starts

BATCH = 100
MANAGERS = 1
FILL_BATCH = 1000


async def fill(url: str, jobs: int) -> None:
    """Its tables are there, tuned as it recommends, and so many jobs wait."""
    connection = await asyncpg.connect(url)
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    await queries.optimize_autovacuum()
    for start in range(0, jobs, FILL_BATCH):
        size = min(FILL_BATCH, jobs - start)
        await queries.enqueue([KIND] * size, [ENCODED] * size, [0] * size)
    await connection.close()


async def work_through(url: str, jobs: int, batch: int = BATCH, managers: int = MANAGERS) -> dict[str, Any]:
    """Run all jobs."""
    starts = Starts()
    done = 0
    last = 0.0

    async def nothing(job: Job) -> None:
        starts.one()

    def counting(queries: Any) -> Any:
        write = queries.log_jobs

        async def log_jobs(ended: Sequence[Any]) -> None:
            nonlocal done, last
            await write(ended)
            done += len(ended)
            last = time.monotonic()

        return log_jobs

    connections = [await asyncpg.connect(url) for _ in range(managers)]
    programs = [PgQueuer(AsyncpgDriver(connection)) for connection in connections]
    for program in programs:
        program.entrypoint(KIND)(nothing)
        program.qm.queries.log_jobs = counting(program.qm.queries)
    before = Usage.now()
    await asyncio.gather(
        *(program.run(batch_size=batch, mode=QueueExecutionMode.drain) for program in programs)
    )
    used = before.until(Usage.now())
    for connection in connections:
        await connection.close()
    return {"seconds": last - starts.first, "jobs": done, "started": starts.count, "cpu": used["cpu"]}


async def idle(url: str, settle: float, seconds: float) -> dict[str, float]:
    """Have nothing to do, and report it after a time to settle down."""
    async with _Running(url, []):
        await asyncio.sleep(settle)
        before = Usage.now()
        await asyncio.sleep(seconds)
        return before.until(Usage.now())


async def listen(url: str) -> dict[str, list[float]]:
    """Run jobs as they come, until told; return when the handler of each began, in their order."""
    starts: list[float] = []
    async with _Running(url, starts):
        say(listening=True)
        await until_told()
    return {"starts": starts}


async def send(url: str, jobs: int, pause: float) -> dict[str, list[float]]:
    """Enqueue one job after another, about `pause` seconds apart; return when each call was made and returned."""
    called, returned = [], []
    connection = await asyncpg.connect(url)
    queries = Queries(AsyncpgDriver(connection))
    for _ in range(jobs):
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))
        called.append(time.monotonic())
        await queries.enqueue(KIND, ENCODED)
        returned.append(time.monotonic())
    await connection.close()
    return {"called": called, "returned": returned}


class _Running:
    """A queue manager that runs inside the block, and notes when handlers begin."""

    def __init__(self, url: str, starts: list[float]) -> None:
        self._url = url
        self._starts = starts

    async def __aenter__(self) -> None:
        self._connection = await asyncpg.connect(self._url)
        self._program = PgQueuer(AsyncpgDriver(self._connection))

        self._program.entrypoint(KIND)(self._nothing)
        self._running = asyncio.create_task(
            self._program.run(batch_size=BATCH, dequeue_timeout=timedelta(seconds=30))
        )

    async def _nothing(self, job: Job) -> None:
        self._starts.append(time.monotonic())

    async def __aexit__(self, *_: object) -> None:
        self._program.shutdown.set()
        await self._running
        await self._connection.close()
