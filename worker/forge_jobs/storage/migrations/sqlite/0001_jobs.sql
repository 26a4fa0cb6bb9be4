-- The tables of forge-jobs in SQLite, in the order in which they are best read.
--
-- The state of a job is the table that holds its id: scheduled, blocked, waiting, ready, claimed or finished. What was enqueued
-- is in `job`, whose rows are written once, unless a waiting job is replaced. When a job changes its state, one
-- transaction deletes a narrow row from one table and inserts one into another.
--
-- Unless a comment says otherwise, durations are in microseconds, moments are in microseconds since the epoch, and
-- lists and records are JSON. Unlike PostgreSQL, SQLite has no function `enqueue` and no views of counts here,
-- because every program that opens the file has the library.


-- Queues

CREATE TABLE queue (
    id              INTEGER PRIMARY KEY,
    name            TEXT NOT NULL UNIQUE
        CHECK (name <> '' AND length(name) <= 128 AND instr(name, ',') = 0
               AND name NOT GLOB '*[' || char(9, 10, 11, 12, 13, 32) || ']*'),
    paused          INTEGER NOT NULL DEFAULT 0,
    paused_until    INTEGER,  -- when the pause ends; null: when somebody ends it
    pause_reason    TEXT,  -- in the words of whoever paused it
    concurrency     INTEGER CHECK (concurrency >= 0),  -- null: no limit
    rate_limit      TEXT,  -- the scope of the rate limit from which each start takes a token; it need not exist
    group_limit     INTEGER CHECK (group_limit >= 1),  -- of groups of its jobs whose limit nobody has said; null: 1
    age_after       INTEGER CHECK (age_after > 0),  -- a job rises each time it has been pending so long; null: none does
    -- the defaults for jobs that do not set their own
    max_attempts    INTEGER NOT NULL DEFAULT 5 CHECK (max_attempts >= 0),  -- 0: no limit
    timeout         INTEGER CHECK (timeout > 0),
    backoff_enabled INTEGER NOT NULL DEFAULT 1,
    backoff_base    INTEGER NOT NULL DEFAULT 10000000,
    backoff_max     INTEGER NOT NULL DEFAULT 1800000000,
    done_retention  INTEGER NOT NULL DEFAULT 604800000000,
    dead_retention  INTEGER NOT NULL DEFAULT 2592000000000,
    managed_by      TEXT,
    cooldown_until  INTEGER,  -- no job starts before this moment
    throttles       INTEGER NOT NULL DEFAULT 0,  -- how many times in a row the queue was throttled
    CHECK (paused OR (paused_until IS NULL AND pause_reason IS NULL))
);

-- One number that grows by 1 with every change of the configuration, so that a worker that receives no notifications
-- can see that something has changed. And which database this is, so that a callback token of another one is known: a copy,
-- and one that was restored, are the same.
CREATE TABLE revision (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    revision INTEGER NOT NULL DEFAULT 0,
    origin   TEXT NOT NULL DEFAULT (lower(hex(randomblob(8))))
);

-- The options that handlers declare for their kinds, so that they also hold for jobs that are enqueued by name. A
-- program writes them when it opens the database, unless they are there already. Null: the handler does not set the
-- option.
CREATE TABLE kind (
    kind         TEXT PRIMARY KEY,
    queue        TEXT,
    priority     INTEGER,
    max_attempts INTEGER,  -- 0: no limit
    timeout      REAL,  -- seconds
    codec        TEXT NOT NULL,
    title        TEXT,
    owner        TEXT,  -- who is responsible for the handler
    docs         TEXT,  -- a link to its documentation
    start_by     REAL,  -- seconds, from when a job is due
    deadline     REAL,  -- seconds, from when a job is due
    on_lost      TEXT,  -- what becomes of a job whose worker was lost: retry (as null), refund or dead
    redact       TEXT,  -- JSON: what nobody is shown of its jobs: true, everything, or names of entries; null: nothing
    most_bytes   INTEGER,  -- that a payload may have to which items are added; null: 1 MiB
    sealed       INTEGER NOT NULL DEFAULT 0,  -- whether jobs may have no other codec
    slots        INTEGER CHECK (slots > 1),  -- how many slots of its worker a job takes; null: one
    unpublished  TEXT,  -- what its handler says of each job, and whoever enqueues by name has to say: 'group,unique'; null: nothing
    declared_at  INTEGER NOT NULL,
    declared_by  TEXT NOT NULL
) WITHOUT ROWID;

-- The kinds that are paused, whether anybody declares them or not.
CREATE TABLE paused_kind (
    kind      TEXT PRIMARY KEY,
    until     INTEGER,  -- when the pause ends; null: when somebody ends it
    reason    TEXT,  -- in the words of whoever paused it
    paused_at INTEGER NOT NULL
) WITHOUT ROWID;


-- Jobs

