"""Where the buckets of keys of rate limits stand, as a part of SQL."""

from forge_jobs.storage.postgres.limits import FLOWED

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
