"""The schedule in PostgreSQL: jobs that wait for their time."""

from datetime import timedelta

from forge_jobs.storage.postgres.connection import Database

# Any worker may promote: rows that another one holds are skipped, so none waits.
PROMOTE = """
WITH due AS MATERIALIZED (
    SELECT ctid FROM {schema}.scheduled
    WHERE run_at <= now() ORDER BY run_at LIMIT $1
    FOR UPDATE SKIP LOCKED
), taken AS (
    DELETE FROM {schema}.scheduled USING due WHERE scheduled.ctid = due.ctid
    RETURNING job_id, run_at, scheduled.queue_id, attempt, priority
), again AS (
    INSERT INTO {schema}.ready (job_id, pos, queue_id, attempt, priority)
    SELECT job_id, {schema}.micros(now()) + row_number() OVER (ORDER BY run_at, job_id), queue_id, attempt, priority
    FROM taken
), tallied AS (
    INSERT INTO {schema}.tally (queue_id, scheduled, pending)
    SELECT queue_id, -count(*), count(*) FROM taken GROUP BY queue_id
)
SELECT (SELECT count(*) FROM taken),
       (SELECT count(*) FROM (SELECT DISTINCT queue_id FROM taken) AS woken, {schema}.wake(woken.queue_id))
"""

# Read after the move: a statement does not see what it has deleted itself.
NEXT = "SELECT run_at - now() FROM {schema}.scheduled ORDER BY run_at LIMIT 1"


class PostgresSchedule:
    """`Schedule` in PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def promote(self, *, limit: int = 1000) -> tuple[int, timedelta | None]:
        wait = await self._next()
        if wait is None or wait > timedelta(0):
            return 0, wait
        count: int = await self._database.fetchval(PROMOTE, limit)
        return count, await self._next()

    async def _next(self) -> timedelta | None:
        wait: timedelta | None = await self._database.fetchval(NEXT)
        return wait
