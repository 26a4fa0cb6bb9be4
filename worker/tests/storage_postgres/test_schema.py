"""Migrations by many at once, by people with few rights, and in schemas with awkward names."""

import asyncio
import sys
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import pytest

from forge_jobs.errors import SchemaOutdated, SchemaTooNew, StorageRefused, StorageUnavailable
from forge_jobs.local_postgres import LocalPostgres
from forge_jobs.storage.migrate import migrations
from forge_jobs.storage.postgres.connection import Database
from forge_jobs.storage.postgres.schema import PostgresSchema
from forge_jobs.storage.postgres.workers import PostgresWorkers
from forge_jobs.worker_info import WorkerInfo

KNOWN = migrations("postgres")[-1].number

MIGRATE = """
import asyncio, sys
from forge_jobs.storage.postgres.connection import Database
from forge_jobs.storage.postgres.schema import PostgresSchema

async def main():
    schema = PostgresSchema(Database(sys.argv[1]))
    print("ready", flush=True)
    sys.stdin.readline()
    await schema.create()
    print(await schema.migrate(), flush=True)

asyncio.run(main())
"""


@pytest.fixture
def schema(database: Database) -> PostgresSchema:
    return PostgresSchema(database)


@pytest.fixture
async def absent(server: LocalPostgres) -> AsyncIterator[str]:
    """The URL of a database that is not there."""
    yield server.url("Absent one")
    server.drop_database("Absent one")


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
    assert sorted(int(out) for out, _ in answers) == [0] * 9 + [len(migrations("postgres"))]
    assert (await PostgresSchema(Database(absent)).status()).found == KNOWN


async def test_a_newer_schema_is_refused_and_left_alone(schema: PostgresSchema, database: Database) -> None:
    await schema.migrate()
    await database.execute("INSERT INTO {schema}.migration VALUES ($1, 'from_the_future', now())", KNOWN + 1)

    with pytest.raises(SchemaTooNew) as caught:
        await schema.migrate()

    assert (caught.value.found, caught.value.known) == (KNOWN + 1, KNOWN)
    assert (await schema.status()).found == KNOWN + 1


async def test_an_old_schema_gets_the_migrations_that_it_lacks(
    schema: PostgresSchema, database: Database
) -> None:
    assert (await schema.status()).found == 0

    assert await schema.migrate() == len(migrations("postgres"))
    assert await schema.migrate() == 0

    found = await database.fetch("SELECT number, name FROM {schema}.migration ORDER BY number")
    assert [tuple(row) for row in found] == [(step.number, step.name) for step in migrations("postgres")]


async def test_a_migration_that_fails_leaves_nothing_behind(
    schema: PostgresSchema, database: Database
) -> None:
    await database.execute("CREATE SCHEMA {schema}; CREATE TABLE {schema}.jobs (in_the_way integer)")

    with pytest.raises(StorageRefused, match="already exists"):
        await schema.migrate()

    assert await database.fetchval("SELECT to_regclass('{schema_text}.job')") is None
    assert (await schema.status()).found == 0


@pytest.mark.parametrize("name", ["My Schema", "select", 'quote"d', "it's", "ünï-cödé", "x" * 63])
async def test_a_schema_may_have_any_name_and_several_live_side_by_side(url: str, name: str) -> None:
    database, other = Database(url, schema=name), Database(url)
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
    schema: PostgresSchema, database: Database
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
    schema: PostgresSchema, database: Database, url: str
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

    assert await PostgresSchema(Database(as_clerk)).migrate() == 0
    with pytest.raises(StorageUnavailable, match="permission denied"):
        await PostgresSchema(Database(as_clerk, schema="other")).migrate()
    await database.execute("DROP OWNED BY clerk; DROP ROLE clerk")


async def test_the_status_says_which_server_it_is(schema: PostgresSchema) -> None:
    status = await schema.status()

    assert (status.found, status.known) == (0, KNOWN)
    assert status.server.startswith("PostgreSQL 1")
