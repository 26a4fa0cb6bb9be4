"""Permits in PostgreSQL: one row for each key of a rate limit that is in use."""

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import cast

from forge_jobs.errors import ForgeError, RateLimited
from forge_jobs.model.permit import SETTLED, AwaitedKey, Granted, KeyUse, Permit, PermitRequest, Spent, Swept
from forge_jobs.storage import refusals
from forge_jobs.storage.postgres import left_permits, promises
from forge_jobs.storage.postgres.buckets import BUCKET, FULL_FROM, IN_ROWS, WAIT, unknown_scope
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import tried_again
from forge_jobs.storage.postgres.spend_log import end_log, fold_logs
from forge_jobs.storage.postgres.spends import Spends

# All requests for one key take one update of its row; the sums say which of them comes when. The rows are
# taken in one order, so that two such statements do not deadlock. A full join is never made by comparing each request with
# each row, as the planner would, which thinks that there is one of each; it finds the same pairs, since all are in pairs.
# A permit that was kept is had by the one whose statement deletes it: whoever else saw it there pays.
RESERVE = """
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::double precision[], $5::interval[], $6::integer[])
        WITH ORDINALITY AS given (job_id, scope, key, cost, patience, take, number)
), bucket AS MATERIALIZED ({bucket} WHERE scope = ANY ($2) {in_rows}
), refused AS MATERIALIZED (
    SELECT number FROM given LEFT JOIN bucket USING (scope)
    WHERE NOT coalesce(refill > 0 AND cost <= capacity, false)
), kept AS MATERIALIZED (
    SELECT given.number, given.patience, permit.job_id, permit.scope, permit.key, permit.take, permit.full_at,
           {wait_of_kept} AS wait
    FROM given JOIN {schema}.permit USING (job_id, scope, key, take, cost) JOIN bucket USING (scope)
    WHERE permit.full_at > bucket.void_to AND NOT EXISTS (SELECT FROM refused)
), used AS (
    DELETE FROM {schema}.permit USING kept
    WHERE (permit.job_id, permit.scope, permit.key, permit.take) = (kept.job_id, kept.scope, kept.key, kept.take)
      AND kept.wait <= kept.patience
    RETURNING kept.number, kept.full_at, kept.wait
), had AS MATERIALIZED (
    SELECT number, full_at, wait FROM used
    UNION ALL SELECT number, full_at, wait FROM kept WHERE wait > patience
), wanted AS MATERIALIZED (
    SELECT given.*, capacity, refill, flowed, full_from,
           sum(cost) OVER (PARTITION BY scope, key ORDER BY number) AS so_far,
           sum(cost) OVER (PARTITION BY scope, key) AS in_all
    FROM given JOIN bucket USING (scope)
    WHERE NOT EXISTS (SELECT FROM refused) AND number NOT IN (SELECT number FROM had)
), spent AS (
    INSERT INTO {schema}.rate_key (scope, key, full_at)
    SELECT DISTINCT scope COLLATE "C" AS scope, key COLLATE "C" AS key, full_from + in_all FROM wanted ORDER BY scope, key
    ON CONFLICT (scope, key) DO UPDATE
    SET full_at = (SELECT greatest(rate_key.full_at, {full_from}) - full_from FROM bucket WHERE bucket.scope = excluded.scope)
                  + excluded.full_at
    RETURNING scope, key, full_at
), permitted AS (
    SELECT number, job_id, scope, key, take, cost, patience, numbered.full_at, {wait_of_new} AS wait
    FROM (SELECT wanted.*, spent.full_at - (in_all - so_far) AS full_at FROM wanted FULL JOIN spent USING (scope, key)) AS numbered
), written AS (
    INSERT INTO {schema}.permit (job_id, scope, key, take, cost, full_at, until)
    SELECT DISTINCT ON (job_id, scope, key, take) job_id, scope, key, take, cost, full_at, now() + wait + interval '24 hours'
    FROM permitted WHERE job_id IS NOT NULL AND wait > patience
    ORDER BY job_id, scope, key, take, number DESC
    ON CONFLICT (job_id, scope, key, take) DO UPDATE
    SET cost = excluded.cost, full_at = excluded.full_at, until = excluded.until
)
SELECT number, now() + wait AS at, wait, full_at
FROM (SELECT number, wait, full_at FROM permitted UNION ALL SELECT number, wait, full_at FROM had) AS permits
UNION ALL SELECT number, NULL, NULL, NULL FROM refused
ORDER BY number
"""
RESERVE = (
    RESERVE.replace("{bucket}", BUCKET)
    .replace("{in_rows}", IN_ROWS)
    .replace("{full_from}", FULL_FROM)
    .replace("{wait_of_kept}", WAIT.replace("{full_at}", "permit.full_at"))
    .replace("{wait_of_new}", WAIT.replace("{full_at}", "numbered.full_at"))
)

