"""Crons in PostgreSQL: their configuration, and their fires.

A fire is one transaction that first moves the cron on, and so locks it: whoever comes
second finds that `next_fire_at` is no longer what it was, and does nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from forge_jobs.errors import UnknownCron, UnknownQueue
from forge_jobs.model.cron import CronConfig, Missed
from forge_jobs.model.job import Enqueued
from forge_jobs.model.moments import stored_duration
from forge_jobs.storage import refusals
from forge_jobs.storage.postgres import key_wait
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import tried_again
from forge_jobs.storage.postgres.enqueue import enqueue, enqueue_many
from forge_jobs.storage.postgres.fence import writing
from forge_jobs.storage.postgres.kinds import queue_of
from forge_jobs.storage.postgres.leadership import LEADS
from forge_jobs.storage.postgres.queues import unknown_queue

_COLUMNS = """cron.name, cron.expression, cron.kind, cron.timezone, cron.payload, cron.codec,
    queue.name AS queue, cron.queue_said,
    CASE WHEN cron.priority_said THEN cron.priority END AS priority, cron.max_attempts, cron.timeout, cron.overlap, cron.missed, cron.missed_limit, cron.enabled,
    cron.managed_by, cron.next_fire_at, cron.last_fire_at, cron.last_error, cron.skipped"""

_INSERT = """
    INSERT INTO {schema}.cron (name, expression, timezone, kind, payload, codec, queue_id, priority, max_attempts,
                               timeout, overlap, missed, missed_limit, enabled, managed_by, queue_said,
                               priority_said, next_fire_at)
    SELECT $1, $2, $3, $4, $5, $6, id, coalesce($8, 0::smallint), $9, $10, $11, $12, $13, $14, $15,
           $7::text IS NOT NULL, $8 IS NOT NULL, CASE WHEN $14 THEN $16::timestamptz END
    FROM {schema}.queue
    WHERE name = coalesce($7, (SELECT queue FROM {schema}.kind WHERE kind.kind = $4), 'default')"""

ALL = "SELECT {columns} FROM {schema}.cron JOIN {schema}.queue ON queue.id = cron.queue_id ORDER BY cron.name".replace(
    "{columns}", _COLUMNS
)

GET = """
SELECT {columns} FROM {schema}.cron JOIN {schema}.queue ON queue.id = cron.queue_id WHERE cron.name = $1
""".replace("{columns}", _COLUMNS)

SET = """
WITH written AS ({insert}
    ON CONFLICT (name) DO UPDATE
    SET expression = excluded.expression, timezone = excluded.timezone, kind = excluded.kind,
        payload = excluded.payload, codec = excluded.codec, queue_id = excluded.queue_id,
        priority = excluded.priority, max_attempts = excluded.max_attempts, timeout = excluded.timeout,
        overlap = excluded.overlap, missed = excluded.missed, missed_limit = excluded.missed_limit,
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
""".replace("{insert}", _INSERT).replace("{columns}", _COLUMNS)

ENSURE = """
WITH made AS ({insert}
    ON CONFLICT DO NOTHING
    RETURNING id
)
SELECT {schema}.configured() FROM made
""".replace("{insert}", _INSERT)

DELETE = """
WITH gone AS (DELETE FROM {schema}.cron WHERE name = $1 AND (managed_by IS NULL OR managed_by = $2) RETURNING id)
SELECT {schema}.configured() FROM gone
"""

SEED = """
UPDATE {schema}.cron SET next_fire_at = $2
WHERE name = $1 AND next_fire_at IS NULL AND enabled AND {leads}
""".replace("{leads}", LEADS.replace("{epoch}", "$3"))

MOVE_ON = """
UPDATE {schema}.cron SET next_fire_at = $3, last_fire_at = coalesce($4, last_fire_at), last_error = NULL
FROM {schema}.queue
WHERE cron.name = $1 AND cron.next_fire_at IS NOT DISTINCT FROM $2 AND cron.enabled
  AND cron.expression = $6 AND cron.timezone = $7 AND {leads}
  AND queue.id = cron.queue_id
RETURNING cron.id, {columns}
""".replace("{leads}", LEADS.replace("{epoch}", "$5")).replace("{columns}", _COLUMNS)

NOT_FIRED = """
SELECT fire_at FROM unnest($2::timestamptz[]) AS given (fire_at)
WHERE NOT EXISTS (SELECT FROM {schema}.fire WHERE fire.cron_id = $1 AND fire.fire_at = given.fire_at)
ORDER BY fire_at
"""

FIRED = """
WITH fired AS (
    INSERT INTO {schema}.fire (cron_id, fire_at, job_id)
    SELECT $1, fire_at, job_id FROM unnest($2::timestamptz[], $3::bigint[]) AS given (fire_at, job_id)
)
UPDATE {schema}.cron SET skipped = skipped + $4 WHERE id = $1 AND $4::bigint > 0
"""

NOTE_ERROR = """
UPDATE {schema}.cron SET last_error = $2 WHERE name = $1 AND last_error IS DISTINCT FROM $2 AND {leads}
""".replace("{leads}", LEADS.replace("{epoch}", "$3"))


class PostgresCrons:
    """`Crons` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    @tried_again
    async def set(
        self, cron: CronConfig, *, managed_by: str | None = None, epoch: int | None = None
    ) -> CronConfig:
        async with writing(self._database, epoch) as connection:
            record = await self._write(SET, replace(cron, managed_by=managed_by), connection)
        if record is not None:
            return _cron_config(record)
        owner = await self._owner(cron.name)
        if owner is not None and owner != managed_by:
            raise refusals.managed_cron(cron.name, owner)
        raise await self._unknown_queue(cron)

    async def ensure(self, cron: CronConfig) -> None:
        await self._check_queue(cron)
        await self._write(ENSURE, replace(cron, managed_by=None))

    async def get(self, name: str) -> CronConfig:
        record = await self._database.fetchrow(GET, name)
        if record is None:
            raise await self._unknown(name)
        return _cron_config(record)

    async def all(self) -> list[CronConfig]:
        return [_cron_config(record) for record in await self._database.fetch(ALL)]

    @tried_again
    async def delete(self, name: str, *, managed_by: str | None = None, epoch: int | None = None) -> None:
        async with writing(self._database, epoch) as connection:
            gone = await self._database.fetchrow(DELETE, name, managed_by, connection=connection)
        if gone is not None:
            return
        owner = await self._owner(name)
        if owner is None:
            raise await self._unknown(name)
        raise refusals.managed_cron(name, owner)

    async def seed(self, name: str, next_fire_at: datetime, *, epoch: int) -> None:
        await self._database.execute(SEED, name, next_fire_at, epoch)

    @tried_again
    async def fire(
        self,
        cron: CronConfig,
        fires: Sequence[datetime],
        next_fire_at: datetime | None,
        *,
        epoch: int,
    ) -> list[Enqueued]:
        latest = max(fires, default=None)
        async with self._database.transaction() as connection:
            await key_wait.bound(connection)  # a key that stays taken shall not keep the other crons
            record = await self._database.fetchrow(
                MOVE_ON,
                cron.name,
                cron.next_fire_at,
                next_fire_at,
                latest,
                epoch,
                cron.expression,
                cron.timezone,
                connection=connection,
            )
            if record is None or not fires:
                return []
            facts = dict(record)
            return await self._fire(facts.pop("id"), _cron_config(facts), fires, connection)

    async def note_error(self, name: str, error: str | None, *, epoch: int) -> None:
        await self._database.execute(NOTE_ERROR, name, error, epoch)

    async def trigger(self, name: str) -> Enqueued:
        return await enqueue(self._database, (await self.get(name)).job(), None)

    async def _fire(
        self, cron_id: int, cron: CronConfig, fires: Sequence[datetime], connection: Any
    ) -> list[Enqueued]:
        records = await self._database.fetch(NOT_FIRED, cron_id, list(fires), connection=connection)
        moments = [record["fire_at"] for record in records]
        answers = await enqueue_many(self._database, [cron.job()] * len(moments), connection)
        fired = {moment: job for moment, job in zip(moments, answers, strict=True) if not job.duplicate}
        await self._database.execute(
            FIRED,
            cron_id,
            list(fired),
            [job.id for job in fired.values()],
            len(moments) - len(fired),
            connection=connection,
        )
        return list(fired.values())

    async def _write(self, statement: str, cron: CronConfig, connection: Any = None) -> Any:
        refusals.check_cron(cron)
        timeout = None if cron.timeout is None else cron.timeout.total_seconds()
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


def _cron_config(record: Mapping[str, Any]) -> CronConfig:
    facts = dict(record)
    facts.pop("told", None)
    timeout = facts.pop("timeout")
    return CronConfig(
        **facts | {"missed": Missed(facts["missed"])},
        timeout=stored_duration(timeout),
    )
