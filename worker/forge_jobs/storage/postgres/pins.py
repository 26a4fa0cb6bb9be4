"""Pins in PostgreSQL: a row that only the holder of the claim writes, and that claims look at where there is one."""

from collections.abc import Sequence
from typing import Any

from forge_jobs.errors import JobNotFound
from forge_jobs.model.intervention import Deed
from forge_jobs.model.job import Claim
from forge_jobs.model.links import PINNED, is_pinned
from forge_jobs.model.pin import Pin, PinnedJobs
from forge_jobs.model.version import VersionState
from forge_jobs.rules.pins import heed
from forge_jobs.storage.postgres import interventions
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.job_filter import argument, fits

FITS = "(pin.pool, pin.version_id, pin.version) IS NOT DISTINCT FROM (worker.pool, worker.version_id, worker.version)"
"""Whether a `pin` is to the version of a `worker`."""

ELSEWHERE = """
          AND NOT EXISTS (SELECT FROM {schema}.pin JOIN {schema}.worker ON worker.id = {worker}
                          WHERE pin.job_id BETWEEN ready.job_id AND ready.job_id AND NOT ({fits}))""".replace(
    "{fits}", FITS
)
"""Passes over those of `ready` that are pinned to another version than that of a worker."""

# The claim is locked as a foreign key would lock it: its job can neither end nor be taken back meanwhile.
ADD = f"""
WITH owner AS MATERIALIZED (
    SELECT job_id FROM {{schema}}.claimed
    WHERE job_id = $1 AND worker_id = $2 AND attempt = $3 AND EXISTS (SELECT FROM {{schema}}.worker WHERE worker.id = $2)
    FOR KEY SHARE
), linked AS (
    UPDATE {{schema}}.job SET links = coalesce(links, 0) | {PINNED} WHERE id = (SELECT job_id FROM owner)
), pinned AS (
    INSERT INTO {{schema}}.pin (job_id, version, pool, version_id, at)
    SELECT owner.job_id, worker.version, worker.pool, worker.version_id, now()
    FROM owner JOIN {{schema}}.worker ON worker.id = $2
    ON CONFLICT (job_id) DO NOTHING
)
SELECT EXISTS (SELECT FROM owner)
"""

OF_JOB = """
SELECT pin.version, pin.at, pin.pool, pin.version_id, version.state
FROM {schema}.pin LEFT JOIN {schema}.worker_version AS version ON version.pool = pin.pool AND version.id = pin.version_id
WHERE pin.job_id = $1
"""

REMOVE = f"""
WITH gone AS (
    DELETE FROM {{schema}}.pin WHERE job_id = $1 RETURNING job_id
), unlinked AS (
    UPDATE {{schema}}.job SET links = nullif(links & ~{PINNED}, 0) WHERE id = (SELECT job_id FROM gone) RETURNING queue_id
)
SELECT (SELECT state FROM {{schema}}.jobs WHERE id = $1) AS state, EXISTS (SELECT FROM gone) AS was_pinned,
       (SELECT count({{schema}}.wake(queue_id)) FROM unlinked)
"""

PUT = """
WITH put AS (
    UPDATE {schema}.pin SET version = $2 WHERE job_id = $1 AND pool IS NULL AND version <> $2 RETURNING job_id
)
SELECT (SELECT state FROM {schema}.jobs WHERE id = $1) AS state, EXISTS (SELECT FROM put) AS is_put,
       (SELECT count({schema}.wake(job.queue_id)) FROM put JOIN {schema}.job ON job.id = put.job_id)
"""

OF_VERSION = """
SELECT pin.job_id FROM {schema}.pin JOIN {schema}.job ON job.id = pin.job_id JOIN {schema}.queue ON queue.id = job.queue_id
WHERE $1 IN (pin.version, pin.version_id) AND ($2::text IS NULL OR queue.name = $2) AND {fits}
  AND ($7::text[] = '{}' OR job.tags @> $7)
  AND ($4::boolean OR pin.pool IS NULL) AND pin.job_id > $5 ORDER BY pin.job_id LIMIT $6
""".replace("{fits}", fits("$3"))

