"""Versions of worker pools in PostgreSQL, and the gates that let them claim.

Every write locks the operator's row before anything else, so writes of operators come one
after the other, each sees what the one before it did, and none outlives its epoch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from forge_jobs.model.epoch import Epoch, OperatorEpoch
from forge_jobs.model.track_record import decoded_all, total
from forge_jobs.model.version import Version, VersionState
from forge_jobs.storage.interface.versions import Versions
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import tried_again
from forge_jobs.storage.postgres.fence import writing
from forge_jobs.storage.postgres.track_records import AGE, TOTAL

TAKE_OVER = """
INSERT INTO {schema}.operator AS operator (holder, epoch) VALUES ($1, 1)
ON CONFLICT (one) DO UPDATE SET holder = excluded.holder, epoch = operator.epoch + 1
RETURNING holder, epoch
"""

TELL = "SELECT {schema}.tell('gate:' || $1::text)"

RENEW = """
UPDATE {schema}.worker_version SET version = $3, deployment = $4, spec_hash = $5, queues = coalesce($6, queues)
WHERE pool = $1 AND id = $2
RETURNING true
"""

ADD = """
INSERT INTO {schema}.worker_version (
    pool, id, version, deployment, state, weight_percent, control_revision, spec_hash,
    queues, created_at, state_changed_at, last_current_at, drain_started_at)
SELECT $1, $2, $3, $4, $7, $8, 1, $5, $6, now(), now(),
       CASE WHEN $7 = 'current' THEN now() END, CASE WHEN $7 = 'draining' THEN now() END
WHERE NOT ($7 = 'current'
           AND EXISTS (SELECT FROM {schema}.worker_version AS other WHERE other.pool = $1 AND other.state = 'current'))
RETURNING true
"""

EXISTS = "SELECT EXISTS (SELECT FROM {schema}.worker_version WHERE pool = $1 AND id = $2)"

HAS_VERSIONS = "SELECT EXISTS (SELECT FROM {schema}.worker_version WHERE pool = $1)"

# Before the next statement, since there may never be two current versions.
CLOSE_OTHERS = """
UPDATE {schema}.worker_version
SET state = 'draining', control_revision = control_revision + 1, state_changed_at = now(),
    last_current_at = CASE state WHEN 'current' THEN now() ELSE last_current_at END,
    drain_started_at = now(), drained_at = NULL, ramping_since = NULL, baseline = NULL
WHERE pool = $1 AND id <> $2 AND state IN ('current', 'ramping')
RETURNING true
"""

OPEN = """
UPDATE {schema}.worker_version
SET state = 'current', weight_percent = 100, control_revision = control_revision + 1, state_changed_at = now(),
    last_current_at = now(), drain_started_at = NULL, drained_at = NULL,
    failure_message = NULL, ramping_since = NULL, baseline = NULL
