"""However many connections handlers ask for, one of the pool is left to their worker."""

import asyncio

import pytest

from forge_jobs.errors import StorageUnavailable
from forge_jobs.model.job import Claim
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.telemetry.current_job import current_job

CLAIM = Claim(1, 2, 1, 3, "send", b"", "json", 0, 0, 5, None, None, 0.0)


async def as_handler(database: PostgresDatabase, sql: str) -> object:
    """Ask as code of a handler does."""
    current_job.set((CLAIM, "mail"))
    return await database.fetchval(sql)


async def test_handlers_whose_calls_wait_leave_a_connection_to_their_worker(url: str) -> None:
    database = PostgresDatabase(url, pool_size=3)
    await database.open()
    sleeping = [asyncio.create_task(as_handler(database, "SELECT pg_sleep(600)")) for _ in range(5)]

    async with asyncio.timeout(20):
        for _ in range(10):
            assert await database.fetchval("SELECT 1") == 1

    for task in sleeping:
        task.cancel()
    await asyncio.gather(*sleeping, return_exceptions=True)
    assert [await asyncio.create_task(as_handler(database, "SELECT 2")) for _ in range(9)] == [2] * 9
    await database.close()


async def test_what_handlers_ask_for_waits_no_longer_than_a_statement_may_take(url: str) -> None:
    database = PostgresDatabase(url, pool_size=2)
    await database.open()
    database._timeout = 0.3
    sleeping = asyncio.create_task(as_handler(database, "SELECT pg_sleep(600)"))
    await asyncio.sleep(0)

    with pytest.raises(StorageUnavailable):
        await asyncio.create_task(as_handler(database, "SELECT 1"))

    sleeping.cancel()
    await asyncio.gather(sleeping, return_exceptions=True)
    await database.close()
