"""The look for what the leader has to do costs the same however many jobs there are."""

import json
from datetime import timedelta

from forge_jobs.model.chore import Chore
from forge_jobs.model.job import NewJob
from forge_jobs.storage.postgres.chores import DUE, PostgresChores
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.jobs import PostgresJobs

MANY = 20_000
FEW_PAGES = 40
SECOND = timedelta(seconds=1)


async def test_a_look_touches_few_pages_however_many_jobs_have_time_limits_or_wait(
    database: PostgresDatabase, tables: str
) -> None:
    await PostgresJobs(database).enqueue_many([NewJob("work", deadline=timedelta(days=1))] * MANY)
    await database.execute(
        f"""INSERT INTO {{schema}}.waiting (job_id, queue_id, attempt, step)
            SELECT id, queue_id, 0, 'approval' FROM {{schema}}.job LIMIT {MANY}"""
    )

    assert await _touched(database) < FEW_PAGES


async def test_a_look_walks_over_no_deleted_rows_of_tenants(database: PostgresDatabase, tables: str) -> None:
    await database.execute(
        f"""INSERT INTO {{schema}}.tenant_clock (queue_id, priority, pos)
            SELECT 1, 0, pos FROM generate_series(1, {10 * MANY}) AS pos"""
    )
    await database.execute("DELETE FROM {schema}.tenant_clock")

    assert await _touched(database) < FEW_PAGES


async def _touched(database: PostgresDatabase) -> int:
    """Return how many pages a look touches, on a connection that has made one."""
    async with database.connection() as connection:
        for _ in range(2):
            plan = await database.fetchval(
                "EXPLAIN (ANALYZE, BUFFERS, FORMAT json) " + DUE, SECOND, connection=connection
            )
    top = json.loads(plan)[0]["Plan"]
    return int(top["Shared Hit Blocks"] + top["Shared Read Blocks"])


async def test_a_moment_that_somebody_has_put_off_to_infinity_hides_no_other(
    database: PostgresDatabase, tables: str
) -> None:
    await PostgresJobs(database).enqueue_many([NewJob("work", deadline=timedelta(seconds=0.001))] * 2)
    await database.execute(
        "UPDATE {schema}.time_limit SET look_at = 'infinity' WHERE job_id = (SELECT max(job_id) FROM {schema}.time_limit)"
    )
    await database.execute("UPDATE {schema}.queue SET paused = true, paused_until = 'infinity'")

    assert await PostgresChores(database).due(SECOND) == {Chore.TIME_LIMITS}
