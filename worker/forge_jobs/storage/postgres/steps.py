"""Steps in PostgreSQL: rows that only the holder of the claim writes.

The claim is locked as a foreign key would lock it: its job can neither end nor be taken back meanwhile, but be cancelled.
"""

from dataclasses import fields
from typing import Any

from forge_jobs.errors import JobNotFound
from forge_jobs.model.job import Claim, Enqueued, NewJob
from forge_jobs.model.links import REPORTED
from forge_jobs.model.step import JobStep, NewStep, StepSort
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.enqueue import enqueue

STEP = """step.number, step.serial, step.name, step.sort, step.attempt, step.at, step.result,
       coalesce(step.codec, (SELECT job.codec FROM {schema}.job WHERE job.id = step.job_id)) AS codec, step.until,
       CASE WHEN step.sort = 'wait' THEN step.ended_at IS NOT NULL ELSE coalesce(step.until <= now(), true) END AS is_over,
       coalesce(step.signals, '{}') AS signals, step.for_job, step.ended_at, step.signal, step.done_by"""
"""The columns of a row `step`, as `shown` reads them."""

COLUMNS = tuple(field.name for field in fields(JobStep))

OF_JOB = f"SELECT {STEP} FROM {{schema}}.step WHERE step.job_id = $1 ORDER BY step.number, step.at, step.name"

# The update changes nothing: it is there so that the row is returned when the statement is repeated.
ADD = f"""
WITH owner AS MATERIALIZED (
    SELECT job_id FROM {{schema}}.claimed WHERE job_id = $1 AND worker_id = $2 AND attempt = $3 FOR KEY SHARE
), linked AS (
    UPDATE {{schema}}.job SET links = coalesce(links, 0) | {REPORTED}
    WHERE id = (SELECT job_id FROM owner) AND coalesce(links & {REPORTED}, 0) = 0
)
INSERT INTO {{schema}}.step (job_id, number, name, sort, attempt, at, result, until, serial)
SELECT job_id, $4::integer, $5::text, $6::text, $3, now(), $7::bytea, now() + make_interval(secs => $8::double precision),
       $9::integer
FROM owner
ON CONFLICT (job_id, name) DO UPDATE SET number = step.number
RETURNING {STEP}
"""

# Its steps go with it: a copy of none would do all of them again.
KEEP = "SELECT id FROM {schema}.job WHERE id = $1 FOR KEY SHARE"

COPY = f"""
WITH copied AS (
    INSERT INTO {{schema}}.step (job_id, number, name, sort, attempt, at, result, until, serial, signals, for_job, ended_at, signal, codec, done_by)
    SELECT $2::bigint, number, name, sort, attempt, at, result, until, serial, signals, for_job, ended_at, signal,
           coalesce(codec, (SELECT job.codec FROM {{schema}}.job WHERE job.id = step.job_id)), coalesce(done_by, job_id)
    FROM {{schema}}.step
    WHERE job_id = $1::bigint AND number < $3::integer AND NOT (sort = 'wait' AND ended_at IS NULL)
    RETURNING job_id
)
UPDATE {{schema}}.job SET links = coalesce(links, 0) | {REPORTED} WHERE id = $2 AND EXISTS (SELECT FROM copied)
"""


class PostgresSteps:
    """`Steps` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def of_job(self, job_id: int, *, connection: Any = None) -> list[JobStep]:
        return await of_job(self._database, job_id, connection)

    async def add(self, claim: Claim, step: NewStep, *, connection: Any = None) -> JobStep | None:
        record = await self._database.fetchrow(
            ADD,
            claim.job_id,
            claim.worker_id,
            claim.attempt,
            step.number,
            step.name,
            step.sort.value,
            step.result,
            step.sleep,
            step.serial,
            connection=connection,
        )
        return None if record is None else shown(record)

    async def rerun(self, job: NewJob, *, before: int) -> Enqueued:
        async with self._database.transaction() as connection:
            if job.rerun_of is None or not await self._database.fetchval(
                KEEP, job.rerun_of, connection=connection
            ):
                raise JobNotFound(job.rerun_of or 0)
            enqueued = await enqueue(self._database, job, connection)
            if enqueued.is_new:
                await self._database.execute(COPY, job.rerun_of, enqueued.id, before, connection=connection)
            return enqueued


async def of_job(database: PostgresDatabase, job_id: int, connection: Any = None) -> list[JobStep]:
    """Return the steps of a job in order."""
    return [shown(record) for record in await database.fetch(OF_JOB, job_id, connection=connection)]


def shown(record: Any) -> JobStep:
    """Return the step that a row with the columns STEP says."""
    facts = {name: record[name] for name in COLUMNS}
    return JobStep(**facts | {"sort": StepSort(facts["sort"]), "signals": tuple(facts["signals"])})
