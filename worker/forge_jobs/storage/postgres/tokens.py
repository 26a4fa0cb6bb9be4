"""The tokens of rate limits in PostgreSQL."""

from forge_jobs.model.intervention import Deed
from forge_jobs.model.rate_limit import NEARLY, Lease
from forge_jobs.storage.postgres import interventions
from forge_jobs.storage.postgres.buckets import FILLED, FLOWED, unknown_scope
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import tried_again
from forge_jobs.storage.postgres.spend_log import end_log

# The row is locked before it is read, so that each takes from what the one before it has left.
# NEARLY: tokens that have refilled to 0.9999999999 are one token.
LEASE = (
    """
WITH bucket AS MATERIALIZED (
    SELECT scope, {filled} AS tokens FROM {schema}.rate_limit WHERE scope = $1 FOR NO KEY UPDATE
), slice AS (
    SELECT scope, tokens, greatest(0, least($2::bigint, floor(tokens + {nearly}))) AS taken FROM bucket
)
UPDATE {schema}.rate_limit
SET tokens = greatest(0, slice.tokens - slice.taken), refilled_at = greatest(rate_limit.refilled_at, now())
FROM slice WHERE rate_limit.scope = slice.scope
RETURNING slice.taken::bigint AS taken, generation, capacity, {flowed} + capacity - rate_limit.tokens AS full_at,
    CASE WHEN slice.tokens - slice.taken >= 1 THEN 0
         WHEN refill = 0 OR capacity < 1 THEN 'Infinity'
         ELSE (1 - greatest(0, slice.tokens - slice.taken)) / refill END::double precision AS retry_after
""".replace("{filled}", FILLED)
    .replace("{flowed}", FLOWED)
    .replace("{nearly}", str(NEARLY))
)

# What is left of them is less the more has flowed since; with another capacity the bucket is full as much later or earlier.
GIVE_BACK = """
UPDATE {schema}.rate_limit
SET tokens = least(capacity, tokens + greatest(0, least($2::bigint, $4::double precision + capacity - $5 - {flowed})))
WHERE scope = $1 AND generation = $3
""".replace("{flowed}", FLOWED)

EMPTY = """
WITH emptied AS (
    UPDATE {schema}.rate_limit
    SET tokens = 0, refilled_at = greatest(refilled_at, now()), generation = generation + 1,
        emptied_at = greatest(now(), reset_at), emptied = {flowed} + capacity, void_to = {flowed} + capacity
    WHERE scope = $1
    RETURNING generation
)
SELECT generation, {schema}.tell('empty:' || $1) FROM emptied
""".replace("{flowed}", FLOWED)


class PostgresTokens:
    """`Tokens` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def lease(self, scope: str, tokens: int) -> Lease:
        record = await self._database.fetchrow(LEASE, scope, tokens)
        if record is None:
            raise await unknown_scope(self._database, scope)
        return Lease(
            scope,
            record["taken"],
            record["generation"],
            record["retry_after"],
            record["capacity"],
            record["full_at"],
        )

    async def give_back(self, lease: Lease, tokens: int) -> None:
        await self._database.execute(
            GIVE_BACK, lease.scope, tokens, lease.generation, lease.full_at, lease.capacity
        )

    @tried_again
    async def empty(self, scope: str, *, by: str | None = None) -> int:
        async with self._database.transaction() as connection:
            await end_log(self._database, scope, connection=connection)
            generation: int | None = await self._database.fetchval(EMPTY, scope, connection=connection)
            subjects = [] if generation is None else [f"limit {scope}"]
            await interventions.note_of(self._database, connection, subjects, Deed.EMPTIED, by)
        if generation is None:
            raise await unknown_scope(self._database, scope)
        return generation
