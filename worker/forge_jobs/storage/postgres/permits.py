"""Permits in PostgreSQL: one row for each key of a rate limit that is in use."""

from collections.abc import Sequence
from datetime import timedelta

from forge_jobs.errors import RateLimited
from forge_jobs.model.permit import KeyUse, Permit, PermitRequest
from forge_jobs.storage import refusals
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import tried_again
from forge_jobs.storage.postgres.limits import unknown_scope

# All requests for one key take one update of its row; the sums say which of them comes when. The rows are
# taken in one order, so that two such statements do not deadlock.
RESERVE = """
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::double precision[], $5::interval[], $6::smallint[])
        WITH ORDINALITY AS given (job_id, scope, key, cost, patience, take, number)
), refused AS MATERIALIZED (
    SELECT number FROM given LEFT JOIN {schema}.rate_limit USING (scope)
    WHERE NOT coalesce(refill > 0 AND cost <= capacity, false)
), kept AS MATERIALIZED (
    SELECT given.number, permit.job_id, permit.scope, permit.key, permit.take, permit.at
    FROM given JOIN {schema}.permit USING (job_id, scope, key, take, cost)
    WHERE NOT EXISTS (SELECT FROM refused)
), used AS (
    DELETE FROM {schema}.permit USING kept
    WHERE (permit.job_id, permit.scope, permit.key, permit.take) = (kept.job_id, kept.scope, kept.key, kept.take)
      AND kept.at <= now()
), wanted AS MATERIALIZED (
    SELECT given.*, make_interval(secs => capacity / refill) AS burst,
           make_interval(secs => sum(cost / refill) OVER (PARTITION BY scope, key ORDER BY number)) AS so_far,
           make_interval(secs => sum(cost / refill) OVER (PARTITION BY scope, key)) AS in_all
    FROM given JOIN {schema}.rate_limit USING (scope)
    WHERE NOT EXISTS (SELECT FROM refused) AND number NOT IN (SELECT number FROM kept)
), spent AS (
    INSERT INTO {schema}.rate_key (scope, key, refilled_at)
    SELECT DISTINCT scope, key, now() + in_all FROM wanted ORDER BY scope, key
    ON CONFLICT (scope, key) DO UPDATE
    SET refilled_at = greatest(rate_key.refilled_at, now()) + (excluded.refilled_at - now())
    RETURNING scope, key, refilled_at
), permitted AS (
    SELECT wanted.*, spent.refilled_at - in_all + so_far - burst AS at FROM wanted JOIN spent USING (scope, key)
), written AS (
    INSERT INTO {schema}.permit (job_id, scope, key, take, cost, at)
    SELECT job_id, scope, key, take, cost, at FROM permitted WHERE job_id IS NOT NULL AND at > now() + patience
    ON CONFLICT (job_id, scope, key, take) DO UPDATE SET cost = excluded.cost, at = excluded.at
)
SELECT number, greatest(at, now()) AS at, greatest(at - now(), interval '0') AS wait
FROM (SELECT number, at FROM permitted UNION ALL SELECT number, at FROM kept) AS permits
UNION ALL SELECT number, NULL, NULL FROM refused
ORDER BY number
"""

KEEP = """
INSERT INTO {schema}.permit (job_id, scope, key, take, cost, at)
SELECT given.*, now()
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::smallint[], $5::double precision[]) AS given
ON CONFLICT DO NOTHING
"""

RESERVE_WITHIN = """
WITH wanted AS MATERIALIZED (
    SELECT scope, make_interval(secs => $3::double precision / refill) AS cost, make_interval(secs => capacity / refill) AS burst
    FROM {schema}.rate_limit WHERE scope = $1 AND refill > 0 AND $3 <= capacity
), spent AS (
    INSERT INTO {schema}.rate_key (scope, key, refilled_at) SELECT scope, $2, now() + cost FROM wanted
    ON CONFLICT (scope, key) DO UPDATE
    SET refilled_at = greatest(rate_key.refilled_at, now()) + (excluded.refilled_at - now())
    WHERE greatest(rate_key.refilled_at, now()) + (excluded.refilled_at - now())
          <= now() + $4 + (SELECT burst FROM wanted)
    RETURNING refilled_at
)
SELECT EXISTS (SELECT FROM spent) AS is_spent, greatest(at, now()) AS at, greatest(at - now(), interval '0') AS wait
FROM wanted CROSS JOIN LATERAL (
    SELECT coalesce((SELECT refilled_at FROM spent) - burst,
                    (SELECT refilled_at FROM {schema}.rate_key WHERE (rate_key.scope, rate_key.key) = ($1, $2)) + cost - burst,
                    now()) AS at
) AS moment
"""

