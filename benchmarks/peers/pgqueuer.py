"""pgqueuer, on asyncpg."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks.peers.adapter import PAD, Handler, Producer, Settings, Stopped, serve

DATABASE = "postgres"
PACKAGES = ("pgqueuer", "asyncpg", "uvloop")
# https://pgqueuer.readthedocs.io/en/latest/guides/performance-tuning/
DEFAULTS: Settings = {"batch_size": 10, "concurrency": None, "autovacuum": False, "producers": 1}
# the same page: a larger batch for short jobs (how large it does not say; 500 was the fastest of 10 to 1000 that we
# tried), at least twice as many tasks, its autovacuum settings, durable tables (ours are too), one connection for
# the worker and a pool for producers; its own benchmark runs on uvloop: https://pgqueuer.readthedocs.io/en/latest/development/benchmark/
BEST: Settings = {
    "loop": "uvloop",
    "batch_size": 500,
    "concurrency": 1000,
    "autovacuum": True,
    "producers": 20,
}
LEFT = "SELECT count(*) FROM pgqueuer"
ENTRYPOINT = "run"


def payload(number: int) -> bytes:
    """Return the payload of a job."""
    return json.dumps({"i": number, "pad": PAD}).encode()


async def prepare(url: str, settings: Settings) -> None:
    connection = await asyncpg.connect(url)
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    if settings["autovacuum"]:
        await queries.optimize_autovacuum()
    await connection.close()


class PgQueuerProducer:
    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def one(self, number: int) -> None:
        await self._queries.enqueue(ENTRYPOINT, payload(number))

    async def many(self, numbers: Sequence[int]) -> None:
        count = len(numbers)
        await self._queries.enqueue(
            [ENTRYPOINT] * count, [payload(number) for number in numbers], [0] * count
        )


@asynccontextmanager
async def producer(url: str, settings: Settings) -> AsyncIterator[Producer]:
    if settings["producers"] == 1:
        connection = await asyncpg.connect(url)
        yield PgQueuerProducer(Queries(AsyncpgDriver(connection)))
        await connection.close()
    else:
        async with asyncpg.create_pool(url, min_size=5, max_size=settings["producers"]) as pool:
            yield PgQueuerProducer(Queries(AsyncpgPoolDriver(pool)))


async def work(url: str, settings: Settings, handler: Handler, stopped: Stopped) -> None:
    connection = await asyncpg.connect(url)
    program = PgQueuer(AsyncpgDriver(connection))

    @program.entrypoint(ENTRYPOINT)
    async def run(job: Job) -> None:
        assert job.payload is not None
        await handler.call(json.loads(job.payload)["i"])

    at_once, batch = settings["concurrency"], settings["batch_size"]
    if at_once is not None:
        batch = min(batch, at_once // 2)  # more is refused
    working = asyncio.create_task(program.run(batch_size=batch, max_concurrent_tasks=at_once))
    await stopped.wait()
    program.shutdown.set()
    await working
    await connection.close()


serve(__name__)
