-- The tables of forge-jobs in SQLite, in the order in which one understands them.
--
-- A job's state is the table that its id is in: scheduled, ready, claimed or finished. What was asked for is in
-- `job`, which is written once; a move deletes a narrow row in one table and inserts one in another, in one
-- transaction.
--
-- Moments and durations are microseconds (moments since the epoch), lists and records are JSON, unless a line
-- says otherwise. Here is no function enqueue and none of the views of counts: who opens the file has the library.


-- Queues

CREATE TABLE queue (
    id              INTEGER PRIMARY KEY,
    name            TEXT NOT NULL UNIQUE
        CHECK (name <> '' AND length(name) <= 128 AND instr(name, ',') = 0
               AND name NOT GLOB '*[' || char(9, 10, 11, 12, 13, 32) || ']*'),
    paused          INTEGER NOT NULL DEFAULT 0,
    concurrency     INTEGER CHECK (concurrency >= 0),  -- null: as many jobs as workers take
    rate_limit      TEXT,  -- the scope of which each start takes a token; it may be missing
    -- of jobs that say nothing themselves
    max_attempts    INTEGER NOT NULL DEFAULT 5 CHECK (max_attempts >= 0),  -- 0: for ever
    timeout         INTEGER CHECK (timeout > 0),
    backoff_enabled INTEGER NOT NULL DEFAULT 1,
    backoff_base    INTEGER NOT NULL DEFAULT 10000000,
    backoff_max     INTEGER NOT NULL DEFAULT 1800000000,
    done_retention  INTEGER NOT NULL DEFAULT 604800000000,
    dead_retention  INTEGER NOT NULL DEFAULT 2592000000000,
    managed_by      TEXT,
    cooldown_until  INTEGER,  -- no job starts before
    throttles       INTEGER NOT NULL DEFAULT 0  -- how often in a row
);

-- +1 with every change of configuration, so that a worker that hears nothing has one number to look at.
CREATE TABLE revision (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    revision INTEGER NOT NULL DEFAULT 0
);

-- What handlers declare of their kinds, for jobs that others enqueue by name. Programs write it when they
-- open, if it is not there already. Null: the handler says nothing of it.
CREATE TABLE kind (
    kind         TEXT PRIMARY KEY,
    queue        TEXT,
    priority     INTEGER,
    max_attempts INTEGER,  -- 0: for ever
    timeout      REAL,  -- seconds
    codec        TEXT NOT NULL,
    title        TEXT,
    owner        TEXT,  -- who answers for it
    docs         TEXT,  -- a link
    declared_at  INTEGER NOT NULL,
    declared_by  TEXT NOT NULL
) WITHOUT ROWID;


-- Jobs

-- What was asked for: written once, never updated. AUTOINCREMENT, so that the id of a deleted job is never
-- given to another.
CREATE TABLE job (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    queue_id     INTEGER NOT NULL,
    priority     INTEGER NOT NULL CHECK (priority BETWEEN -32768 AND 32767),
    max_attempts INTEGER NOT NULL,  -- 0: for ever
    timeout      REAL,  -- seconds
    kind         TEXT NOT NULL,
    codec        TEXT NOT NULL,
    key          TEXT,
    created_at   INTEGER NOT NULL,
    payload      BLOB NOT NULL
);

-- The keys of jobs that have not ended; a row goes when its job ends.
CREATE TABLE job_key (
    kind   TEXT NOT NULL,
    key    TEXT NOT NULL,
    job_id INTEGER NOT NULL UNIQUE,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;


-- The states of a job

CREATE TABLE scheduled (
    job_id   INTEGER PRIMARY KEY,
    run_at   INTEGER NOT NULL,
    queue_id INTEGER NOT NULL,
    attempt  INTEGER NOT NULL,  -- attempts counted so far
    priority INTEGER NOT NULL,
    reason   TEXT NOT NULL CHECK (reason IN ('delayed', 'retry', 'throttled', 'rescheduled'))
);
CREATE INDEX scheduled_run_at ON scheduled (run_at);
-- What is due soon in one queue, however much waits in the others.
CREATE INDEX scheduled_queue ON scheduled (queue_id, run_at);

-- The hot table is its own index, whose order is the order of claims. There is no index by job: one that has
-- been ready since it was made has pos = created_at, the others are found by a scan of their queue and priority.
CREATE TABLE ready (
    job_id   INTEGER NOT NULL,
    pos      INTEGER NOT NULL,  -- when it became ready
    queue_id INTEGER NOT NULL,
    attempt  INTEGER NOT NULL,  -- attempts counted so far
    priority INTEGER NOT NULL,
    PRIMARY KEY (queue_id, priority, pos, job_id)
) WITHOUT ROWID;

CREATE TABLE claimed (
    job_id              INTEGER PRIMARY KEY,
    worker_id           INTEGER NOT NULL,
    claimed_at          INTEGER NOT NULL,
    cancel_requested_at INTEGER,
    attempt             INTEGER NOT NULL,  -- this one included
    queue_id            INTEGER NOT NULL
);
CREATE INDEX claimed_cancel ON claimed (worker_id) WHERE cancel_requested_at IS NOT NULL;

CREATE TABLE finished (
    job_id      INTEGER PRIMARY KEY,
    worker_id   INTEGER,  -- null: it never ran
    started_at  INTEGER,
    finished_at INTEGER NOT NULL,
    queue_id    INTEGER NOT NULL,
    attempt     INTEGER NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('done', 'dead')),
    error       TEXT,
    result      BLOB
);
CREATE INDEX finished_sweep ON finished (queue_id, state, finished_at);


