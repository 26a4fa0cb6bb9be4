"""The pool, the lanes, and what becomes of the driver's errors."""

import asyncio
import gc
import sqlite3
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from forge_jobs.errors import (
    ForgeError,
    InvalidInput,
    SchemaOutdated,
    StorageBusy,
    StorageUnavailable,
    StorageUnusable,
)
from forge_jobs.maintenance.reaper import Reaper
from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.worker import Beat, WorkerInfo
from forge_jobs.storage.postgres import PostgresStorage
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.lane import Lane
from forge_jobs.storage.postgres.server import check_server
from forge_jobs.storage.unsent import may_be_carried_out
from forge_jobs.system.uptime import uptime
from forge_jobs.telemetry.telemetry import Telemetry
from forge_jobs.testing.local_postgres import LocalPostgres
from forge_jobs.worker.heartbeat import Heartbeat
from forge_jobs.worker.run_counts import RunCounts
from tests.storage_postgres.conftest import until
from tests.storage_postgres.gate import Gate

SLEEPERS = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"


async def succeeds(database: PostgresDatabase) -> bool:
    """Whether the pool and all lanes answer."""
    try:
        await database.fetchval("SELECT 1")
        await database.claims.fetch("SELECT 1")
        await database.outcomes.fetch("SELECT 1")
        await database.liveness.fetch("SELECT 1")
    except StorageUnavailable:
        return False
    return True


@pytest.fixture(params=["claims", "outcomes", "liveness"])
def lane(database: PostgresDatabase, request: pytest.FixtureRequest) -> Lane:
    found: Lane = getattr(database, request.param)
    return found


async def test_a_cancelled_statement_leaves_its_lane_usable(database: PostgresDatabase, lane: Lane) -> None:
    sleeping = asyncio.create_task(lane.fetch("SELECT pg_sleep(600)"))
    await until(lambda: database.fetchval(SLEEPERS))

    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping

    assert [tuple(row) for row in await lane.fetch("SELECT 7")] == [(7,)]


async def test_a_cancelled_statement_stops_on_the_server_too(database: PostgresDatabase, lane: Lane) -> None:
    sleeping = asyncio.create_task(lane.fetch("SELECT pg_sleep(600)"))
    await until(lambda: database.fetchval(SLEEPERS))

    sleeping.cancel()

    async def nobody_sleeps() -> bool:
        return await database.fetchval(SLEEPERS) == 0

    await until(nobody_sleeps)


async def test_one_cancelled_statement_does_not_disturb_those_that_wait_behind_it(
    database: PostgresDatabase, lane: Lane
) -> None:
    sleeping = asyncio.create_task(lane.fetch("SELECT pg_sleep(600)"))
    await until(lambda: database.fetchval(SLEEPERS))
    waiting = [asyncio.create_task(lane.fetch("SELECT $1::int", number)) for number in range(5)]

    waiting[2].cancel()
    sleeping.cancel()

    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [answer[0][0] for answer in answers if isinstance(answer, list)] == [0, 1, 3, 4]


async def test_statements_cancelled_at_any_moment_leave_lane_and_pool_usable(url: str) -> None:
    database = PostgresDatabase(url, pool_size=1)
    await database.open()

    async def both(number: int) -> list[Any]:
        return [
            await database.fetchval("SELECT $1::int", number),
            *await database.claims.fetch("SELECT $1::int", number),
        ]

    for turns in range(40):
        task = asyncio.create_task(both(turns))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    assert await both(42) == [42, (42,)]
    await database.close()


async def test_a_statement_that_takes_too_long_raises_and_leaves_everything_usable(url: str) -> None:
    database = PostgresDatabase(url, pool_size=1, command_timeout=timedelta(seconds=0.2))
    await database.open()

    for slow in (database.fetch, database.claims.fetch, database.outcomes.fetch):
        with pytest.raises(StorageUnavailable, match="did not answer in time"):
            await slow("SELECT pg_sleep(600)")

    assert await succeeds(database)
    await database.close()


