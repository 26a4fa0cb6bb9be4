"""A database for one test: SQLite in memory, or a schema of its own in a PostgreSQL that is there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from forge_jobs.forge import Forge
from forge_jobs.storage.sqlite import SqliteStorage
from forge_jobs.testing.clock import Clock
from forge_jobs.testing.due import declare_crons

if TYPE_CHECKING:
    from forge_jobs.storage.postgres import PostgresStorage

TICK = 0.02  # seconds between two looks of workers at a clock that runs


@asynccontextmanager
async def use_test_database(
    forge: Forge, *, now: datetime | None = None, postgres: str | None = None
) -> AsyncIterator[Clock]:
    """`forge` uses an empty database, whose time is the clock that is given.

    It is a SQLite database in memory; or, where `postgres` is the URL of a PostgreSQL, a schema of its own there, which is dropped
    in the end. The crons of handlers that are declared by then fire from the beginning on. Workers live, and lead, by the real time.
    """
    clock = Clock(now)
    async with AsyncExitStack() as stack:
        storage: SqliteStorage | PostgresStorage
        if postgres is None:
            storage = SqliteStorage("sqlite://:memory:", clock=clock, beat_clock=_real_time)
        else:
            storage = await _in_postgres(postgres, clock, forge, stack)
        stack.enter_context(forge.using(storage))
        ticker = _Ticker(storage)
        written = clock.moved

        def moved(now: datetime, pace: float) -> None:
            written(now, pace)
            ticker.moved(pace)

        clock.belongs_to(forge, moved)
        stack.push_async_callback(ticker.stop)
        await stack.enter_async_context(forge)
        await declare_crons(forge)
        yield clock


async def _in_postgres(url: str, clock: Clock, forge: Forge, stack: AsyncExitStack) -> "PostgresStorage":
    from forge_jobs.storage.postgres import PostgresStorage  # only for those that test on it
    from forge_jobs.storage.postgres.clocked import SchemaClock

    schema_clock = SchemaClock(url)
    await schema_clock.open()
    stack.push_async_callback(schema_clock.close)
    clock.belongs_to(forge, schema_clock.move)
    return PostgresStorage(url, schema=schema_clock.schema, own_clock=True)


class _Ticker:
    """Tells workers of this process that it is later."""

    def __init__(self, storage: "SqliteStorage | PostgresStorage") -> None:
        self._wakeups = storage.wakeups
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    def moved(self, pace: float) -> None:
        """The clock was moved, and goes on by itself unless `pace` is 0."""
        if self._task is not None:
            self._task.cancel()
        self._task = self._loop.create_task(self._tick() if pace else self._tell())

    async def stop(self) -> None:
        """Nobody is told any more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _tick(self) -> None:
        while True:
            await self._tell()
            await asyncio.sleep(TICK)

    async def _tell(self) -> None:
        self._wakeups.tell_here("due")
        self._wakeups.tell_here("config")


def _real_time() -> datetime:
    return datetime.now(UTC)
