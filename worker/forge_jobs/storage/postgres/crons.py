"""Crons in PostgreSQL: how they are configured."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from forge_jobs.errors import UnknownCron, UnknownQueue
from forge_jobs.model.cron import CronConfig, Missed
from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.model.intervention import Deed
from forge_jobs.model.job import Enqueued, KeyMode
from forge_jobs.model.moments import stored_duration
from forge_jobs.storage import refusals
from forge_jobs.storage.postgres import interventions
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import tried_again
from forge_jobs.storage.postgres.enqueue import enqueue
from forge_jobs.storage.postgres.fence import writing
from forge_jobs.storage.postgres.kinds import queue_of
from forge_jobs.storage.postgres.queues import unknown_queue

COLUMNS = """cron.name, cron.expression, cron.kind, cron.timezone, cron.payload, cron.codec,
    queue.name AS queue, cron.queue_said,
    CASE WHEN cron.priority_said THEN cron.priority END AS priority, cron.max_attempts, cron.timeout, cron.start_by, cron.deadline,
    cron.key, cron.key_mode, cron.tags, cron.groups, cron.tenant, cron.hold, cron.overlap, cron.missed, cron.missed_limit,
    cron.missed_within, cron.enabled, cron.managed_by, cron.declared, cron.declared_before, cron.next_fire_at, cron.last_fire_at, cron.last_error, cron.skipped"""

_INSERT = """
    INSERT INTO {schema}.cron (name, expression, timezone, kind, payload, codec, queue_id, priority, max_attempts,
                               timeout, overlap, missed, missed_limit, enabled, managed_by, queue_said,
                               priority_said, next_fire_at, start_by, deadline, key, key_mode, tags, missed_within,
                               groups, tenant, hold)
    SELECT $1, $2, $3, $4, $5, $6, id, coalesce($8, 0::smallint), $9, $10, $11, $12, $13, $14, $15,
           $7::text IS NOT NULL, $8 IS NOT NULL, CASE WHEN $14 THEN $16::timestamptz END, $17, $18, $19, $20, $21, $22,
           $23, $24, $25
    FROM {schema}.queue
    WHERE name = coalesce($7, (SELECT queue FROM {schema}.kind WHERE kind.kind = $4), 'default')"""

ALL = "SELECT {columns} FROM {schema}.cron JOIN {schema}.queue ON queue.id = cron.queue_id ORDER BY cron.name".replace(
    "{columns}", COLUMNS
)

GET = """
SELECT {columns} FROM {schema}.cron JOIN {schema}.queue ON queue.id = cron.queue_id WHERE cron.name = $1
""".replace("{columns}", COLUMNS)

SET = """
WITH written AS ({insert}
    ON CONFLICT (name) DO UPDATE
    SET expression = excluded.expression, timezone = excluded.timezone, kind = excluded.kind,
        payload = excluded.payload, codec = excluded.codec, queue_id = excluded.queue_id,
        priority = excluded.priority, max_attempts = excluded.max_attempts, timeout = excluded.timeout,
        start_by = excluded.start_by, deadline = excluded.deadline, key = excluded.key, key_mode = excluded.key_mode, tags = excluded.tags,
        groups = excluded.groups, tenant = excluded.tenant, hold = excluded.hold,
        overlap = excluded.overlap, missed = excluded.missed, missed_limit = excluded.missed_limit, missed_within = excluded.missed_within,
        queue_said = excluded.queue_said, priority_said = excluded.priority_said,
        enabled = excluded.enabled, managed_by = coalesce(cron.managed_by, excluded.managed_by), last_error = NULL,
        next_fire_at = coalesce(CASE WHEN (cron.expression, cron.timezone, cron.enabled)
                                          = (excluded.expression, excluded.timezone, excluded.enabled)
                                     THEN cron.next_fire_at END, excluded.next_fire_at)
    WHERE cron.managed_by IS NULL OR cron.managed_by = excluded.managed_by
    RETURNING *
)
SELECT {columns}, {schema}.configured() AS told
FROM written AS cron JOIN {schema}.queue ON queue.id = cron.queue_id
""".replace("{insert}", _INSERT).replace("{columns}", COLUMNS)

ENSURE = """
WITH made AS ({insert}
    ON CONFLICT DO NOTHING
    RETURNING id
)
SELECT {schema}.configured() FROM made
""".replace("{insert}", _INSERT)

DECLARED = """
UPDATE {schema}.cron SET declared = $2, declared_before = $3 WHERE name = $1 AND declared IS NOT DISTINCT FROM $4
RETURNING managed_by, enabled
"""

# Of the workers whose handlers declare a cron.
DECLARING = "SELECT FROM {schema}.worker WHERE worker.crons ? $1"

GIVE_BACK = f"""
WITH freed AS (
    UPDATE {{schema}}.cron SET managed_by = NULL, declared = NULL, enabled = true
    WHERE name = $1 AND managed_by = $2 AND EXISTS ({DECLARING})
    RETURNING id
)
SELECT {{schema}}.configured() FROM freed
"""

DELETE = f"""
WITH gone AS (
    DELETE FROM {{schema}}.cron
    WHERE name = $1 AND (managed_by IS NULL OR managed_by = $2) AND NOT EXISTS ({DECLARING})
    RETURNING id
)
SELECT {{schema}}.configured() FROM gone
"""


class PostgresCrons:
    """`Crons` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    @tried_again
    async def set(
        self,
        cron: CronConfig,
        *,
        managed_by: str | None = None,
        epoch: OperatorEpoch | None = None,
        by: str | None = None,
    ) -> CronConfig:
        async with writing(self._database, epoch) as connection:
            record = await self._write(SET, replace(cron, managed_by=managed_by), connection)
            if record is not None:
                said = cron.expression if cron.enabled else "disabled"
                subjects = [f"cron {cron.name}"]
                await interventions.note_of(self._database, connection, subjects, Deed.CHANGED, by, said)
        if record is not None:
            return cron_config(record)
        owner = await self._owner(cron.name)
        if owner is not None and owner != managed_by:
            raise refusals.managed_cron(cron.name, owner)
        raise await self._unknown_queue(cron)

    async def ensure(self, cron: CronConfig) -> None:
        await self._check_queue(cron)
        await self._write(ENSURE, replace(cron, managed_by=None))

    @tried_again
    async def declare(self, cron: CronConfig, *, last_declared: str | None) -> bool:
        await self._check_queue(cron)
        noted = cron.name, cron.declared, list(cron.declared_before), last_declared
        async with self._database.transaction() as connection:
            present = await self._database.fetchrow(DECLARED, *noted, connection=connection)
            if present is None:
                if last_declared is not None or not await self._write(ENSURE, cron, connection):
                    return False
                await self._database.execute(DECLARED, *noted, connection=connection)
            elif present["managed_by"] is None:
                wanted = replace(cron, enabled=present["enabled"])
                if await self._write(SET, wanted, connection) is None:
                    raise await self._unknown_queue(cron)
        return True

    async def get(self, name: str) -> CronConfig:
        record = await self._database.fetchrow(GET, name)
        if record is None:
            raise await self._unknown(name)
        return cron_config(record)

    async def all(self) -> list[CronConfig]:
        return [cron_config(record) for record in await self._database.fetch(ALL)]

    @tried_again
    async def delete(
        self,
        name: str,
        *,
        managed_by: str | None = None,
        epoch: OperatorEpoch | None = None,
        by: str | None = None,
    ) -> None:
        async with writing(self._database, epoch) as connection:
            for statement in (GIVE_BACK, DELETE):
                if (
                    await self._database.fetchrow(statement, name, managed_by, connection=connection)
                    is not None
                ):
                    subjects = [f"cron {name}"]
                    await interventions.note_of(self._database, connection, subjects, Deed.DELETED, by)
                    return
        owner = (await self.get(name)).managed_by
        if owner is None or owner == managed_by:
            raise refusals.declared_cron(name)
        raise refusals.managed_cron(name, owner)

    async def trigger(self, name: str) -> Enqueued:
        return await enqueue(self._database, (await self.get(name)).job(), None)

    async def _write(self, statement: str, cron: CronConfig, connection: Any = None) -> Any:
        refusals.check_cron(cron)
        timeout, start_by, deadline, missed_within = (
            limit and limit.total_seconds()
            for limit in (cron.timeout, cron.start_by, cron.deadline, cron.missed_within)
        )
        return await self._database.fetchrow(
            statement,
            cron.name,
            cron.expression,
            cron.timezone,
            cron.kind,
            cron.payload,
            cron.codec,
            cron.queue if cron.queue_said else None,
            cron.priority,
            cron.max_attempts,
            timeout,
            cron.overlap,
            cron.missed.value,
            cron.missed_limit,
            cron.enabled,
            cron.managed_by,
            cron.next_fire_at,
            start_by,
            deadline,
            cron.key,
            cron.key_mode.value,
            list(cron.tags),
            missed_within,
            cron.groups,
            cron.tenant,
            cron.hold,
            connection=connection,
        )

    async def _check_queue(self, cron: CronConfig) -> None:
        known = "SELECT true FROM {schema}.queue WHERE name = $1"
        if cron.queue_said and not await self._database.fetchval(known, cron.queue):
            raise await self._unknown_queue(cron)

    async def _unknown_queue(self, cron: CronConfig) -> UnknownQueue:
        name = cron.queue if cron.queue_said else await queue_of(self._database, cron.kind, None)
        return await unknown_queue(self._database, name)

    async def _owner(self, name: str) -> str | None:
        owner: str | None = await self._database.fetchval(
            "SELECT managed_by FROM {schema}.cron WHERE name = $1", name
        )
        return owner

    async def _unknown(self, name: str) -> UnknownCron:
        known = await self._database.fetch("SELECT name FROM {schema}.cron")
        return UnknownCron(name, [record["name"] for record in known])


def cron_config(record: Mapping[str, Any]) -> CronConfig:
    """Return the cron of a record that has COLUMNS."""
    facts = dict(record)
    facts.pop("told", None)
    durations = {
        name: stored_duration(facts[name]) for name in ("timeout", "start_by", "deadline", "missed_within")
    }
    words = {
        "missed": Missed(facts["missed"]),
        "key_mode": KeyMode(facts["key_mode"]),
        "tags": tuple(facts["tags"]),
        "declared_before": tuple(facts["declared_before"]),
    }
    return CronConfig(**facts | durations | words)
