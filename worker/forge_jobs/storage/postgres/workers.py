"""Workers in PostgreSQL."""

from forge_jobs.errors import WorkerLost
from forge_jobs.storage.interface import Workers
from forge_jobs.storage.postgres.connection import Database
from forge_jobs.worker_info import Beat, WorkerInfo

REGISTER = """
WITH labelled AS (
    INSERT INTO {schema}.worker_label (worker_id, label, at)
    VALUES ($1, $2, now())
    ON CONFLICT (worker_id) DO NOTHING
)
INSERT INTO {schema}.worker (id, label, host, pid, version, queues, kinds, concurrency, draining, started_at, beat_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, now(), now())
ON CONFLICT (id) DO UPDATE SET beat_at = excluded.beat_at
"""

BEAT = """
WITH alive AS (
    UPDATE {schema}.worker SET beat_at = now() WHERE id = $1 RETURNING id
)
SELECT (SELECT revision FROM {schema}.revision) AS revision,
       ARRAY(SELECT job_id FROM {schema}.claimed
             WHERE worker_id = $1 AND cancel_requested_at IS NOT NULL) AS cancels
FROM alive
"""

DRAIN = "UPDATE {schema}.worker SET draining = true WHERE id = $1"

DEREGISTER = """
WITH gone AS (
    DELETE FROM {schema}.worker WHERE id = $1
), freed AS (
    UPDATE {schema}.slot SET worker_id = NULL WHERE worker_id = $1 RETURNING queue_id
), awake AS (
    DELETE FROM {schema}.idle WHERE worker_id = $1
), resigned AS (
    UPDATE {schema}.leader SET worker_id = NULL, until = now() WHERE worker_id = $1
)
SELECT {schema}.wake(queue_id) FROM (SELECT DISTINCT queue_id FROM freed) AS queues
"""

ALL = """
SELECT worker.id, label, host, pid, version, queues, kinds, concurrency, draining, started_at, beat_at,
       coalesce(held.jobs, 0) AS in_progress
FROM {schema}.worker
LEFT JOIN (SELECT worker_id, count(*) AS jobs FROM {schema}.claimed GROUP BY worker_id) AS held
       ON held.worker_id = worker.id
ORDER BY label, id
"""


class PostgresWorkers(Workers):
    """The workers of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(self, worker: WorkerInfo) -> None:
        """The worker is known and alive. Durable before it returns."""
        await self._database.execute(
            REGISTER,
            worker.id,
            worker.label,
            worker.host,
            worker.pid,
            worker.version,
            list(worker.queues),
            list(worker.kinds),
            worker.concurrency,
            worker.draining,
        )

    async def beat(self, worker_id: int) -> Beat:
        """The worker is alive as of now. Raises WorkerLost when it was struck off."""
        row = await self._database.fetchrow(BEAT, worker_id)
        if row is None:
            raise WorkerLost(worker_id)
        return Beat(cancels=tuple(row["cancels"]), revision=row["revision"])

    async def drain(self, worker_id: int) -> None:
        """The worker says of itself that it claims nothing new."""
        await self._database.execute(DRAIN, worker_id)

    async def deregister(self, worker_id: int) -> None:
        """The worker is gone, with its slots, its idle marks and its leadership."""
        await self._database.fetch(DEREGISTER, worker_id)

    async def all(self) -> list[WorkerInfo]:
        """Return the registered workers by label."""
        rows = await self._database.fetch(ALL)
        return [
            WorkerInfo(**{**row, "queues": tuple(row["queues"]), "kinds": tuple(row["kinds"])})
            for row in rows
        ]
