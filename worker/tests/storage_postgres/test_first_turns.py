"""Where tenants begin that come while nobody has had a turn: within one step, and not all in one place."""

from collections import Counter

import pytest

from forge_jobs.model.tenant import STRIDE
from forge_jobs.storage.postgres import tenants
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.schema import PostgresSchema

QUEUE, STEP = 1, STRIDE // 1000
APART = 2_500  # so many jobs are enqueued between two of these
PLACES = "SELECT job_id, pos FROM {schema}.ready ORDER BY job_id"


async def places(database: PostgresDatabase, size: int) -> list[int]:
    """Return where a hundred tenants with one job each begin, that come `size` at a time."""
    await PostgresSchema(database).migrate()
    takers = [(APART * number, QUEUE, 0, f"tenant-{number}", None, "work") for number in range(1, 101)]
    for start in range(0, len(takers), size):
        async with database.transaction() as connection:
            await tenants.place(database, takers[start : start + size], connection)
    return [record["pos"] for record in await database.fetch(PLACES)]


@pytest.mark.parametrize("size", [1, 20, 100])
async def test_tenants_begin_within_one_step_however_many_come(database: PostgresDatabase, size: int) -> None:
    begun = await places(database, size)

    assert max(begun) - min(begun) < STEP


@pytest.mark.parametrize("size", [1, 100])
async def test_only_a_part_of_very_many_tenants_begins_in_one_place(
    database: PostgresDatabase, size: int
) -> None:
    assert max(Counter(await places(database, size)).values()) <= 30
