"""Settings of a server that end what takes long: statements, transactions and connections."""

import asyncpg
import pytest

from forge_jobs.errors import InvalidInput, StorageUnavailable
from forge_jobs.model.job import NewJob
from forge_jobs.storage.postgres import PostgresStorage
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.testing.local_postgres import LocalPostgres
from tests.storage_postgres.conftest import until


async def test_a_transaction_that_the_server_ended_is_a_lost_database(database: PostgresDatabase) -> None:
    with pytest.raises(StorageUnavailable):
        async with database.transaction() as connection:
            await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 20")

            async def is_closed() -> bool:
                return connection.is_closed()

            await until(is_closed)
            await database.execute("SELECT 1", connection=connection)
    assert await database.fetchval("SELECT 1") == 1


@pytest.mark.parametrize("lane", [True, False])
async def test_a_statement_that_the_server_cancelled_is_a_lost_database(
    database: PostgresDatabase, lane: bool
) -> None:
    with pytest.raises(StorageUnavailable):
        if lane:
            await database.claims.fetch("SELECT set_config('statement_timeout', '20', false)")
            await database.claims.fetch("SELECT pg_sleep(10)")
        else:
            async with database.transaction() as connection:
                await connection.execute("SET LOCAL statement_timeout = 20")
                await database.execute("SELECT pg_sleep(10)", connection=connection)
    assert await database.fetchval("SELECT 1") == 1
    await database.claims.fetch("SELECT 1")


async def test_a_transaction_that_took_too_long_for_the_server_is_a_lost_database(
    database: PostgresDatabase,
) -> None:
    if int(await database.fetchval("SELECT current_setting('server_version_num')")) < 170_000:
        pytest.skip("PostgreSQL 17 is the first with transaction_timeout")
    with pytest.raises(StorageUnavailable):
        async with database.transaction() as connection:
            await connection.execute("SET LOCAL transaction_timeout = 50")
            await database.execute("SELECT pg_sleep(10)", connection=connection)
    assert await database.fetchval("SELECT 1") == 1


async def test_connections_that_the_server_closed_while_idle_are_replaced(
    server: LocalPostgres, url: str
) -> None:
    setter = await asyncpg.connect(url)
    name = await setter.fetchval("SELECT current_database()")
    await setter.execute(f'ALTER DATABASE "{name}" SET idle_session_timeout = 100')
    database = PostgresDatabase(url)
    await database.open()
    try:
        for _ in range(2):
            assert await database.fetchval("SELECT 1") == 1
            await database.claims.fetch("SELECT 1")

            async def are_gone() -> bool:
                count = await setter.fetchval(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()",
                    name,
                )
                return count == 0

            await until(are_gone)
    finally:
        await setter.close()
        await database.close()


@pytest.mark.parametrize("key", [None, "one"])
@pytest.mark.parametrize("count", [1, 300])
async def test_a_job_in_a_transaction_that_has_failed_is_refused_in_a_sentence(
    url: str, key: str | None, count: int
) -> None:
    storage = PostgresStorage(url)
    await storage.open()
    await storage.schema.migrate()
    connection = await asyncpg.connect(url)
    try:
        transaction = connection.transaction()
        await transaction.start()
        with pytest.raises(asyncpg.PostgresError):
            await connection.execute("SELECT 1 / 0")
        with pytest.raises(InvalidInput, match=r"^The transaction of the given connection has failed before"):
            if count == 1:
                await storage.jobs.enqueue(NewJob("work", key=key), connection=connection)
            else:
                await storage.jobs.enqueue_many([NewJob("work", key=key)] * count, connection=connection)
        await transaction.rollback()
        assert (await storage.jobs.enqueue(NewJob("work", key=key), connection=connection)).id
    finally:
        await connection.close()
        await storage.close()
