"""Buckets of rate limits in PostgreSQL: what is in them is worked out by the database's clock when they are read."""

from forge_jobs.errors import UnknownScope
from forge_jobs.storage.postgres.connection import PostgresDatabase

# While the clock is behind, since it was set back, no tokens are added.
FILLED = """least(rate_limit.capacity, rate_limit.tokens
        + rate_limit.refill * greatest(0, extract(epoch FROM now() - rate_limit.refilled_at)))"""

# How many tokens have flowed towards each key.
FLOWED = """(rate_limit.flowed
        + rate_limit.refill * greatest(0, extract(epoch FROM now() - rate_limit.flowed_at)::double precision))"""

# What the keys of rate limits are measured by.
BUCKET = """
    SELECT scope, capacity, refill, emptied, emptied_at, void_to, {flowed} AS flowed, greatest({flowed}, emptied) AS full_from
    FROM {schema}.rate_limit
""".replace("{flowed}", FLOWED)

# How long it takes until the tokens for which `full_at` is the number are in the bucket. Sums of fractions are not
# exact: what is less than two microseconds away is there.
WAIT = """make_interval(secs => CASE
        WHEN {full_at} - capacity - flowed < refill * 0.000002 THEN 0
        ELSE least(({full_at} - capacity - flowed) / nullif(refill, 0), {longest}) END)"""
WAIT = WAIT.replace("{longest}", "31536000000")  # 1000 years

FULL_FROM = "CASE WHEN rate_key.reset_at > emptied_at THEN flowed ELSE full_from END"
"""Where the bucket with this row is full of which nothing is spent: what was emptied before somebody made it full is not for it."""

# As long as the statement or its transaction lasts, the keys are spent of in their rows.
IN_ROWS = "AND NOT is_logged FOR KEY SHARE"


async def unknown_scope(database: PostgresDatabase, scope: str) -> UnknownScope:
    """Return the error that names the rate limits there are."""
    known = await database.fetch("SELECT scope FROM {schema}.rate_limit")
    return UnknownScope(scope, [record["scope"] for record in known])