@pytest.mark.parametrize("way", ["pool", "lane"])
async def test_whoever_waits_on_a_silent_network_can_be_cancelled_and_try_again(url: str, way: str) -> None:
    async with Gate(url) as gate:
        database = PostgresDatabase(gate.url, pool_size=1, command_timeout=timedelta(hours=1))
        await database.open()
        fetch = database.fetch if way == "pool" else database.claims.fetch
        await fetch("SELECT 1")
        gate.swallow()

        waiting = asyncio.create_task(fetch("SELECT 2"))
        await until(gate.has_swallowed)
        waiting.cancel()
        await asyncio.wait([waiting], timeout=20)

        assert waiting.cancelled()
        assert await fetch("SELECT 3") == [(3,)]
        await database.close()


@pytest.mark.parametrize("sent", [True, False])
async def test_it_is_known_of_a_cancelled_statement_whether_it_was_sent(url: str, sent: bool) -> None:
    async with Gate(url) as gate:
        database = PostgresDatabase(gate.url)
        await database.open()
        if sent:
            await database.outcomes.fetch("SELECT 1")
        gate.swallow_all()

        asking = asyncio.create_task(_carried_out(database.outcomes.fetch("SELECT 2")))
        await until(gate.has_swallowed if sent else gate.has_taken)
        asking.cancel()

        assert await asking is sent
        await database.close()


async def _carried_out(call: Awaitable[object]) -> bool:
    try:
        await call
    except BaseException as error:
        return may_be_carried_out(error)
    return True


async def test_a_statement_that_finds_no_connection_is_not_sent(url: str) -> None:
    async with Gate(url) as gate:
        database = PostgresDatabase(gate.url)
        await database.open()
        gate.refuse()

        assert not await _carried_out(database.outcomes.fetch("SELECT 1"))
        await database.close()


async def test_whoever_is_cancelled_twice_on_a_silent_network_leaves_no_task_that_nobody_hears(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, facts: complaints.append(facts))
    releasing, given_up = asyncio.Event(), asyncio.Event()
    released = asyncpg.pool.PoolConnectionHolder.release

    async def release(*given: Any) -> None:
        releasing.set()
        try:
            await released(*given)
        finally:
            given_up.set()

    monkeypatch.setattr(asyncpg.pool.PoolConnectionHolder, "release", release)
    async with Gate(url) as gate:
        database = PostgresDatabase(gate.url)
        await database.open()
        await database.fetchval("SELECT 1")
        gate.swallow_all()
        releasing.clear()
        given_up.clear()
        asking = asyncio.create_task(database.fetchval("SELECT 2"))
        await until(gate.has_swallowed)
        asking.cancel()
        await releasing.wait()
        asking.cancel()
        await asyncio.wait([asking])
        del asking
        await given_up.wait()
        await asyncio.sleep(0)
        gc.collect()
        await database.close()
    assert complaints == []


async def test_of_connections_that_fell_silent_together_only_one_is_waited_for(url: str) -> None:
    async with Gate(url) as gate:
        database = PostgresDatabase(gate.url, pool_size=3, command_timeout=timedelta(seconds=2))
        await database.open()
        await asyncio.gather(*(database.fetch("SELECT pg_sleep(0.2)") for _ in range(3)))
        gate.swallow()

        with pytest.raises(StorageUnavailable, match="did not answer in time"):
            await database.fetch("SELECT 1")

        assert await asyncio.gather(*(database.fetch("SELECT 2") for _ in range(3))) == [[(2,)]] * 3
        await database.close()


async def test_a_lock_that_somebody_keeps_is_no_database_that_is_away(
    database: PostgresDatabase, url: str
) -> None:
    own = PostgresDatabase(url, pool_size=1, command_timeout=timedelta(seconds=1))
    await own.open()
    await own.execute("CREATE TABLE kept (id integer)")
    [[used]] = await own.fetch("SELECT pg_backend_pid()")
    async with database.transaction() as connection:
        await connection.execute("LOCK TABLE kept")

        with pytest.raises(StorageBusy, match=r"is busy: canceling statement due to lock timeout\.$"):
            await own.fetch("SELECT * FROM kept")

    assert await own.fetch("SELECT pg_backend_pid()") == [(used,)]
    await own.close()


