"""Migrations by many at once, by people with few rights, and in schemas with awkward names."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from forge_jobs.errors import SchemaOutdated, SchemaTooNew, StorageBusy, StorageRefused, StorageUnavailable
from forge_jobs.model.job import NewJob
from forge_jobs.model.worker import WorkerInfo
from forge_jobs.storage.interface.schema import Schema
from forge_jobs.storage.postgres import PostgresStorage
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.schema import PostgresSchema, lock_key
from forge_jobs.storage.postgres.session_settings import PINNED
from forge_jobs.storage.postgres.workers import PostgresWorkers
from forge_jobs.testing.local_postgres import LocalPostgres
from tests.storage_postgres.conftest import until
from tests.storage_postgres.next_release import BEFORE_THE_INDEX, KNOWN, NEXT, TODAY

WORKER = WorkerInfo(7, "shop-worker-1-7", "host", 1, "1", ("default",), ("work",), 1)

MIGRATE = """
import asyncio, sys
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.schema import PostgresSchema

async def main():
    schema = PostgresSchema(PostgresDatabase(sys.argv[1]))
    print("ready", flush=True)
    sys.stdin.readline()
    await schema.create()
    print(await schema.migrate(), flush=True)

asyncio.run(main())
"""


@pytest.fixture
def schema(database: PostgresDatabase) -> PostgresSchema:
    return PostgresSchema(database)


@pytest.fixture
async def absent(server: LocalPostgres) -> AsyncIterator[str]:
    """The URL of a database that is not there."""
    yield server.url("Absent one")
    server.drop_database("Absent one")


async def test_a_database_is_not_created_while_somebody_creates_another_and_that_is_said(
    absent: str, server: LocalPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forge_jobs.storage.postgres.schema.CREATE_PATIENCE", 0.0)
    schema = PostgresSchema(PostgresDatabase(absent))
    other = await asyncpg.connect(server.url("postgres"))
    try:
        await other.execute("SELECT pg_advisory_lock($1)", lock_key("create database"))
        pid = other.get_server_pid()

        with pytest.raises(
            StorageBusy, match=f"^Database 'Absent one' was not created: process {pid} of user"
        ):
            await schema.create()
    finally:
        await other.close()

    await schema.create()
    assert (await schema.status()).found == 0


async def test_ten_processes_may_create_and_migrate_at_once(absent: str) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            MIGRATE,
            absent,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(10)
    ]
    for process in processes:
        assert process.stdout is not None
        await process.stdout.readline()
    answers = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))

    assert [process.returncode for process in processes] == [0] * 10
    assert sorted(int(out) for out, _ in answers) == [0] * 9 + [len(TODAY)]
    assert (await PostgresSchema(PostgresDatabase(absent)).status()).found == KNOWN


async def test_a_newer_schema_is_refused_and_left_alone(
    schema: PostgresSchema, database: PostgresDatabase
) -> None:
    await schema.migrate()
    await database.execute("INSERT INTO {schema}.migration VALUES ($1, 'from_the_future', now())", KNOWN + 1)

    with pytest.raises(SchemaTooNew) as caught:
        await schema.migrate()

    assert (caught.value.found, caught.value.known) == (KNOWN + 1, KNOWN)
    assert (await schema.status()).found == KNOWN + 1


async def test_an_old_schema_gets_the_migrations_that_it_lacks(
    schema: PostgresSchema, database: PostgresDatabase
) -> None:
    assert (await schema.status()).found == 0

    assert await schema.migrate() == len(TODAY)
    assert await schema.migrate() == 0

    found = await database.fetch("SELECT number, name FROM {schema}.migration ORDER BY number")
    assert [tuple(row) for row in found] == [(step.number, step.name) for step in TODAY]


async def test_a_new_database_gets_at_once_what_older_ones_got_step_by_step(
    schema: PostgresSchema, database: PostgresDatabase, url: str, server: LocalPostgres, next_release: None
) -> None:
    other = PostgresDatabase(server.create_database("Step by step"))
    assert await schema.migrate() == len(NEXT)
    lacking = await migrated_up_to(KNOWN, PostgresSchema(other))
    assert await PostgresSchema(other).migrate() == lacking

    await other.open()
    made = [sorted(tuple(row) for row in await each.fetch(MADE)) for each in (database, other)]
    assert made[0] == made[1]
    assert ("made_up_index", "i", True) in made[0]
    await other.close()
    server.drop_database("Step by step")


MADE = """
SELECT relname, relkind::text, coalesce(indisvalid, true)
FROM pg_class LEFT JOIN pg_index ON indexrelid = pg_class.oid
WHERE relnamespace = '{schema_text}'::regnamespace
"""


async def test_a_migration_that_fails_leaves_nothing_behind(
    schema: PostgresSchema, database: PostgresDatabase
) -> None:
    await database.execute("CREATE SCHEMA {schema}; CREATE TABLE {schema}.jobs (in_the_way integer)")

    with pytest.raises(StorageRefused, match="already exists"):
        await schema.migrate()

    assert await database.fetchval("SELECT to_regclass('{schema_text}.job')") is None
    assert (await schema.status()).found == 0


@pytest.mark.parametrize(
    "name", ["My Schema", "select", 'quote"d', "it's", "ünï-cödé", "x" * 63, "{channel}", "{schema}", "%s"]
)
async def test_a_schema_may_have_any_name_and_several_live_side_by_side(url: str, name: str) -> None:
    database, other = PostgresDatabase(url, schema=name), PostgresDatabase(url)
    for each in (database, other):
        await PostgresSchema(each).migrate()
    await database.open()
    worker = WorkerInfo(7, "shop-worker-1-7", "host", 1, "1", ("default",), (), 1)
    await PostgresWorkers(database).register(worker)
    await database.fetchval("SELECT {schema}.enqueue('greet')")

    assert await database.fetchval("SELECT count(*) FROM {schema}.jobs") == 1
    await PostgresSchema(other).drop()
    assert [found.id for found in await PostgresWorkers(database).all()] == [7]
    await database.close()


async def test_drop_leaves_nothing_and_everything_can_be_made_again(
    schema: PostgresSchema, database: PostgresDatabase
) -> None:
    await schema.migrate()
    await schema.drop()

    assert (await schema.status()).found == 0
    assert await database.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = 'forge_jobs'") == 0
    with pytest.raises(SchemaOutdated):
        await PostgresWorkers(database).all()
    await schema.drop()
    await schema.migrate()
    assert await PostgresWorkers(database).all() == []


async def test_whoever_may_only_use_the_tables_can_start_on_a_migrated_schema(
    schema: PostgresSchema, database: PostgresDatabase, url: str
) -> None:
    await schema.migrate()
    await database.execute(
        """
        DROP ROLE IF EXISTS clerk;
        CREATE ROLE clerk LOGIN;
        GRANT USAGE ON SCHEMA {schema} TO clerk;
        GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO clerk;
        """
    )
    as_clerk = urlunsplit(urlsplit(url)._replace(netloc="clerk@"))

    assert await PostgresSchema(PostgresDatabase(as_clerk)).migrate() == 0
    with pytest.raises(StorageUnavailable, match="permission denied"):
        await PostgresSchema(PostgresDatabase(as_clerk, schema="other")).migrate()
    await database.execute("DROP OWNED BY clerk; DROP ROLE clerk")


async def test_the_status_says_which_server_it_is(schema: PostgresSchema) -> None:
    status = await schema.status()

    assert (status.found, status.known) == (0, KNOWN)
    assert status.server.startswith("PostgreSQL 1")


@pytest.fixture
def next_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """What migrates is a release that knows more migrations than this one."""
    monkeypatch.setattr("forge_jobs.storage.postgres.schema.migrations", lambda _: NEXT)


async def migrated_up_to(number: int, schema: Schema) -> int:
    """Bring an empty database up to this migration; return how many it lacks for the next release."""
    with pytest.MonkeyPatch.context() as patch:
        of_then = tuple(step for step in NEXT if step.number <= number)
        patch.setattr("forge_jobs.storage.postgres.schema.migrations", lambda _: of_then)
        await schema.migrate()
    return len(NEXT) - len(of_then)


async def test_what_waits_for_a_reader_stops_nobody_and_says_who_that_is(
    database: PostgresDatabase, url: str, monkeypatch: pytest.MonkeyPatch, next_release: None
) -> None:
    monkeypatch.setattr("forge_jobs.storage.postgres.migrator.LOCK_WAIT", 0.2)
    monkeypatch.setattr("forge_jobs.storage.postgres.migrator.FIRST_PAUSE", 0.05)
    storage = PostgresStorage(url)
    await storage.open()
    lacking = await migrated_up_to(KNOWN, storage.schema)
    dump = await asyncpg.connect(url, server_settings={"application_name": "pg_dump"})
    reading = dump.transaction(isolation="repeatable_read", readonly=True)
    await reading.start()
    await dump.execute("LOCK TABLE forge_jobs.ready, forge_jobs.tally IN ACCESS SHARE MODE")
    said: list[str] = []

    def waits(why: str, retry_in: float) -> None:
        said.append(why)

    migrating = asyncio.create_task(storage.schema.migrate(waits=waits))

    async def is_said() -> bool:
        return len(said) >= 2

    await until(is_said)
    job_id = await database.fetchval("SELECT {schema}.enqueue('work')")
    # As workers of the release before claim it.
    claimed = await database.fetchval("DELETE FROM {schema}.ready WHERE job_id = $1 RETURNING job_id", job_id)
    assert claimed == job_id
    await reading.rollback()

    assert await migrating == lacking
    assert re.search(
        r"waits for a lock that is held by process \d+ \(pg_dump\) of user postgres, "
        r"whose transaction began at \d{4}-\d\d-\d\d [\d:]+ UTC\.$",
        said[0],
    )
    await dump.close()
    await storage.close()


async def test_a_migration_that_waited_long_enough_changes_nothing_and_says_for_whom(
    schema: PostgresSchema,
    database: PostgresDatabase,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    next_release: None,
) -> None:
    monkeypatch.setattr("forge_jobs.storage.postgres.migrator.LOCK_WAIT", 0.05)
    await migrated_up_to(KNOWN, schema)
    reader = await asyncpg.connect(url)
    async with reader.transaction():
        await reader.execute("LOCK TABLE forge_jobs.tally IN ACCESS SHARE MODE")
        with pytest.raises(StorageBusy, match=f"held by process {reader.get_server_pid()}"):
            await schema.migrate(patience=timedelta(0))
    await reader.close()
    assert (await schema.status()).found == KNOWN


async def test_a_turn_that_another_process_keeps_is_said_and_waited_for_no_longer_than_a_table(
    schema: PostgresSchema, url: str, monkeypatch: pytest.MonkeyPatch, next_release: None
) -> None:
    monkeypatch.setattr("forge_jobs.storage.postgres.migrator.LOOK_EVERY", 0.05)
    lacking = await migrated_up_to(KNOWN, schema)
    frozen = await asyncpg.connect(url, server_settings={"application_name": "shop"})
    turn = frozen.transaction()
    await turn.start()
    await frozen.execute("SELECT pg_advisory_xact_lock($1)", lock_key("forge_jobs"))
    whose = (
        rf"waits for that of process {frozen.get_server_pid()} \(shop\) of user postgres, whose transaction "
    )

    with pytest.raises(StorageBusy, match=whose):
        await schema.migrate(patience=timedelta(0))
    said: list[str] = []
    migrating = asyncio.create_task(schema.migrate(waits=lambda why, retry_in: said.append(why)))

    async def is_said_twice() -> bool:
        return len(said) >= 2

    await until(is_said_twice)
    await turn.rollback()

    assert await migrating == lacking
    assert re.search(whose, said[0])
    await frozen.close()


async def test_a_process_that_is_frozen_while_it_migrates_loses_its_turn(
    schema: PostgresSchema,
    database: PostgresDatabase,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    next_release: None,
) -> None:
    lacking = await migrated_up_to(BEFORE_THE_INDEX, schema)
    writer = await asyncpg.connect(url)
    writing = writer.transaction()
    await writing.start()
    await writer.execute("DELETE FROM forge_jobs.scheduled")
    with monkeypatch.context() as patch:
        patch.setitem(PINNED, "idle_in_transaction_session_timeout", "200")
        # It does nothing in its transaction, as one that is frozen, while its index waits.
        frozen = asyncio.create_task(schema.migrate())
        await until(lambda: database.fetchval(HAS_TURN))

        async def is_lost() -> bool:
            return not await database.fetchval(HAS_TURN)

        await until(is_lost)
    await writing.rollback()
    with pytest.raises(StorageUnavailable):
        await frozen
    await writer.close()

    assert await schema.migrate() == lacking


HAS_TURN = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"


async def test_an_index_that_was_left_half_made_is_made_again(
    schema: PostgresSchema, database: PostgresDatabase, next_release: None
) -> None:
    await schema.migrate()
    await database.execute("DELETE FROM {schema}.migration WHERE number > $1", BEFORE_THE_INDEX)
    await database.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{schema_text}.made_up_index'::regclass"
    )

    assert await schema.migrate() >= 1
    assert await database.fetchval(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = '{schema_text}.made_up_index'::regclass"
    )


async def test_an_index_that_is_made_again_waits_however_short_locks_are_waited_for_here(
    schema: PostgresSchema,
    database: PostgresDatabase,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    next_release: None,
) -> None:
    monkeypatch.setattr("forge_jobs.storage.postgres.migrator.LOOK_EVERY", 0.05)
    monkeypatch.setattr("forge_jobs.storage.postgres.migrator.FIRST_PAUSE", 0.05)
    lacking = await migrated_up_to(BEFORE_THE_INDEX + 1, schema) + 1
    await database.execute("DELETE FROM {schema}.migration WHERE number > $1", BEFORE_THE_INDEX)
    await database.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{schema_text}.made_up_index'::regclass"
    )
    name = await database.fetchval("SELECT quote_ident(current_database())")
    await database.execute(f"ALTER DATABASE {name} SET lock_timeout = '100ms'")
    reader = await asyncpg.connect(url)
    reading = reader.transaction(isolation="repeatable_read")
    await reading.start()
    await reader.fetchval("SELECT count(*) FROM forge_jobs.queue")
    said: list[str] = []
    migrating = asyncio.create_task(schema.migrate(waits=lambda why, retry_in: said.append(why)))

    async def is_said() -> bool:
        return len(said) >= 8

    await until(is_said)
    await reading.rollback()

    assert await migrating == lacking
    assert all("makes an index and waits for" in why for why in said)
    await reader.close()


async def test_an_index_that_waits_for_a_transaction_says_so_and_stops_nobody(
    database: PostgresDatabase, url: str, monkeypatch: pytest.MonkeyPatch, next_release: None
) -> None:
    monkeypatch.setattr("forge_jobs.storage.postgres.migrator.LOOK_EVERY", 0.05)
    storage = PostgresStorage(url)
    await storage.open()
    lacking = await migrated_up_to(BEFORE_THE_INDEX, storage.schema)
    said = asyncio.Event()
    writer = await asyncpg.connect(url)
    writing = writer.transaction()
    await writing.start()
    await writer.execute("DELETE FROM forge_jobs.scheduled")

    migrating = asyncio.create_task(storage.schema.migrate(waits=lambda why, retry_in: said.set()))
    await asyncio.wait_for(said.wait(), 20)
    await storage.jobs.enqueue(NewJob("work", delay=timedelta(hours=1)))
    await writing.rollback()

    assert await migrating == lacking
    await writer.close()
    await storage.close()


async def test_two_releases_may_migrate_and_start_in_turn(
    schema: PostgresSchema, database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    for known, applied in ((TODAY, len(TODAY)), (NEXT, len(NEXT) - len(TODAY)), (TODAY, 0), (NEXT, 0)):
        monkeypatch.setattr("forge_jobs.storage.postgres.schema.migrations", lambda _, known=known: known)
        assert await schema.migrate() == applied


async def test_a_process_that_dies_while_it_migrates_leaves_what_the_next_one_goes_on_with(
    schema: PostgresSchema, database: PostgresDatabase, url: str, next_release: None
) -> None:
    lacking = await migrated_up_to(KNOWN, schema)
    reader = await asyncpg.connect(url)
    async with reader.transaction():
        await reader.execute("LOCK TABLE forge_jobs.ready IN ACCESS SHARE MODE")
        dying = asyncio.create_task(schema.migrate())
        await until(lambda: database.fetchval(WAITING))
        await database.execute("SELECT pg_terminate_backend(pid) FROM (" + WAITING + ") AS waiting")
        with pytest.raises(StorageUnavailable):
            await dying
    await reader.close()

    assert await schema.migrate() == lacking


WAITING = "SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'forge_jobs.ready'::regclass"
