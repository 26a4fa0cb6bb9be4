"""The listening connection: it is watched, and comes back by itself."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import asyncpg
import pytest

from forge_jobs.errors import StorageBusy
from forge_jobs.model.job import NewJob
from forge_jobs.storage.postgres import PostgresStorage
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.schema import PostgresSchema
from forge_jobs.storage.postgres.wakeups import PostgresWakeups
from forge_jobs.testing.local_postgres import LocalPostgres
from tests.copied_postgres import CopiedPostgres
from tests.storage_postgres.gate import Gate

LISTENERS = (
    "SELECT pid FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid() AND query ~ '^LISTEN|notification_queue'"
)


class Heard:
    """What was told, in order, to be waited for."""

    def __init__(self) -> None:
        self._told: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    def __call__(self, kind: str, subject: str) -> None:
        self._told.put_nowait((kind, subject))

    async def next(self) -> tuple[str, str]:
        async with asyncio.timeout(20):
            return await self._told.get()


@asynccontextmanager
async def listening(wakeups: PostgresWakeups) -> AsyncIterator[Heard]:
    heard = Heard()
    task = asyncio.create_task(wakeups.listen(heard))
    try:
        assert await heard.next() == ("reconnect", "")
        yield heard
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def tell(database: PostgresDatabase, payload: str) -> None:
    await database.execute("SELECT pg_notify({channel}, $1)", payload)


async def test_what_is_told_is_heard_in_order(database: PostgresDatabase) -> None:
    async with listening(PostgresWakeups(database)) as heard:
        for payload in ("queue:7", "empty:a:b", "config:"):
            await tell(database, payload)

        assert [await heard.next() for _ in range(3)] == [("queue", "7"), ("empty", "a:b"), ("config", "")]


async def test_a_terminated_listener_comes_back_and_says_that_it_was_away(database: PostgresDatabase) -> None:
    async with listening(PostgresWakeups(database)) as heard:
        assert await database.fetchval(f"SELECT pg_terminate_backend(pid) FROM ({LISTENERS}) AS listener")

        assert await heard.next() == ("reconnect", "")
        await tell(database, "queue:1")
        assert await heard.next() == ("queue", "1")


async def test_the_listener_comes_back_after_a_restart_of_the_server(
    server: LocalPostgres, database: PostgresDatabase
) -> None:
    async with listening(PostgresWakeups(database)) as heard:
        await asyncio.to_thread(server.restart)

        assert await heard.next() == ("reconnect", "")


async def test_a_listener_whose_connection_went_silent_is_replaced(server: LocalPostgres, url: str) -> None:
    async with Gate(url) as gate:
        database = PostgresDatabase(gate.url)
        wakeups = PostgresWakeups(
            database, check_every=timedelta(seconds=0.1), answer_within=timedelta(seconds=0.3)
        )
        async with listening(wakeups) as heard:
            gate.swallow()

            assert await heard.next() == ("reconnect", "")


async def test_checks_of_the_connection_are_heard_by_nobody(database: PostgresDatabase) -> None:
    hasty = PostgresWakeups(database, check_every=timedelta(milliseconds=1))
    async with listening(PostgresWakeups(database)) as heard, listening(hasty) as also_heard:
        pid = (await database.fetch(f"{LISTENERS} AND query ~ 'notification_queue'")) or await database.fetch(
            LISTENERS
        )
        assert pid
        for number in range(50):
            await tell(database, f"queue:{number}")

        for each in (heard, also_heard):
            assert [await each.next() for _ in range(50)] == [("queue", str(number)) for number in range(50)]


async def test_two_schemas_do_not_hear_each_other(database: PostgresDatabase, url: str) -> None:
    other = PostgresDatabase(url, schema="Other's")
    await other.open()
    async with (
        listening(PostgresWakeups(database)) as heard,
        listening(PostgresWakeups(other)) as other_heard,
    ):
        await tell(other, "queue:1")
        await tell(database, "queue:2")

        assert await heard.next() == ("queue", "2")
        assert await other_heard.next() == ("queue", "1")
    await other.close()


@pytest.mark.parametrize("schema", ["forge_jobs", "My \"S'chema"])
async def test_a_queue_is_called_out_only_while_somebody_is_idle(url: str, schema: str) -> None:
    database = PostgresDatabase(url, schema=schema)
    await PostgresSchema(database).migrate()
    await database.open()
    wakeups = PostgresWakeups(database)
    async with listening(wakeups) as heard:
        await database.execute("SELECT {schema}.wake(1)")
        await wakeups.mark_idle(5, [2, 3])
        await wakeups.mark_idle(5, [3, 4])
        for queue in (1, 2, 3, 4):
            await database.execute(f"SELECT {{schema}}.wake({queue})")
        await wakeups.unmark_idle(5)
        await database.execute("SELECT {schema}.wake(2)")
        await tell(database, "the:end")

        told = [await heard.next() for _ in range(4)]
        assert told == [("queue", "2"), ("queue", "3"), ("queue", "4"), ("the", "end")]
    await database.close()


@pytest.fixture
def choked_soon() -> Iterator[LocalPostgres]:
    """A server whose queue of notifications is as small as it can be."""
    with CopiedPostgres(settings={"fsync": "off", "max_notify_queue_pages": 64}) as server:
        yield server


async def test_what_nobody_hears_fails_no_enqueue_and_is_said(choked_soon: LocalPostgres) -> None:
    storage = PostgresStorage(choked_soon.url())
    await storage.open()
    await storage.schema.migrate()
    deaf, talker = await asyncpg.connect(choked_soon.url()), await asyncpg.connect(choked_soon.url())
    await deaf.execute("LISTEN something")
    await deaf.execute("BEGIN; SELECT 1")
    with pytest.raises(asyncpg.ProgramLimitExceededError):
        for number in range(1000):
            await talker.execute("SELECT pg_notify('something', $1 || repeat('x', 7000))", str(number))
    await storage.wakeups.mark_idle(7, [1])

    for job in (NewJob("work"), NewJob("work", key="one"), NewJob("work", delay=timedelta(seconds=1))):
        await storage.jobs.enqueue(job)
    await storage.jobs.enqueue_many([NewJob("work")] * 300)
    async with talker.transaction():
        await storage.jobs.enqueue(NewJob("work"), connection=talker)
        await talker.fetchval("SELECT forge_jobs.enqueue('work')")
    await storage.queues.set("default", {"paused": True})
    wakeups = PostgresWakeups(storage._database, check_every=timedelta(0))
    with pytest.raises(StorageBusy, match="does not end its transaction"):
        await asyncio.wait_for(wakeups.listen(lambda kind, subject: None), 20)

    assert len(await storage.jobs.find(limit=1000)) == 305
    for connection in (deaf, talker):
        await connection.close()
    await storage.close()