-- The jobs as they were enqueued. A row is updated only when somebody replaces the job while it waits, moves it to
-- another queue or priority, or when it rises, and once, when its handler saves a state, does a step or reports progress
-- for the first time. Because of AUTOINCREMENT the id of a deleted job is never given to another job.
CREATE TABLE job (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    queue_id     INTEGER NOT NULL,
    priority     INTEGER NOT NULL CHECK (priority BETWEEN -32768 AND 32767),
    max_attempts INTEGER NOT NULL,  -- 0: no limit
    timeout      REAL,  -- seconds
    kind         TEXT NOT NULL,
    codec        TEXT NOT NULL,
    key          TEXT,
    created_at   INTEGER NOT NULL,
    -- what a job is linked to, so that its end concerns others; null, as for nearly all jobs: nothing
    -- the sum of 1: groups, 2: time limits, 4: its handler has saved a state, done a step or reported progress, 8: a tenant, 32: a flow,
    -- 128: a version of the program
    links        INTEGER,
    groups       TEXT,  -- the names of its groups, and what it says of each
    tags         TEXT,  -- null: none
    rerun_of     INTEGER,  -- the job that it runs again, which may be gone; null: none
    asked_priority INTEGER,  -- what was asked for, where `priority` has risen since; null: it has not
    tenant       TEXT,  -- on whose behalf it is; null: nobody's
    meta         TEXT,  -- JSON: what plugins of the program that enqueued it send along; null: nothing
    replaced     INTEGER,  -- how many times another job took its place, with its id; null: never
    -- The last column: a large one is continued on pages of its own, which have to be read for each column behind it.
    payload      BLOB NOT NULL
);
CREATE INDEX job_rerun ON job (rerun_of) WHERE rerun_of IS NOT NULL;

-- The tags of jobs, so that the jobs with one are found, in the order of their ids.
CREATE TABLE job_tag (
    tag    TEXT NOT NULL,
    job_id INTEGER NOT NULL,
    PRIMARY KEY (tag, job_id)
) WITHOUT ROWID;