async def test_close_does_not_wait_for_a_statement_that_runs(database: PostgresDatabase, url: str) -> None:
    closing = PostgresDatabase(url)
    await closing.open()
    sleeping = asyncio.create_task(closing.outcomes.fetch("SELECT pg_sleep(600)"))
    behind = asyncio.create_task(closing.outcomes.fetch("SELECT 1"))
    await until(lambda: database.fetchval(SLEEPERS))

    await closing.close()

    for task in (sleeping, behind):
        with pytest.raises(StorageUnavailable):
            await task


async def test_a_wrong_statement_leaves_its_lane_usable(database: PostgresDatabase, lane: Lane) -> None:
    with pytest.raises(InvalidInput, match="division by zero"):
        await lane.fetch("SELECT 1 / 0")

    assert await succeeds(database)


async def test_a_terminated_connection_is_replaced(database: PostgresDatabase) -> None:
    assert await succeeds(database)

    await database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    await until(lambda: succeeds(database))


@pytest.mark.parametrize("immediate", [False, True])
async def test_pool_and_lanes_come_back_when_the_server_does(
    server: LocalPostgres, database: PostgresDatabase, immediate: bool
) -> None:
    assert await succeeds(database)
    sleeping = asyncio.create_task(database.claims.fetch("SELECT pg_sleep(600)"))
    await until(lambda: database.fetchval(SLEEPERS))

    await asyncio.to_thread(server.stop, immediate)
    with pytest.raises(StorageUnavailable):
        await sleeping
    assert not await succeeds(database)
    await asyncio.to_thread(server.start)

    await until(lambda: succeeds(database))


async def test_a_database_that_became_read_only_is_unavailable_until_it_is_not(
    database: PostgresDatabase, url: str
) -> None:
    await database.execute("CREATE TABLE thing (number integer)")
    name = await database.fetchval("SELECT current_database()")
    await database.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    other = PostgresDatabase(url)
    await other.open()

    with pytest.raises(
        StorageUnusable, match="is read-only for this role: default_transaction_read_only is on"
    ):
        await other.execute("INSERT INTO thing VALUES (1)")
    await database.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    await other.execute("INSERT INTO thing VALUES (2)")

    assert await database.fetchval("SELECT number FROM thing") == 2
    await other.close()


async def test_only_claims_may_be_forgotten_by_a_crash(database: PostgresDatabase) -> None:
    async def commits(fetch: Any) -> str:
        return str((await fetch("SHOW synchronous_commit"))[0][0])

    assert await commits(database.claims.fetch) == "off"
    assert await commits(database.outcomes.fetch) == "on"
    assert await commits(database.fetch) == "on"


async def test_settings_last_from_one_use_of_a_connection_to_the_next(url: str) -> None:
    database = PostgresDatabase(url, pool_size=1)
    await database.open()

    assert [await database.fetchval("SHOW jit") for _ in range(3)] == ["off"] * 3
    await database.close()


async def test_connections_say_whose_they_are(database: PostgresDatabase, url: str) -> None:
    named = PostgresDatabase(f"{url}&application_name=shop")
    await named.open()

    assert await database.fetchval("SHOW application_name") == "forge-jobs"
    assert await named.fetchval("SHOW application_name") == "shop"
    await named.close()


async def test_nothing_is_opened_after_close(url: str) -> None:
    database = PostgresDatabase(url)
    await database.open()
    await database.close()

    for fetch in (database.fetch, database.claims.fetch, database.outcomes.fetch):
        with pytest.raises(StorageUnavailable, match="not open"):
            await fetch("SELECT 1")


async def test_a_storage_that_was_closed_may_be_opened_again(database: PostgresDatabase) -> None:
    await database.close()
    await database.open()

    assert await succeeds(database)


async def test_a_missing_schema_says_what_to_run(database: PostgresDatabase) -> None:
    with pytest.raises(SchemaOutdated, match="run forge-jobs db migrate"):
        await database.fetch("SELECT * FROM {schema}.job")


async def test_a_missing_database_says_what_to_run(server: LocalPostgres) -> None:
    with pytest.raises(StorageUnavailable, match='"nowhere" does not exist; run forge-jobs db create'):
        await PostgresDatabase(server.url("nowhere")).open()