# One that is there already is for later, or was for tokens of a bucket that was emptied meanwhile; since a key was reset, only the
# moment tells that. Where the job waits for another one, it is kept as long as that.
KEEP = """
INSERT INTO {schema}.permit (job_id, scope, key, take, cost, full_at, until)
SELECT job_id, scope, key, take, cost, full_at, greatest(now() + interval '24 hours', (
    SELECT max(until) FROM {schema}.permit AS other WHERE other.job_id = given.job_id))
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::integer[], $5::double precision[], $6::double precision[], $7::timestamptz[])
    AS given (job_id, scope, key, take, cost, full_at, granted_at)
JOIN {schema}.rate_limit USING (scope)
WHERE given.full_at > void_to AND (void_to < 0 AND granted_at < emptied_at) IS NOT true
ON CONFLICT (job_id, scope, key, take) DO UPDATE
SET cost = excluded.cost, full_at = greatest(permit.full_at, excluded.full_at),
    until = greatest(permit.until, excluded.until)
"""

# Tokens that were given back are taken first, where all that is wanted is there at once with them. The number of such a permit
# says that its tokens lie where they flow past first, which is never behind where they are.
RESERVE_WITHIN = """
WITH bucket AS MATERIALIZED ({bucket} WHERE scope = $1 AND refill > 0 AND $3::double precision <= capacity {in_rows}
), found AS MATERIALIZED (
    SELECT full_at, free_to, reset_at FROM {schema}.rate_key WHERE (scope, key) = ($1, $2) FOR UPDATE
), stands AS (
    SELECT capacity, refill, flowed, {full_from} AS full_from, full_at AS last, free_to
    FROM bucket LEFT JOIN found AS rate_key ON true
), before AS MATERIALIZED (
    SELECT stands.*, greatest(last, full_from) AS full_at, least($3, greatest(0, free_to - full_from)) AS free FROM stands
), choice AS MATERIALIZED (
    SELECT before.*, CASE WHEN free = $3 OR {wait_of_rest} = interval '0' THEN free ELSE 0 END AS used FROM before
), after AS MATERIALIZED (
    SELECT full_at + $3 - used AS full_at, free_to - used AS free_to,
           CASE WHEN used > 0 THEN full_from ELSE full_at END + $3 AS number,
           CASE WHEN used > 0 THEN interval '0' ELSE {wait} END AS wait
    FROM choice
), spent AS (
    INSERT INTO {schema}.rate_key (scope, key, full_at, free_to) SELECT $1, $2, full_at, coalesce(free_to, 0) FROM after
    WHERE wait <= $4
    ON CONFLICT (scope, key) DO UPDATE SET full_at = excluded.full_at, free_to = excluded.free_to WHERE EXISTS (SELECT FROM found)
    RETURNING 1
)
SELECT EXISTS (SELECT FROM spent) AS is_spent, now() + wait AS at, wait, number AS full_at FROM after
"""
RESERVE_WITHIN = (
    RESERVE_WITHIN.replace("{bucket}", BUCKET)
    .replace("{in_rows}", IN_ROWS)
    .replace("{full_from}", FULL_FROM)
    .replace("{wait_of_rest}", WAIT.replace("{full_at}", "(full_at + $3 - free)"))
    .replace("{wait}", WAIT.replace("{full_at}", "(full_at + $3)"))
)