-- The keys of jobs that have not ended. A row is deleted when its job ends. Each waiting job that has a key has a row
-- here. A running job loses it to the one that replaces it: then it is superseded, and does not wait again.
CREATE TABLE job_key (
    kind   TEXT NOT NULL,
    key    TEXT NOT NULL,
    job_id INTEGER NOT NULL UNIQUE,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;

-- For a time, no other job of the kind with the same fingerprint is enqueued, whether the job has ended or not. A row is
-- deleted when its job is deleted by somebody, and some time after it has expired.
CREATE TABLE unique_hold (
    kind        TEXT NOT NULL,
    fingerprint BLOB NOT NULL,  -- of what the job says
    since       INTEGER NOT NULL,
    until       INTEGER NOT NULL,
    job_id      INTEGER NOT NULL UNIQUE,
    PRIMARY KEY (kind, fingerprint)
) WITHOUT ROWID;
CREATE INDEX unique_hold_until ON unique_hold (until);

-- The time limits of jobs that have not ended. The leader ends the jobs whose time is over. A row goes when its job ends.
CREATE TABLE time_limit (
    job_id   INTEGER PRIMARY KEY,
    start_by INTEGER,  -- null: none, or it was begun
    deadline INTEGER,  -- null: none
    look_at  INTEGER NOT NULL  -- when the leader has to look at it
);
CREATE INDEX time_limit_look ON time_limit (look_at);

-- What handlers have saved of their jobs, for the next attempt. Jobs with a row here, in `progress`, `step` or `signal` have
-- 4 in their `links`; triggers on `job` delete the rows when the job is gone, or is replaced by another one.
CREATE TABLE saved_state (
    job_id INTEGER PRIMARY KEY,
    state  BLOB,  -- as the codec of the job writes it; null: none was saved
    result BLOB  -- the result of the job where its handler returns none; null: none was set
);

-- What handlers have saved for a key: each job of the kind with this key may go on from there, one after the other. It stays
-- until a handler takes it away.
CREATE TABLE key_state (
    kind  TEXT NOT NULL,
    key   TEXT NOT NULL,
    codec TEXT NOT NULL,  -- of the job that saved it
    state BLOB NOT NULL,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;

-- How far jobs are, as their handlers have reported. The row stays when the attempt has ended.
CREATE TABLE progress (
    job_id  INTEGER PRIMARY KEY,
    attempt INTEGER NOT NULL,  -- the one that reported it
    share   REAL NOT NULL CHECK (share BETWEEN 0 AND 1),  -- of the work, that is done
    note    TEXT,
    at      INTEGER NOT NULL
);

-- The steps of jobs that were done: later attempts do not do them again. A row is written once; only that of a sleep is changed,
-- when somebody wakes its job, and that of a wait, when it ends.
CREATE TABLE step (
    job_id  INTEGER NOT NULL,
    number  INTEGER NOT NULL,  -- how many steps the handler had come to with this one; of a patch, that of the step after it
    serial  INTEGER,  -- its place among the steps that the handler does one after the other; null: it was done beside them
    name    TEXT NOT NULL,
    sort    TEXT NOT NULL CHECK (sort IN ('step', 'sleep', 'patch', 'wait')),
    attempt INTEGER NOT NULL,  -- the one that did it
    at      INTEGER NOT NULL,
    result  BLOB,  -- as the codec of the job writes it; null: None
    until   INTEGER,  -- when a sleep ends, or a wait that nothing has ended before; null: it is neither, or has no timeout
    -- of a wait
    signals  TEXT,  -- a JSON list: which signals end it; null: none
    for_job  INTEGER,  -- the job whose end ends it; null: none
    ended_at INTEGER,  -- null: it lasts
    signal   TEXT,  -- which signal has ended it, or how the job had ended; null: its timeout did
    codec    TEXT,  -- of its result; null: that of the job
    done_by  INTEGER,  -- the job that did it, which this one runs again; null: this one
    PRIMARY KEY (job_id, name)
);

-- The signals that were sent to jobs that had not ended. One is kept until a wait takes it, and says then which. It goes with its
-- job.
CREATE TABLE signal (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id INTEGER NOT NULL,
    name   TEXT NOT NULL,
    value  BLOB,  -- null: none, or it is the result of the wait now
    codec  TEXT NOT NULL,
    at     INTEGER NOT NULL,
    token  TEXT,  -- by which callback token it was sent; null: by none
    step   TEXT  -- the wait that has taken it; null: none has
);
CREATE INDEX signal_job ON signal (job_id, name);

-- The versions of the program that have to go on with jobs which they have begun. Such a job has 128 in its `links`. A row goes
-- when its job ends, is deleted or is replaced.
CREATE TABLE pin (
    job_id     INTEGER PRIMARY KEY,
    version    TEXT NOT NULL,  -- as the worker said that began the job
    pool       TEXT,  -- of that worker, where an operator runs it
    version_id TEXT,
    at         INTEGER NOT NULL
);
CREATE INDEX pin_version ON pin (version_id, version);

CREATE TRIGGER job_gone AFTER DELETE ON job WHEN OLD.links & 132 BEGIN
    DELETE FROM saved_state WHERE job_id = OLD.id;
    DELETE FROM progress WHERE job_id = OLD.id;
    DELETE FROM step WHERE job_id = OLD.id;
    DELETE FROM signal WHERE job_id = OLD.id;
    DELETE FROM pin WHERE job_id = OLD.id;
END;
CREATE TRIGGER job_replaced AFTER UPDATE OF links ON job WHEN OLD.links & 132 AND NOT coalesce(NEW.links & 132, 0) BEGIN
    DELETE FROM saved_state WHERE job_id = OLD.id;
    DELETE FROM progress WHERE job_id = OLD.id;
    DELETE FROM step WHERE job_id = OLD.id;
    DELETE FROM signal WHERE job_id = OLD.id;
    DELETE FROM pin WHERE job_id = OLD.id;
END;


-- The states of a job

CREATE TABLE scheduled (
    job_id   INTEGER PRIMARY KEY,
    run_at   INTEGER NOT NULL,
    queue_id INTEGER NOT NULL,
    attempt  INTEGER NOT NULL,  -- the number of attempts that counted so far
    priority INTEGER NOT NULL,
    reason   TEXT NOT NULL CHECK (reason IN ('delayed', 'retry', 'throttled', 'rescheduled', 'sleeping', 'unreadable')),
    links    INTEGER  -- as in `job`
);
CREATE INDEX scheduled_run_at ON scheduled (run_at);
-- Finds the jobs of one queue that are due soon, however many jobs wait in other queues.
CREATE INDEX scheduled_queue ON scheduled (queue_id, run_at);

-- Jobs that wait for a place in a group, or for other nodes of their flow. One with groups stands in the line of one of
-- them that has none.
CREATE TABLE blocked (
    job_id   INTEGER PRIMARY KEY,
    group_id INTEGER,  -- in whose line it stands; null: in none, it waits for other nodes
    pos      INTEGER NOT NULL,  -- since when
    queue_id INTEGER NOT NULL,
    attempt  INTEGER NOT NULL,  -- the number of attempts that counted so far
    priority INTEGER NOT NULL,
    groups   TEXT  -- all of its groups; null: the one in whose line it stands
);
CREATE INDEX blocked_line ON blocked (group_id, priority, pos, job_id);

-- Jobs whose handlers wait for a signal, or for the end of another job.
CREATE TABLE waiting (
    job_id   INTEGER PRIMARY KEY,
    queue_id INTEGER NOT NULL,
    attempt  INTEGER NOT NULL,  -- the number of attempts that counted so far
    step     TEXT NOT NULL,  -- the wait
    until    INTEGER,  -- as in `step`
    for_job  INTEGER  -- as in `step`
);
CREATE INDEX waiting_until ON waiting (until) WHERE until IS NOT NULL;
CREATE INDEX waiting_for_job ON waiting (for_job) WHERE for_job IS NOT NULL;

-- The busiest table is its own index, which is in the order of claims. There is no index on job_id: a job that has
-- been ready since it was enqueued is found by pos = created_at, and any other by a scan of its queue and priority.
CREATE TABLE ready (
    job_id   INTEGER NOT NULL,
    pos      INTEGER NOT NULL,  -- when the job became ready, or, of one that has a tenant, when its turn comes
    queue_id INTEGER NOT NULL,
    attempt  INTEGER NOT NULL,  -- the number of attempts that counted so far
    priority INTEGER NOT NULL,
    since    INTEGER,  -- when the job became ready, where pos does not say it; null: pos says it
    PRIMARY KEY (queue_id, priority, pos, job_id)
) WITHOUT ROWID;

CREATE TABLE claimed (
    job_id              INTEGER PRIMARY KEY,
    worker_id           INTEGER NOT NULL,
    claimed_at          INTEGER NOT NULL,
    cancel_requested_at INTEGER,
    attempt             INTEGER NOT NULL,  -- including the one that runs
    queue_id            INTEGER NOT NULL
);
CREATE INDEX claimed_cancel ON claimed (worker_id) WHERE cancel_requested_at IS NOT NULL;

CREATE TABLE finished (
    job_id      INTEGER PRIMARY KEY,
    worker_id   INTEGER,  -- null: the job never ran
    started_at  INTEGER,
    finished_at INTEGER NOT NULL,
    queue_id    INTEGER NOT NULL,
    attempt     INTEGER NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('done', 'dead', 'expired')),
    error       TEXT,
    result      BLOB
);
CREATE INDEX finished_sweep ON finished (queue_id, state, finished_at);


-- Failed attempts, and the counts of jobs

-- The newest 32 errors of each job.
CREATE TABLE failure (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id    INTEGER NOT NULL,
    attempt   INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    worker_id INTEGER,
    error     TEXT NOT NULL
);
CREATE INDEX failure_job ON failure (job_id, id);

-- What people have done by hand, to jobs and to what else there is, written by what did it. A row stays with its job, at most for
-- a year, and others for the longest time that any queue keeps its dead jobs.
CREATE TABLE intervention (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id       INTEGER,  -- null: it was done to something else than a job
    at           INTEGER NOT NULL,
    what         TEXT NOT NULL,
    by_whom      TEXT NOT NULL,  -- as that program said
    role         TEXT,  -- of a server: null
    was          TEXT,  -- the state of the job before; null: not known
    becomes      TEXT,  -- its state after; null: it is gone, or not known
    operation_id INTEGER,  -- of which it was a part; null: of none
    subject      TEXT,  -- to what else it was done, like "queue mail" or "flow 7"; null: to the job
    note         TEXT  -- what else is known; null: nothing
);
CREATE INDEX intervention_subject ON intervention (subject, id) WHERE subject IS NOT NULL;
CREATE INDEX intervention_job ON intervention (job_id, id);
CREATE INDEX intervention_at ON intervention (at);

-- How many jobs of each queue are in each state. One row per queue is enough, because SQLite has only one writer at a
-- time. Whatever moves jobs adds the numbers of its whole batch: triggers for each row would cost a third of the
-- speed.
CREATE TABLE tally (
    queue_id    INTEGER PRIMARY KEY REFERENCES queue ON DELETE CASCADE,
    pending     INTEGER NOT NULL DEFAULT 0,
    scheduled   INTEGER NOT NULL DEFAULT 0,
    in_progress INTEGER NOT NULL DEFAULT 0,
    done        INTEGER NOT NULL DEFAULT 0,
    dead        INTEGER NOT NULL DEFAULT 0,
    blocked     INTEGER NOT NULL DEFAULT 0,
    expired     INTEGER NOT NULL DEFAULT 0,
    waiting     INTEGER NOT NULL DEFAULT 0
);
CREATE TRIGGER queue_tally AFTER INSERT ON queue BEGIN
    INSERT INTO tally (queue_id) VALUES (NEW.id);
END;

-- What processes have counted of the attempts that ended in a minute, handed in once by each. The leader adds it to
-- `minute_statistic`; a row stays for an hour after that, so that nothing that is handed in again is added twice.
CREATE TABLE handed_in (
    process INTEGER NOT NULL,  -- random
    number  INTEGER NOT NULL,  -- of the minutes that the process has handed in
    queue   TEXT NOT NULL,
    kind    TEXT NOT NULL,
    minute  INTEGER NOT NULL,
    counts  TEXT NOT NULL,  -- by name: outcomes, and buckets of how long jobs waited and ran
    added   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (process, number, queue, kind)
) WITHOUT ROWID;
CREATE INDEX handed_in_minute ON handed_in (added, minute);

-- The same, of all processes together, for 30 days.
CREATE TABLE minute_statistic (
    minute INTEGER NOT NULL,
    queue  TEXT NOT NULL,
    kind   TEXT NOT NULL,
    counts TEXT NOT NULL,
    PRIMARY KEY (minute, queue, kind)
) WITHOUT ROWID;


-- Workers

CREATE TABLE worker (
    id                INTEGER PRIMARY KEY,  -- random, never used again
    label             TEXT NOT NULL,
    host              TEXT NOT NULL,
    pid               INTEGER NOT NULL,
    version           TEXT NOT NULL,
    -- where an operator runs the worker: the pool, the version of the pool and the pod
    pool              TEXT,
    version_id        TEXT,
    pod               TEXT,
    queues            TEXT NOT NULL,
    kinds             TEXT NOT NULL,
    concurrency       INTEGER NOT NULL,
    crons             TEXT NOT NULL DEFAULT '{}',  -- what its handlers declare of crons, as text by the name: a JSON object
    draining          INTEGER NOT NULL DEFAULT 0,
    cordoned          INTEGER NOT NULL DEFAULT 0,
    observed_revision INTEGER NOT NULL DEFAULT 0,  -- last control_revision that it followed; -1: cordoned changed since
    started_at        INTEGER NOT NULL,
    -- as the worker said with its last heartbeat
    beat_at           INTEGER NOT NULL,
    era               INTEGER,  -- the era in which the worker knows all of its claims; null: not said yet
    ailment           TEXT,  -- what keeps the worker from working; null: nothing
    succeeded         INTEGER NOT NULL DEFAULT 0,
    failed            INTEGER NOT NULL DEFAULT 0,
    run_seconds       REAL NOT NULL DEFAULT 0,
    record            TEXT NOT NULL DEFAULT '{}',  -- how its attempts ended, as counts by name
    -- what only the worker knows, and what explains why a job does not end
    stuck             TEXT NOT NULL DEFAULT '[]',  -- the jobs whose handlers go on although they were told to stop
    adrift            TEXT NOT NULL DEFAULT '[]'  -- the jobs that the worker has claimed but does not run
);
CREATE INDEX worker_of_version ON worker (pool, version_id);

-- The labels of workers. A row stays when its worker is gone, so that the history of jobs can still be read and a
-- claim can be traced to the version of its worker.
CREATE TABLE worker_label (
    worker_id  INTEGER PRIMARY KEY,
    label      TEXT NOT NULL,
    at         INTEGER NOT NULL,
    pool       TEXT,
    version_id TEXT,
    paused     INTEGER NOT NULL DEFAULT 0  -- by a user, which holds for whom its process registers as next
);

-- The workers that wait for jobs of a queue and want to be notified. SQLite does not use it, because notices cost
-- nothing here.
CREATE TABLE idle (
    queue_id  INTEGER NOT NULL,
    worker_id INTEGER NOT NULL,
    PRIMARY KEY (queue_id, worker_id)
) WITHOUT ROWID;

-- The notices for other processes that have opened the file: the latest of each kind and subject. A later notice has
-- a higher number. There is no index on the number, because the table is small.
CREATE TABLE notice (
    kind    TEXT NOT NULL,
    subject TEXT NOT NULL,
    number  INTEGER NOT NULL,
    PRIMARY KEY (kind, subject)
) WITHOUT ROWID;

-- The era of the database: the number of a stretch of its history that was not cut, as it is by a restore from a
-- backup.
CREATE TABLE era (
    one    INTEGER PRIMARY KEY DEFAULT 1 CHECK (one = 1),
    number INTEGER NOT NULL  -- random
) STRICT;

-- The worker that leads. Whatever it writes as the leader names its epoch; what an earlier epoch writes is
-- refused.
CREATE TABLE leader (
    one       INTEGER PRIMARY KEY CHECK (one = 1),
    worker_id INTEGER,
    epoch     INTEGER NOT NULL,
    until     INTEGER NOT NULL
);


-- Versions of worker pools

-- The versions of each pool, whose states are the gates that let their workers claim. Only an operator writes them.
-- Without an operator there are no gates, and all workers may claim.
CREATE TABLE worker_version (
    pool             TEXT NOT NULL,  -- the uid of the owner of the pool
    id               TEXT NOT NULL,
    version          TEXT NOT NULL,
    deployment       TEXT NOT NULL,
    spec_hash        TEXT NOT NULL,
    state            TEXT NOT NULL CHECK (
        state IN ('pending', 'ramping', 'current', 'draining', 'drained', 'retired', 'failed')),
    weight_percent   INTEGER NOT NULL CHECK (weight_percent BETWEEN 0 AND 100),
    control_revision INTEGER NOT NULL,  -- grows by 1 with every change of state; workers acknowledge it
    -- The queues that its workers serve and the kinds that they have handlers for, which are known even while no
    -- worker runs. The owner of the pool sets the queues, and workers set both when they register. Null: not set yet.
    queues           TEXT,
    kinds            TEXT,
    created_at       INTEGER NOT NULL,
    state_changed_at INTEGER NOT NULL,  -- when the state or the weight changed
    ramping_since    INTEGER,  -- since when the version has had a share; null: it has none
    last_current_at  INTEGER,
    drain_started_at INTEGER,
    drained_at       INTEGER,
    record           TEXT NOT NULL DEFAULT '{}',  -- how the attempts of its workers that are gone have ended
    baseline         TEXT,  -- the record of all versions of the pool when this one got its present share
    failure_message  TEXT,  -- why the version failed
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

-- One row for each job that a queue with a limited concurrency may have in progress.
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
    generation  INTEGER NOT NULL DEFAULT 0,  -- grows by 1 when the bucket is emptied, which voids the leased tokens
    emptied_at  INTEGER,
    managed_by  TEXT,
    -- How many tokens have flowed towards each key from the beginning to a moment; `rate_key` and `permit` measure in
    -- these, so that what is said here holds for all keys at once.
    flowed      REAL NOT NULL DEFAULT 0,
    flowed_at   INTEGER NOT NULL,
    emptied     REAL NOT NULL DEFAULT 0,  -- no bucket is full before so many have flowed
    void_to     REAL NOT NULL DEFAULT 0,  -- permits up to this number were for tokens that were emptied away
    changed_at  INTEGER,  -- when its capacity or refill changed the last time
    reset_at    INTEGER  -- when one of its keys was made full by hand the last time
);

-- The keys of a rate limit that are in use, each with a bucket of its own. A row is deleted some time after its bucket is
-- full again.
CREATE TABLE rate_key (
    scope       TEXT NOT NULL REFERENCES rate_limit ON DELETE CASCADE,
    key         TEXT NOT NULL,
    full_at     REAL NOT NULL,  -- how many tokens have flowed when all that was spent and promised is refilled
    free_to     REAL NOT NULL DEFAULT 0,  -- what was given back before others is free until so many have flowed
    reset_at    INTEGER,  -- when it was made full by hand: nothing is for it that was emptied, or given out, before
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;

-- Permits to spend tokens of a key from a moment on, for jobs that wait for one of them. Who asks for the same once more
-- gets what was kept for it.
CREATE TABLE permit (
    job_id  INTEGER NOT NULL,
    scope   TEXT NOT NULL REFERENCES rate_limit ON DELETE CASCADE,
    key     TEXT NOT NULL,
    take    INTEGER NOT NULL,  -- which one of this key it is in a run of the job, from 1
    cost    REAL NOT NULL,  -- tokens
    full_at REAL NOT NULL,  -- as in `rate_key`; it is for when its tokens are in the bucket, a capacity before
    until   INTEGER NOT NULL,  -- a day after that moment, if nobody has used it, it is deleted
    PRIMARY KEY (job_id, scope, key, take)
) WITHOUT ROWID;
CREATE INDEX permit_until ON permit (until);
CREATE INDEX permit_scope ON permit (scope, job_id);

-- The permits of programs that are settled already.
CREATE TABLE settled_permit (
    id    INTEGER PRIMARY KEY,
    until INTEGER NOT NULL  -- an hour after its tokens have flowed back it is deleted
);
CREATE INDEX settled_permit_until ON settled_permit (until);


-- Groups

-- A job with groups is pending or in progress only while it has a place in each of them. A group has as many places as
-- its limit; jobs for which there is none are in `blocked`.
CREATE TABLE job_group (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    name      TEXT NOT NULL UNIQUE,
    said      INTEGER NOT NULL CHECK (said > 0),  -- the limit that the newest job said that said one
    said_at   INTEGER NOT NULL,
    set_limit INTEGER CHECK (set_limit > 0)  -- the limit that people have set, which is stronger; null: none
);

-- The groups that are paused, whether anybody uses them or not.
CREATE TABLE paused_group (
    name      TEXT PRIMARY KEY,
    until     INTEGER,  -- when the pause ends; null: when somebody ends it
    reason    TEXT,  -- in the words of whoever paused it
    paused_at INTEGER NOT NULL
) WITHOUT ROWID;

-- The jobs that have a place in a group.
CREATE TABLE occupant (
    job_id   INTEGER NOT NULL,
    group_id INTEGER NOT NULL,
    since    INTEGER NOT NULL,
    PRIMARY KEY (job_id, group_id)
) WITHOUT ROWID;
CREATE INDEX occupant_group ON occupant (group_id, since);


-- Flows

-- Jobs that depend on each other.
CREATE TABLE flow (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT NOT NULL,
    state      TEXT NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'dead', 'cancelled')),
    created_at INTEGER NOT NULL,
    deadline   INTEGER,  -- when all nodes have to have ended
    cancel_requested_at INTEGER,
    ended_at   INTEGER,
    -- how many nodes there are, and how many of them have ended how
    nodes      INTEGER NOT NULL,
    done       INTEGER NOT NULL DEFAULT 0,
    dead       INTEGER NOT NULL DEFAULT 0,
    skipped    INTEGER NOT NULL DEFAULT 0,
    failed     INTEGER NOT NULL DEFAULT 0,  -- of the dead, those that the flow cannot do without
    CHECK ((state = 'running') = (ended_at IS NULL))
);
CREATE INDEX flow_ended ON flow (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE flow_node (
    job_id    INTEGER PRIMARY KEY,
    flow_id   INTEGER NOT NULL,
    number    INTEGER NOT NULL,  -- in the order in which they were added
    name      TEXT NOT NULL,
    codec     TEXT NOT NULL,  -- of its result
    plan      TEXT NOT NULL,  -- what a worker does with what its predecessors returned
    tolerated INTEGER NOT NULL,  -- the flow can do without it
    delay     REAL,  -- seconds that it waits when its predecessors have ended; null: none
    allowed   REAL,  -- seconds of its own until it has to have ended, from when it is due on, where its flow has a deadline
    missing   INTEGER NOT NULL,  -- how many predecessors have not ended
    fed       INTEGER NOT NULL DEFAULT 0,  -- of those that have, how many lead to it; 0 of some: it is skipped
    failed_by INTEGER,  -- the dead job that it needs
    answered_by INTEGER,  -- the job of the node that it has added, and whose result counts in place of its own
    state     TEXT CHECK (state IN ('done', 'dead', 'skipped')),  -- null: it has not ended
    result    BLOB,
    error     TEXT
);
CREATE INDEX flow_node_flow ON flow_node (flow_id, number);
CREATE INDEX flow_node_open ON flow_node (job_id) WHERE state IS NULL;

CREATE TABLE flow_edge (
    from_job INTEGER NOT NULL,
    to_job   INTEGER NOT NULL,
    position INTEGER NOT NULL,  -- among the predecessors of to_job
    on_dead  TEXT NOT NULL CHECK (on_dead IN ('fail', 'skip', 'continue')),
    taken    INTEGER NOT NULL DEFAULT 1,  -- 0: a branch led elsewhere
    PRIMARY KEY (from_job, to_job)
) WITHOUT ROWID;
CREATE INDEX flow_edge_to ON flow_edge (to_job, position);


-- Tenants

-- In a queue, and among its jobs of one priority, tenants take turns. The turn of a job is its `pos` in `ready`. A new job
-- gets the next turn of its tenant: one stride after the last one that the tenant was given, or after the one that comes
-- now, if that is later. So jobs of tenants with many are spread over the turns to come, and nobody waits for more than
-- one of each other tenant's before the next one of its own.

-- The weights that people have set. The stride of a tenant is that of a weight of 1, divided by its own.
CREATE TABLE tenant_weight (
    queue_id INTEGER NOT NULL REFERENCES queue ON DELETE CASCADE,
    tenant   TEXT NOT NULL,
    weight   REAL NOT NULL CHECK (weight > 0),
    PRIMARY KEY (queue_id, tenant)
) WITHOUT ROWID;

-- Where the last turn that a tenant was given ends, in thousandths of a `pos`. A row goes when its turn has come, since it
-- says nothing more then.
CREATE TABLE tenant_turn (
    queue_id INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    tenant   TEXT NOT NULL,
    until    INTEGER NOT NULL,
    PRIMARY KEY (queue_id, priority, tenant)
) WITHOUT ROWID;

-- Which turn has come: the last `pos` of which a job of a tenant was claimed.
CREATE TABLE tenant_clock (
    queue_id INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    pos      INTEGER NOT NULL,
    PRIMARY KEY (queue_id, priority)
) WITHOUT ROWID;


-- Bulk operations

-- Changes of all jobs that match, made in steps of a transaction each, which also writes here how far they are.
CREATE TABLE operation (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    move       TEXT NOT NULL,  -- what the jobs are afterwards
    -- which jobs are meant
    states     TEXT NOT NULL,
    queue      TEXT,  -- null: of all queues
    kind       TEXT,
    tags       TEXT NOT NULL,
    job_key    TEXT,
    job_group  TEXT,
    last_id    INTEGER NOT NULL,  -- the highest id of a job when it was asked for
    into_queue TEXT,
    priority   INTEGER,
    rate       REAL CHECK (rate > 0),  -- jobs per second; null: as fast as it goes
    asked_by   TEXT NOT NULL,
    asked_at   INTEGER NOT NULL,
    meant      INTEGER NOT NULL,  -- how many jobs matched when it was asked for
    sample     TEXT NOT NULL,  -- some of them
    -- how far it is
    state      TEXT NOT NULL CHECK (state IN ('working', 'done', 'cancelled')),
    position   TEXT NOT NULL,  -- where the next step goes on
    changed    INTEGER NOT NULL DEFAULT 0,
    skipped    INTEGER NOT NULL DEFAULT 0,
    running    INTEGER NOT NULL DEFAULT 0,
    locked     INTEGER NOT NULL DEFAULT 0,
    next_at    INTEGER NOT NULL,
    ended_at   INTEGER,
    error      TEXT,  -- why the last step could not be made
    CHECK ((state = 'working') = (ended_at IS NULL))
);
CREATE INDEX operation_working ON operation (next_at) WHERE state = 'working';


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
    -- A cron may leave its queue and its priority to its kind. Then these columns hold what the kind declares at
    -- present, so that nobody has to look there.
    queue_id      INTEGER NOT NULL REFERENCES queue,
    queue_said    INTEGER NOT NULL DEFAULT 1,
    priority      INTEGER NOT NULL CHECK (priority BETWEEN -32768 AND 32767),
    priority_said INTEGER NOT NULL DEFAULT 1,
    max_attempts  INTEGER,  -- null: as the kind, or else the queue, says
    timeout       REAL,  -- seconds
    -- the time limits of its jobs, in seconds from when they are enqueued
    start_by      REAL,
    deadline      REAL,
    key           TEXT,  -- of its jobs
    key_mode      TEXT NOT NULL DEFAULT 'dedupe',
    tags          TEXT NOT NULL DEFAULT '[]',  -- of its jobs, a JSON array
    groups        TEXT,  -- of its jobs, as in `job`
    tenant        TEXT,  -- of its jobs; excludes groups
    hold          TEXT,  -- what makes its jobs unique for a time, JSON; excludes a key
    overlap       INTEGER NOT NULL,
    missed        TEXT NOT NULL CHECK (missed IN ('skip', 'latest', 'all')),
    missed_limit  INTEGER NOT NULL CHECK (missed_limit > 0),
    missed_within REAL,  -- seconds; fires that are older are not made up for
    managed_by    TEXT,
    -- What handlers declared of it last, and digests of what they declared before. An older release that says the latter
    -- again has nothing new to say. See `rules/cron_declarations.py`.
    declared        TEXT,
    declared_before TEXT NOT NULL DEFAULT '[]',  -- a JSON array
    next_fire_at  INTEGER,
    last_fire_at  INTEGER,
    last_error    TEXT,
    skipped       INTEGER NOT NULL DEFAULT 0
);

