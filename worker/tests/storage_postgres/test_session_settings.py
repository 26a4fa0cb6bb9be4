"""Whatever a role, a database or a server is set to, the same happens."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from forge_jobs.errors import InvalidInput, StorageContended
from forge_jobs.model.job import End, NewJob, Postponement, Reason, State
from forge_jobs.model.worker import WorkerInfo
from forge_jobs.storage.postgres import PostgresStorage
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.session_settings import (
    TIMEOUTS,
    local,
    pinned,
    settle,
    transaction_begun_by,
)
from tests.storage_postgres.test_pgbouncer import PGBOUNCER, Start, bouncer  # noqa: F401  a fixture

ODD = {
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "TimeZone": "Europe/Berlin",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "standard_conforming_strings": "off",
    "row_security": "off",
    "lock_timeout": "1ms",
    "statement_timeout": "20ms",
    "idle_in_transaction_session_timeout": "1ms",
    "synchronous_commit": "off",
}

HALF_A_YEAR = timedelta(days=182)
"""Long enough to meet a change of clocks in Berlin, whenever it begins."""

SHADOWS = """
CREATE SCHEMA shadows;
CREATE FUNCTION shadows.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT timestamptz '1999-01-01' $$;
CREATE FUNCTION shadows.statement_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT timestamptz '1999-01-01' $$;
CREATE TABLE shadows.job (id integer);
CREATE FUNCTION shadows.pg_notify(text, text) RETURNS void LANGUAGE sql AS $$ SELECT $$;
"""


@pytest.fixture
async def odd(url: str) -> AsyncIterator[str]:
    """The URL of a role to which everything is set that must not matter, in a database that is set so too."""
    setter = await asyncpg.connect(url)
    name = await setter.fetchval("SELECT current_database()")
    await setter.execute(SHADOWS)
    await setter.execute("CREATE ROLE odd LOGIN SUPERUSER")
    for setting, value in ODD.items():
        await setter.execute(f"ALTER ROLE odd SET {setting} = '{value}'")
        if "timeout" not in setting:
            await setter.execute(f"ALTER DATABASE \"{name}\" SET {setting} = '{value}'")
    await setter.execute("ALTER ROLE odd SET search_path = shadows, pg_catalog")
    await setter.close()
    yield urlunsplit(urlsplit(url)._replace(netloc="odd@"))
    setter = await asyncpg.connect(url)
    await setter.execute("REASSIGN OWNED BY odd TO CURRENT_USER")
    await setter.execute("DROP ROLE odd")
    await setter.close()


WAITS_LONG = """
SELECT EXISTS (
    SELECT FROM pg_locks
    WHERE relation = 'pg_proc'::regclass AND NOT granted AND waitstart < clock_timestamp() - interval '100 ms'
)
"""


@asynccontextmanager
async def slowly(url: str) -> AsyncIterator[None]:
    """What asks the server for a function meanwhile waits for longer than the timeouts of ODD."""
    slowing = asyncio.create_task(_slow(url))
    yield
    slowing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slowing


async def _slow(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        while True:
            async with connection.transaction():
                await connection.execute("LOCK TABLE pg_catalog.pg_proc")
                while not await connection.fetchval(WAITS_LONG):
                    await asyncio.sleep(0.01)
    finally:
        connection.terminate()


async def lives(storage: PostgresStorage) -> None:
    """A job is enqueued, claimed, postponed and ended, at moments that are exact."""
    await storage.workers.register(WorkerInfo(7, "w-1-7", "host", 1, "1", ("default",), ("work",), 5))
    before = datetime.now(UTC) - timedelta(minutes=1)
    job = (await storage.jobs.enqueue(NewJob("work"))).id
    [claim] = await storage.claims.claim(1, 7, limit=1)
    await storage.claims.postpone([Postponement(claim, Reason.RETRY, delay=HALF_A_YEAR, error="it broke")])
    found = await storage.jobs.get(job)
    assert before < found.created_at < before + timedelta(minutes=5)
    assert found.run_at is not None
    assert before + HALF_A_YEAR < found.run_at < before + HALF_A_YEAR + timedelta(minutes=5)
    await storage.jobs.run_now(job)
    [claim] = await storage.claims.claim(1, 7, limit=1)
    await storage.claims.finish([End(claim, State.DONE)])
    assert (await storage.jobs.get(job)).state is State.DONE


async def planned(storage: PostgresStorage, count: int) -> timedelta:
    """Enqueue `count` jobs with a delay; return how long it became."""
    jobs = [NewJob("work", delay=HALF_A_YEAR)] * count
    ids = [job.id for job in await storage.jobs.enqueue_many(jobs)]
    if count == 1:
        ids = [(await storage.jobs.enqueue(jobs[0])).id]
    found = await storage.jobs.get(ids[0])
    assert found.run_at is not None
    return found.run_at - found.created_at


async def test_no_setting_of_a_role_or_a_database_changes_what_happens(odd: str) -> None:
    storage = PostgresStorage(odd)
    await storage.schema.migrate()
    await storage.open()

    await lives(storage)
    assert [await planned(storage, count) for count in (1, 100, 1000)] == [HALF_A_YEAR] * 3
    await storage.close()


async def test_a_slow_server_is_opened_whatever_timeouts_the_role_has(odd: str, url: str) -> None:
    storage = PostgresStorage(odd)
    async with slowly(url):
        assert (await storage.schema.status()).found == 0
        await storage.open()
    await storage.schema.migrate()

    await lives(storage)
    await storage.close()


@pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")
async def test_so_is_one_behind_a_pooler(odd: str, url: str, bouncer: Start) -> None:  # noqa: F811
    await PostgresStorage(odd).schema.migrate()
    storage = PostgresStorage(bouncer("transaction", user="odd"))
    async with slowly(url):
        await storage.open()

    await lives(storage)
    await storage.close()


async def test_settings_that_the_timeout_of_the_role_ends_are_made_again(odd: str) -> None:
    connection = await asyncpg.connect(odd)
    await connection.execute("CREATE SEQUENCE public.tries")
    late = "SELECT CASE WHEN nextval('public.tries') < 3 THEN pg_sleep(60) END;"

    await settle(connection, late + pinned(connection.get_server_version().major))

    assert await connection.fetchval("SHOW statement_timeout") == "0"
    assert await connection.fetchval("SELECT last_value FROM public.tries") >= 3

    await connection.execute("ALTER SEQUENCE public.tries RESTART; SET statement_timeout = '20ms'")
    async with transaction_begun_by(connection, f"BEGIN; {late} {local(TIMEOUTS)}"):
        assert await connection.fetchval("SHOW statement_timeout") == "0"
    assert await connection.fetchval("SHOW statement_timeout") == "20ms"
    await connection.close()


@pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")
async def test_nor_behind_a_pooler_that_keeps_no_settings(odd: str, bouncer: Start) -> None:  # noqa: F811
    through = bouncer("transaction", user="odd")
    storage = PostgresStorage(odd)
    await storage.schema.migrate()
    pooled = PostgresStorage(through)
    await pooled.open()

    await lives(pooled)
    assert await planned(pooled, 1) == HALF_A_YEAR
    await pooled.close()


async def test_a_caller_may_have_any_settings_and_any_isolation(url: str) -> None:
    storage = PostgresStorage(url)
    await storage.schema.migrate()
    await storage.open()
    own = await asyncpg.connect(url)
    await own.execute("SET TimeZone = 'Europe/Berlin'; SET standard_conforming_strings = off")
    for isolation in ("read_committed", "repeatable_read", "serializable"):
        async with own.transaction(isolation=isolation):
            delayed = NewJob("work", delay=HALF_A_YEAR)
            answers = [
                await storage.jobs.enqueue(delayed, connection=own),
                await storage.jobs.enqueue(NewJob("work", delay=HALF_A_YEAR, key=isolation), connection=own),
                *await storage.jobs.enqueue_many([delayed] * 2, connection=own),
                *await storage.jobs.enqueue_many([delayed] * 300, connection=own),
            ]
        for answer in answers[:5]:
            found = await storage.jobs.get(answer.id)
            assert found.run_at is not None
            assert abs(found.run_at - found.created_at - HALF_A_YEAR) < timedelta(milliseconds=1)
    await own.close()
    await storage.close()


async def test_a_transaction_that_was_begun_by_hand_takes_jobs_too(url: str) -> None:
    storage = PostgresStorage(url)
    await storage.schema.migrate()
    await storage.open()
    own = await asyncpg.connect(url)
    await own.execute("BEGIN")
    await storage.jobs.enqueue_many([NewJob("work")] * 300, connection=own)
    await own.execute("COMMIT")
    assert len(await storage.jobs.find(limit=1000)) == 300
    await own.close()
    await storage.close()


async def test_a_transaction_that_may_only_read_is_refused_in_a_sentence(url: str) -> None:
    storage = PostgresStorage(url)
    await storage.schema.migrate()
    await storage.open()
    own = await asyncpg.connect(url)
    with pytest.raises(InvalidInput, match="transaction of the given connection is read-only"):
        async with own.transaction(readonly=True):
            await storage.jobs.enqueue(NewJob("work"), connection=own)
    await own.close()
    await storage.close()


MEET = """
CREATE TABLE thing (number integer PRIMARY KEY, taken integer NOT NULL DEFAULT 0);
INSERT INTO thing VALUES (1), (2);
CREATE FUNCTION meet(first integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE public.thing SET taken = taken + 1 WHERE number = first;
    IF (SELECT pg_try_advisory_xact_lock(first)) THEN  -- the other holds its row, or is done
        FOR look IN 1..200 LOOP
            EXIT WHEN EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 3 - first);
            PERFORM pg_sleep(0.01);
        END LOOP;
    END IF;
    UPDATE public.thing SET taken = taken + 1 WHERE number = 3 - first;
