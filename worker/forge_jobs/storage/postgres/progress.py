"""Progress in PostgreSQL: the reports of a worker's jobs are one statement.

Nothing of it waits for a lock: a handler may have its own job locked, in a transaction, for as long as it likes. Nor for the
disk: a server that crashes may lose the last reports.
"""

from collections.abc import Collection, Sequence

from forge_jobs.model.links import REPORTED
from forge_jobs.model.progress import ProgressReport
from forge_jobs.storage.postgres.connection import PostgresDatabase

WRITE = f"""
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::integer[], $4::double precision[], $5::text[])
        AS given (job_id, worker_id, attempt, share, note)
), held AS MATERIALIZED (
    SELECT given.job_id FROM {{schema}}.claimed JOIN given ON claimed.job_id BETWEEN given.job_id AND given.job_id
    WHERE claimed.worker_id = given.worker_id AND claimed.attempt = given.attempt
), owned AS MATERIALIZED (
    SELECT given.* FROM {{schema}}.claimed JOIN given ON claimed.job_id BETWEEN given.job_id AND given.job_id
    WHERE claimed.worker_id = given.worker_id AND claimed.attempt = given.attempt
    FOR KEY SHARE OF claimed SKIP LOCKED
), unlinked AS MATERIALIZED (
    SELECT id FROM {{schema}}.job
    WHERE id = ANY (ARRAY(SELECT job_id FROM owned)) AND coalesce(links & {REPORTED}, 0) = 0
    FOR NO KEY UPDATE SKIP LOCKED
), linked AS (
    UPDATE {{schema}}.job SET links = coalesce(links, 0) | {REPORTED} WHERE id = ANY (ARRAY(SELECT id FROM unlinked))
), written AS (
    INSERT INTO {{schema}}.progress (job_id, attempt, share, note, at)
    SELECT job_id, attempt, share, note, now() FROM owned
    WHERE job_id = ANY (ARRAY(SELECT id FROM unlinked))
       OR (SELECT job.links & {REPORTED} FROM {{schema}}.job WHERE job.id = owned.job_id) <> 0
    ON CONFLICT (job_id) DO UPDATE
    SET attempt = excluded.attempt, share = excluded.share, note = excluded.note, at = excluded.at
    RETURNING job_id
)
SELECT ARRAY(SELECT job_id FROM held EXCEPT SELECT job_id FROM written), set_config('synchronous_commit', 'off', true)
"""


class PostgresProgress:
    """`ProgressReports` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def write(self, reports: Sequence[ProgressReport]) -> Collection[int]:
        reports = sorted(reports, key=lambda report: report.claim.job_id)
        passed_over: Collection[int] = await self._database.fetchval(
            WRITE,
            [report.claim.job_id for report in reports],
            [report.claim.worker_id for report in reports],
            [report.claim.attempt for report in reports],
            [report.share for report in reports],
            [report.note for report in reports],
        )
        return passed_over