-- Each fire time of a cron has one job, whichever worker fires it.
CREATE TABLE fire (
    cron_id INTEGER NOT NULL REFERENCES cron ON DELETE CASCADE,
    fire_at INTEGER NOT NULL,
    job_id  INTEGER NOT NULL,
    PRIMARY KEY (cron_id, fire_at)
) WITHOUT ROWID;


-- Views

-- For people and other tools: every job with its state. A queue that is being deleted has a temporary name that
-- nobody should see: 'deleting:', its id, ':' and its former name. Its jobs are shown under the former name.
CREATE VIEW jobs AS
SELECT job.id,
       CASE WHEN substr(queue.name, 1, length('deleting:' || queue.id || ':')) <> 'deleting:' || queue.id || ':'
            THEN queue.name
            ELSE substr(queue.name, length('deleting:' || queue.id || ':') + 1) END AS queue,
       job.kind,
       CASE WHEN finished.job_id IS NOT NULL THEN finished.state
            WHEN claimed.job_id IS NOT NULL THEN 'in_progress'
            WHEN blocked.job_id IS NOT NULL THEN 'blocked'
            WHEN waiting.job_id IS NOT NULL THEN 'waiting'
            WHEN scheduled.job_id IS NULL THEN 'pending'
            WHEN scheduled.reason = 'retry' THEN 'retrying'
            ELSE 'scheduled' END AS state,
       coalesce(job.asked_priority, job.priority) AS priority,
       coalesce(finished.attempt, claimed.attempt, scheduled.attempt, blocked.attempt, waiting.attempt) AS attempt,
       job.max_attempts, job.timeout, job.key, job.codec, job.payload, job.created_at,
       scheduled.run_at, scheduled.reason, claimed.claimed_at, claimed.cancel_requested_at,
       coalesce(claimed.worker_id, finished.worker_id) AS worker_id,
       finished.started_at, finished.finished_at, finished.error, coalesce(finished.result, saved_state.result) AS result,
       job.groups, job.tags, job.rerun_of, time_limit.start_by, time_limit.deadline, progress.share AS progress,
       progress.note AS progress_note, progress.at AS progress_at, progress.attempt AS progress_attempt, job.tenant
