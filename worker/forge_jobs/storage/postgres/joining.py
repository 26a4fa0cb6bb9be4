"""How jobs join their groups in PostgreSQL, as parts of the statements that make them wait."""

from forge_jobs.model.group import DROPPED_ERROR
from forge_jobs.storage.postgres import endings

# The rows of {of} have to be there when the function is called, hence the aggregate; in order of their places.
JOINED = """
    SELECT joined.* FROM (
        SELECT array_agg(job_id ORDER BY pos, job_id) AS ids, array_agg(queue_id ORDER BY pos, job_id) AS queue_ids,
               array_agg(priority ORDER BY pos, job_id) AS priorities, array_agg(attempt ORDER BY pos, job_id) AS attempts,
               array_agg(pos ORDER BY pos, job_id) AS places, array_agg(groups ORDER BY pos, job_id) AS rules,
               array_agg(created_at ORDER BY pos, job_id) AS asked_at, array_agg(is_new ORDER BY pos, job_id) AS are_new
        FROM {of}
    ) AS asked
    CROSS JOIN LATERAL {schema}.join_groups(
        ids, queue_ids, priorities, attempts, places, rules, asked_at, are_new) AS joined
"""

# Scheduled jobs that are dropped when they are due have ended.
_DROPPED = "(SELECT linked.* FROM linked WHERE job_id = ANY (ARRAY(SELECT unnest(joined.dropped) FROM joined))) AS lost"
_IS_KEPT = "(SELECT dead_retention FROM {schema}.queue WHERE queue.id = lost.queue_id) > interval '0'"
DROPPED = f"""kept AS (
    INSERT INTO {{schema}}.finished (job_id, finished_at, queue_id, attempt, state, error, links)
    SELECT job_id, now(), queue_id, attempt, 'dead', '{DROPPED_ERROR}',
           (SELECT job.links FROM {{schema}}.job WHERE job.id = lost.job_id)
    FROM {_DROPPED}
    WHERE {_IS_KEPT}
    RETURNING job_id, queue_id
), unkept AS MATERIALIZED (
    SELECT job_id FROM {_DROPPED} EXCEPT SELECT job_id FROM kept
), {endings.forgotten("unkept")}, {endings.unkeyed(_DROPPED)}, {endings.unlimited(_DROPPED)}, {endings.unheld(_DROPPED)}, mourned AS (
    INSERT INTO {{schema}}.tally (queue_id, dead) SELECT queue_id, count(*) FROM kept GROUP BY queue_id
)"""

# Those that are dropped in the transaction that enqueues them were never there.
UNMADE = DROPPED.replace(_IS_KEPT, "false")
