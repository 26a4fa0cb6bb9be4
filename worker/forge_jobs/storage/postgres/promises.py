"""What keys of rate limits have promised to jobs, in PostgreSQL: it comes sooner, also since a key is made full."""

from collections.abc import Mapping, Sequence
from typing import Any

from forge_jobs.model.intervention import Deed
from forge_jobs.model.rate_limit import LATELY
from forge_jobs.storage.postgres import interventions
from forge_jobs.storage.postgres.buckets import BUCKET, FULL_FROM, WAIT, unknown_scope
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import tried_again
from forge_jobs.storage.postgres.spend_log import end_log

TOGETHER = 1000
"""Jobs whose permits are moved in one statement."""

LOOKED_AT = 10_000
"""Permits among which they are found by one statement."""

# What was said of a permit is kept in `until`, a day after that. Sums of fractions are not exact, so what is less than a millisecond
# away from what is true now is the same; and of one whose tokens are there nothing earlier was said.
_IS_LATER = "permit.until > {at} + interval '24:00:00.001'"
_IS_EARLIER = "({at} > now() AND permit.until < {at} + interval '23:59:59.999')"

# Of the next permits by job: the jobs of those of which something else is true now than was said. Those that wait for a permit, and for
# nothing that comes later, come when that is for now, and that is said of it. So a later pass over them reads permits and no more.
# The page is read twice, as few of them are when many are to be moved. A job whose permits are on two pages is looked at whole.
MOVED = """
WITH bucket AS MATERIALIZED ({bucket}
), stale AS MATERIALIZED (
    SELECT permit.job_id
    FROM (SELECT * FROM {schema}.permit WHERE scope = $1 AND job_id > $2 ORDER BY job_id LIMIT $5) AS permit JOIN bucket USING (scope)
    WHERE refill > 0 AND coalesce(key = $4, true) AND ({is_later} OR {is_earlier})
    ORDER BY permit.job_id LIMIT $3  -- a join may turn them round, and the next page begins behind the last of these
), page AS MATERIALIZED (
    SELECT CASE WHEN (SELECT count(*) FROM stale) = $3 THEN (SELECT max(job_id) FROM stale)
           ELSE (SELECT max(job_id) FROM (
               SELECT job_id FROM {schema}.permit WHERE scope = $1 AND job_id > $2 ORDER BY job_id LIMIT $5) AS first) END AS last
), kept AS MATERIALIZED (
    SELECT permit.job_id, permit.scope, permit.key, permit.take, permit.until, {at} AS at
    FROM {schema}.permit JOIN bucket USING (scope)
    WHERE permit.job_id = ANY (ARRAY(SELECT job_id FROM stale UNION SELECT last FROM page)) AND refill > 0
), sooner AS (
    UPDATE {schema}.scheduled SET run_at = turn.at
    FROM (SELECT job_id, max(at) AS at, max(until) - interval '24 hours' AS said
          FROM kept GROUP BY job_id) AS turn
    WHERE scheduled.job_id = turn.job_id AND scheduled.reason = 'throttled'
      AND scheduled.run_at > turn.at AND scheduled.run_at <= turn.said + interval '1 millisecond'
    RETURNING scheduled.job_id, scheduled.run_at
), said AS (
    UPDATE {schema}.permit SET until = turn.moment + interval '24 hours'
    FROM (SELECT kept.*, run_at, coalesce(run_at, at) AS moment FROM kept FULL JOIN sooner USING (job_id) OFFSET 0) AS turn
    WHERE (permit.job_id, permit.scope, permit.key, permit.take) = (turn.job_id, turn.scope, turn.key, turn.take)
      AND turn.scope = $1 AND (turn.run_at IS NOT NULL OR {is_earlier_than_kept})
)
SELECT (SELECT last FROM page) AS last, (SELECT {schema}.tell('due:') FROM sooner LIMIT 1)
"""
_AT = "now() + " + WAIT.replace("{full_at}", "permit.full_at")
MOVED = (
    MOVED.replace("{bucket}", BUCKET)
    .replace("{is_later}", _IS_LATER.replace("{at}", _AT))
    .replace("{is_earlier}", _IS_EARLIER.replace("{at}", _AT))
    .replace("{is_earlier_than_kept}", _IS_EARLIER.replace("{at}", "turn.at"))
    .replace("{at}", _AT)
)

RESET_LATELY = """
SELECT scope, key FROM {schema}.rate_limit JOIN {schema}.rate_key USING (scope)
WHERE rate_limit.reset_at > now() - $1::interval AND rate_key.reset_at > now() - $1::interval ORDER BY scope, key
"""