SPEND_MORE = """
WITH more AS (
    SELECT scope, make_interval(secs => $3::double precision / refill) AS cost FROM {schema}.rate_limit WHERE scope = $1 AND refill > 0
), spent AS (
    INSERT INTO {schema}.rate_key (scope, key, refilled_at) SELECT scope, $2, now() + cost FROM more
    ON CONFLICT (scope, key) DO UPDATE
    SET refilled_at = greatest(rate_key.refilled_at, now()) + (excluded.refilled_at - now())
)
SELECT true FROM more
"""

HOTTEST = """
SELECT key, extract(epoch FROM refilled_at - now())::double precision * refill AS spent, refilled_at
FROM {schema}.rate_key JOIN {schema}.rate_limit USING (scope)
WHERE scope = $1 AND rate_key.refilled_at > now()
ORDER BY rate_key.refilled_at DESC, key LIMIT $2
""".replace("refilled_at - now()", "rate_key.refilled_at - now()").replace(
    "AS spent, refilled_at", "AS spent, rate_key.refilled_at"
)

KNOWN = "SELECT capacity, refill FROM {schema}.rate_limit WHERE scope = $1"

# A key that is used meanwhile is looked at once more, and stays.
SWEEP = """
WITH unused AS (
    DELETE FROM {schema}.rate_key
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM {schema}.rate_key WHERE refilled_at <= now() LIMIT $1)) AND refilled_at <= now()
    RETURNING 1
), forgotten AS (
    DELETE FROM {schema}.permit WHERE at < now() - interval '1 day' RETURNING 1
)
SELECT (SELECT count(*) FROM unused) + (SELECT count(*) FROM forgotten)
"""


class PostgresPermits:
    """`Permits` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    @tried_again
    async def reserve(self, wanted: Sequence[PermitRequest]) -> list[Permit]:
        records = await self._database.fetch(
            RESERVE,
            [request.job_id for request in wanted],
            [request.scope for request in wanted],
            [request.key for request in wanted],
            [request.cost for request in wanted],
            [request.patience for request in wanted],
            [request.take for request in wanted],
        )
        for record in records:
            if record["at"] is None:
                refused = wanted[record["number"] - 1]
                await self._refuse(refused.scope, refused.cost)
        return [
            Permit(request.scope, request.key, request.cost, record["at"], record["wait"])
            for request, record in zip(wanted, records, strict=True)
        ]

    @tried_again
    async def keep(self, granted: Sequence[PermitRequest]) -> None:
        await self._database.execute(
            KEEP,
            [request.job_id for request in granted],
            [request.scope for request in granted],
            [request.key for request in granted],
            [request.take for request in granted],
            [request.cost for request in granted],
        )

    @tried_again
    async def reserve_within(self, scope: str, key: str, cost: float, within: timedelta) -> Permit:
        record = await self._database.fetchrow(RESERVE_WITHIN, scope, key, cost, within)
        if record is None:
            await self._refuse(scope, cost)
        elif record["is_spent"]:
            return Permit(scope, key, cost, record["at"], record["wait"])
        raise RateLimited(scope, key, timedelta(0) if record is None else record["wait"])

    @tried_again
    async def spend_more(self, scope: str, key: str, cost: float) -> None:
        if not await self._database.fetchval(SPEND_MORE, scope, key, cost):
            await self._refuse(scope, 0)

    async def hottest(self, scope: str, *, limit: int) -> list[KeyUse]:
        records = await self._database.fetch(HOTTEST, scope, limit)
        if not records and not await self._database.fetchrow(KNOWN, scope):
            raise await unknown_scope(self._database, scope)
        return [KeyUse(record["key"], record["spent"], record["refilled_at"]) for record in records]

    @tried_again
    async def sweep(self, *, limit: int) -> int:
        swept: int = await self._database.fetchval(SWEEP, limit)
        return swept

    async def _refuse(self, scope: str, cost: float) -> None:
        """Raise the reason why the rate limit gives no permit for `cost` tokens."""
        known = await self._database.fetchrow(KNOWN, scope)
        if known is None:
            raise await unknown_scope(self._database, scope)
        raise refusals.no_permit(scope, cost, known["capacity"], known["refill"])
