"""A vacuum keeps nobody from enqueueing, claiming and ending jobs."""

import pytest

from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.schema import PostgresSchema
from forge_jobs.testing.local_postgres import LocalPostgres
from tests.storage_postgres.conftest import as_role

OURS = "SELECT oid::regclass::text AS name FROM pg_class WHERE relkind = 'r' AND relnamespace = 'forge_jobs'::regnamespace"


@pytest.fixture
async def migrated(database: PostgresDatabase) -> PostgresDatabase:
    await PostgresSchema(database).migrate()
    return database


async def test_a_vacuum_gives_no_pages_back_since_that_would_lock_the_table(
    migrated: PostgresDatabase,
) -> None:
    await migrated.execute(
        "INSERT INTO {schema}.claimed (job_id, worker_id, claimed_at, attempt, queue_id) "
        "SELECT number, 1, now(), 1, 1 FROM generate_series(1, 20000) AS number"
    )
    await migrated.execute("DELETE FROM {schema}.claimed")
    pages = "SELECT pg_relation_size('{schema_text}.claimed') AS bytes"
    [(before,)] = await migrated.fetch(pages)

    await migrated.execute("VACUUM {schema}.claimed")

    assert await migrated.fetch(pages) == [(before,)]
    assert before > 0


async def test_who_wants_the_pages_back_says_so(migrated: PostgresDatabase) -> None:
    await migrated.execute(
        "INSERT INTO {schema}.job (queue_id, priority, max_attempts, kind, codec, created_at, payload) "
        "SELECT 1, 0, 1, 'work', 'json', now(), '{}' FROM generate_series(1, 20000)"
    )
    await migrated.execute("DELETE FROM {schema}.job")

    await migrated.execute("VACUUM (TRUNCATE) {schema}.job")

    assert await migrated.fetch("SELECT pg_relation_size('{schema_text}.job') AS bytes") == [(0,)]


async def test_that_is_so_of_all_tables(migrated: PostgresDatabase) -> None:
    kept = await migrated.fetch(f"{OURS} AND NOT coalesce('vacuum_truncate=false' = ANY (reloptions), false)")

    assert kept == []
    assert len(await migrated.fetch(OURS)) > 30


async def test_tables_of_others_in_the_same_schema_stay_as_they_are(
    server: LocalPostgres, url: str, database: PostgresDatabase
) -> None:
    server.execute("CREATE ROLE mover LOGIN")
    await database.execute('CREATE SCHEMA "100%s" AUTHORIZATION mover')
    await database.execute('CREATE TABLE "100%s".shop (id integer)')
    ours = PostgresDatabase(as_role(url, "mover"), schema="100%s")
    await ours.open()

    await PostgresSchema(ours).migrate()

    await ours.close()
    settings = "SELECT relname, reloptions FROM pg_class WHERE relname IN ('shop', 'queue') AND relkind = 'r'"
    assert dict(await database.fetch(settings)) == {"shop": None, "queue": ["vacuum_truncate=false"]}