-- What is kept of attempts, and how many jobs there are

-- The errors of a job, the newest 32.
CREATE TABLE failure (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id    INTEGER NOT NULL,
    attempt   INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    worker_id INTEGER,
    error     TEXT NOT NULL
);
CREATE INDEX failure_job ON failure (job_id, id);

-- How many jobs of a queue each state holds: one row a queue, since one writer never waits for another here.
-- Every move adds its batch; triggers for each row would cost a third of the speed.
CREATE TABLE tally (
    queue_id    INTEGER PRIMARY KEY REFERENCES queue ON DELETE CASCADE,
    pending     INTEGER NOT NULL DEFAULT 0,
    scheduled   INTEGER NOT NULL DEFAULT 0,
    in_progress INTEGER NOT NULL DEFAULT 0,
    done        INTEGER NOT NULL DEFAULT 0,
    dead        INTEGER NOT NULL DEFAULT 0
);
CREATE TRIGGER queue_tally AFTER INSERT ON queue BEGIN
    INSERT INTO tally (queue_id) VALUES (NEW.id);
END;


-- Workers

CREATE TABLE worker (
    id                INTEGER PRIMARY KEY,  -- random, never used twice
    label             TEXT NOT NULL,
    host              TEXT NOT NULL,
    pid               INTEGER NOT NULL,
    version           TEXT NOT NULL,
    -- where an operator runs it: the pool, the version of the pool, the pod
    pool              TEXT,
    version_id        TEXT,
    pod               TEXT,
    queues            TEXT NOT NULL,
    kinds             TEXT NOT NULL,
    concurrency       INTEGER NOT NULL,
    draining          INTEGER NOT NULL DEFAULT 0,
    cordoned          INTEGER NOT NULL DEFAULT 0,
    observed_revision INTEGER NOT NULL DEFAULT 0,  -- of its version's control; -1: cordoned, or not any more
    started_at        INTEGER NOT NULL,
    -- as it said at its last beat
    beat_at           INTEGER NOT NULL,
    era               INTEGER,  -- in which it knows all of its claims; null: it has not said yet
    ailment           TEXT,  -- what keeps it from its work; null: nothing
    succeeded         INTEGER NOT NULL DEFAULT 0,
    failed            INTEGER NOT NULL DEFAULT 0,
    run_seconds       REAL NOT NULL DEFAULT 0,
    record            TEXT NOT NULL DEFAULT '{}',  -- what its attempts came to, by name
    -- what only the worker knows, for whoever asks why a job does not end
    stuck             TEXT NOT NULL DEFAULT '[]',  -- jobs whose handlers go on though they were told to stop
    adrift            TEXT NOT NULL DEFAULT '[]'  -- jobs that are the worker's and that it does not run
);
CREATE INDEX worker_of_version ON worker (pool, version_id);

-- The labels of workers, which stay when they are gone, so that history can be read and a claim leads to
-- its version.
CREATE TABLE worker_label (
    worker_id  INTEGER PRIMARY KEY,
    label      TEXT NOT NULL,
    at         INTEGER NOT NULL,
    pool       TEXT,
    version_id TEXT
);

-- Workers that wait for work of a queue and want to be told. Not used here, where telling costs nothing.
CREATE TABLE idle (
    queue_id  INTEGER NOT NULL,
    worker_id INTEGER NOT NULL,
    PRIMARY KEY (queue_id, worker_id)
) WITHOUT ROWID;

-- What commits have told, the last of them, each thing once: other processes on the file read here what
-- concerns them. Numbers grow; the table is small, so it has no index by them.
CREATE TABLE notice (
    kind    TEXT NOT NULL,
    subject TEXT NOT NULL,
    number  INTEGER NOT NULL,
    PRIMARY KEY (kind, subject)
) WITHOUT ROWID;

-- An era of the database: a stretch of its history that nothing has cut, as a restore from a backup does.
CREATE TABLE era (
    one    INTEGER PRIMARY KEY DEFAULT 1 CHECK (one = 1),
    number INTEGER NOT NULL  -- random
) STRICT;

-- The worker that leads. Each of its writes names the epoch.
CREATE TABLE leader (
    one       INTEGER PRIMARY KEY CHECK (one = 1),
    worker_id INTEGER,
    epoch     INTEGER NOT NULL,
    until     INTEGER NOT NULL
);


-- Versions of worker pools