# The number $3 and the tokens $4, which are more than the permit's or less than 0, of the permit with the id $5. Where others came
# behind tokens that are given back, those of them that are in the bucket are free, but for what has flowed back. It was granted at $7:
# what was given out before somebody made the key full is forgotten, and not there once more.
SETTLE = (
    """
WITH bucket AS MATERIALIZED ({bucket} WHERE scope = $1 AND ($4 <= 0 OR refill > 0) {in_rows}
), first AS (
    INSERT INTO {schema}.settled_permit (id, until)
    SELECT $5::bigint, now() + $6::interval + {wait} FROM bucket WHERE $5::bigint IS NOT NULL
    ON CONFLICT DO NOTHING
    RETURNING 1
), counting AS MATERIALIZED (
    SELECT bucket.* FROM bucket WHERE $5::bigint IS NULL OR EXISTS (SELECT FROM first)
), given AS (
    UPDATE {schema}.rate_key
    SET full_at = CASE WHEN full_at = $3 THEN full_at + $4 ELSE full_at END,
        free_to = CASE WHEN full_at <= $3 THEN free_to ELSE
            greatest(free_to, {full_from}) + greatest(0, least($3, flowed + capacity) - greatest($3 + $4, {full_from})) END
    FROM counting WHERE (rate_key.scope, rate_key.key) = ($1, $2) AND $4 < 0 AND coalesce(reset_at < $7, true)
), spent AS (
    INSERT INTO {schema}.rate_key (scope, key, full_at) SELECT scope, $2, full_from + $4 FROM counting WHERE $4 > 0
    ON CONFLICT (scope, key) DO UPDATE SET full_at = greatest(rate_key.full_at, (SELECT {full_from} FROM counting)) + $4
)
SELECT EXISTS (SELECT FROM counting) FROM bucket
""".replace("{bucket}", BUCKET)
    .replace("{in_rows}", IN_ROWS)
    .replace("{full_from}", FULL_FROM)
    .replace(
        "{wait}",
        f"coalesce(greatest(interval '0', {WAIT}), interval '0')".replace("{full_at}", "($3 + capacity)"),
    )
    .replace("$3", "$3::double precision")
    .replace("$4", "$4::double precision")
)

HOTTEST = """
WITH bucket AS MATERIALIZED ({bucket} WHERE scope = $1
), stands AS (
    SELECT key, full_at, free_to, reset_at FROM {schema}.rate_key WHERE scope = $1
    UNION ALL
    SELECT key, full_at, 0, NULL FROM {schema}.logged_keys($1, 9223372036854775807)
), rate_key AS (
    SELECT key, max(full_at) AS full_at, max(free_to) AS free_to, max(reset_at) AS reset_at FROM stands GROUP BY key
), used AS (
    SELECT key, refill, greatest(full_at, {full_from}) - flowed - greatest(0, free_to - {full_from}) AS spent
    FROM rate_key CROSS JOIN bucket
)
SELECT key, spent,
       CASE WHEN refill > 0 THEN now() + make_interval(secs => least(spent / refill, 31536000000)) END AS free_at
FROM used WHERE spent > refill * 0.000002 ORDER BY spent DESC, key LIMIT $2
""".replace("{bucket}", BUCKET).replace("{full_from}", FULL_FROM)

KNOWN = "SELECT capacity, refill, is_logged FROM {schema}.rate_limit WHERE scope = $1"

# A job waits for a permit if it is scheduled for the moment that this was for.
AWAITED = """
WITH bucket AS ({bucket})
SELECT permit.scope, permit.key
FROM {schema}.permit JOIN bucket USING (scope) JOIN {schema}.scheduled USING (job_id)
WHERE permit.job_id = $1 AND scheduled.reason = 'throttled' AND scheduled.run_at <= permit.until - interval '23:59:59.999'
ORDER BY {wait} DESC, permit.scope, permit.key LIMIT 1
""".replace("{bucket}", BUCKET).replace("{wait}", WAIT.replace("{full_at}", "permit.full_at"))

