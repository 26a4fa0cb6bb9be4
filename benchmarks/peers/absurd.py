"""absurd: durable workflows as SQL functions; a job is a task without steps."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import absurdctl
import psycopg
from absurd_sdk import AsyncAbsurd

from benchmarks.peers.adapter import PAD, Handler, Producer, Settings, Stopped, serve

DATABASE = "postgres"
PACKAGES = ("absurd-sdk", "absurdctl", "psycopg")
QUEUE = "bench"
# https://github.com/earendil-works/absurd/blob/main/docs/sdks/python.md (start_worker): one task at a time
DEFAULTS: Settings = {"concurrency": 1}
# the same page: more tasks at once, claimed together
BEST: Settings = {"concurrency": 50}
LEFT = "SELECT count(*) FROM absurd.t_bench WHERE state <> 'completed'"


async def prepare(url: str, settings: Settings) -> None:
    # `absurdctl init` does the same through psql, which need not be installed
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(absurdctl.BUNDLED_SCHEMA_SQL)
    app = AsyncAbsurd(url, queue_name=QUEUE)
    await app.create_queue()
    await app.close()


class AbsurdProducer:
    def __init__(self, app: Any) -> None:
        self._app = app

    async def one(self, number: int) -> None:
        await self._app.spawn("run", {"i": number, "pad": PAD}, queue=QUEUE)

    async def many(self, numbers: Sequence[int]) -> None:
        for number in numbers:  # there is no call for many
            await self.one(number)


@asynccontextmanager
async def producer(url: str, settings: Settings) -> AsyncIterator[Producer]:
    app = AsyncAbsurd(url, queue_name=QUEUE)
    yield AbsurdProducer(app)
    await app.close()


async def work(url: str, settings: Settings, handler: Handler, stopped: Stopped) -> None:
    app = AsyncAbsurd(url, queue_name=QUEUE)

    @app.register_task("run")
    async def run(params: Any, context: Any) -> None:
        await handler.call(params["i"])

    working = asyncio.create_task(app.start_worker(concurrency=settings["concurrency"]))
    await stopped.wait()
    app.stop_worker()
    await working
    await app.close()


serve(__name__)
