"""The outcomes of attempts in PostgreSQL, as statements: jobs end, wait again, or are handed back.

Each takes jobs out of `claimed` whose claims still hold; what follows comes from `endings`.
"""

from forge_jobs.storage.postgres import endings

# For nearly every batch: done by one worker, nothing to forget, no key, no error. It has fewer
# arrays, since encoding them costs the worker as much as the statement costs the server.
FINISH_PLAIN = """
WITH gone AS (
    DELETE FROM {schema}.claimed
    USING unnest($2::bigint[], $3::integer[], $4::double precision[], $5::bytea[])
          AS given (job_id, attempt, duration, result)
    WHERE claimed.job_id BETWEEN given.job_id AND given.job_id
      AND claimed.worker_id = $1 AND claimed.attempt = given.attempt
    RETURNING given.job_id, given.attempt, given.duration, given.result, claimed.queue_id
), ended AS (
    INSERT INTO {schema}.finished (job_id, worker_id, started_at, finished_at, queue_id, attempt, state, error, result)
    SELECT job_id, $1, now() - make_interval(secs => duration), now(), queue_id, attempt, 'done', NULL, result FROM gone
), tallied AS (
    INSERT INTO {schema}.tally (queue_id, in_progress, done)
    SELECT queue_id, -count(*), count(*) FROM gone GROUP BY queue_id
)
SELECT array_agg(job_id) FROM gone
"""

# For all others: errors for the history, keys, and queues that keep nothing.
FINISH = f"""
WITH gone AS (
    DELETE FROM {{schema}}.claimed
    USING unnest($1::bigint[], $2::bigint[], $3::integer[], $4::boolean[], $5::double precision[],
                 $6::bytea[], $7::text[], $8::boolean[], $9::boolean[])
          AS given (job_id, worker_id, attempt, is_dead, duration, result, error, keep, keyed)
    WHERE claimed.job_id BETWEEN given.job_id AND given.job_id
      AND claimed.worker_id = given.worker_id AND claimed.attempt = given.attempt
    RETURNING given.*, claimed.queue_id
), ended AS (
    INSERT INTO {{schema}}.finished (job_id, worker_id, started_at, finished_at, queue_id, attempt, state, error, result)
    SELECT job_id, worker_id, now() - make_interval(secs => duration), now(), queue_id, attempt,
           CASE WHEN is_dead THEN 'dead' ELSE 'done' END, error, result
    FROM gone WHERE keep
), {
    endings.tallied(
        in_progress="-count(*)",
        done="count(*) FILTER (WHERE keep AND NOT is_dead)",
        dead="count(*) FILTER (WHERE keep AND is_dead)",
    )
}, {endings.failed("keep AND is_dead AND error IS NOT NULL")}, {endings.unkeyed("gone WHERE keyed")}, {
    endings.forgotten("gone WHERE NOT keep")
}
SELECT array_agg(job_id) FROM gone
"""

# A job that a user cancelled while a worker had it does not wait again, whatever the worker says of it.
_CANCELLED = endings.cancelled("is_cancelled", ran="worker_id, claimed_at")
_MOVES = "(SELECT gone.*, job_id = ANY (ARRAY(SELECT job_id FROM kept)) AS is_kept FROM gone) AS moves"

POSTPONE = f"""
WITH gone AS (
    DELETE FROM {{schema}}.claimed
    USING unnest($1::bigint[], $2::bigint[], $3::integer[], $4::integer[], $5::smallint[], $6::text[],
                 $7::double precision[], $8::timestamptz[], $9::text[], $10::boolean[])
          AS given (job_id, worker_id, attempt, queue_id, priority, reason, delay, run_at, error, counted)
    WHERE claimed.job_id BETWEEN given.job_id AND given.job_id
      AND claimed.worker_id = given.worker_id AND claimed.attempt = given.attempt
    RETURNING given.*, coalesce(given.run_at, now() + make_interval(secs => given.delay)) AS due,
              given.attempt - CASE WHEN given.counted THEN 0 ELSE 1 END AS attempts,
              claimed.claimed_at, claimed.cancel_requested_at IS NOT NULL AS is_cancelled
), {_CANCELLED}, waits AS (
    INSERT INTO {{schema}}.scheduled (job_id, run_at, queue_id, attempt, priority, reason)
    SELECT job_id, due, queue_id, attempts, priority, reason FROM gone WHERE due > now() AND NOT is_cancelled
), {endings.placed("gone WHERE due <= now() AND NOT is_cancelled", attempt="attempts")}, {
    endings.failed("error IS NOT NULL AND job_id <> ALL (ARRAY(SELECT job_id FROM unkept))")
}, {
    endings.tallied(
        _MOVES,
        in_progress="-count(*)",
        scheduled="count(*) FILTER (WHERE due > now() AND NOT is_cancelled)",
        pending="count(*) FILTER (WHERE due <= now() AND NOT is_cancelled)",
        dead="count(*) FILTER (WHERE is_kept)",
    )
}
SELECT array_agg(job_id), array_agg(job_id) FILTER (WHERE is_cancelled), {endings.WOKEN}
FROM gone
"""

HAND_BACK = f"""
WITH gone AS (
    DELETE FROM {{schema}}.claimed
    USING unnest($1::bigint[], $2::bigint[], $3::integer[], $4::integer[], $5::smallint[], $6::bigint[])
          AS given (job_id, worker_id, attempt, queue_id, priority, pos)
    WHERE claimed.job_id BETWEEN given.job_id AND given.job_id
      AND claimed.worker_id = given.worker_id AND claimed.attempt = given.attempt
    RETURNING given.*, claimed.claimed_at, claimed.cancel_requested_at IS NOT NULL AS is_cancelled
), {_CANCELLED}, {endings.placed("gone WHERE NOT is_cancelled", pos="pos", attempt="attempt - 1")}, {
    endings.tallied(
        _MOVES,
        in_progress="-count(*)",
        pending="count(*) FILTER (WHERE NOT is_cancelled)",
        dead="count(*) FILTER (WHERE is_kept)",
    )
}
SELECT array_agg(job_id), array_agg(job_id) FILTER (WHERE is_cancelled), {endings.WOKEN},
       (SELECT count({{schema}}.tell('behind:' || concat_ws(',', queue_id, priority, pos, worker_id)))
        FROM (SELECT queue_id, priority, worker_id, min(pos) AS pos FROM gone WHERE NOT is_cancelled GROUP BY 1, 2, 3)
             AS back
        WHERE EXISTS (SELECT FROM {{schema}}.idle WHERE idle.queue_id = back.queue_id))
FROM gone
"""
