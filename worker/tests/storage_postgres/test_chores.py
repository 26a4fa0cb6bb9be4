"""The look for what the leader has to do costs the same however many jobs there are."""

import asyncio
import json
from datetime import datetime, timedelta

import asyncpg

from forge_jobs.model.chore import Chore
from forge_jobs.model.job import NewJob
from forge_jobs.storage.outset import FROM_THE_BEGINNING
from forge_jobs.storage.postgres.chores import DUE, PostgresChores
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.jobs import PostgresJobs
from forge_jobs.storage.postgres.leadership import PostgresLeadership

MANY = 20_000
FEW_PAGES = 40
SECOND = timedelta(seconds=1)
DATED = f"""
WITH limited AS (
    INSERT INTO {{schema}}.time_limit (job_id, start_by, look_at)
    SELECT number, now() + $1::interval, now() + $1 FROM generate_series(1, {MANY}) AS number
)
INSERT INTO {{schema}}.scheduled (job_id, run_at, queue_id, attempt, priority, reason)
SELECT number, now() + $1, 1, 0, 0, 'delayed' FROM generate_series(1, {MANY}) AS number
"""


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


async def test_a_look_walks_over_nothing_that_was_to_be_due_later_and_is_gone(
    database: PostgresDatabase, tables: str, onlooker: None
) -> None:
    await database.execute(DATED, timedelta(hours=1))
    await database.execute("DELETE FROM {schema}.time_limit")
    await database.execute("DELETE FROM {schema}.scheduled")

    assert await _touched(database) < FEW_PAGES


async def test_a_look_from_a_moment_on_walks_over_nothing_that_was_due_before_and_is_gone(
    database: PostgresDatabase, tables: str, onlooker: None
) -> None:
    await database.execute(DATED, timedelta(hours=-1))
    await database.execute(
        f"""INSERT INTO {{schema}}.waiting (job_id, queue_id, attempt, step, until, for_job)
            SELECT number, 1, 0, 'approval', now() - interval '1 hour', number FROM generate_series(1, {MANY}) AS number"""
    )
    for table in ("time_limit", "scheduled", "waiting"):
        await database.execute(f"DELETE FROM {{schema}}.{table}")
    now = await database.fetchval("SELECT now()")

    assert await _touched(database, since=now) < FEW_PAGES
    assert await _touched(database) > FEW_PAGES


async def test_counts_of_jobs_are_due_once_there_are_more_notes_than_queues(
    database: PostgresDatabase, tables: str
) -> None:
    jobs, chores = PostgresJobs(database), PostgresChores(database)
    await jobs.enqueue_many([NewJob("work")])
    await jobs.enqueue_many([NewJob("work")])
    assert (await chores.look(SECOND, epoch=0, duration=SECOND)).due == {Chore.COUNTS}

    await jobs.fold()

    assert (await chores.look(SECOND, epoch=0, duration=SECOND)).due == set()


async def test_a_look_waits_for_nobody_who_has_locked_the_lead(
    database: PostgresDatabase, tables: str, url: str
) -> None:
    epoch = await PostgresLeadership(database).lead(1, timedelta(seconds=15))
    await database.execute("UPDATE {schema}.leader SET until = now() + interval '5 seconds'")
    other = await asyncpg.connect(url)
    await other.execute("BEGIN; SELECT FROM forge_jobs.leader FOR UPDATE")

    async with asyncio.timeout(30):
        look = await PostgresChores(database).look(SECOND, epoch=epoch, duration=timedelta(seconds=15))

    assert not look.renewed
    await other.close()


async def _touched(database: PostgresDatabase, since: datetime = FROM_THE_BEGINNING) -> int:
    """Return how many pages a look touches, on a connection that has made one."""
    async with database.connection() as connection:
        for _ in range(2):
            plan = await database.fetchval(
                "EXPLAIN (ANALYZE, BUFFERS, FORMAT json) " + DUE,
                SECOND,
                since,
                0,
                SECOND,
                connection=connection,
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

    assert (await PostgresChores(database).look(SECOND, epoch=0, duration=SECOND)).due == {Chore.TIME_LIMITS}