# One that was made full stays for a day, in which permits of before may be settled, and while it would be empty without that.
IS_UNUSED = """rate_key.full_at <= flowed
             AND coalesce(rate_key.reset_at <= now() - interval '1 day' AND full_from <= flowed, true)"""

# A walk along the primary key, a page a call: an index of `full_at` would have to be written by every use of a key.
# A key that is used just then stays: whoever uses several is not waited for, since it may wait for a key of this page.
# PostgreSQL before 18.1, 17.7, 16.11, 15.15 and 14.20 does not compare the place of a row that was updated meanwhile, but all
# other conditions.
SWEEP_KEYS = """
WITH page AS MATERIALIZED (
    SELECT ctid AS place, scope, key, full_at, reset_at
    FROM {schema}.rate_key WHERE (scope, key) > ($1, $2) ORDER BY scope, key LIMIT $3
), bucket AS MATERIALIZED ({bucket}
), free AS MATERIALIZED (
    SELECT ctid AS place FROM {schema}.rate_key
    WHERE ctid = ANY (ARRAY(SELECT place FROM page AS rate_key JOIN bucket USING (scope) WHERE {is_unused})) AND {is_still}
    FOR UPDATE SKIP LOCKED
), unused AS (
    DELETE FROM {schema}.rate_key WHERE ctid = ANY (ARRAY(SELECT place FROM free)) AND {is_still} RETURNING 1
)
SELECT (SELECT count(*) FROM unused) AS gone, count(*) AS keys,
       (max(ARRAY[scope, key]))[1] AS scope, (max(ARRAY[scope, key]))[2] AS key FROM page
"""
IS_STILL = """full_at <= (SELECT flowed FROM bucket WHERE bucket.scope = rate_key.scope)
      AND (reset_at IS NULL OR (SELECT {is_unused} FROM bucket WHERE bucket.scope = rate_key.scope))"""
SWEEP_KEYS = (
    SWEEP_KEYS.replace("{is_still}", IS_STILL).replace("{bucket}", BUCKET).replace("{is_unused}", IS_UNUSED)
)

SWEEP_PERMITS = """
WITH old AS (
    DELETE FROM {schema}.permit
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM {schema}.permit WHERE until <= now() ORDER BY until LIMIT $1
                            FOR UPDATE SKIP LOCKED))
    RETURNING 1
), settled AS (
    DELETE FROM {schema}.settled_permit
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM {schema}.settled_permit WHERE until <= now() ORDER BY until LIMIT $1
                            FOR UPDATE SKIP LOCKED))
    RETURNING 1
)
SELECT greatest((SELECT count(*) FROM old), (SELECT count(*) FROM settled))
"""

FIRST_KEY = "", ""