-- The gates that let workers claim. An operator writes them; without one there are none, and all are open.
CREATE TABLE worker_version (
    pool             TEXT NOT NULL,  -- the uid of its owner
    id               TEXT NOT NULL,
    version          TEXT NOT NULL,
    deployment       TEXT NOT NULL,
    spec_hash        TEXT NOT NULL,
    state            TEXT NOT NULL CHECK (
        state IN ('pending', 'ramping', 'current', 'draining', 'drained', 'retired', 'failed')),
    weight_percent   INTEGER NOT NULL CHECK (weight_percent BETWEEN 0 AND 100),
    control_revision INTEGER NOT NULL,  -- +1 with every change of state; workers acknowledge it
    -- what its workers serve and handle, known also while it sleeps. Its owner says the queues, its workers say
    -- both when they register. Null: nobody has yet.
    queues           TEXT,
    kinds            TEXT,
    created_at       INTEGER NOT NULL,
    state_changed_at INTEGER NOT NULL,  -- also with a new weight
    ramping_since    INTEGER,  -- while it has a share
    last_current_at  INTEGER,
    drain_started_at INTEGER,
    drained_at       INTEGER,
    record           TEXT NOT NULL DEFAULT '{}',  -- what the attempts of its workers that are gone came to
    baseline         TEXT,  -- the record of all versions of the pool, when this one got its present share
    failure_message  TEXT,  -- why it failed
    PRIMARY KEY (pool, id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX worker_version_current ON worker_version (pool) WHERE state = 'current';

-- The operator that writes versions.
CREATE TABLE operator (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    holder TEXT NOT NULL,
    epoch  INTEGER NOT NULL
);


-- Limits over all workers

-- One row for each job that a queue with a concurrency may have in progress.
CREATE TABLE slot (
    queue_id  INTEGER NOT NULL REFERENCES queue ON DELETE CASCADE,
    number    INTEGER NOT NULL,  -- from 1
    worker_id INTEGER,  -- null: free
    PRIMARY KEY (queue_id, number)
) WITHOUT ROWID;

CREATE TABLE rate_limit (
    scope       TEXT PRIMARY KEY,
    capacity    REAL NOT NULL CHECK (capacity > 0),
    refill      REAL NOT NULL CHECK (refill >= 0),  -- tokens per second
    tokens      REAL NOT NULL,
    refilled_at INTEGER NOT NULL,
    generation  INTEGER NOT NULL DEFAULT 0,  -- +1 when it is emptied; tokens leased before are not given back
    emptied_at  INTEGER,
    managed_by  TEXT
);


-- Crons

CREATE TABLE cron (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    name          TEXT NOT NULL UNIQUE,
    expression    TEXT NOT NULL,
    timezone      TEXT NOT NULL,
    enabled       INTEGER NOT NULL,
    kind          TEXT NOT NULL,
    payload       BLOB NOT NULL,
    codec         TEXT NOT NULL,
    -- Queue and priority may be left to the kind. Then these are what the kind has now, so that they can be
    -- read alone.
    queue_id      INTEGER NOT NULL REFERENCES queue,
    queue_said    INTEGER NOT NULL DEFAULT 1,
    priority      INTEGER NOT NULL CHECK (priority BETWEEN -32768 AND 32767),
    priority_said INTEGER NOT NULL DEFAULT 1,
    max_attempts  INTEGER,  -- null: the queue's
    timeout       REAL,  -- seconds
    overlap       INTEGER NOT NULL,
    missed        TEXT NOT NULL CHECK (missed IN ('skip', 'latest', 'all')),
    missed_limit  INTEGER NOT NULL CHECK (missed_limit > 0),
    managed_by    TEXT,
    next_fire_at  INTEGER,
    last_fire_at  INTEGER,
    last_error    TEXT,
    skipped       INTEGER NOT NULL DEFAULT 0
);

-- One job for each fire time, whoever fires.
CREATE TABLE fire (
    cron_id INTEGER NOT NULL REFERENCES cron ON DELETE CASCADE,
    fire_at INTEGER NOT NULL,
    job_id  INTEGER NOT NULL,
    PRIMARY KEY (cron_id, fire_at)
) WITHOUT ROWID;


-- Views

-- For people and other tools: every job with its state. A queue that is being deleted has a name that nobody
-- looks for, and nobody should see: 'deleting:', its id, ':' and the name that it had. Its jobs are shown
-- under that.
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

-- The kinds for which those who serve a queue have handlers: workers that may claim, and versions that may,
-- awake or not. A queue of which that is not known is left out: nobody serves it, or a version that is to
-- serve it has had no worker yet, and may have any handler.
CREATE VIEW handled AS
WITH serving AS (
    SELECT worker.queues, worker.kinds
    FROM worker
    LEFT JOIN worker_version AS version ON version.pool = worker.pool AND version.id = worker.version_id
    WHERE NOT worker.draining AND NOT worker.cordoned AND worker.kinds <> '[]'
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


-- What is there from the first moment

INSERT INTO revision (one) VALUES (1);
INSERT INTO queue (name) VALUES ('default');