async def test_a_database_that_takes_no_connections_is_unavailable_until_it_does(
    server: LocalPostgres, url: str
) -> None:
    """As during a restore: it has refused nothing of what is kept for it."""
    name = url.partition("?")[0].rpartition("/")[2]
    async with AsyncExitStack() as stack:
        database = PostgresDatabase(url)
        await database.open()
        stack.push_async_callback(database.close)
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        stack.callback(server.execute, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        for use in (database.outcomes.fetch, database.fetch):
            with pytest.raises(StorageUnavailable, match="not currently accepting connections"):
                await use("SELECT 1")
        with pytest.raises(StorageUnavailable, match="not currently accepting connections"):
            await PostgresDatabase(url).open()


async def test_a_refused_connection_names_the_address_and_no_password() -> None:
    with pytest.raises(StorageUnavailable) as caught:
        await PostgresDatabase("postgresql://me:secret@127.0.0.1:1/shop").open()

    assert "postgresql://me:***@127.0.0.1:1/shop" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:sec@ret@host/shop",
        "postgresql://me:sec/ret@host/shop",
        "postgresql://me:sec#ret@host/shop",
        "postgresql://me:sec?ret@host/shop",
        "host=somewhere password=secret",
        "mysql://me:secret@host/shop",
        "postgresql://me:secret@host:54x2/shop",
        "postgresql://me:secret@host/shop?sslmode=perhaps",
        "postgresql:///shop?host=host&port=many&password=secret",
        "postgresql://me:secret@[::1/shop",
    ],
)
async def test_a_url_that_would_be_misread_is_refused_without_repeating_the_password(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await PostgresDatabase(url).open()

    assert not any(part in str(caught.value) for part in ("secret", "sec@", "sec/", "sec#", "sec?", "ret@"))


def test_a_storage_shows_its_url_without_the_password() -> None:
    assert (
        PostgresDatabase("postgresql://me:s%40cret@host:5432/shop").url
        == "postgresql://me:***@host:5432/shop"
    )


def test_a_server_that_is_too_old_is_refused_in_one_sentence() -> None:
    check_server("postgresql://host/shop", 14, 0)
    with pytest.raises(InvalidInput, match=r"is PostgreSQL 13\.4, allowed is 14 or newer"):
        check_server("postgresql://host/shop", 13, 4)


@pytest.mark.parametrize("schema", ["", "x" * 64, "pg_forge", "dollar$$", "nul\0"])
def test_a_schema_that_cannot_be_one_is_refused(schema: str) -> None:
    with pytest.raises(InvalidInput, match="The schema is"):
        PostgresDatabase("postgresql://host/shop", schema=schema)


async def test_a_callers_transaction_is_theirs_to_commit(database: PostgresDatabase, url: str) -> None:
    await database.execute("CREATE TABLE thing (number integer)")
    own = await asyncpg.connect(url)
    transaction = own.transaction()
    await transaction.start()

    await database.execute("INSERT INTO thing VALUES (1)", connection=own)
    seen_before = await database.fetchval("SELECT count(*) FROM thing")
    await transaction.rollback()

    assert (seen_before, await database.fetchval("SELECT count(*) FROM thing")) == (0, 0)
    await own.close()


async def test_a_failure_inside_a_part_of_the_callers_transaction_undoes_that_part_only(
    database: PostgresDatabase, url: str
) -> None:
    await database.execute("CREATE TABLE thing (number integer)")
    async with (
        asyncpg.create_pool(url, min_size=1, max_size=1) as pool,
        pool.acquire() as own,
        own.transaction(),
    ):
        await own.execute("INSERT INTO thing VALUES (1)")
        with pytest.raises(ForgeError):
            async with database.transaction(own) as inside:
                await inside.execute("INSERT INTO thing VALUES (2)")
                await inside.execute("SELECT 1 / 0")

    assert [row["number"] for row in await database.fetch("SELECT number FROM thing")] == [1]


@pytest.mark.parametrize("commits", [True, False])
async def test_a_session_of_sqlalchemy_carries_our_statements_in_its_transaction(
    database: PostgresDatabase, url: str, commits: bool
) -> None:
    await database.execute("CREATE TABLE thing (number integer)")
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))

    async with AsyncSession(engine) as session:
        await database.execute("INSERT INTO thing VALUES (1)", connection=session)
        await (session.commit() if commits else session.rollback())
    async with engine.connect() as connection:
        await database.execute("INSERT INTO thing VALUES (2)", connection=connection)
        await (connection.commit() if commits else connection.rollback())

    assert await database.fetchval("SELECT count(*) FROM thing") == (2 if commits else 0)
    await engine.dispose()