WHERE pool = $1 AND id = $2 AND state <> 'current'
RETURNING true
"""

MOVE = """
WITH before AS MATERIALIZED (
    SELECT state <> $3 AS changes, state = 'current' OR $3 = 'current' AS counts
    FROM {schema}.worker_version WHERE pool = $1 AND id = $2
), standing AS (
    SELECT jsonb_object_agg(version.id, coalesce(total.record, '{}')) AS records
    FROM {schema}.worker_version AS version CROSS JOIN {total}
    WHERE version.pool = $1
), moved AS (
    UPDATE {schema}.worker_version AS version
    SET state = $3,
        weight_percent = coalesce($4, weight_percent),
        control_revision = control_revision + CASE WHEN changes THEN 1 ELSE 0 END,
        state_changed_at = CASE WHEN changes OR weight_percent <> $4 THEN now() ELSE state_changed_at END,
        last_current_at = CASE WHEN changes AND counts THEN now() ELSE last_current_at END,
        drain_started_at = CASE WHEN NOT changes OR $3 IN ('drained', 'retired', 'failed') THEN drain_started_at
                                WHEN $3 = 'draining' THEN now() END,
        drained_at = CASE WHEN NOT changes OR $3 IN ('retired', 'failed') THEN drained_at
                          WHEN $3 = 'drained' THEN now() END,
        failure_message = CASE WHEN changes THEN $5 ELSE failure_message END,
        ramping_since = CASE WHEN $3 = 'ramping' THEN coalesce(ramping_since, now()) END,
        baseline = CASE WHEN $3 <> 'ramping' THEN NULL
                        WHEN changes OR weight_percent <> $4 THEN standing.records ELSE baseline END
    FROM before, standing
    WHERE pool = $1 AND id = $2
      AND NOT ($3 = 'current' AND EXISTS (
          SELECT FROM {schema}.worker_version AS other
          WHERE other.pool = $1 AND other.id <> $2 AND other.state = 'current'))
      AND NOT ($3 NOT IN ('current', 'ramping') AND state IN ('current', 'ramping') AND NOT EXISTS (
          SELECT FROM {schema}.worker_version AS other
          WHERE other.pool = $1 AND other.id <> $2 AND other.state IN ('current', 'ramping')))
    RETURNING changes
)
SELECT CASE WHEN changes THEN {schema}.tell('gate:' || $1) END FROM moved
""".replace("{total}", TOTAL)

ALL = """
SELECT version.pool, version.id, version.version, version.deployment, version.state, version.weight_percent,
       version.control_revision, version.spec_hash, version.created_at, version.state_changed_at,
       version.last_current_at, version.drain_started_at, version.drained_at, version.ramping_since, version.failure_message,
       version.queues, version.kinds,
       live.workers, live.acknowledged, coalesce(held.jobs, 0) AS in_progress, held.ages AS running,
       version.record, live.records, version.baseline
FROM {schema}.worker_version AS version
CROSS JOIN LATERAL (
    SELECT count(*) AS workers, coalesce(bool_and(observed_revision >= version.control_revision), true) AS acknowledged,
           array_agg(record) AS records
    FROM {schema}.worker
    WHERE worker.pool = version.pool AND worker.version_id = version.id
) AS live
LEFT JOIN (  -- by the label, which outlives its worker
    SELECT pool, version_id, sum(jobs)::bigint AS jobs, jsonb_object_agg(age, jobs) AS ages
    FROM (
        SELECT label.pool, label.version_id, {age} AS age, count(*) AS jobs
        FROM {schema}.claimed JOIN {schema}.worker_label AS label ON label.worker_id = claimed.worker_id
        WHERE label.pool IS NOT NULL
        GROUP BY 1, 2, 3
    ) AS by_age
    GROUP BY pool, version_id
) AS held ON held.pool = version.pool AND held.version_id = version.id
WHERE $1::text IS NULL OR version.pool = $1
ORDER BY version.created_at, version.pool, version.id
""".replace("{age}", AGE)

OF_FAILED = """
SELECT label.worker_id
FROM {schema}.worker_label AS label
JOIN {schema}.worker_version AS version ON version.pool = label.pool AND version.id = label.version_id
WHERE label.worker_id = ANY ($1::bigint[]) AND version.state = 'failed'
"""

# A version without a row is open, so the row stays for as long as somebody may claim by it.
DELETE = """
DELETE FROM {schema}.worker_version AS version
WHERE pool = $1 AND id = $2 AND state NOT IN ('current', 'ramping')
  AND NOT EXISTS (SELECT FROM {schema}.worker
                  WHERE worker.pool = version.pool AND worker.version_id = version.id)
"""

FORGET = """
DELETE FROM {schema}.worker_version
WHERE pool = $1
  AND NOT EXISTS (SELECT FROM {schema}.worker WHERE worker.pool = $1)
  AND NOT EXISTS (SELECT FROM {schema}.claimed JOIN {schema}.worker_label AS label ON label.worker_id = claimed.worker_id
                  WHERE label.pool = $1)
