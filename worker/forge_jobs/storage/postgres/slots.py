"""The slots of a queue in PostgreSQL: who holds them, and how they follow a change of its concurrency.

A queue with a concurrency has that many rows in `slot`, and a worker works with those that
carry its id. When the concurrency is lowered, slots that are held stay until they are given back; while
more are held than it says, no job is claimed on any of them.

A queue without a concurrency has no slots. When it gets one, the jobs that run have slots
at once, also beyond the concurrency, so that none is started while so many run.
"""

from typing import Any

import asyncpg

from forge_jobs.errors import StorageBusy
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import tried_again

LOCK_WAIT = "2 s"  # longer than autovacuum takes to give way; claims wait behind us meanwhile

BEFORE = "SELECT concurrency FROM {schema}.queue WHERE name = $1 FOR NO KEY UPDATE"

# A claim that began before the concurrency was set takes jobs without asking for slots. Such claims are waited
# for; claims that come later wait until the concurrency is set, and see it.
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

# While slots beyond the concurrency are held, fewer of the others may be: TAKE_OVERFULL counts them.
# The worker's row is locked, so that the worker cannot be declared lost before it has taken the slots.
TAKE = """
WITH alive AS MATERIALIZED (
    SELECT id FROM {schema}.worker WHERE id = $2 FOR KEY SHARE
), pick AS MATERIALIZED (
    SELECT slot.number FROM {schema}.slot
    WHERE slot.queue_id = $1 AND slot.worker_id IS NULL
      AND slot.number <= (SELECT concurrency FROM {schema}.queue WHERE queue.id = $1)
      AND EXISTS (SELECT FROM alive)
    ORDER BY slot.number
    LIMIT {limit}
    FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE {schema}.slot SET worker_id = $2 FROM pick
    WHERE slot.queue_id = $1 AND slot.number = pick.number
    RETURNING slot.number
)
SELECT (SELECT count(*) FROM taken) AS taken, {overfull} AS overfull
"""

_OVERFULL = """EXISTS (
    SELECT FROM {schema}.slot JOIN {schema}.queue ON queue.id = slot.queue_id
    WHERE slot.queue_id = $1 AND slot.worker_id IS NOT NULL AND slot.number > queue.concurrency)"""

TAKE_FITTING = TAKE.replace(
    "{limit}", "CASE WHEN {overfull} THEN 0 ELSE greatest($3::bigint, 0) END"
).replace("{overfull}", _OVERFULL)

TAKE_OVERFULL = TAKE.replace(
    "{limit}",
    """(SELECT greatest(0, least($3::bigint, queue.concurrency - (
            SELECT count(*) FROM {schema}.slot AS held WHERE held.queue_id = $1 AND held.worker_id IS NOT NULL)))
        FROM {schema}.queue WHERE queue.id = $1)""",
).replace("{overfull}", "true")

LOCK = "SELECT FROM {schema}.queue WHERE id = $1 FOR NO KEY UPDATE"

GIVE_BACK = """
WITH spare AS MATERIALIZED (
    SELECT number, number <= coalesce((SELECT concurrency FROM {schema}.queue WHERE queue.id = $1), 0) AS fits
    FROM {schema}.slot
    WHERE queue_id = $1 AND worker_id = $2
    ORDER BY number OFFSET greatest($3::bigint, 0)
    FOR UPDATE
), freed AS (
    UPDATE {schema}.slot SET worker_id = NULL FROM spare
    WHERE slot.queue_id = $1 AND slot.number = spare.number AND spare.fits
), gone AS (
    DELETE FROM {schema}.slot USING spare
    WHERE slot.queue_id = $1 AND slot.number = spare.number AND NOT spare.fits
)
SELECT {schema}.tell('slots:' || $1)
WHERE EXISTS (SELECT FROM spare) AND EXISTS (SELECT FROM {schema}.idle WHERE idle.queue_id = $1)
"""


class PostgresSlots:
    """`Slots` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    @tried_again
    async def take(self, queue_id: int, worker_id: int, count: int) -> int:
        taken, overfull = await self._take(TAKE_FITTING, queue_id, worker_id, count)
        if not overfull:
            return taken
        async with self._database.transaction() as connection:
            # One worker at a time: the next one counts after this one has taken its slots.
            await self._database.execute(LOCK, queue_id, connection=connection)
            taken, _ = await self._take(TAKE_OVERFULL, queue_id, worker_id, count, connection=connection)
        return taken

    async def give_back(self, queue_id: int, worker_id: int, keep: int) -> None:
        await self._database.execute(GIVE_BACK, queue_id, worker_id, keep)

    async def _take(
        self, statement: str, queue_id: int, worker_id: int, count: int, *, connection: Any = None
    ) -> tuple[int, bool]:
        record = await self._database.fetchrow(statement, queue_id, worker_id, count, connection=connection)
        assert record is not None
        return record["taken"], record["overfull"]


async def lock_before(
    database: PostgresDatabase, name: str, connection: asyncpg.Connection
) -> asyncpg.Record | None:
    """Lock the queue's row and return it with its concurrency; None when there is no such queue."""
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
