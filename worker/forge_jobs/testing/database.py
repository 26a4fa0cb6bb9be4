"""A database for one test: SQLite in memory, or a schema of its own in a PostgreSQL that is there."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import msgspec

from forge_jobs.errors import InvalidInput
from forge_jobs.forge import Forge
from forge_jobs.model.job import Alike, Enqueued, NewJob
from forge_jobs.model.permit import Permit, PermitRequest
from forge_jobs.model.rate_limit import Lease
from forge_jobs.storage.interface.jobs import Jobs
from forge_jobs.storage.interface.permits import Permits
from forge_jobs.storage.interface.tokens import Tokens
from forge_jobs.storage.sqlite import SqliteStorage
from forge_jobs.testing.clock import Clock
from forge_jobs.testing.due import declare_crons, run_due_jobs

if TYPE_CHECKING:
    from forge_jobs.storage.interface.storage import Storage
    from forge_jobs.storage.postgres import PostgresStorage

_clocks: WeakKeyDictionary[Forge, Clock] = WeakKeyDictionary()
"""Of the test databases that are in use."""

TICK = 0.02  # seconds between two looks of workers at a clock that runs


@asynccontextmanager
async def use_test_database(
    forge: Forge, *, now: datetime | None = None, postgres: str | None = None, inline: bool = False
) -> AsyncIterator[Clock]:
    """`forge` uses an empty database, whose time is the clock that is given.

    It is a SQLite database in memory; or, where `postgres` is the URL of a PostgreSQL, a schema of its own there, which is dropped
    in the end. The crons of handlers that are declared by then fire from the beginning on. Workers live, and lead, by the real time.
    With `inline`, what is due runs whenever something was enqueued; what that enqueues runs after it. A job of a transaction waits for the
    next time that something runs.
    """
    clock = Clock(now)
    async with AsyncExitStack() as stack:
        storage: SqliteStorage | PostgresStorage
        if postgres is None:
            storage = in_memory = SqliteStorage("sqlite://:memory:", clock=clock, beat_clock=_real_time)
            make_sync: Callable[[], Storage] = partial(
                SqliteStorage, in_memory.url, is_sync=True, shared=in_memory
            )
        else:
            storage, make_sync = await _in_postgres(postgres, clock, forge, stack)
        storage.tokens = cast(Any, _StandingTokens(storage.tokens, clock))
        storage.permits = cast(Any, _StandingPermits(storage.permits, clock))
        if inline:
            storage.jobs = cast(Any, _InlineJobs(storage.jobs, forge))
        stack.enter_context(forge.using(storage, make_sync))
        ticker = _Ticker(storage)
        written = clock.moved

        def moved(now: datetime, pace: float) -> None:
            written(now, pace)
            ticker.moved(pace)

        clock.belongs_to(forge, moved)
        stack.push_async_callback(ticker.stop)
        stack.callback(clock.is_alone)
        await stack.enter_async_context(forge)
        await declare_crons(forge)
        _clocks[forge] = clock
        yield clock
        del _clocks[forge]


def clock_of(forge: Forge) -> Clock:
    """Return the clock of the test database that the forge uses. Raises InvalidInput when it uses none."""
    if forge not in _clocks:
        raise InvalidInput("This Forge uses no test database, allowed is one inside of use_test_database.")
    return _clocks[forge]


class _StandingTokens:
    """The tokens of a database: who finds none is told when its clock stands still, and nobody waits for what does not come."""

    def __init__(self, tokens: Tokens, clock: Clock) -> None:
        self._tokens, self._clock = tokens, clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokens, name)

    async def lease(self, scope: str, tokens: int) -> Lease:
        """See `Tokens`."""
        lease = await self._tokens.lease(scope, tokens)
        return lease if self._clock.pace else replace(lease, time_stands_still=True)


class _StandingPermits:
    """The permits of a database: while its clock stands still, a job whose permit is for later is put off, whatever its patience."""

    def __init__(self, permits: Permits, clock: Clock) -> None:
        self._permits, self._clock = permits, clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._permits, name)

    async def reserve(self, wanted: Sequence[PermitRequest]) -> list[Permit]:
        """See `Permits`."""
        if self._clock.pace:
            return await self._permits.reserve(wanted)
        at_once = [msgspec.structs.replace(request, patience=timedelta(0)) for request in wanted]
        permits = await self._permits.reserve(at_once)
        return [msgspec.structs.replace(permit, time_stands_still=True) for permit in permits]


class _InlineJobs:
    """The jobs of a database; what is due runs as soon as something was enqueued."""

    def __init__(self, jobs: Jobs, forge: Forge) -> None:
        self._jobs, self._forge = jobs, forge
        self._runs = False
        self._is_more = False  # was enqueued while others ran

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jobs, name)

    async def enqueue(self, job: NewJob, *, connection: Any = None) -> Enqueued:
        """The job has run, unless it is one of a transaction, or of a handler: then it runs after that."""
        enqueued = await self._jobs.enqueue(job, connection=connection)
        await self._run(connection)
        return enqueued

    async def enqueue_many(self, jobs: Sequence[NewJob] | Alike, *, connection: Any = None) -> list[Enqueued]:
        """The same, for many jobs."""
        enqueued = await self._jobs.enqueue_many(jobs, connection=connection)
        await self._run(connection)
        return enqueued

    async def _run(self, connection: Any) -> None:
        self._is_more = True
        if self._runs or connection is not None:
            return
        self._runs = True
        try:
            while self._is_more:
                self._is_more = False
                await run_due_jobs(self._forge)
        finally:
            self._runs = False


async def _in_postgres(
    url: str, clock: Clock, forge: Forge, stack: AsyncExitStack
) -> "tuple[PostgresStorage, Callable[[], Storage]]":
    from forge_jobs.storage.postgres import PostgresStorage  # only for those that test on it
    from forge_jobs.storage.postgres.clocked import SchemaClock

    schema_clock = SchemaClock(url)
    await schema_clock.open()
    stack.push_async_callback(schema_clock.close)
    clock.belongs_to(forge, schema_clock.move)
    storage = partial(PostgresStorage, url, schema=schema_clock.schema, own_clock=True)
    return storage(), partial(storage, is_sync=True)


class _Ticker:
    """Tells workers of this process that it is later."""

    def __init__(self, storage: "SqliteStorage | PostgresStorage") -> None:
        self._wakeups = storage.wakeups
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    def moved(self, pace: float) -> None:
        """The clock was moved, perhaps in the thread of a handler, and goes on by itself unless `pace` is 0."""
        self._loop.call_soon_threadsafe(self._begin, pace)

    def _begin(self, pace: float) -> None:
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
