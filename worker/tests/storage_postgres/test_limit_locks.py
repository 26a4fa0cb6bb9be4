"""The row of a rate limit is locked no longer, and for nobody else, than it has to be."""

import asyncio

from forge_jobs.model.permit import PermitRequest
from forge_jobs.storage.postgres import tokens
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.limits import PostgresLimits
from forge_jobs.storage.postgres.permits import PostgresPermits
from forge_jobs.storage.postgres.schema import PostgresSchema


async def test_a_key_is_used_while_a_lease_is_under_way(database: PostgresDatabase) -> None:
    await PostgresSchema(database).migrate()
    await PostgresLimits(database).set("api", capacity=5, refill=1)

    async with database.transaction() as connection:
        await database.fetchrow(tokens.LEASE, "api", 1, connection=connection)
        async with asyncio.timeout(20):
            [permit] = await PostgresPermits(database).reserve([PermitRequest("api", "ann")])

    assert not permit.wait


async def test_the_permits_of_a_rate_limit_are_looked_up(database: PostgresDatabase) -> None:
    await PostgresSchema(database).migrate()

    indexes = await database.fetch(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'forge_jobs' AND tablename = 'permit'"
    )

    assert any("(scope" in record["indexdef"] for record in indexes)
