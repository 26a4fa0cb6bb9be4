"""The places in groups, and the lines before them, as an audit of PostgreSQL sees and mends them."""

from forge_jobs.storage.postgres.groups import STANDING

_ACTIVE = "SELECT job_id FROM {schema}.ready UNION SELECT job_id FROM {schema}.claimed"

# Nobody has a place but jobs that are pending or in progress.
_STALE = "SELECT occupant.job_id, occupant.group_id FROM {schema}.occupant WHERE occupant.job_id NOT IN (SELECT job_id FROM active)"

# They have one in each of their groups.
_MISSING = """
SELECT active.job_id, rule.name
FROM active JOIN {schema}.job ON job.id = active.job_id AND job.groups IS NOT NULL
CROSS JOIN LATERAL jsonb_object_keys(job.groups::jsonb) AS rule (name)
WHERE NOT EXISTS (
    SELECT FROM {schema}.occupant JOIN {schema}.job_group ON job_group.id = occupant.group_id
    WHERE occupant.job_id = active.job_id AND job_group.name = rule.name)"""

_LINELESS = """
SELECT blocked.job_id, blocked.group_id FROM {schema}.blocked
WHERE blocked.group_id IS NOT NULL AND NOT EXISTS (SELECT FROM {schema}.job_group WHERE job_group.id = blocked.group_id)"""

_FRONT = """
SELECT job_group.id FROM {schema}.job_group
LEFT JOIN LATERAL (SELECT * FROM {schema}.group_front WHERE group_id = job_group.id ORDER BY number DESC LIMIT 1)
    AS front ON true
WHERE EXISTS (SELECT FROM {schema}.occupant WHERE occupant.group_id = job_group.id AND occupant.since < front.since)
   OR EXISTS (SELECT FROM {schema}.blocked
              WHERE blocked.group_id = job_group.id
                AND coalesce(blocked.pos < (front.lines ->> blocked.priority::text)::bigint, true))"""

GROUPS = f"""
WITH active AS MATERIALIZED ({_ACTIVE})
SELECT 'stale' AS what, coalesce(job_group.name, 'number ' || stale.group_id) AS name, stale.job_id
FROM ({_STALE}) AS stale LEFT JOIN {{schema}}.job_group ON job_group.id = stale.group_id
UNION ALL SELECT 'missing', missing.name, missing.job_id FROM ({_MISSING}) AS missing
UNION ALL SELECT 'lineless', 'number ' || lineless.group_id, lineless.job_id FROM ({_LINELESS}) AS lineless
UNION ALL SELECT 'front', job_group.name, NULL FROM ({_FRONT}) AS passed JOIN {{schema}}.job_group ON job_group.id = passed.id
UNION ALL SELECT 'standing', job_group.name, NULL
FROM unnest(({STANDING.strip()})) AS standing JOIN {{schema}}.job_group ON job_group.id = standing
ORDER BY name, what, job_id
"""

# Each decides anew what it mends; the rows of groups are locked before.
LOCK_GROUPS = "SELECT FROM {schema}.job_group ORDER BY id FOR NO KEY UPDATE"

MEND = (
    f"WITH active AS MATERIALIZED ({_ACTIVE}) "
    f"DELETE FROM {{schema}}.occupant USING ({_STALE}) AS stale "
    "WHERE occupant.job_id = stale.job_id AND occupant.group_id = stale.group_id",
    f"""
WITH gone AS (
    DELETE FROM {{schema}}.blocked USING ({_LINELESS}) AS lineless WHERE blocked.job_id = lineless.job_id
    RETURNING blocked.job_id, blocked.queue_id, blocked.attempt, blocked.priority
), due AS (
    INSERT INTO {{schema}}.scheduled (job_id, run_at, queue_id, attempt, priority, reason, links)
    SELECT job_id, now(), queue_id, attempt, priority, 'rescheduled', (SELECT links FROM {{schema}}.job WHERE id = job_id) FROM gone
)
INSERT INTO {{schema}}.tally (queue_id, scheduled, blocked) SELECT queue_id, count(*), -count(*) FROM gone GROUP BY queue_id
""",
    f"""
WITH active AS MATERIALIZED ({_ACTIVE})
INSERT INTO {{schema}}.job_group (name, said, said_at)
SELECT DISTINCT missing.name, 1, '-infinity'::timestamptz FROM ({_MISSING}) AS missing ORDER BY missing.name
ON CONFLICT DO NOTHING
""",
    LOCK_GROUPS,
    f"""
WITH active AS MATERIALIZED ({_ACTIVE})
INSERT INTO {{schema}}.occupant (job_id, group_id, since)
SELECT missing.job_id, job_group.id, {{schema}}.micros(now())
FROM ({_MISSING}) AS missing JOIN {{schema}}.job_group ON job_group.name = missing.name
ON CONFLICT DO NOTHING
""",
    f"""
INSERT INTO {{schema}}.group_front (group_id, number, since, lines)
SELECT passed.id, coalesce((SELECT max(number) FROM {{schema}}.group_front WHERE group_id = passed.id), 0) + 1,
       coalesce((SELECT min(since) FROM {{schema}}.occupant WHERE group_id = passed.id), 0),
       coalesce((SELECT jsonb_object_agg(priority, pos) FROM (
           SELECT priority, min(pos) AS pos FROM {{schema}}.blocked WHERE group_id = passed.id GROUP BY priority) AS line), '{{}}')
FROM ({_FRONT}) AS passed
""",
    f"SELECT {{schema}}.admit(({STANDING.strip()}))",
)
