"""Oban for Python, its free edition."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from oban import Oban, worker
from oban.schema import install
from psycopg_pool import AsyncConnectionPool

from benchmarks.peers.adapter import PAD, Handler, Producer, Settings, Stopped, serve

DATABASE = "postgres"
PACKAGES = ("oban", "psycopg")
# https://github.com/oban-bg/oban-py/blob/main/docs/defining_queues.md, .../installation.md: ten jobs at once, a pool of psycopg's own size
DEFAULTS: Settings = {"concurrency": 10, "connections": 4}
# the same pages: a higher limit for jobs that wait, and a pool that is large enough for it
BEST: Settings = {"concurrency": 50, "connections": 20}
LEFT = "SELECT count(*) FROM oban_jobs WHERE state <> 'completed'"


class Running:
    """What the worker runs; oban finds that by its name."""

    handler: Handler | None = None


@worker(queue="bench")
class Run:
    """The job."""

    async def process(self, job: Any) -> None:
        assert Running.handler is not None
        await Running.handler.call(job.args["i"])


def job(number: int) -> Any:
    """Return a job."""
    made: Any = Run
    return made.new({"i": number, "pad": PAD})


def pooled(url: str, settings: Settings) -> AsyncConnectionPool:
    """Return a pool that is not open yet."""
    return AsyncConnectionPool(url, max_size=settings["connections"], open=False)


async def prepare(url: str, settings: Settings) -> None:
    async with pooled(url, settings) as pool:
        await install(pool)


class ObanProducer:
    def __init__(self, oban: Oban) -> None:
        self._oban = oban

    async def one(self, number: int) -> None:
        await self._oban.enqueue(job(number))

    async def many(self, numbers: Sequence[int]) -> None:
        await self._oban.enqueue_many([job(number) for number in numbers])


@asynccontextmanager
async def producer(url: str, settings: Settings) -> AsyncIterator[Producer]:
    async with pooled(url, settings) as pool, Oban(pool=pool) as oban:
        yield ObanProducer(oban)


async def work(url: str, settings: Settings, handler: Handler, stopped: Stopped) -> None:
    Running.handler = handler
    async with pooled(url, settings) as pool, Oban(pool=pool, queues={"bench": settings["concurrency"]}):
        await stopped.wait()


serve(__name__)
