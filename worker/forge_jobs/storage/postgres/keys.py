"""Jobs with keys in PostgreSQL: enqueued unless another one has the key, or in its place; and removed by their keys.

What replaces and what removes are functions of the database, since SQL may call them too.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import asyncpg

from forge_jobs.errors import ForgeError, KeyBusy, NotUnique, StorageUnavailable
from forge_jobs.model.intervention import Deed
from forge_jobs.model.job import MAX_PAYLOAD, Enqueued, NewJob, Removed
from forge_jobs.storage.postgres import interventions, key_wait, tags, time_limits
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import again

T = TypeVar("T")

HOLDER_ID = "SELECT job_id FROM {schema}.job_key WHERE kind = $1 AND key = $2"

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
ORDER BY job_id FOR NO KEY UPDATE
"""

PUT_MANY = """
SELECT number, made.*
FROM (
    SELECT * FROM unnest($1::integer[], $2::smallint[], $3::integer[], $4::double precision[], $5::text[], $6::text[],
                         $7::bytea[], $8::text[], $9::text[], $10::timestamptz[], $11::double precision[],
                         $12::double precision[], $13::bytea[], $14::double precision[], $15::boolean[],
                         $17::text[], $18::text[], $19::timestamptz[], $20::double precision[], $21::timestamptz[], $22::double precision[],
                         $23::text[], $25::text[])
        WITH ORDINALITY AS given (queue_id, priority, max_attempts, timeout, kind, codec, payload, key, mode, run_at, delay,
                                  max_wait, fingerprint, within, extends, groups, tags, start_by, start_within, deadline,
                                  ends_within, tenant, meta, number)
    ORDER BY kind, key, fingerprint, number OFFSET 0
) AS given
CROSS JOIN LATERAL {schema}.put_job(
    queue_id, priority, max_attempts, timeout, kind, codec, payload, key, mode, make_interval(secs => max_wait),
    fingerprint, make_interval(secs => within), extends,
    coalesce(run_at, statement_timestamp() + make_interval(secs => delay)), $16, groups, {tags},
    start_by, deadline, make_interval(secs => start_within), make_interval(secs => ends_within), tenant, $24::integer, meta) AS made
""".replace("{tags}", tags.DECODED)

REMOVE = "SELECT {schema}.remove($1, $2, $3)"


class PostgresKeys:
    """`Keys` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def holder(self, kind: str, key: str) -> int | None:
        job_id: int | None = await self._database.fetchval(HOLDER_ID, kind, key)
        return job_id

    async def remove(self, kind: str, key: str, *, connection: Any = None, by: str | None = None) -> Removed:
        async def attempt() -> str:
            async with self._database.transaction(connection) as transaction:
                if connection is None:
                    await key_wait.bound(transaction)
                holder = None
                if by is not None:
                    holder = await self._database.fetchval(HOLDER_ID, kind, key, connection=transaction)
                answer: str = await self._database.fetchval(
                    REMOVE, kind, key, connection is None, connection=transaction
                )
                if by is not None and holder is not None and answer != Removed.NOT_FOUND:
                    facts = holder, Deed.REMOVED, by, None, None, f"key {key}"
                    await interventions.note(self._database, transaction, *facts)
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
    if job.must_be_new:
        raise NotUnique(job.kind, record["job_id"])
    return Enqueued(record["job_id"], duplicate=True, payload_differs=record["differs"])


async def put_many(
    database: PostgresDatabase,
    jobs: Sequence[NewJob],
    queue_ids: Sequence[int],
    attempts: Sequence[int],
    connection: Any,
) -> list[Enqueued]:
    """Each of the jobs, whose options are known, takes its key; of those with one key the last one has it in the end."""
    if keyed := [job for job in jobs if job.key is not None]:
        await database.execute(
            LOCK_RUNNING, [job.kind for job in keyed], [job.key for job in keyed], connection=connection
        )
    records = await database.fetch(
        PUT_MANY,
        queue_ids,
        [job.priority or 0 for job in jobs],
        attempts,
        [_seconds(job.timeout) for job in jobs],
        [job.kind for job in jobs],
        [job.codec for job in jobs],
        [job.payload for job in jobs],
        [job.key for job in jobs],
        [job.key_mode.value for job in jobs],
        [job.run_at for job in jobs],
        [_seconds(job.delay) for job in jobs],
        *zip(*map(uniqueness, jobs), strict=True),
        True,
        [job.groups for job in jobs],
        tags.encoded(jobs),
        *time_limits.columns(jobs),
        [job.tenant for job in jobs],
        min(job.most_bytes or MAX_PAYLOAD for job in jobs),
        [job.meta for job in jobs],
        connection=connection,
    )
    by_number = {record["number"]: record for record in records}
    return [put(by_number[number], job) for number, job in enumerate(jobs, start=1)]


def uniqueness(job: NewJob) -> tuple[float | None, bytes | None, float | None, bool]:
    """Return what of the job goes to `put_job`: max_wait, fingerprint, within, extends."""
    hold = job.hold
    if hold is None:
        return _seconds(job.max_wait), None, None, False
    return _seconds(hold.at_most), hold.fingerprint, hold.within.total_seconds(), hold.extends


def put(record: asyncpg.Record, job: NewJob) -> Enqueued:
    """Return what `put_job` answers about the job. Raises NotUnique."""
    outcome = record["outcome"]
    if job.must_be_new and outcome != "new":
        raise NotUnique(job.kind, record["id"])
    return Enqueued(
        record["id"],
        duplicate=outcome == "duplicate",
        replaced=outcome == "replaced",
        supersedes=record["supersedes"],
        payload_differs=record["differs"],
    )


def name(job: NewJob) -> str:
    """Return how people are told of what the job may not have: its key, or what makes it unique."""
    return job.key or f"unique:{job.hold.fingerprint.hex() if job.hold else ''}"


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()
