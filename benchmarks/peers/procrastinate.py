"""procrastinate, with its psycopg connector."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import procrastinate

from benchmarks.peers.adapter import PAD, Handler, Producer, Settings, Stopped, serve

DATABASE = "postgres"
PACKAGES = ("procrastinate", "psycopg")
# https://procrastinate.readthedocs.io/en/stable/reference.html (App.run_worker_async): one job at a time, rows kept
DEFAULTS: Settings = {"concurrency": 1, "delete_jobs": "never", "connections": 10}
# https://procrastinate.readthedocs.io/en/stable/howto/production/concurrency.html: more at once for async tasks;
# https://procrastinate.readthedocs.io/en/stable/howto/production/delete_finished_jobs.html: rows deleted by the worker;
# https://procrastinate.readthedocs.io/en/stable/howto/basics/connector.html: the pool as large as needed
BEST: Settings = {"concurrency": 50, "delete_jobs": "always", "connections": 20}
LEFT = "SELECT count(*) FROM procrastinate_jobs WHERE status <> 'succeeded'"


def program(url: str, settings: Settings, handler: Handler | None = None) -> tuple[Any, Any]:
    """Return a program and its one task."""
    app = procrastinate.App(
        connector=procrastinate.PsycopgConnector(conninfo=url, max_size=settings["connections"])
    )

    async def run(i: int, pad: str) -> None:
        assert handler is not None
        await handler.call(i)

    return app, app.task(name="run", queue="bench")(run)


async def prepare(url: str, settings: Settings) -> None:
    app, _ = program(url, settings)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


class ProcrastinateProducer:
    def __init__(self, task: Any) -> None:
        self._task = task

    async def one(self, number: int) -> None:
        await self._task.defer_async(i=number, pad=PAD)

    async def many(self, numbers: Sequence[int]) -> None:
        await self._task.batch_defer_async(*({"i": number, "pad": PAD} for number in numbers))


@asynccontextmanager
async def producer(url: str, settings: Settings) -> AsyncIterator[Producer]:
    app, task = program(url, settings)
    async with app.open_async():
        yield ProcrastinateProducer(task)


async def work(url: str, settings: Settings, handler: Handler, stopped: Stopped) -> None:
    app, _ = program(url, settings, handler)
    async with app.open_async():
        working = asyncio.create_task(
            app.run_worker_async(
                queues=["bench"],
                concurrency=settings["concurrency"],
                delete_jobs=settings["delete_jobs"],
                install_signal_handlers=False,
            )
        )
        await stopped.wait()
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working


serve(__name__)
