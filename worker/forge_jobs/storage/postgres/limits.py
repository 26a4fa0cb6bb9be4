"""Rate limits in PostgreSQL: one row a bucket, refilled by the database's clock when it is looked at."""

from typing import Any

from forge_jobs.errors import UnknownScope
from forge_jobs.model.rate_limit import NEARLY, Lease, RateLimit
from forge_jobs.storage import refusals
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import tried_again
from forge_jobs.storage.postgres.fence import writing

# A clock that went back mints nothing.
FILLED = """least(rate_limit.capacity, rate_limit.tokens
        + rate_limit.refill * greatest(0, extract(epoch FROM now() - rate_limit.refilled_at)))"""

ALL = """
SELECT scope, capacity, refill, {filled}::double precision AS tokens, generation, emptied_at, managed_by
FROM {schema}.rate_limit ORDER BY scope
""".replace("{filled}", FILLED)

SET = """
WITH written AS (
    INSERT INTO {schema}.rate_limit (scope, capacity, refill, tokens, refilled_at, managed_by)
    VALUES ($1, $2, $3, $2, now(), $4)
    ON CONFLICT (scope) DO UPDATE
    SET capacity = excluded.capacity, refill = excluded.refill, tokens = least(excluded.capacity, {filled}),
        refilled_at = greatest(rate_limit.refilled_at, now()),
        managed_by = coalesce(rate_limit.managed_by, excluded.managed_by)
    WHERE rate_limit.managed_by IS NULL OR rate_limit.managed_by = excluded.managed_by
    RETURNING scope, capacity, refill, tokens, generation, emptied_at, managed_by
)
SELECT written.*, {schema}.configured() AS told FROM written
""".replace("{filled}", FILLED)

ENSURE = """
WITH made AS (
    INSERT INTO {schema}.rate_limit (scope, capacity, refill, tokens, refilled_at)
    VALUES ($1, $2, $3, $2, now())
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

# The row is locked before it is read, so that all take from what the one before left.
# The billionth: tokens that refill to 0.9999999999 are one token.
LEASE = """
WITH bucket AS MATERIALIZED (
    SELECT scope, {filled} AS tokens FROM {schema}.rate_limit WHERE scope = $1 FOR UPDATE
), slice AS (
    SELECT scope, tokens, greatest(0, least($2::bigint, floor(tokens + {nearly}))) AS taken FROM bucket
)
UPDATE {schema}.rate_limit
SET tokens = greatest(0, slice.tokens - slice.taken), refilled_at = greatest(rate_limit.refilled_at, now())
FROM slice WHERE rate_limit.scope = slice.scope
RETURNING slice.taken::bigint AS taken, generation, capacity,
    CASE WHEN slice.tokens - slice.taken >= 1 THEN 0
         WHEN refill = 0 OR capacity < 1 THEN 'Infinity'
         ELSE (1 - greatest(0, slice.tokens - slice.taken)) / refill END::double precision AS retry_after
""".replace("{filled}", FILLED).replace("{nearly}", str(NEARLY))

GIVE_BACK = """
UPDATE {schema}.rate_limit SET tokens = least(capacity, tokens + greatest(0, $2::bigint))
WHERE scope = $1 AND generation = $3
"""

EMPTY = """
WITH emptied AS (
    UPDATE {schema}.rate_limit
    SET tokens = 0, refilled_at = greatest(refilled_at, now()), generation = generation + 1, emptied_at = now()
    WHERE scope = $1
    RETURNING generation
)
SELECT generation, {schema}.tell('empty:' || $1) FROM emptied
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
        epoch: int | None = None,
    ) -> RateLimit:
        refusals.check_limit(scope, capacity, refill)
        async with writing(self._database, epoch) as connection:
            record = await self._database.fetchrow(
                SET, scope, capacity, refill, managed_by, connection=connection
            )
        if record is None:
            raise refusals.managed_limit(scope, await self._owner(scope) or "somebody else")
        return _rate_limit(record)

    async def ensure(self, scope: str, *, capacity: float, refill: float) -> None:
        refusals.check_limit(scope, capacity, refill)
        await self._database.execute(ENSURE, scope, capacity, refill)

    async def all(self) -> list[RateLimit]:
        return [_rate_limit(record) for record in await self._database.fetch(ALL)]

    @tried_again
    async def delete(self, scope: str, *, managed_by: str | None = None, epoch: int | None = None) -> None:
        async with writing(self._database, epoch) as connection:
            gone = await self._database.fetchrow(DELETE, scope, managed_by, connection=connection)
        if gone is not None:
            return
        owner = await self._owner(scope)
        if owner is None:
            raise await self._unknown(scope)
        raise refusals.managed_limit(scope, owner)

    async def lease(self, scope: str, tokens: int) -> Lease:
        record = await self._database.fetchrow(LEASE, scope, tokens)
        if record is None:
            raise await self._unknown(scope)
        return Lease(scope, record["taken"], record["generation"], record["retry_after"], record["capacity"])

    async def give_back(self, scope: str, tokens: int, generation: int) -> None:
        await self._database.execute(GIVE_BACK, scope, tokens, generation)

    async def empty(self, scope: str) -> int:
        generation: int | None = await self._database.fetchval(EMPTY, scope)
        if generation is None:
            raise await self._unknown(scope)
        return generation

    async def _owner(self, scope: str) -> str | None:
        owner: str | None = await self._database.fetchval(
            "SELECT managed_by FROM {schema}.rate_limit WHERE scope = $1", scope
        )
        return owner

    async def _unknown(self, scope: str) -> UnknownScope:
        known = await self._database.fetch("SELECT scope FROM {schema}.rate_limit")
        return UnknownScope(scope, [record["scope"] for record in known])


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
