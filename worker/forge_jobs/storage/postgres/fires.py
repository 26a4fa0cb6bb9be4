"""The fires of crons in PostgreSQL.

A fire is one transaction that first moves the cron on, and so locks it: whoever comes
second finds that `next_fire_at` is no longer what it was, and does nothing.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from forge_jobs.errors import KeyBusy, StorageBusy
from forge_jobs.model.cron import CronConfig
from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.job import Enqueued
from forge_jobs.storage.postgres import key_wait
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import tried_again
from forge_jobs.storage.postgres.crons import COLUMNS, cron_config
from forge_jobs.storage.postgres.enqueue import SMALL_BATCH, enqueue_many
from forge_jobs.storage.postgres.groups import settle_in_passing
from forge_jobs.storage.postgres.leadership import LEADS

JOIN_WAIT = 0.5
"""Seconds for which others may have a group or a tenant locked; jobs of a fire that join it are scheduled for now then,
and join when a worker makes them pending."""

FROZEN = 5.0
"""Seconds without a statement after which the server takes a fire back; whoever leads then fires again."""

BOUND = (
    "SELECT set_config('lock_timeout', $1, true), set_config('idle_in_transaction_session_timeout', $2, true)"
)

SEED = """
UPDATE {schema}.cron SET next_fire_at = $2
WHERE name = $1 AND next_fire_at IS NULL AND enabled AND {leads}
""".replace("{leads}", LEADS.replace("{epoch}", "$3"))

BRING_FORWARD = """
UPDATE {schema}.cron SET next_fire_at = $3
WHERE name = $1 AND next_fire_at = $2 AND enabled AND expression = $4 AND timezone = $5 AND {leads}
""".replace("{leads}", LEADS.replace("{epoch}", "$6"))

MOVE_ON = """
UPDATE {schema}.cron SET next_fire_at = $3, last_fire_at = coalesce($4, last_fire_at), last_error = NULL
FROM {schema}.queue
WHERE cron.name = $1 AND cron.next_fire_at IS NOT DISTINCT FROM $2 AND cron.enabled
  AND cron.expression = $6 AND cron.timezone = $7 AND {leads}
  AND queue.id = cron.queue_id
RETURNING cron.id, {columns}
""".replace("{leads}", LEADS.replace("{epoch}", "$5")).replace("{columns}", COLUMNS)

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


class PostgresFires:
    """`Fires` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def seed(self, name: str, next_fire_at: datetime, *, epoch: LeaderEpoch) -> None:
        await self._database.execute(SEED, name, next_fire_at, epoch)

    async def bring_forward(self, cron: CronConfig, next_fire_at: datetime, *, epoch: LeaderEpoch) -> None:
        known = cron.name, cron.next_fire_at, next_fire_at, cron.expression, cron.timezone
        await self._database.execute(BRING_FORWARD, *known, epoch)

    async def fire(
        self,
        cron: CronConfig,
        fires: Sequence[datetime],
        next_fire_at: datetime | None,
        *,
        epoch: LeaderEpoch,
    ) -> list[Enqueued]:
        job = cron.job()
        joins = not job.is_put and (job.groups is not None or job.tenant is not None)
        try:
            fired = await self._fired(cron, fires, next_fire_at, epoch, joins=joins)
        except (StorageBusy, KeyBusy):
            if not joins:
                raise
            fired = await self._fired(cron, fires, next_fire_at, epoch, joins=False)
        if job.groups is not None:
            await settle_in_passing(self._database)
        return fired

    @tried_again
    async def _fired(
        self,
        cron: CronConfig,
        fires: Sequence[datetime],
        next_fire_at: datetime | None,
        epoch: LeaderEpoch,
        *,
        joins: bool,
    ) -> list[Enqueued]:
        latest = max(fires, default=None)
        async with self._database.transaction() as connection:
            # A key that stays taken, or a group that stays locked, shall not keep the other crons, nor a leader that is
            # frozen the group.
            wait = key_wait.as_setting(JOIN_WAIT if joins else key_wait.KEY_WAIT)
            await connection.execute(BOUND, wait, key_wait.as_setting(FROZEN))
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
            return await self._fire(facts.pop("id"), cron_config(facts), fires, connection, joins=joins)

    async def note_error(self, name: str, error: str | None, *, epoch: LeaderEpoch) -> None:
        await self._database.execute(NOTE_ERROR, name, error, epoch)

    async def _fire(
        self, cron_id: int, cron: CronConfig, fires: Sequence[datetime], connection: Any, *, joins: bool
    ) -> list[Enqueued]:
        records = await self._database.fetch(NOT_FIRED, cron_id, list(fires), connection=connection)
        moments = [record["fire_at"] for record in records]
        jobs, answers = [cron.job()] * len(moments), list[Enqueued]()
        for start in range(0, len(jobs), SMALL_BATCH):  # of more at once none is let into a group here
            batch = jobs[start : start + SMALL_BATCH]
            answers += await enqueue_many(self._database, batch, connection, is_short=joins)
        fired = {moment: job for moment, job in zip(moments, answers, strict=True) if not job.duplicate}
        await self._database.execute(
            FIRED,
            cron_id,
            list(fired),
            [job.id for job in fired.values()],
            len(moments) - len(fired),
            connection=connection,
        )
        return answers
