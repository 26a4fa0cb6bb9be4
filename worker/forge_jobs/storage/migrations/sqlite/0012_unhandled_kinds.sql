-- What the workers of a version serve and have handlers for, so that it is known of a version that
-- sleeps: JSON lists. Its owner says the queues; its workers say both when they register. Null: nobody has yet.
ALTER TABLE worker_version ADD COLUMN queues TEXT;
ALTER TABLE worker_version ADD COLUMN kinds TEXT;

-- The kinds for which those who serve a queue have handlers, a JSON list: workers that may claim, and
-- versions that may, awake or not. A queue of which that is not known is left out: nobody serves it, or
-- a version that is to serve it has had no worker yet, and may have any handler.
CREATE VIEW handled AS
WITH serving AS (
    SELECT worker.queues, worker.kinds
    FROM worker
    LEFT JOIN worker_version AS version ON version.pool = worker.pool AND version.id = worker.version_id
    WHERE NOT worker.draining AND NOT worker.retiring AND worker.kinds <> '[]'
      AND coalesce(version.state IN ('current', 'ramping'), 1)
    UNION
    SELECT queues, kinds FROM worker_version
    WHERE state IN ('current', 'ramping') AND queues IS NOT NULL AND kinds IS NOT NULL
), untold AS (
    SELECT version.queues FROM worker_version AS version
    WHERE version.state IN ('pending', 'ramping', 'current') AND version.kinds IS NULL
      AND NOT EXISTS (SELECT 1 FROM worker WHERE worker.pool = version.pool AND worker.version_id = version.id)
)
SELECT queue.id AS queue_id, queue.name AS queue,
       json_group_array(DISTINCT handler.value) FILTER (WHERE handler.value IS NOT NULL) AS kinds
FROM serving
JOIN json_each(serving.queues) AS served
JOIN queue ON queue.name = served.value
LEFT JOIN json_each(serving.kinds) AS handler
WHERE NOT EXISTS (SELECT 1 FROM untold WHERE queues IS NULL)
  AND queue.name NOT IN (SELECT theirs.value FROM untold JOIN json_each(untold.queues) AS theirs)
GROUP BY queue.id, queue.name;
