"""Jobs with keys in PostgreSQL: enqueued unless another one has the key, or in its place; and removed by their keys.

What replaces and what removes are functions of the database, since SQL may call them too.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import asyncpg

from forge_jobs.errors import ForgeError, KeyBusy, StorageUnavailable
from forge_jobs.model.job import Enqueued, NewJob, Removed
from forge_jobs.storage.postgres import key_wait
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import again

T = TypeVar("T")

HOLDER = """
SELECT job_id, {schema}.payload_differs(job_id, $3::bytea, $4::text) AS differs
FROM {schema}.job_key WHERE kind = $1 AND key = $2
"""

# Sorted, so that two batches with the same keys wait for each other in one direction only; all claims are locked before
# that, as a worker locks those whose outcomes it writes.
LOCK_RUNNING = """
SELECT FROM {schema}.claimed
WHERE job_id = ANY (ARRAY(
    SELECT job_key.job_id FROM {schema}.job_key JOIN unnest($1::text[], $2::text[]) AS given (kind, key) USING (kind, key)))
ORDER BY job_id FOR UPDATE
"""

REPLACE_MANY = """
SELECT number, made.*
FROM (
    SELECT * FROM unnest($1::integer[], $2::smallint[], $3::integer[], $4::double precision[], $5::text[], $6::text[],
                         $7::bytea[], $8::text[], $9::text[], $10::timestamptz[], $11::double precision[])
        WITH ORDINALITY AS given (queue_id, priority, max_attempts, timeout, kind, codec, payload, key, mode, run_at, delay, number)
    ORDER BY kind, key, number OFFSET 0
) AS given
CROSS JOIN LATERAL {schema}.replace_job(
    queue_id, priority, max_attempts, timeout, kind, codec, payload, key, mode,
    coalesce(run_at, statement_timestamp() + make_interval(secs => delay)), $12) AS made
"""

REMOVE = "SELECT {schema}.remove($1, $2)"


class PostgresKeys:
    """`Keys` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def remove(self, kind: str, key: str, *, connection: Any = None) -> Removed:
        async def attempt() -> str:
            async with self._database.transaction(connection) as transaction:
                if connection is None:
                    await key_wait.bound(transaction)
                answer: str = await self._database.fetchval(REMOVE, kind, key, connection=transaction)
                return answer

        return Removed(await in_time(attempt, kind, key, connection, undone="removed"))


async def in_time(
    call: Callable[[], Awaitable[T]], kind: str, key: str, connection: Any, *, undone: str = "enqueued"
) -> T:
    """Return what the call returns, which is one transaction when it is ours. Raises KeyBusy when a lock is not given."""
    try:
        return await (again(call) if connection is None else call())
    except StorageUnavailable as error:
        if not is_lock_kept(error):
            raise
        seconds = key_wait.KEY_WAIT if connection is None else None
        raise KeyBusy(kind, key, seconds, undone=undone) from error


def is_lock_kept(error: BaseException) -> bool:
    """Whether a wait for a lock was given up: a key, or the job that has it."""
    cause = error.__cause__ if isinstance(error, ForgeError) else error
    return isinstance(cause, asyncpg.LockNotAvailableError)


async def holder(database: PostgresDatabase, job: NewJob, connection: Any) -> Enqueued | None:
    """Return the answer that names the living job with the key of `job`; None: there is none any more."""
    record = await database.fetchrow(HOLDER, job.kind, job.key, job.payload, job.codec, connection=connection)
    if record is None:
        return None
    return Enqueued(record["job_id"], duplicate=True, payload_differs=record["differs"])


async def replace_many(
    database: PostgresDatabase,
    jobs: Sequence[NewJob],
    queue_ids: Sequence[int],
    attempts: Sequence[int],
    connection: Any,
) -> list[Enqueued]:
    """Each of the jobs, whose options are known, takes its key; of those with one key the last one has it in the end."""
    await database.execute(
        LOCK_RUNNING, [job.kind for job in jobs], [job.key for job in jobs], connection=connection
    )
    records = await database.fetch(
        REPLACE_MANY,
        queue_ids,
        [job.priority or 0 for job in jobs],
        attempts,
        [None if job.timeout is None else job.timeout.total_seconds() for job in jobs],
        [job.kind for job in jobs],
        [job.codec for job in jobs],
        [job.payload for job in jobs],
        [job.key for job in jobs],
        [job.key_mode.value for job in jobs],
        [job.run_at for job in jobs],
        [None if job.delay is None else job.delay.total_seconds() for job in jobs],
        True,
        connection=connection,
    )
    answers = {record["number"]: replaced(record) for record in records}
    return [answers[number] for number in range(1, len(jobs) + 1)]


def replaced(record: asyncpg.Record) -> Enqueued:
    """Return what `replace_job` answers."""
    had = record["is_replaced"] or record["supersedes"] is not None
    return Enqueued(
        record["id"],
        replaced=record["is_replaced"],
        supersedes=record["supersedes"],
        payload_differs=record["differs"] if had else False,
    )
