"""What people have done to jobs by hand, in PostgreSQL."""

from collections.abc import Sequence
from typing import Any

from forge_jobs.model.intervention import Deed, Intervention
from forge_jobs.model.job import State
from forge_jobs.storage.postgres.connection import PostgresDatabase

NOTE = """
INSERT INTO {schema}.intervention (job_id, at, what, by_whom, was, becomes) VALUES ($1, now(), $2, $3, $4, $5)
"""

OF_OPERATION = """, noted AS (
    INSERT INTO {schema}.intervention (job_id, at, what, by_whom, was, becomes, operation_id)
    SELECT moves.job_id, now(), operation.move, operation.asked_by, '{was}', {becomes}, operation.id
    FROM {moves} CROSS JOIN {schema}.operation
    WHERE operation.id = nullif(current_setting('forge_jobs.operation', true), '')::bigint
)
SELECT {answer}"""
"""The end of the CTEs of a move, where it is a part of the operation that the transaction says."""

PART_OF = "SELECT set_config('forge_jobs.operation', $1::text, true)"

OF_JOB = """
SELECT job_id, at, what, by_whom AS by, role, was, becomes, operation_id FROM {schema}.intervention
WHERE job_id = $1 ORDER BY id
"""

SWEEP = """
WITH old AS MATERIALIZED (
    SELECT id FROM {schema}.intervention
    WHERE at < now() - (SELECT coalesce(max(dead_retention), interval '30 days') FROM {schema}.queue)
      AND NOT EXISTS (SELECT FROM {schema}.job WHERE job.id = intervention.job_id)
      AND EXISTS (SELECT FROM {schema}.leader WHERE leader.epoch = $1 AND leader.until > now())
    ORDER BY at LIMIT $2
    FOR UPDATE SKIP LOCKED
)
DELETE FROM {schema}.intervention WHERE id = ANY (ARRAY(SELECT id FROM old))
"""


class PostgresInterventions:
    """`Interventions` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def of_job(self, job_id: int) -> Sequence[Intervention]:
        return [
            Intervention(
                record["job_id"],
                record["at"],
                Deed(record["what"]),
                record["by"],
                record["role"],
                State(record["was"]),
                None if record["becomes"] is None else State(record["becomes"]),
                record["operation_id"],
            )
            for record in await self._database.fetch(OF_JOB, job_id)
        ]


async def note(
    database: PostgresDatabase,
    connection: Any,
    job_id: int,
    deed: Deed,
    by: str,
    was: str,
    becomes: str | None,
) -> None:
    """It is noted, as a part of this transaction, who did this to the job."""
    await database.execute(NOTE, job_id, deed.value, by, was, becomes, connection=connection)
