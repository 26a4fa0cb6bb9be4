"""The slots of a queue in PostgreSQL, as its concurrency is changed.

A queue without a concurrency has no slots. When it gets one, the jobs that run have slots
at once, also beyond the concurrency, so that none is started while so many run.
"""

from typing import Any

import asyncpg

from forge_jobs.errors import StorageBusy
from forge_jobs.storage.postgres.connection import PostgresDatabase

LOCK_WAIT = "2 s"  # longer than autovacuum takes to step aside; claims wait behind us meanwhile

BEFORE = "SELECT concurrency FROM {schema}.queue WHERE name = $1 FOR NO KEY UPDATE"

# A claim that began before the concurrency was set takes jobs without asking for slots. They are waited
# for, and those that come next wait here and see what was set.
STOP_CLAIMS = "SET LOCAL lock_timeout = '" + LOCK_WAIT + "'; LOCK TABLE {schema}.claimed IN SHARE MODE"

HOLD_FOR_RUNNING = """
INSERT INTO {schema}.slot (queue_id, number, worker_id)
SELECT $1, row_number() OVER (ORDER BY job_id), worker_id FROM {schema}.claimed WHERE queue_id = $1
ON CONFLICT (queue_id, number) DO UPDATE SET worker_id = excluded.worker_id
"""

FIT = """
WITH gone AS (
    DELETE FROM {schema}.slot
    WHERE queue_id = $1 AND ($2::integer IS NULL OR (number > $2 AND worker_id IS NULL))
)
INSERT INTO {schema}.slot (queue_id, number)
SELECT $1, number FROM generate_series(1, $2) AS number
ON CONFLICT DO NOTHING
"""


async def lock_before(
    database: PostgresDatabase, name: str, connection: asyncpg.Connection
) -> asyncpg.Record | None:
    """Return the row of the queue with its concurrency, None when there is none; others of its kind wait."""
    return await database.fetchrow(BEFORE, name, connection=connection)


async def fit(
    database: PostgresDatabase,
    queue_id: int,
    concurrency: int | None,
    *,
    was_unlimited: bool,
    connection: Any,
) -> None:
    """The queue has as many slots as its concurrency says, and those held above it."""
    if was_unlimited and concurrency is not None:
        try:
            await database.execute(STOP_CLAIMS, connection=connection)
        except StorageBusy as error:
            raise StorageBusy(
                "The queue cannot be given a concurrency now: another transaction has kept running jobs locked "
                f"for {LOCK_WAIT}; nothing was changed."
            ) from error
        await database.execute(HOLD_FOR_RUNNING, queue_id, connection=connection)
    await database.execute(FIT, queue_id, concurrency, connection=connection)