WAITING = """
WITH bucket AS MATERIALIZED ({bucket})
SELECT scope, count(DISTINCT job_id) AS jobs
FROM {schema}.permit JOIN bucket USING (scope)
WHERE full_at - capacity - flowed >= refill * 0.000002
  AND EXISTS (SELECT FROM {schema}.scheduled WHERE scheduled.job_id = permit.job_id)  -- it may have been cancelled
GROUP BY scope ORDER BY scope
""".replace("{bucket}", BUCKET)

# The limit first, as whoever empties or changes it does; then the key, for which whoever spends of it is waited for. What those have
# promised is seen by the next statement.
LOCK = """
WITH bucket AS MATERIALIZED ({bucket} WHERE scope = $1 FOR NO KEY UPDATE
)
INSERT INTO {schema}.rate_key (scope, key, full_at) SELECT scope, $2, 0 FROM bucket
ON CONFLICT (scope, key) DO UPDATE SET full_at = rate_key.full_at
RETURNING (SELECT greatest(full_at, {full_from}) - greatest(0, free_to - {full_from}) - flowed > refill * 0.000002 FROM bucket)
""".replace("{bucket}", BUCKET).replace("{full_from}", FULL_FROM)

# Jobs that wait for tokens get them out of the full bucket, one after another as before. Those for whom they were there already have
# them, and none of these come back when they are settled. What was voided is gone, so that nothing is taken for it.
RESET = """
WITH bucket AS MATERIALIZED ({bucket} WHERE scope = $1
), promised AS MATERIALIZED (
    SELECT permit.job_id, permit.take, permit.cost, permit.full_at, flowed, {wait} > interval '0' AS is_awaited,
           EXISTS (SELECT FROM {schema}.finished WHERE finished.job_id = permit.job_id)
           OR NOT EXISTS (SELECT FROM {schema}.job WHERE job.id = permit.job_id) AS is_left
    FROM {schema}.permit JOIN bucket USING (scope) WHERE permit.key = $2 AND permit.full_at > void_to
), gone AS (
    DELETE FROM {schema}.permit USING bucket
    WHERE permit.scope = $1 AND (permit.full_at <= void_to OR permit.key = $2 AND (permit.job_id, permit.take) IN (
        SELECT job_id, take FROM promised WHERE is_left))
), turn AS MATERIALIZED (
    SELECT job_id, take, least(full_at, flowed + sum(CASE WHEN is_awaited THEN cost ELSE 0 END)
                                        OVER (ORDER BY promised.full_at, job_id, take)) AS full_at
    FROM promised WHERE NOT is_left
), moved AS (
    UPDATE {schema}.permit SET full_at = turn.full_at FROM turn
    WHERE permit.scope = $1 AND permit.key = $2 AND (permit.job_id, permit.take) = (turn.job_id, turn.take)
), said AS (
    UPDATE {schema}.rate_limit
    SET reset_at = greatest(now(), reset_at, emptied_at + interval '1 microsecond'), void_to = -1
    WHERE scope = $1 RETURNING reset_at
)
UPDATE {schema}.rate_key
SET full_at = coalesce((SELECT max(full_at) FROM turn), 0), free_to = 0, reset_at = said.reset_at
FROM said WHERE (rate_key.scope, rate_key.key) = ($1, $2)
""".replace("{bucket}", BUCKET).replace("{wait}", WAIT.replace("{full_at}", "permit.full_at"))


async def reset_lately(database: PostgresDatabase) -> Sequence[tuple[str, str]]:
    """See `Permits.reset_lately`."""
    return [(record["scope"], record["key"]) for record in await database.fetch(RESET_LATELY, LATELY)]


async def waiting(database: PostgresDatabase) -> Mapping[str, int]:
    """See `Permits.waiting`."""
    return {record["scope"]: record["jobs"] for record in await database.fetch(WAITING)}


async def move(database: PostgresDatabase, scope: str, key: str | None) -> None:
    """See `Permits.moved`."""
    last: int | None = 0
    while last is not None:
        last = await _move(database, scope, key, last)


@tried_again
async def _move(database: PostgresDatabase, scope: str, key: str | None, after: int) -> int | None:
    last: int | None = await database.fetchval(MOVED, scope, after, TOGETHER, key, LOOKED_AT)
    return last


async def reset(database: PostgresDatabase, scope: str, key: str, by: str | None) -> bool:
    """See `Permits.reset`."""
    try:
        async with database.transaction() as connection:
            await end_log(database, scope, connection=connection)
            locked: list[Any] = await database.fetch(LOCK, scope, key, connection=connection)
            if not locked:
                raise await unknown_scope(database, scope)
            if not locked[0][0]:
                raise _IsFull
            await database.execute(RESET, scope, key, connection=connection)
            note = f"key {key!r}"
            await interventions.note_of(database, connection, [f"limit {scope}"], Deed.RESET, by, note)
    except _IsFull:
        return False
    return True


class _IsFull(Exception):
    """Raised to leave no row of a key that was only looked at."""
