"""The row of a rate limit is locked no longer, and for nobody else, than it has to be."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from forge_jobs.errors import StorageBusy
from forge_jobs.model.permit import PermitRequest
from forge_jobs.storage.postgres import tokens
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.limits import PostgresLimits
from forge_jobs.storage.postgres.permits import PostgresPermits


async def test_a_key_is_used_while_a_lease_is_under_way(database: PostgresDatabase, tables: str) -> None:
    await PostgresLimits(database).set("api", capacity=5, refill=1)

    async with database.transaction() as connection:
        await database.fetchrow(tokens.LEASE, "api", 1, connection=connection)
        async with asyncio.timeout(20):
            [permit] = await PostgresPermits(database).reserve([PermitRequest("api", "ann")])

    assert not permit.wait


@pytest.fixture
async def impatient(url: str) -> AsyncIterator[PostgresDatabase]:
    """The database for one that waits for nothing long."""
    database = PostgresDatabase(url, command_timeout=timedelta(seconds=1))
    await database.open()
    yield database
    await database.close()


async def test_jobs_that_have_paid_pay_no_second_time_when_what_another_one_asked_with_them_is_locked(
    database: PostgresDatabase, tables: str, impatient: PostgresDatabase
) -> None:
    await PostgresLimits(database).set("api", capacity=5, refill=1e-6)
    permits = PostgresPermits(impatient)
    requests = [PermitRequest("api", f"key {number}", job_id=number) for number in range(1, 21)]
    await permits.keep(list(zip(requests[:1], await permits.reserve(requests[:1]), strict=True)))

    async with database.transaction() as connection:
        await database.execute("SELECT FROM {schema}.permit FOR UPDATE", connection=connection)
        for _ in range(2):
            with pytest.raises(StorageBusy):
                await permits.reserve(requests)
    granted = await permits.reserve(requests)

    assert not any(permit.wait for permit in granted)
    spent = {use.key: round(use.spent) for use in await permits.hottest("api", limit=100)}
    assert spent == {request.key: 1 for request in requests}


async def test_the_permits_of_a_rate_limit_are_looked_up(database: PostgresDatabase, tables: str) -> None:

    indexes = await database.fetch(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'forge_jobs' AND tablename = 'permit'"
    )

    assert any("(scope" in record["indexdef"] for record in indexes)


async def test_a_sweep_waits_for_nobody_who_uses_several_keys(
    database: PostgresDatabase, tables: str, impatient: PostgresDatabase
) -> None:
    await PostgresLimits(database).set("api", capacity=5, refill=1000)
    permits = PostgresPermits(database)
    await permits.reserve([PermitRequest("api", f"key {number}") for number in range(3)])
    await database.execute("UPDATE {schema}.rate_key SET full_at = 0")

    async with database.transaction() as connection:
        await database.execute(
            "SELECT FROM {schema}.rate_key WHERE key = 'key 1' FOR UPDATE", connection=connection
        )
        await PostgresPermits(impatient).sweep(limit=10)

    left = await database.fetch("SELECT key FROM {schema}.rate_key")
    assert [record["key"] for record in left] == ["key 1"]
    await permits.sweep(limit=10)
    assert not await database.fetch("SELECT key FROM {schema}.rate_key")
