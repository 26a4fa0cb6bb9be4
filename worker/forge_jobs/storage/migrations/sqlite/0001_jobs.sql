-- A job's state is the table that its id is in: scheduled, ready, claimed or finished.
-- Moments are microseconds since the epoch, durations microseconds, unless a line says otherwise.

CREATE TABLE queue (
    id              INTEGER PRIMARY KEY,
    name            TEXT NOT NULL UNIQUE
        CHECK (name <> '' AND length(name) <= 128 AND instr(name, ',') = 0
               AND name NOT GLOB '*[' || char(9, 10, 11, 12, 13, 32) || ']*'),
    concurrency     INTEGER CHECK (concurrency >= 0),
    paused          INTEGER NOT NULL DEFAULT 0,
    backoff_enabled INTEGER NOT NULL DEFAULT 1,
    backoff_base    INTEGER NOT NULL DEFAULT 10000000,
    backoff_max     INTEGER NOT NULL DEFAULT 1800000000,
    max_attempts    INTEGER NOT NULL DEFAULT 5 CHECK (max_attempts >= 0),
    done_retention  INTEGER NOT NULL DEFAULT 604800000000,
    dead_retention  INTEGER NOT NULL DEFAULT 2592000000000,
    managed_by      TEXT,
    cooldown_until  INTEGER,
    throttles       INTEGER NOT NULL DEFAULT 0
);

-- +1 with every change of configuration, so that a worker that hears nothing can look at one number
CREATE TABLE revision (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    revision INTEGER NOT NULL DEFAULT 0
);

-- What was asked for; written once, never updated. AUTOINCREMENT, so that the id of a
-- deleted job is never given to another.
CREATE TABLE job (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    queue_id     INTEGER NOT NULL,
    priority     INTEGER NOT NULL CHECK (priority BETWEEN -32768 AND 32767),
    max_attempts INTEGER NOT NULL,
    timeout      REAL,  -- seconds
    kind         TEXT NOT NULL,
    codec        TEXT NOT NULL,
    key          TEXT,
    created_at   INTEGER NOT NULL,
    payload      BLOB NOT NULL
);

-- living keys; a row goes when its job ends
CREATE TABLE job_key (
    kind   TEXT NOT NULL,
    key    TEXT NOT NULL,
    job_id INTEGER NOT NULL UNIQUE,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;

CREATE TABLE scheduled (
    job_id   INTEGER PRIMARY KEY,
    run_at   INTEGER NOT NULL,
    queue_id INTEGER NOT NULL,
    attempt  INTEGER NOT NULL,  -- attempts counted so far
    priority INTEGER NOT NULL,
    reason   TEXT NOT NULL CHECK (reason IN ('delayed', 'retry', 'throttled', 'rescheduled'))
);
CREATE INDEX scheduled_run_at ON scheduled (run_at);

-- The hot table is its own claim index. No index by job: a job that was never delayed has
-- pos = created_at, all others are found by a scan of their class.
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

-- error history, the newest 32 of each job
CREATE TABLE failure (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id    INTEGER NOT NULL,
    attempt   INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    worker_id INTEGER,
    error     TEXT NOT NULL
);
CREATE INDEX failure_job ON failure (job_id, id);

-- How many jobs of a queue each state holds: one row a queue, since one writer never waits
-- for another here. Every move adds its batch; triggers for each row cost a third of the speed.
CREATE TABLE tally (
    queue_id    INTEGER PRIMARY KEY REFERENCES queue ON DELETE CASCADE,
    pending     INTEGER NOT NULL DEFAULT 0,
    scheduled   INTEGER NOT NULL DEFAULT 0,
    in_progress INTEGER NOT NULL DEFAULT 0,
    done        INTEGER NOT NULL DEFAULT 0,
    dead        INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE worker (
    id          INTEGER PRIMARY KEY,  -- random, never used twice
    label       TEXT NOT NULL,
    host        TEXT NOT NULL,
    pid         INTEGER NOT NULL,
    version     TEXT NOT NULL,
    queues      TEXT NOT NULL,  -- a JSON array
    kinds       TEXT NOT NULL,  -- a JSON array
    concurrency INTEGER NOT NULL,
    draining    INTEGER NOT NULL DEFAULT 0,
    started_at  INTEGER NOT NULL,
    beat_at     INTEGER NOT NULL
);

-- The labels of workers that are gone, so that history stays readable.
CREATE TABLE worker_label (
    worker_id INTEGER PRIMARY KEY,
    label     TEXT NOT NULL,
    at        INTEGER NOT NULL
);

-- one row for each job that a queue with a concurrency may have in progress
CREATE TABLE slot (
    queue_id  INTEGER NOT NULL REFERENCES queue ON DELETE CASCADE,
    number    INTEGER NOT NULL,  -- from 1
    worker_id INTEGER,  -- null: free
    PRIMARY KEY (queue_id, number)
) WITHOUT ROWID;

-- workers that wait for work of a queue and want to be told; not used here, where telling costs nothing
CREATE TABLE idle (
    queue_id  INTEGER NOT NULL,
    worker_id INTEGER NOT NULL,
    PRIMARY KEY (queue_id, worker_id)
) WITHOUT ROWID;

CREATE TABLE leader (
    one       INTEGER PRIMARY KEY CHECK (one = 1),
    worker_id INTEGER,
    epoch     INTEGER NOT NULL,
    until     INTEGER NOT NULL
);

CREATE TABLE cron (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    name         TEXT NOT NULL UNIQUE,
    expression   TEXT NOT NULL,
    timezone     TEXT NOT NULL,
    kind         TEXT NOT NULL,
    payload      BLOB NOT NULL,
    codec        TEXT NOT NULL,
    queue_id     INTEGER NOT NULL REFERENCES queue,
    priority     INTEGER NOT NULL CHECK (priority BETWEEN -32768 AND 32767),
    max_attempts INTEGER,  -- null: the queue's
    timeout      REAL,  -- seconds
    overlap      INTEGER NOT NULL,
    missed       TEXT NOT NULL CHECK (missed IN ('skip', 'latest', 'all')),
    missed_limit INTEGER NOT NULL CHECK (missed_limit > 0),
    enabled      INTEGER NOT NULL,
    managed_by   TEXT,
    next_fire_at INTEGER,
    last_fire_at INTEGER,
    last_error   TEXT,
    skipped      INTEGER NOT NULL DEFAULT 0
);

-- one job for each fire time, whoever fires
CREATE TABLE fire (
    cron_id INTEGER NOT NULL REFERENCES cron ON DELETE CASCADE,
    fire_at INTEGER NOT NULL,
    job_id  INTEGER NOT NULL,
    PRIMARY KEY (cron_id, fire_at)
) WITHOUT ROWID;

CREATE TABLE rate_limit (
    scope       TEXT PRIMARY KEY,
    capacity    REAL NOT NULL CHECK (capacity > 0),
    refill      REAL NOT NULL CHECK (refill >= 0),  -- tokens per second
    tokens      REAL NOT NULL,
    refilled_at INTEGER NOT NULL,
    generation  INTEGER NOT NULL DEFAULT 0,
    drained_at  INTEGER,
    managed_by  TEXT
);

CREATE TRIGGER queue_tally AFTER INSERT ON queue BEGIN
    INSERT INTO tally (queue_id) VALUES (NEW.id);
END;

INSERT INTO revision (one) VALUES (1);
INSERT INTO queue (name) VALUES ('default');

-- For people and other tools: every job with its state.
CREATE VIEW jobs AS
SELECT job.id, queue.name AS queue, job.kind,
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
