"""Permits that were kept for jobs which have ended, in PostgreSQL: the last ones of their keys are given back."""

from forge_jobs.model.permit import LeftPermit, tails
from forge_jobs.storage.postgres.buckets import FLOWED
from forge_jobs.storage.postgres.connection import PostgresDatabase

LAST_JOB = 2**63 - 1

# The newest jobs first, as the last permits of a key are theirs for the most part.
PAGE = """
SELECT array_agg(job_id) FROM (
    SELECT DISTINCT job_id FROM {schema}.permit WHERE job_id < $1 ORDER BY job_id DESC LIMIT $2) AS page
"""

# One whose moment has come may be for tokens that the job has used, and is kept so that it does not pay for them again. Where the limit
# was changed lately, the moment of now is not the one at which they were used.
IS_LEFT = """permit.full_at > rate_limit.void_to AND permit.full_at - rate_limit.capacity - {flowed} >= rate_limit.refill * 0.000002
  AND coalesce(rate_limit.changed_at <= now() - interval '1 day', true)
  AND (EXISTS (SELECT FROM {schema}.finished WHERE finished.job_id = permit.job_id)
       OR NOT EXISTS (SELECT FROM {schema}.job WHERE job.id = permit.job_id))""".replace("{flowed}", FLOWED)

# What was spent since a permit was given has to be in the row of its key.
END_LOGS = """
SELECT {schema}.end_log(scope) FROM {schema}.rate_limit
WHERE is_logged AND EXISTS (
    SELECT FROM {schema}.permit WHERE permit.scope = rate_limit.scope AND permit.job_id = ANY ($1::bigint[]) AND {is_left})
""".replace("{is_left}", IS_LEFT)

# Nobody is waited for: whoever uses one of them just then keeps it, and a key that is used just then is looked at again.
LEFT = """
SELECT permit.job_id, permit.scope, permit.key, permit.take, permit.cost, permit.full_at, rate_key.full_at AS stands_at,
       rate_limit.refill * 0.000002 AS nearly
FROM {schema}.permit JOIN {schema}.rate_key USING (scope, key) JOIN {schema}.rate_limit USING (scope)
WHERE permit.job_id = ANY ($1::bigint[]) AND NOT rate_limit.is_logged AND {is_left}
FOR KEY SHARE OF rate_limit SKIP LOCKED FOR UPDATE OF permit, rate_key SKIP LOCKED
""".replace("{is_left}", IS_LEFT)

GIVE_BACK = """
WITH back AS (
    UPDATE {schema}.rate_key SET full_at = given.full_at
    FROM unnest($1::text[], $2::text[], $3::double precision[]) AS given (scope, key, full_at)
    WHERE (rate_key.scope, rate_key.key) = (given.scope, given.key)
)
DELETE FROM {schema}.permit
USING unnest($4::bigint[], $5::text[], $6::text[], $7::integer[]) AS given (job_id, scope, key, take)
WHERE (permit.job_id, permit.scope, permit.key, permit.take) = (given.job_id, given.scope, given.key, given.take)
"""


async def give_back(database: PostgresDatabase, before: int, limit: int) -> tuple[int, bool]:
    """See `Permits.give_back`, of jobs with ids less than `before`; return before which the next call looks, and whether there may be more."""
    ids = await database.fetchval(PAGE, before, limit) or []
    if ids:
        await database.execute(END_LOGS, ids)
        async with database.transaction() as connection:
            left = await database.fetch(LEFT, ids, connection=connection)
            if found := tails(LeftPermit(**one) for one in left):
                gone = [(job_id, *key, take) for key, (_, jobs) in found.items() for job_id, take in jobs]
                keys = [(*key, stands_at) for key, (stands_at, _) in found.items()]
                columns = [list(column) for rows in (keys, gone) for column in zip(*rows, strict=True)]
                await database.execute(GIVE_BACK, *columns, connection=connection)
    return (min(ids), True) if len(ids) == limit else (LAST_JOB, False)
