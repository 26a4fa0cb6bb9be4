"""DBOS: durable workflows; a job is a workflow without steps."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from dbos import DBOS, DBOSClient

from benchmarks.peers.adapter import PAD, Handler, Producer, Settings, Stopped, serve

DATABASE = "postgres"
PACKAGES = ("dbos", "sqlalchemy", "psycopg")
QUEUE = "bench"
# https://docs.dbos.dev/python/reference/queues: no limit of workflows at once, a look each second
DEFAULTS: Settings = {"concurrency": None, "polling_interval_sec": 1.0, "connections": 20}
# the same page: a look each 50 ms, a limit a worker; https://docs.dbos.dev/python/reference/configuration: a larger pool
BEST: Settings = {"concurrency": 100, "polling_interval_sec": 0.05, "connections": 50}
LEFT = "SELECT count(*) FROM dbos.workflow_status WHERE queue_name = 'bench' AND status <> 'SUCCESS'"
CALLS = 16  # at once, where there is no call for many


class Running:
    """What the workflow runs; DBOS finds that by its name."""

    handler: Handler | None = None


@DBOS.workflow(name="run")
async def run(i: int, pad: str) -> None:
    """The job."""
    assert Running.handler is not None
    await Running.handler.call(i)


async def step(i: int, pad: str) -> int:
    """A step of a chain."""
    assert Running.handler is not None
    await Running.handler.call(i)
    return i + 1


@DBOS.workflow(name="chain")
async def chain(first: int, steps: int, pad: str) -> None:
    """A chain is a workflow of so many steps, each of which gets what the one before it returned."""
    number = first
    for _ in range(steps):
        number = await DBOS.run_step_async({"name": "step"}, step, number, pad)


@DBOS.workflow(name="join")
async def join(jobs: int, pad: str) -> None:
    """It enqueues workflows and waits for them, https://docs.dbos.dev/python/tutorials/queue-tutorial; then it is the last job."""
    handles = [await DBOS.enqueue_workflow_async(QUEUE, run, i, pad) for i in range(jobs - 1)]
    for handle in handles:
        await handle.get_result()
    assert Running.handler is not None
    await Running.handler.call(jobs - 1)


def driven(url: str) -> str:
    """Return the URL as SQLAlchemy has it."""
    return url.replace("postgresql://", "postgresql+psycopg://")


def configured(url: str, settings: Settings) -> Any:
    """Return the configuration of a program."""
    return {
        "name": "bench",
        "system_database_url": driven(url),
        "sys_db_pool_size": settings["connections"],
        "application_version": "1",
        "run_admin_server": False,
    }


async def launched(url: str, settings: Settings) -> None:
    """DBOS runs in this process."""
    DBOS(config=configured(url, settings))
    await asyncio.to_thread(DBOS.launch)
    await DBOS.register_queue_async(
        QUEUE,
        worker_concurrency=settings["concurrency"],
        polling_interval_sec=settings["polling_interval_sec"],
    )


async def prepare(url: str, settings: Settings) -> None:
    await launched(url, settings)
    await asyncio.to_thread(DBOS.destroy)


class DbosProducer:
    def __init__(self, client: DBOSClient) -> None:
        self._client = client

    async def one(self, number: int) -> None:
        options: Any = {"queue_name": QUEUE, "workflow_name": "run", "app_version": "1"}
        await self._client.enqueue_async(options, number, PAD)

    async def many(self, numbers: Sequence[int]) -> None:
        waiting = iter(numbers)

        async def call() -> None:
            for number in waiting:
                await self.one(number)

        await asyncio.gather(*(call() for _ in range(CALLS)))


@asynccontextmanager
async def producer(url: str, settings: Settings) -> AsyncIterator[Producer]:
    client = DBOSClient(system_database_url=driven(url))
    yield DbosProducer(client)
    client.destroy()


async def flows(url: str, settings: Settings, shape: str, jobs: int, steps: int) -> dict[str, float]:
    client = DBOSClient(system_database_url=driven(url))
    began = time.monotonic()
    options: Any = {"queue_name": QUEUE, "app_version": "1"}
    if shape == "chains":
        for first in range(0, jobs, steps):
            await client.enqueue_async({**options, "workflow_name": "chain"}, first, steps, PAD)
    else:  # it enqueues the others when it runs
        await client.enqueue_async({**options, "workflow_name": "join"}, jobs, PAD)
    took = time.monotonic() - began
    client.destroy()
    return {"seconds": took}


async def work(url: str, settings: Settings, handler: Handler, stopped: Stopped) -> None:
    Running.handler = handler
    await launched(url, settings)
    await stopped.wait()
    await asyncio.to_thread(DBOS.destroy)


serve(__name__)
