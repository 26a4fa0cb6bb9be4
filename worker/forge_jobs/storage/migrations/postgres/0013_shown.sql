-- What keeps a worker from its work, as it said at its last beat; null: nothing, or a worker of the release before.
ALTER TABLE {schema}.worker ADD COLUMN IF NOT EXISTS ailment text;

-- A queue that is being deleted has a name that nobody looks for, and nobody should see: its jobs are
-- shown under the name that it had, and its numbers not at all.
CREATE OR REPLACE VIEW {schema}.jobs AS
SELECT job.id,
       CASE WHEN substr(queue.name, 1, length('deleting:' || queue.id || ':')) <> 'deleting:' || queue.id || ':'
            THEN queue.name
            ELSE substr(queue.name, length('deleting:' || queue.id || ':') + 1) END AS queue,
       job.kind,
       CASE WHEN finished.job_id IS NOT NULL THEN finished.state
            WHEN claimed.job_id IS NOT NULL THEN 'in_progress'
            WHEN scheduled.job_id IS NULL THEN 'pending'
            WHEN scheduled.reason = 'retry' THEN 'retrying'
            ELSE 'scheduled' END AS state,
       job.priority,
       coalesce(finished.attempt, claimed.attempt, scheduled.attempt) AS attempt,
       job.max_attempts, job.timeout, job.key, job.codec, job.payload, job.created_at,
       scheduled.run_at, scheduled.reason, claimed.claimed_at, claimed.cancel_requested_at,
       coalesce(claimed.worker_id, finished.worker_id) AS worker_id,
       finished.started_at, finished.finished_at, finished.error, finished.result
FROM {schema}.job
JOIN {schema}.queue ON queue.id = job.queue_id
LEFT JOIN {schema}.finished ON finished.job_id = job.id
LEFT JOIN {schema}.claimed ON claimed.job_id = job.id
LEFT JOIN {schema}.scheduled ON scheduled.job_id = job.id;

CREATE OR REPLACE VIEW {schema}.depth AS
SELECT queue.id AS queue_id, queue.name AS queue,
       coalesce(sums.pending, 0)::bigint AS pending, coalesce(sums.scheduled, 0)::bigint AS scheduled,
       coalesce(sums.in_progress, 0)::bigint AS in_progress, coalesce(sums.done, 0)::bigint AS done,
       coalesce(sums.dead, 0)::bigint AS dead, oldest.pos AS oldest_pos
FROM {schema}.queue
LEFT JOIN (
    SELECT queue_id, sum(pending) AS pending, sum(scheduled) AS scheduled, sum(in_progress) AS in_progress,
           sum(done) AS done, sum(dead) AS dead
    FROM {schema}.tally GROUP BY queue_id
) AS sums ON sums.queue_id = queue.id
LEFT JOIN LATERAL (
    WITH RECURSIVE class AS (
        (SELECT priority, pos FROM {schema}.ready WHERE queue_id = queue.id ORDER BY priority, pos LIMIT 1)
        UNION ALL
        SELECT next.priority, next.pos
        FROM class CROSS JOIN LATERAL (
            SELECT ready.priority, ready.pos FROM {schema}.ready
            WHERE ready.queue_id = queue.id AND ready.priority > class.priority
            ORDER BY ready.priority, ready.pos LIMIT 1) AS next
    )
    SELECT min(pos) AS pos FROM class
) AS oldest ON true
WHERE substr(queue.name, 1, length('deleting:' || queue.id || ':')) <> 'deleting:' || queue.id || ':';
