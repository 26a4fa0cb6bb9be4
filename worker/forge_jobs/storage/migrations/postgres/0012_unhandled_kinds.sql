-- What the workers of a version serve and have handlers for, so that it is known of a version that
-- sleeps. Its owner says the queues; its workers say both when they register. Null: nobody has yet.
ALTER TABLE {schema}.worker_version
    ADD COLUMN IF NOT EXISTS queues text[],
    ADD COLUMN IF NOT EXISTS kinds  text[];

-- The kinds for which those who serve a queue have handlers: workers that may claim, and versions that
-- may, awake or not. A queue of which that is not known is left out: nobody serves it, or a version
-- that is to serve it has had no worker yet, and may have any handler.
CREATE OR REPLACE VIEW {schema}.handled AS
WITH serving AS (
    SELECT worker.queues, worker.kinds
    FROM {schema}.worker
    LEFT JOIN {schema}.worker_version AS version ON version.pool = worker.pool AND version.id = worker.version_id
    WHERE NOT worker.draining AND NOT worker.retiring AND worker.kinds <> '{}'
      AND coalesce(version.state IN ('current', 'ramping'), true)
    UNION
    SELECT queues, kinds FROM {schema}.worker_version
    WHERE state IN ('current', 'ramping') AND queues IS NOT NULL AND kinds IS NOT NULL
), untold AS MATERIALIZED (
    SELECT version.queues FROM {schema}.worker_version AS version
    WHERE version.state IN ('pending', 'ramping', 'current') AND version.kinds IS NULL
      AND NOT EXISTS (SELECT FROM {schema}.worker
                      WHERE worker.pool = version.pool AND worker.version_id = version.id)
)
SELECT queue.id AS queue_id, queue.name AS queue,
       coalesce(array_agg(DISTINCT handler.kind) FILTER (WHERE handler.kind IS NOT NULL), '{}') AS kinds
FROM serving
CROSS JOIN LATERAL unnest(serving.queues) AS served (name)
JOIN {schema}.queue ON queue.name = served.name
LEFT JOIN LATERAL unnest(serving.kinds) AS handler (kind) ON true
WHERE NOT EXISTS (SELECT FROM untold WHERE untold.queues IS NULL)
  AND NOT EXISTS (SELECT FROM untold CROSS JOIN LATERAL unnest(untold.queues) AS theirs (name)
                  WHERE theirs.name = queue.name)
GROUP BY queue.id, queue.name;

-- Jobs that wait in vain, by their kinds, for which nobody who serves their queue has a handler. Of each
-- queue the first 100 that are pending are looked at, and the first 100,000 where nobody handles any of
-- those: workers pass them by, so they are what stands first. Of those that are due, the first 1,000.
-- Each job's kind is a subquery, since a join may be planned as a scan of all jobs that there ever were.
CREATE OR REPLACE VIEW {schema}.unhandled AS
SELECT handled.queue_id, handled.queue, waiting.kind, waiting.pending, waiting.due
FROM {schema}.handled
CROSS JOIN LATERAL (
    SELECT kind, count(*) FILTER (WHERE is_pending) AS pending, count(*) FILTER (WHERE NOT is_pending) AS due
    FROM (
        SELECT (SELECT job.kind FROM {schema}.job WHERE job.id = first.job_id) AS kind, first.is_pending
        FROM (
            (SELECT ready.job_id, true AS is_pending FROM {schema}.ready
             WHERE ready.queue_id = handled.queue_id
             ORDER BY ready.priority, ready.pos
             LIMIT CASE WHEN EXISTS (
                 SELECT FROM (
                     SELECT ready.job_id FROM {schema}.ready
                     WHERE ready.queue_id = handled.queue_id
                     ORDER BY ready.priority, ready.pos LIMIT 100) AS few
                 WHERE (SELECT job.kind FROM {schema}.job WHERE job.id = few.job_id) = ANY (handled.kinds)
             ) THEN 100 ELSE 100000 END)
            UNION ALL
            (SELECT scheduled.job_id, false FROM {schema}.scheduled
             WHERE scheduled.queue_id = handled.queue_id AND scheduled.run_at <= now()
             ORDER BY scheduled.run_at LIMIT 1000)
        ) AS first
    ) AS each
    GROUP BY kind
) AS waiting
WHERE waiting.kind <> ALL (handled.kinds);

-- As before, but jobs that nobody could run are no work: they have a column of their own.
CREATE OR REPLACE VIEW {schema}.scaling_signal AS
SELECT depth.queue, depth.pending, depth.scheduled, depth.in_progress, due.jobs AS due,
       workable.jobs - CASE
           WHEN queue.paused THEN 0
           ELSE greatest(least(workable.jobs, queue.concurrency - depth.in_progress), 0) END AS held,
       CASE WHEN queue.paused THEN depth.in_progress
            ELSE greatest(depth.in_progress, least(
                depth.in_progress + workable.jobs + due.jobs, queue.concurrency)) END AS workload,
       coalesce(greatest(({schema}.micros(now()) - depth.oldest_pos) / 1000000.0, 0), 0)::double precision
           AS oldest_pending_age_seconds,
       vain.jobs AS unhandled
FROM {schema}.depth
JOIN {schema}.queue ON queue.id = depth.queue_id
LEFT JOIN {schema}.handled ON handled.queue_id = queue.id
CROSS JOIN LATERAL (
    SELECT (SELECT count(*) FROM (
                SELECT FROM (
                    SELECT scheduled.job_id FROM {schema}.scheduled
                    WHERE scheduled.queue_id = queue.id AND scheduled.run_at <= now()
                    ORDER BY scheduled.run_at LIMIT 100000) AS first
                WHERE handled.kinds IS NULL
                   OR (SELECT job.kind FROM {schema}.job WHERE job.id = first.job_id) = ANY (handled.kinds)
                LIMIT 1000) AS counted)
         + (SELECT count(*) FROM {schema}.cron
            WHERE cron.queue_id = queue.id AND cron.enabled
              AND coalesce(cron.next_fire_at, '-infinity') <= now()
              AND (handled.kinds IS NULL OR cron.kind = ANY (handled.kinds))) AS jobs
) AS due
LEFT JOIN (
    SELECT queue_id, sum(pending)::bigint AS pending, sum(pending + due)::bigint AS jobs
    FROM {schema}.unhandled GROUP BY queue_id
) AS counted ON counted.queue_id = queue.id
CROSS JOIN LATERAL (SELECT coalesce(counted.jobs, 0) AS jobs) AS vain
CROSS JOIN LATERAL (SELECT greatest(depth.pending - coalesce(counted.pending, 0), 0) AS jobs) AS workable;
