"""A version that drains looks for its pinned jobs among those that are pending, not among all that sleep."""

import json

from forge_jobs.model.job import NewJob
from forge_jobs.model.worker import WorkerInfo
from forge_jobs.storage.postgres import claiming
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.jobs import PostgresJobs
from forge_jobs.storage.postgres.workers import PostgresWorkers

SLEEPING = 2_000
PINS = """
INSERT INTO {schema}.pin (job_id, version, at) SELECT number, '1', now() FROM generate_series(1, $1::integer) AS number
"""
ASLEEP = """
INSERT INTO {schema}.scheduled (job_id, run_at, queue_id, attempt, priority, reason, links)
SELECT number, now() + interval '1 day', 1, 1, 0, 'sleeping', 128 FROM generate_series(1, $1::integer) AS number
"""


async def test_no_pin_of_a_job_that_sleeps_is_read(database: PostgresDatabase, tables: str) -> None:
    await PostgresWorkers(database).register(
        WorkerInfo(1, "me", "here", 1, "1", queues=("default",), kinds=("work",), concurrency=1)
    )
    await PostgresJobs(database).enqueue_many([NewJob("work") for _ in range(20)])
    await database.execute(PINS, SLEEPING)
    await database.execute(ASLEEP, SLEEPING)
    await database.execute("UPDATE {schema}.ready SET job_id = job_id + $1", SLEEPING)

    async with database.transaction() as connection:
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        await connection.execute("PREPARE pinned AS " + database.sql(claiming.CLAIM_PINNED))
        explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT json) EXECUTE pinned (1, 1, 50, 0, '{}', NULL, NULL)"
        [plan] = json.loads(await connection.fetchval(explain))

    pages = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
    assert pages < 200
