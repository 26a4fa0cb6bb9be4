-- What keeps a worker from its work, as it said at its last beat; null: nothing, or a worker of the release before.
ALTER TABLE worker ADD COLUMN ailment text;

-- A queue that is being deleted has a name that nobody looks for, and nobody should see: its jobs are
-- shown under the name that it had.
DROP VIEW jobs;
CREATE VIEW jobs AS
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
FROM job
JOIN queue ON queue.id = job.queue_id
LEFT JOIN finished ON finished.job_id = job.id
LEFT JOIN claimed ON claimed.job_id = job.id
LEFT JOIN scheduled ON scheduled.job_id = job.id;