COUNTS = """
SELECT queue.name AS queue, pin.version, pin.pool, pin.version_id, count(*) AS jobs,
       count(*) FILTER (WHERE claimed.job_id IS NULL AND blocked.job_id IS NULL AND waiting.job_id IS NULL
                          AND coalesce(scheduled.run_at <= now(), true)) AS ready,
       count(claimed.job_id) AS in_progress
FROM {schema}.pin
JOIN {schema}.job ON job.id = pin.job_id
JOIN {schema}.queue ON queue.id = job.queue_id
LEFT JOIN {schema}.claimed ON claimed.job_id = pin.job_id
LEFT JOIN {schema}.scheduled ON scheduled.job_id = pin.job_id
LEFT JOIN {schema}.blocked ON blocked.job_id = pin.job_id
LEFT JOIN {schema}.waiting ON waiting.job_id = pin.job_id
WHERE NOT EXISTS (SELECT FROM {schema}.finished WHERE finished.job_id = pin.job_id)
GROUP BY queue.name, pin.version, pin.pool, pin.version_id
ORDER BY queue.name, pin.version, pin.version_id
"""

READ = f"""
SELECT pin.job_id, CASE WHEN {FITS} THEN NULL ELSE pin.version END
FROM {{schema}}.pin LEFT JOIN {{schema}}.worker ON worker.id = $2 WHERE pin.job_id = ANY ($1::bigint[])
"""


class PostgresPins:
    """`Pins` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def add(self, claim: Claim, *, connection: Any = None) -> bool:
        proof = claim.job_id, claim.worker_id, claim.attempt
        return bool(await self._database.fetchval(ADD, *proof, connection=connection))

    async def of_job(self, job_id: int) -> Pin | None:
        return await of_job(self._database, job_id)

    async def remove(self, job_id: int, *, by: str | None = None) -> bool:
        async with self._database.transaction() as connection:
            record = await self._database.fetchrow(REMOVE, job_id, connection=connection)
            if record is None or record["state"] is None:
                raise JobNotFound(job_id)
            if record["was_pinned"] and by is not None:
                state = record["state"]
                await interventions.note(self._database, connection, job_id, Deed.UNPINNED, by, state, state)
        return bool(record["was_pinned"])

    async def put(self, job_id: int, name: str, *, by: str | None = None) -> bool:
        async with self._database.transaction() as connection:
            record = await self._database.fetchrow(PUT, job_id, name, connection=connection)
            assert record is not None
            if record["is_put"] and by is not None:
                facts = job_id, Deed.PINNED, by, record["state"], record["state"], f"to version {name}"
                await interventions.note(self._database, connection, *facts)
        return bool(record["is_put"])

    async def of_version(
        self,
        name: str,
        *,
        queue: str | None = None,
        kind: str | None = None,
        key: str | None = None,
        group: str | None = None,
        with_tags: tuple[str, ...] = (),
        of_pools: bool = True,
        after: int = 0,
        limit: int = 1000,
    ) -> Sequence[int]:
        which = argument(kind, key, group)
        records = await self._database.fetch(
            OF_VERSION, name, queue, which, of_pools, after, limit, list(with_tags)
        )
        return [record["job_id"] for record in records]

    async def counts(self) -> Sequence[PinnedJobs]:
        return [PinnedJobs(**record) for record in await self._database.fetch(COUNTS)]


async def of_job(database: PostgresDatabase, job_id: int, connection: Any = None) -> Pin | None:
    """Return the version that has to go on with the job; None: any may."""
    record = await database.fetchrow(OF_JOB, job_id, connection=connection)
    if record is None:
        return None
    version, at, pool, version_id, state = record
    return Pin(version, at, pool, version_id, None if state is None else VersionState(state))


async def read(database: PostgresDatabase, claims: Sequence[Claim]) -> None:
    """The claims of jobs that are pinned to another version than that of their worker say so."""
    pinned = {claim.job_id: claim for claim in claims if is_pinned(claim.links)}
    if pinned:
        heed(pinned, await database.claims.fetch(READ, list(pinned), claims[0].worker_id))
