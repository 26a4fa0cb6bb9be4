"""What people have done by hand, in PostgreSQL."""

from collections.abc import Sequence
from typing import Any

from forge_jobs.model.intervention import MOST_OF_ONE, Deed, Intervention
from forge_jobs.model.job import State
from forge_jobs.storage.postgres.connection import PostgresDatabase

NOTE = """
WITH trimmed AS (
    DELETE FROM {schema}.intervention WHERE job_id = $1 AND operation_id IS NULL AND id <= (
        SELECT id FROM {schema}.intervention AS older
        WHERE older.job_id = $1 AND older.operation_id IS NULL ORDER BY id DESC OFFSET {most} LIMIT 1)
)
INSERT INTO {schema}.intervention (job_id, at, what, by_whom, was, becomes, note) VALUES ($1, now(), $2, $3, $4, $5, $6)
""".replace("{most}", str(MOST_OF_ONE - 1))

# Who may only send signals may add to these, and take nothing away.
NOTE_ALL = """
INSERT INTO {schema}.intervention (job_id, at, what, by_whom, note)
SELECT one, now(), $2, $3, $4 FROM unnest($1::bigint[]) AS one
RETURNING has_table_privilege('{schema_text}.intervention', 'DELETE')
"""

TRIM_ALL = """
DELETE FROM {schema}.intervention USING unnest($1::bigint[]) AS given (job_id)
WHERE intervention.job_id = given.job_id AND intervention.operation_id IS NULL AND intervention.id <= (
    SELECT older.id FROM {schema}.intervention AS older
    WHERE older.job_id = given.job_id AND older.operation_id IS NULL ORDER BY older.id DESC OFFSET {most} LIMIT 1)
""".replace("{most}", str(MOST_OF_ONE))

NOTE_OF = """
INSERT INTO {schema}.intervention (at, what, by_whom, subject, note) SELECT now(), $2, $3, one, $4 FROM unnest($1::text[]) AS one
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

_COLUMNS = "job_id, at, what, by_whom AS by, role, was, becomes, operation_id, subject, note"

# A node's history tells of its flow, too.
OF_JOB = f"""
SELECT {_COLUMNS} FROM (
    SELECT * FROM {{schema}}.intervention WHERE job_id = $1
    UNION ALL
    SELECT * FROM {{schema}}.intervention
    WHERE subject = (SELECT 'flow ' || node.flow_id FROM {{schema}}.flow_node AS node WHERE node.job_id = $1)
) AS done ORDER BY id
"""

NEWEST = f"""
SELECT {_COLUMNS} FROM {{schema}}.intervention
WHERE $1::text IS NULL OR subject = $1 ORDER BY id DESC LIMIT $2
"""

SWEEP = """
WITH kept AS (
    SELECT now() - coalesce(max(dead_retention), interval '30 days') AS since,
           now() - greatest(max(dead_retention), interval '365 days') AS with_job FROM {schema}.queue
), old AS MATERIALIZED (
    SELECT id FROM {schema}.intervention
    WHERE at < (SELECT since FROM kept)
      AND (at < (SELECT with_job FROM kept)
           OR NOT EXISTS (SELECT FROM {schema}.job WHERE job.id = intervention.job_id))
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
        return list(map(_shown, await self._database.fetch(OF_JOB, job_id)))

    async def all(self, *, subject: str | None = None, limit: int = 100) -> Sequence[Intervention]:
        return list(map(_shown, await self._database.fetch(NEWEST, subject, limit)))


def _shown(record: Any) -> Intervention:
    states = {name: None if record[name] is None else State(record[name]) for name in ("was", "becomes")}
    return Intervention(**{**record, **states, "what": Deed(record["what"])})


async def note(
    database: PostgresDatabase,
    connection: Any,
    job_id: int,
    deed: Deed,
    by: str,
    was: str | None,
    becomes: str | None,
    note: str | None = None,
) -> None:
    """It is noted, as a part of this transaction, who did this to the job."""
    await database.execute(NOTE, job_id, deed.value, by, was, becomes, note, connection=connection)


async def note_all(
    database: PostgresDatabase, connection: Any, job_ids: Sequence[int], deed: Deed, by: str, note: str
) -> None:
    """It is noted, as a part of this transaction, who did this to each of the jobs, whatever states they are in."""
    if job_ids:
        ids = list(job_ids)
        may_trim = await database.fetchval(NOTE_ALL, ids, deed.value, by, note, connection=connection)
        if may_trim:
            await database.execute(TRIM_ALL, ids, connection=connection)


async def note_of(
    database: PostgresDatabase,
    connection: Any,
    subjects: Sequence[str],
    deed: Deed,
    by: str | None,
    note: str | None = None,
) -> None:
    """It is noted, as a part of this transaction, who did this to something else than jobs; None: nobody did it by hand."""
    if by is not None and subjects:
        await database.execute(NOTE_OF, list(subjects), deed.value, by, note, connection=connection)
