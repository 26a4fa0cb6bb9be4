"""Rate limits in PostgreSQL: each bucket is a row, and is refilled by the database's clock when it is read."""

from typing import Any

from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.model.intervention import Deed
from forge_jobs.model.rate_limit import LATELY, RateLimit, numbers
from forge_jobs.storage import refusals
from forge_jobs.storage.postgres import interventions
from forge_jobs.storage.postgres.buckets import FILLED, FLOWED, unknown_scope
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import tried_again
from forge_jobs.storage.postgres.fence import writing
from forge_jobs.storage.postgres.spend_log import end_log

# Where keys are full from with another capacity.
EMPTIED = """CASE WHEN rate_limit.emptied > {flowed} THEN rate_limit.emptied + excluded.capacity - rate_limit.capacity
        ELSE rate_limit.emptied END"""

CHANGED = "SELECT scope FROM {schema}.rate_limit WHERE changed_at > now() - $1::interval ORDER BY scope"

ALL = """
SELECT scope, capacity, refill, {filled}::double precision AS tokens, generation, emptied_at, managed_by
FROM {schema}.rate_limit ORDER BY scope
""".replace("{filled}", FILLED)

# What voids permits; those that are void are deleted when it moves back, so that later ones are not taken for void.
VOID_TO = """CASE WHEN rate_limit.emptied > {flowed} AND excluded.capacity < rate_limit.capacity
                    THEN rate_limit.void_to + excluded.capacity - rate_limit.capacity
                    ELSE least(rate_limit.void_to, {emptied}) END"""

# While keys are empty since the limit was emptied, they stay as empty as they are: where they are full from moves with the
# capacity. When that becomes smaller, all that was measured by the larger one moves with it: what was spent and promised since.
# How the limit was is read with its lock, so that whoever changes it at the same time has done so before, or waits.
SET = (
    """
WITH before AS (
    SELECT capacity, void_to, emptied, emptied_at, {flowed} AS flowed
    FROM {schema}.rate_limit WHERE scope = $1 FOR NO KEY UPDATE
), written AS (
    INSERT INTO {schema}.rate_limit (scope, capacity, refill, tokens, refilled_at, flowed_at, managed_by)
    SELECT $1::text, $2::double precision, $3::double precision, $2, now(), now(), $4::text FROM (SELECT count(*) FROM before) AS locked
    ON CONFLICT (scope) DO UPDATE
    SET capacity = excluded.capacity, refill = excluded.refill, tokens = least(excluded.capacity, {filled}),
        refilled_at = greatest(rate_limit.refilled_at, now()),
        flowed = {flowed}, flowed_at = greatest(rate_limit.flowed_at, now()),
        emptied = {emptied}, void_to = {void_to},
        changed_at = CASE WHEN (rate_limit.capacity, rate_limit.refill) = (excluded.capacity, excluded.refill)
                          THEN rate_limit.changed_at ELSE now() END,
        managed_by = coalesce(rate_limit.managed_by, excluded.managed_by)
    WHERE rate_limit.managed_by IS NULL OR rate_limit.managed_by = excluded.managed_by
    RETURNING scope, capacity, refill, tokens, generation, emptied_at, managed_by
), voided AS (
    DELETE FROM {schema}.permit USING before, written
    WHERE permit.scope = $1 AND before.capacity > written.capacity AND permit.full_at <= before.void_to
), shrunk AS MATERIALIZED (
    SELECT before.emptied, before.emptied_at, before.void_to, written.capacity - before.capacity AS by FROM before, written
    WHERE written.capacity < before.capacity AND before.emptied > before.flowed
), kept AS (
    UPDATE {schema}.permit SET full_at = permit.full_at + shrunk.by FROM shrunk
    WHERE permit.scope = $1 AND permit.full_at > shrunk.void_to AND NOT EXISTS (
        SELECT FROM {schema}.rate_key WHERE (scope, key) = (permit.scope, permit.key) AND reset_at > shrunk.emptied_at)
), spent AS (
    UPDATE {schema}.rate_key
    SET full_at = greatest(rate_key.full_at, shrunk.emptied) + shrunk.by, free_to = rate_key.free_to + shrunk.by FROM shrunk
    WHERE rate_key.scope = $1 AND rate_key.full_at > shrunk.emptied + shrunk.by
      AND coalesce(rate_key.reset_at <= shrunk.emptied_at, true)
)
SELECT written.*, {schema}.configured() AS told FROM written
""".replace("{void_to}", VOID_TO)
    .replace("{emptied}", EMPTIED)
    .replace("{filled}", FILLED)
    .replace("{flowed}", FLOWED)
)

ENSURE = """
WITH made AS (
    INSERT INTO {schema}.rate_limit (scope, capacity, refill, tokens, refilled_at, flowed_at)
    VALUES ($1, $2, $3, $2, now(), now())
    ON CONFLICT DO NOTHING
    RETURNING scope
)
SELECT {schema}.configured() FROM made
"""

DELETE = """
WITH gone AS (
    DELETE FROM {schema}.rate_limit WHERE scope = $1 AND (managed_by IS NULL OR managed_by = $2) RETURNING scope
)
SELECT {schema}.configured() FROM gone
"""


class PostgresLimits:
    """`Limits` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    @tried_again
    async def set(
        self,
        scope: str,
        *,
        capacity: float,
        refill: float,
        managed_by: str | None = None,
        epoch: OperatorEpoch | None = None,
        by: str | None = None,
    ) -> RateLimit:
        refusals.check_limit(scope, capacity, refill)
        async with writing(self._database, epoch) as connection:
            await end_log(self._database, scope, connection=connection)
            record = await self._database.fetchrow(
                SET, scope, capacity, refill, managed_by, connection=connection
            )
            subjects = [] if record is None else [f"limit {scope}"]
            said = numbers(capacity, refill)
            await interventions.note_of(self._database, connection, subjects, Deed.CHANGED, by, said)
        if record is None:
            raise refusals.managed_limit(scope, await self._owner(scope) or "somebody else")
        return _rate_limit(record)

    async def ensure(self, scope: str, *, capacity: float, refill: float) -> None:
        refusals.check_limit(scope, capacity, refill)
        await self._database.execute(ENSURE, scope, capacity, refill)

    async def changed(self) -> list[str]:
        return [record["scope"] for record in await self._database.fetch(CHANGED, LATELY)]

    async def all(self) -> list[RateLimit]:
        return [_rate_limit(record) for record in await self._database.fetch(ALL)]

    @tried_again
    async def delete(
        self,
        scope: str,
        *,
        managed_by: str | None = None,
        epoch: OperatorEpoch | None = None,
        by: str | None = None,
    ) -> None:
        async with writing(self._database, epoch) as connection:
            gone = await self._database.fetchrow(DELETE, scope, managed_by, connection=connection)
            subjects = [] if gone is None else [f"limit {scope}"]
            await interventions.note_of(self._database, connection, subjects, Deed.DELETED, by)
        if gone is not None:
            return
        owner = await self._owner(scope)
        if owner is None:
            raise await unknown_scope(self._database, scope)
        raise refusals.managed_limit(scope, owner)

    async def _owner(self, scope: str) -> str | None:
        owner: str | None = await self._database.fetchval(
            "SELECT managed_by FROM {schema}.rate_limit WHERE scope = $1", scope
        )
        return owner


def _rate_limit(record: Any) -> RateLimit:
    return RateLimit(
        scope=record["scope"],
        capacity=record["capacity"],
        refill=record["refill"],
        tokens=record["tokens"],
        generation=record["generation"],
        emptied_at=record["emptied_at"],
        managed_by=record["managed_by"],
    )
