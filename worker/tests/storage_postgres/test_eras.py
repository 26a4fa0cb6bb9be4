"""What ends an era in PostgreSQL, and what does not."""

from collections.abc import AsyncIterator

import pytest

from forge_jobs.storage.postgres import PostgresStorage
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.testing.local_postgres import LocalPostgres
from tests.storage.factories import worker
from tests.storage_postgres.conftest import until


@pytest.fixture
async def storage(url: str) -> AsyncIterator[PostgresStorage]:
    storage = PostgresStorage(url)
    await storage.open()
    await storage.schema.migrate()
    yield storage
    await storage.close()


async def _era(storage: PostgresStorage, worker_id: int) -> int:
    return (await storage.workers.beat(worker_id)).standing.era


@pytest.mark.parametrize("immediate", [True, False])
async def test_a_crash_ends_an_era_and_a_clean_restart_does_not(
    server: LocalPostgres, storage: PostgresStorage, database: PostgresDatabase, immediate: bool
) -> None:
    me = await worker(storage)
    before = await _era(storage, me)

    server.restart(immediate=immediate)

    async def answers() -> bool:
        try:
            await storage.ping()
            await _era(storage, me)
        except Exception:
            return False
        return True

    await until(answers)
    assert (await _era(storage, me) != before) is immediate


async def test_a_row_that_a_dump_brought_back_is_another_era(
    storage: PostgresStorage, database: PostgresDatabase
) -> None:
    me = await worker(storage)
    before = await _era(storage, me)

    number = await database.fetchval("DELETE FROM {schema}.era RETURNING number")
    await database.execute(f"INSERT INTO {{schema}}.era (number) VALUES ({number})")

    assert await _era(storage, me) != before
