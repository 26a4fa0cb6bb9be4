"""forge-jobs, from this folder's own source."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from benchmarks.peers.adapter import PAD, Handler, Producer, Settings, Stopped, serve
from benchmarks.workload import CONCURRENCY, KIND, QUEUE
from forge_jobs import Forge, Worker

DATABASE = "postgres"
PACKAGES = ("forge-jobs", "asyncpg", "uvloop")
# docs/configuration.md, FORGE_CONCURRENCY; the worker's command line runs on uvloop
DEFAULTS: Settings = {"loop": "uvloop", "concurrency": 10}
BEST: Settings = {"loop": "uvloop", "concurrency": CONCURRENCY}
LEFT = """
SELECT (SELECT count(*) FROM forge_jobs.job) - (SELECT count(*) FROM forge_jobs.finished WHERE state = 'done')
"""


def program(url: str, handler: Handler | None = None) -> Forge:
    """Return a program with one handler."""
    forge = Forge(url)

    @forge.handler(kind=KIND, queue=QUEUE)
    async def run(i: int, pad: str) -> None:
        assert handler is not None
        await handler.call(i)

    return forge


async def prepare(url: str, settings: Settings) -> None:
    async with program(url):
        pass


class ForgeProducer:
    def __init__(self, forge: Forge) -> None:
        self._forge = forge

    async def one(self, number: int) -> None:
        await self._forge.enqueue(KIND, {"i": number, "pad": PAD})

    async def many(self, numbers: Sequence[int]) -> None:
        await self._forge.enqueue_many(KIND, [{"i": number, "pad": PAD} for number in numbers])


@asynccontextmanager
async def producer(url: str, settings: Settings) -> AsyncIterator[Producer]:
    async with program(url) as forge:
        await forge.storage.ping()
        yield ForgeProducer(forge)


async def work(url: str, settings: Settings, handler: Handler, stopped: Stopped) -> None:
    worker = Worker(program(url, handler), queues=[QUEUE], concurrency=settings["concurrency"])
    working = asyncio.create_task(worker.run())
    await stopped.wait()
    worker.stop()
    await working


serve(__name__)