END $$;
"""


@pytest.mark.parametrize("way", ["pool", "lane"])
async def test_of_two_that_block_each_other_both_succeed(database: PostgresDatabase, way: str) -> None:
    await database.execute(MEET)
    second = PostgresDatabase(database._address.url)
    await second.open()
    fetches: list[Any] = [one.fetch if way == "pool" else one.claims.fetch for one in (database, second)]

    await asyncio.gather(*(fetch("SELECT public.meet($1)", n) for n, fetch in enumerate(fetches, 1)))

    assert [row[0] for row in await database.fetch("SELECT taken FROM thing")] == [2, 2]
    await second.close()


async def test_what_others_stop_each_time_is_said_to_be_that_and_no_outage(
    database: PostgresDatabase,
) -> None:
    await database.execute(
        "CREATE SEQUENCE tries; "
        "CREATE FUNCTION busy() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN "
        "IF nextval('public.tries') < 3 OR current_setting('application_name') = 'never' THEN "
        "RAISE EXCEPTION 'not now' USING ERRCODE = 'serialization_failure'; END IF; RETURN 1; END $$"
    )

    assert await database.fetchval("SELECT busy()") == 1
    assert await database.fetchval("SELECT last_value FROM tries") == 3

    never = PostgresDatabase(f"{database._address.url}&application_name=never")
    await never.open()
    with pytest.raises(StorageContended, match=r"^Others were in the way of this call"):
        await never.claims.fetch("SELECT public.busy()")
    await never.close()