FROM job
JOIN queue ON queue.id = job.queue_id
LEFT JOIN finished ON finished.job_id = job.id
LEFT JOIN claimed ON claimed.job_id = job.id
LEFT JOIN scheduled ON scheduled.job_id = job.id
LEFT JOIN blocked ON blocked.job_id = job.id
LEFT JOIN waiting ON waiting.job_id = job.id
LEFT JOIN time_limit ON time_limit.job_id = job.id
LEFT JOIN saved_state ON saved_state.job_id = job.id
LEFT JOIN progress ON progress.job_id = job.id;

-- For each queue, the kinds that are handled by those who serve it and that are not paused: by workers that may claim, and by versions that
-- may, even while they have no worker. A queue is left out where that is not known: either nobody serves it, or a
-- version that is to serve it has had no worker yet and may have any handler.
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
    ON handler.value NOT IN (SELECT kind FROM paused_kind)
WHERE NOT EXISTS (SELECT 1 FROM untold WHERE queues IS NULL)
  AND queue.name NOT IN (SELECT theirs.value FROM untold JOIN json_each(untold.queues) AS theirs)
GROUP BY queue.id, queue.name;


-- The rows that are there from the beginning

INSERT INTO revision (one) VALUES (1);
INSERT INTO queue (name) VALUES ('default');
