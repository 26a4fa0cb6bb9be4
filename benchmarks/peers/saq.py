"""SAQ on its PostgreSQL queue."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from saq import Queue, Worker

from benchmarks.peers.adapter import PAD, Handler, Producer, Settings, Stopped, serve

DATABASE = "postgres"
PACKAGES = ("saq", "psycopg")
# https://github.com/tobymao/saq/blob/master/docs/settings.md: ten jobs at once
DEFAULTS: Settings = {"concurrency": 10, "connections": 20}
# the same page: the concurrency is raised for jobs that wait; a connection for each
BEST: Settings = {"concurrency": 50, "connections": 50}
LEFT = "SELECT count(*) FROM saq_jobs WHERE status <> 'complete'"


def queue_of(url: str, settings: Settings) -> Any:
    """Return the queue."""
    return Queue.from_url(url, name="bench", max_size=settings["connections"])


async def prepare(url: str, settings: Settings) -> None:
    queue = queue_of(url, settings)
    await queue.connect()
    await queue.disconnect()


class SaqProducer:
    def __init__(self, queue: Any) -> None:
        self._queue = queue

    async def one(self, number: int) -> None:
        await self._queue.enqueue("run", i=number, pad=PAD)

    async def many(self, numbers: Sequence[int]) -> None:
        # there is no call for many that does not wait for their results
        await asyncio.gather(*(self.one(number) for number in numbers))


@asynccontextmanager
async def producer(url: str, settings: Settings) -> AsyncIterator[Producer]:
    queue = queue_of(url, settings)
    await queue.connect()
    yield SaqProducer(queue)
    await queue.disconnect()


async def work(url: str, settings: Settings, handler: Handler, stopped: Stopped) -> None:
    async def run(context: Any, *, i: int, pad: str) -> None:
        await handler.call(i)

    queue = queue_of(url, settings)
    await queue.connect()
    worker = Worker(queue, functions=[("run", run)], concurrency=settings["concurrency"])
    working = asyncio.create_task(worker.start())
    await stopped.wait()
    await worker.stop()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await queue.disconnect()


serve(__name__)