class PostgresPermits:
    """`Permits` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._swept_to = FIRST_KEY
        self._given_back_to = left_permits.LAST_JOB
        self._spends = Spends(database)

    async def reserve(self, wanted: Sequence[PermitRequest]) -> list[Permit]:
        permits = await self._spends.of(wanted)
        rest = [number for number, permit in enumerate(permits) if permit is None]
        if rest:
            try:
                later = await self._reserve([wanted[number] for number in rest])
            except ForgeError:  # all of them ask again, and those that have paid would pay once more
                spent = zip(wanted, permits, strict=True)
                with suppress(ForgeError):
                    await self.keep(
                        [(one, permit) for one, permit in spent if permit and one.job_id is not None]
                    )
                raise
            for number, permit in zip(rest, later, strict=True):
                permits[number] = permit
        return cast(list[Permit], permits)

    @tried_again
    async def _reserve(self, wanted: Sequence[PermitRequest]) -> list[Permit]:
        records = await self._database.fetch(
            RESERVE,
            [request.job_id for request in wanted],
            [request.scope for request in wanted],
            [request.key for request in wanted],
            [request.cost for request in wanted],
            [request.patience for request in wanted],
            [request.take for request in wanted],
        )
        refused = [wanted[record["number"] - 1] for record in records if record["at"] is None]
        if refused:
            for scope, cost in dict.fromkeys((request.scope, request.cost) for request in refused):
                await self._refuse(scope, cost)
            return await self.reserve(wanted)
        return [
            Permit(request.scope, request.key, request.cost, record["at"], record["wait"], record["full_at"])
            for request, record in zip(wanted, records, strict=True)
        ]

    async def spend(self, scope: str, cost: float, keys: Sequence[str], job_ids: Sequence[int]) -> Spent:
        return await self._spends.spend(scope, [cost] * len(keys), keys, job_ids)

    @tried_again
    async def keep(self, granted: Sequence[Granted]) -> None:
        # As outcomes are, which wait for it: no handler has its connection, and nothing that is locked is waited for long.
        await self._database.outcomes.fetch(
            KEEP,
            [request.job_id for request, _ in granted],
            [request.scope for request, _ in granted],
            [request.key for request, _ in granted],
            [request.take for request, _ in granted],
            [request.cost for request, _ in granted],
            [permit.full_at for _, permit in granted],
            [permit.granted_at for _, permit in granted],
        )

    @tried_again
    async def reserve_within(self, scope: str, key: str, cost: float, within: timedelta) -> Permit:
        while True:
            record = await self._database.fetchrow(RESERVE_WITHIN, scope, key, cost, within)
            if record is None:
                await self._refuse(scope, cost)
            elif record["is_spent"]:
                at, wait, full_at = record["at"], record["wait"], record["full_at"]
                return Permit(scope, key, cost, at, wait, full_at, id=secrets.randbits(63))
            elif record["wait"] > within:
                raise RateLimited(scope, key, record["wait"])
            # Others have spent them since the statement began, which does not see how many.

    @tried_again
    async def settle(self, permit: Permit, more: float) -> bool:
        while True:
            of = permit.scope, permit.key, permit.full_at, more, permit.id, SETTLED, permit.granted_at
            is_first: bool | None = await self._database.fetchval(SETTLE, *of)
            if is_first is not None:
                return is_first
            await self._refuse(permit.scope, 0)

    async def hottest(self, scope: str, *, limit: int) -> list[KeyUse]:
        records = await self._database.fetch(HOTTEST, scope, limit)
        if not records and not await self._database.fetchrow(KNOWN, scope):
            raise await unknown_scope(self._database, scope)
        return [KeyUse(record["key"], record["spent"], record["free_at"]) for record in records]

    async def awaited(self, job_id: int) -> AwaitedKey | None:
        record = await self._database.fetchrow(AWAITED, job_id)
        return None if record is None else AwaitedKey(record["scope"], record["key"])

    async def reset_lately(self) -> Sequence[tuple[str, str]]:
        return await promises.reset_lately(self._database)

    async def waiting(self) -> Mapping[str, int]:
        return await promises.waiting(self._database)

    async def moved(self, scope: str, key: str | None = None) -> None:
        await promises.move(self._database, scope, key)

    @tried_again
    async def reset(self, scope: str, key: str, *, by: str | None = None) -> bool:
        return await promises.reset(self._database, scope, key, by)

    @tried_again
    async def give_back(self, *, limit: int) -> bool:
        self._given_back_to, is_more = await left_permits.give_back(
            self._database, self._given_back_to, limit
        )
        return is_more

    @tried_again
    async def sweep(self, *, limit: int) -> Swept:
        await fold_logs(self._database)
        permits: int = await self._database.fetchval(SWEEP_PERMITS, limit)
        keys: int
        [(gone, keys, *last)] = await self._database.fetch(SWEEP_KEYS, *self._swept_to, limit)
        self._swept_to = tuple(last) if keys == limit else FIRST_KEY
        return Swept(max(permits, gone), is_more=permits >= limit or keys >= limit)

    async def _refuse(self, scope: str, cost: float) -> None:
        """Raise the reason why the rate limit gives no permit for `cost` tokens, unless it was changed meanwhile and does."""
        known = await self._database.fetchrow(KNOWN, scope)
        if known is None:
            raise await unknown_scope(self._database, scope)
        if known["is_logged"]:
            if not self._spends.found_log(scope):
                await end_log(self._database, scope)
        elif not (known["refill"] > 0 and cost <= known["capacity"]):
            raise refusals.no_permit(scope, cost, known["capacity"], known["refill"])