"""

CORDON = """
WITH told AS (
    UPDATE {schema}.worker SET cordoned = $2, observed_revision = -1
    WHERE id = ANY ($1::bigint[]) AND cordoned <> $2
    RETURNING coalesce(pool, '') AS pool
)
SELECT {schema}.tell('gate:' || pool) FROM (SELECT DISTINCT pool FROM told) AS pools
"""


class PostgresVersions(Versions):
    """`Versions` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def take_over(self, holder: str) -> Epoch:
        """The operator `holder` writes from now on; the epochs before it write no more."""
        record = await self._database.fetchrow(TAKE_OVER, holder)
        assert record is not None
        return Epoch(*record)

    @tried_again
    async def put(self, version: Version, *, epoch: OperatorEpoch) -> bool:
        """The version is known; one that was known keeps its state, and gets the version text, Deployment, hash and queues."""
        queues = None if version.queues is None else list(version.queues)
        facts = (version.pool, version.id, version.version, version.deployment, version.spec_hash, queues)
        async with writing(self._database, epoch) as connection:
            if await self._database.fetchval(RENEW, *facts, connection=connection):
                return True
            added = await self._database.fetchval(
                ADD, *facts, version.state, version.weight_percent, connection=connection
            )
            if added:
                await self._database.execute(TELL, version.pool, connection=connection)
            return bool(added)

    @tried_again
    async def promote(self, pool: str, version_id: str, *, epoch: OperatorEpoch) -> bool:
        """The version is current and all other open ones of the pool drain; False when there is no such version."""
        async with writing(self._database, epoch) as connection:
            if not await self._exists(pool, version_id, connection):
                return False
            closed = await self._database.fetch(CLOSE_OTHERS, pool, version_id, connection=connection)
            opened = await self._database.fetch(OPEN, pool, version_id, connection=connection)
            if closed or opened:
                await self._database.execute(TELL, pool, connection=connection)
            return True

    @tried_again
    async def move(
        self,
        pool: str,
        version_id: str,
        state: VersionState,
        *,
        weight_percent: int | None = None,
        failure_message: str | None = None,
        epoch: OperatorEpoch,
    ) -> bool:
        """The version is in `state`; False, with nothing changed, when its pool's gates forbid it."""
        async with writing(self._database, epoch) as connection:
            moved = await self._database.fetch(
                MOVE, pool, version_id, state, weight_percent, failure_message, connection=connection
            )
            return bool(moved)

    async def all(self, pool: str | None = None) -> list[Version]:
        """Return the versions (of one pool), oldest first, with what their workers hold now."""
        return [_version(record) for record in await self._database.fetch(ALL, pool)]

    async def of_failed(self, worker_ids: Sequence[int]) -> set[int]:
        """Return those of these workers, registered or gone, whose version failed."""
        return {row["worker_id"] for row in await self._database.fetch(OF_FAILED, list(worker_ids))}

    @tried_again
    async def delete(self, pool: str, version_id: str, *, epoch: OperatorEpoch) -> bool:
        """The row is gone; False when the version is open, or a worker of it is registered."""
        async with writing(self._database, epoch) as connection:
            await self._database.execute(DELETE, pool, version_id, connection=connection)
            return not await self._exists(pool, version_id, connection)

    @tried_again
    async def forget(self, pool: str, *, epoch: OperatorEpoch) -> bool:
        """All rows of the pool are gone; False while a worker of it is registered or holds a job."""
        async with writing(self._database, epoch) as connection:
            await self._database.execute(FORGET, pool, connection=connection)
            return not await self._database.fetchval(HAS_VERSIONS, pool, connection=connection)

    @tried_again
    async def cordon(self, worker_ids: Sequence[int], cordoned: bool, *, epoch: OperatorEpoch) -> None:
        """The workers may claim nothing more, or may again when not `cordoned`; they are told."""
        async with writing(self._database, epoch) as connection:
            await self._database.fetch(CORDON, list(worker_ids), cordoned, connection=connection)

    async def _exists(self, pool: str, version_id: str, connection: Any) -> bool:
        return bool(await self._database.fetchval(EXISTS, pool, version_id, connection=connection))


def _version(row: Mapping[str, Any]) -> Version:
    facts = dict(row)
    records = [
        facts.pop("record"),
        *(facts.pop("records") or ()),
    ]  # adding them up here costs less than in the database
    return Version(
        **{
            **facts,
            "state": VersionState(row["state"]),
            "queues": None if row["queues"] is None else tuple(row["queues"]),
            "kinds": None if row["kinds"] is None else tuple(row["kinds"]),
            "running": msgspec.json.decode(row["running"] or "{}", type=dict[int, int]),
            "record": total(records),
            "baseline": decoded_all(row["baseline"]),
        }
    )