async def test_a_connection_of_another_kind_is_refused_by_its_name(database: PostgresDatabase) -> None:
    with sqlite3.connect(":memory:") as wrong, pytest.raises(InvalidInput, match=r"sqlite3\.Connection"):
        await database.fetch("SELECT 1", connection=wrong)
    wrong.close()


async def test_a_pool_that_is_used_up_keeps_no_worker_from_saying_that_it_lives(url: str) -> None:
    storage = PostgresStorage(url, pool_size=2, command_timeout=timedelta(seconds=20))
    await storage.open()
    await storage.schema.migrate()
    me = WorkerInfo(7, "a", "here", 1, "1", ("default",), ("work",), 1)
    await storage.workers.register(me)
    async with storage._database.connection(), storage._database.connection():
        await storage.workers.beat(me.id)
        assert await storage.leadership.lead(me.id, timedelta(seconds=15)) == 1
        assert list((await storage.workers.beats()).at) == [me.id]
        assert await storage.workers.declare_lost({}, epoch=1) == {}
        await storage.workers.drain(me.id)
        await storage.leadership.resign(me.id)
        await storage.workers.deregister(me.id)
    await storage.close()


async def test_whoever_cancels_all_tasks_cancels_no_call_by_the_tasks_of_the_driver(url: str) -> None:
    storage = PostgresStorage(url, pool_size=2)
    await storage.open()
    await storage.schema.migrate()

    async def calls() -> int:
        return sum([len(await storage.queues.all()) for _ in range(200)])

    spared = asyncio.all_tasks()
    call = asyncio.create_task(calls())
    cancelled = 0
    while not call.done():
        for task in asyncio.all_tasks() - spared - {call}:
            cancelled += task.cancel()
        await asyncio.sleep(0)

    assert (await call, cancelled > 0) == (200, True)
    call = asyncio.create_task(calls())
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await storage.close()


async def test_whoever_holds_a_workers_row_keeps_its_heartbeat_waiting_for_moments_only(url: str) -> None:
    storage = PostgresStorage(url)
    await storage.open()
    await storage.schema.migrate()
    await storage.workers.register(WorkerInfo(7, "a", "here", 1, "1", ("default",), ("work",), 1))
    async with storage._database.transaction() as other:
        await other.execute("SELECT FROM forge_jobs.worker FOR UPDATE")

        with pytest.raises(StorageUnavailable, match="lock timeout"):
            await storage.workers.beat(7)
    await storage.workers.beat(7)
    await storage.close()


@pytest.mark.parametrize("is_leading", [False, True], ids=["alone", "beside a reaper"])
async def test_a_heartbeat_whose_connection_has_gone_silent_finds_another_in_time(
    url: str, is_leading: bool
) -> None:
    async with Gate(url) as gate:
        storage = PostgresStorage(gate.url, command_timeout=timedelta(hours=1))
        await storage.open()
        await storage.schema.migrate()
        await storage.workers.register(WorkerInfo(7, "a", "here", 1, "1", ("default",), ("work",), 1))
        heard: list[Beat] = []

        async def has_heard() -> bool:
            return bool(heard)

        times = {"heartbeat": timedelta(seconds=0.5), "stale": timedelta(seconds=15)}
        heartbeat = Heartbeat(
            storage,
            Telemetry(),
            7,
            "a",
            RunCounts(),
            interval=times["heartbeat"],
            stale=times["stale"],
            heard=heard.append,
            fence=lambda moment: None,
        )
        beating = asyncio.create_task(heartbeat.run(uptime()))
        await until(has_heard)
        gate.swallow()
        if is_leading:  # its question comes before the next beat, on the same connection
            epoch = LeaderEpoch(1)
            reaping = asyncio.create_task(Reaper(storage, Telemetry(), 7, **times).reap(epoch))
        await until(gate.has_swallowed)
        heard.clear()

        await until(has_heard)
        assert not beating.done()
        if is_leading:
            with pytest.raises(StorageUnavailable, match="did not answer in time"):
                await reaping
        beating.cancel()
        await asyncio.wait([beating])
        await storage.close()
