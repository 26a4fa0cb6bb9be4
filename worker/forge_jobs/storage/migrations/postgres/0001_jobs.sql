-- The tables of forge-jobs in PostgreSQL, in the order in which they are best read.
--
-- The state of a job is the table that holds its id: scheduled, blocked, waiting, ready, claimed or finished. What was enqueued
-- is in `job`, whose rows are written once, unless a waiting job is replaced. When a job changes its state, a single
-- statement deletes a narrow row from one table and inserts one into another. These tables refer to queues and jobs by id,
-- without foreign keys, because every change of state would have to pay for them.
--
-- Names in braces are placeholders: for the schema, as a quoted identifier or as text inside a literal, and for the
-- notification channel. All times come from the clock of the database, which tests can move.


-- Queues

CREATE TABLE {schema}.queue (
    id              integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            text NOT NULL UNIQUE CHECK (name <> '' AND length(name) <= 128 AND name !~ '[,[:space:]]'),
    paused          boolean NOT NULL DEFAULT false,
    paused_until    timestamptz,  -- when the pause ends; null: when somebody ends it
    pause_reason    text,  -- in the words of whoever paused it
    concurrency     integer CHECK (concurrency >= 0),  -- null: no limit
    rate_limit      text,  -- the scope of the rate limit from which each start takes a token; it need not exist
    group_limit     integer CHECK (group_limit >= 1),  -- of groups of its jobs whose limit nobody has said; null: 1
    age_after       interval CHECK (age_after > interval '0'),  -- a job rises each time it has been pending so long; null: none does
    -- the defaults for jobs that do not set their own
    max_attempts    integer NOT NULL DEFAULT 5 CHECK (max_attempts >= 0),  -- 0: no limit
    timeout         interval CHECK (timeout > interval '0'),
    backoff_enabled boolean NOT NULL DEFAULT true,
    backoff_base    interval NOT NULL DEFAULT '10 seconds',
    backoff_max     interval NOT NULL DEFAULT '1800 seconds',
    done_retention  interval NOT NULL DEFAULT '7 days',
    dead_retention  interval NOT NULL DEFAULT '30 days',
    managed_by      text,
    cooldown_until  timestamptz,  -- no job starts before this moment
    throttles       integer NOT NULL DEFAULT 0,  -- how many times in a row the queue was throttled
    CHECK (paused OR (paused_until IS NULL AND pause_reason IS NULL))
);

-- One number that grows by 1 with every change of the configuration, so that a worker that receives no notifications
-- can see that something has changed. And which database this is, so that a callback token of another one is known: a copy,
-- and one that was restored, are the same.
CREATE TABLE {schema}.revision (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    revision bigint NOT NULL DEFAULT 0,
    origin   text NOT NULL DEFAULT left(replace(gen_random_uuid()::text, '-', ''), 16)
);

-- The options that handlers declare for their kinds, so that they also hold for jobs that are enqueued by name. A
-- program writes them when it opens the database, unless they are there already. Null: the handler does not set the
-- option.
CREATE TABLE {schema}.kind (
    kind         text PRIMARY KEY,
    queue        text,
    priority     smallint,
    max_attempts integer,  -- 0: no limit
    timeout      double precision,  -- seconds
    codec        text NOT NULL,
    title        text,
    owner        text,  -- who is responsible for the handler
    docs         text,  -- a link to its documentation
    start_by     double precision,  -- seconds, from when a job is due
    deadline     double precision,  -- seconds, from when a job is due
    on_lost      text,  -- what becomes of a job whose worker was lost: retry (as null), refund or dead
    redact       text,  -- JSON: what nobody is shown of its jobs: true, everything, or names of entries; null: nothing
    most_bytes   integer,  -- that a payload may have to which items are added; null: 1 MiB
    sealed       boolean NOT NULL DEFAULT false,  -- whether jobs may have no other codec
    slots        integer CHECK (slots > 1),  -- how many slots of its worker a job takes; null: one
    unpublished  text,  -- what its handler says of each job, and whoever enqueues by name has to say: 'group,unique'; null: nothing
    declared_at  timestamptz NOT NULL,
    declared_by  text NOT NULL
);

-- The kinds that are paused, whether anybody declares them or not.
CREATE TABLE {schema}.paused_kind (
    kind      text PRIMARY KEY,
    until     timestamptz,  -- when the pause ends; null: when somebody ends it
    reason    text,  -- in the words of whoever paused it
    paused_at timestamptz NOT NULL
);


-- Jobs

-- The jobs as they were enqueued. A row is updated only when somebody replaces the job while it waits, moves it to
-- another queue or priority, or when it rises; then its row in the table of its state is locked, and changed or made anew.
-- Also, once, when its handler saves a state, does a step or reports progress for the first time, or a signal is sent to it; when
-- it begins to wait for one; and when another job begins to wait for its end.
CREATE TABLE {schema}.job (
    id           bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    queue_id     integer NOT NULL,
    priority     smallint NOT NULL,
    max_attempts integer NOT NULL,  -- 0: no limit
    timeout      double precision,  -- seconds
    kind         text NOT NULL,
    codec        text NOT NULL,
    key          text,
    created_at   timestamptz NOT NULL,
    payload      bytea NOT NULL,
    -- what a job is linked to, so that its end concerns others; null, as for nearly all jobs: nothing
    -- the sum of 1: groups, 2: time limits, 4: its handler has saved a state, done a step or reported progress, or it was
    -- sent a signal, 8: a tenant, 32: a flow, 64: other jobs wait for its end,
    -- 128: a version of the program
    links        smallint,
    groups       text,  -- JSON: the names of its groups, and what it says of each
    tags         text[],  -- null: none
    rerun_of     bigint,  -- the job that it runs again, which may be gone; null: none
    asked_priority smallint,  -- what was asked for, where `priority` has risen since; null: it has not
    tenant       text,  -- on whose behalf it is; null: nobody's
    meta         text,  -- JSON: what plugins of the program that enqueued it send along; null: nothing
    replaced     integer  -- how many times another job took its place, with its id; null: never
);
CREATE INDEX job_rerun ON {schema}.job (rerun_of) WHERE rerun_of IS NOT NULL;

-- The tags of jobs, so that the jobs with one are found, in the order of their ids. Triggers on `job` write it: only for
-- jobs that have tags.
CREATE TABLE {schema}.job_tag (
    tag    text NOT NULL,
    job_id bigint NOT NULL,
    PRIMARY KEY (tag, job_id)
);

-- The keys of jobs that have not ended. A row is deleted when its job ends. Each waiting job that has a key has a row
-- here. A running job loses it to the one that replaces it: then it is superseded, and does not wait again.
CREATE TABLE {schema}.job_key (
    kind   text NOT NULL,
    key    text NOT NULL,
    job_id bigint NOT NULL UNIQUE,
    PRIMARY KEY (kind, key)
);

-- For a time, no other job of the kind with the same fingerprint is enqueued, whether the job has ended or not. A row is
-- deleted when its job is deleted by somebody, expires or is dropped by its group, and some time after it has expired.
CREATE TABLE {schema}.unique_hold (
    kind        text NOT NULL,
    fingerprint bytea NOT NULL,  -- of what the job says
    since       timestamptz NOT NULL,
    until       timestamptz NOT NULL,
    job_id      bigint NOT NULL UNIQUE,
    PRIMARY KEY (kind, fingerprint)
);
CREATE INDEX unique_hold_until ON {schema}.unique_hold (until);

-- The time limits of jobs that have not ended. The leader ends the jobs whose time is over. A row goes when its job ends.
CREATE TABLE {schema}.time_limit (
    job_id   bigint PRIMARY KEY,
    start_by timestamptz,  -- null: none, or it was begun
    deadline timestamptz,  -- null: none
    look_at  timestamptz NOT NULL  -- when the leader has to look at it
);
CREATE INDEX time_limit_look ON {schema}.time_limit (look_at);

-- What handlers have saved of their jobs, for the next attempt. Jobs with a row here, in `progress`, `step` or `signal` have
-- 4 in their `links`; triggers on `job` delete the rows when the job is gone, or is replaced by another one.
CREATE TABLE {schema}.saved_state (
    job_id bigint PRIMARY KEY,
    state  bytea,  -- as the codec of the job writes it; null: none was saved
    result bytea  -- the result of the job where its handler returns none; null: none was set
);

-- What handlers have saved for a key: each job of the kind with this key may go on from there, one after the other. It stays
-- until a handler takes it away.
CREATE TABLE {schema}.key_state (
    kind  text NOT NULL,
    key   text NOT NULL,
    codec text NOT NULL,  -- of the job that saved it
    state bytea NOT NULL,
    PRIMARY KEY (kind, key)
);

-- How far jobs are, as their handlers have reported. The row stays when the attempt has ended.
CREATE TABLE {schema}.progress (
    job_id  bigint PRIMARY KEY,
    attempt integer NOT NULL,  -- the one that reported it
    share   double precision NOT NULL CHECK (share BETWEEN 0 AND 1),  -- of the work, that is done
    note    text,
    at      timestamptz NOT NULL
) WITH (fillfactor = 50);

-- The steps of jobs that were done: later attempts do not do them again. A row is written once; only that of a sleep is changed,
-- when somebody wakes its job, and that of a wait, when it ends.
CREATE TABLE {schema}.step (
    job_id  bigint NOT NULL,
    number  integer NOT NULL,  -- how many steps the handler had come to with this one; of a patch, that of the step after it
    serial  integer,  -- its place among the steps that the handler does one after the other; null: it was done beside them
    name    text NOT NULL,
    sort    text NOT NULL CHECK (sort IN ('step', 'sleep', 'patch', 'wait')),
    attempt integer NOT NULL,  -- the one that did it
    at      timestamptz NOT NULL,
    result  bytea,  -- as the codec of the job writes it; null: None
    until   timestamptz,  -- when a sleep ends, or a wait that nothing has ended before; null: it is neither, or has no timeout
    -- of a wait
    signals  text[],  -- which signals end it; null: none
    for_job  bigint,  -- the job whose end ends it; null: none
    ended_at timestamptz,  -- null: it lasts
    signal   text,  -- which signal has ended it, or how the job had ended; null: its timeout did
    codec    text,  -- of its result; null: that of the job
    done_by  bigint,  -- the job that did it, which this one runs again; null: this one
    PRIMARY KEY (job_id, name)
);

-- The signals that were sent to jobs that had not ended. One is kept until a wait takes it, and says then which. It goes with its
-- job.
CREATE TABLE {schema}.signal (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id bigint NOT NULL,
    name   text NOT NULL,
    value  bytea,  -- null: none, or it is the result of the wait now
    codec  text NOT NULL,
    at     timestamptz NOT NULL,
    token  text,  -- by which callback token it was sent; null: by none
    step   text  -- the wait that has taken it; null: none has
);
CREATE INDEX signal_job ON {schema}.signal (job_id, name);

-- The versions of the program that have to go on with jobs which they have begun. Such a job has 128 in its `links`. A row goes
-- when its job ends, is deleted or is replaced.
CREATE TABLE {schema}.pin (
    job_id     bigint PRIMARY KEY,
    version    text NOT NULL,  -- as the worker said that began the job
    pool       text,  -- of that worker, where an operator runs it
    version_id text,
    at         timestamptz NOT NULL
);
CREATE INDEX pin_version ON {schema}.pin (version_id, version);


-- The states of a job

CREATE TABLE {schema}.scheduled (
    job_id   bigint PRIMARY KEY,
    run_at   timestamptz NOT NULL,
    queue_id integer NOT NULL,
    attempt  integer NOT NULL,  -- the number of attempts that counted so far
    priority smallint NOT NULL,
    reason   text NOT NULL CHECK (reason IN ('delayed', 'retry', 'throttled', 'rescheduled', 'sleeping', 'unreadable')),
    links    smallint  -- as in `job`
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX scheduled_run_at ON {schema}.scheduled (run_at);
-- Finds the jobs of one queue that are due soon, however many jobs wait in other queues.
CREATE INDEX scheduled_queue ON {schema}.scheduled (queue_id, run_at);

-- Jobs that wait for a place in a group, or for other nodes of their flow. One with groups stands in the line of one of
-- them that has none.
CREATE TABLE {schema}.blocked (
    job_id   bigint PRIMARY KEY,
    group_id bigint,  -- in whose line it stands; null: in none, it waits for other nodes
    pos      bigint NOT NULL,  -- since when, in microseconds since the epoch
    queue_id integer NOT NULL,
    attempt  integer NOT NULL,  -- the number of attempts that counted so far
    priority smallint NOT NULL,
    groups   bigint[]  -- all of its groups, in order; null: the one in whose line it stands
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX blocked_line ON {schema}.blocked (group_id, priority, pos, job_id);
CREATE INDEX blocked_groups ON {schema}.blocked USING gin (groups) WHERE groups IS NOT NULL;

-- Jobs whose handlers wait for a signal, or for the end of another job. Whoever makes a job wait, ends its wait or sends it a
-- signal locks its row in `job` first, so that a signal comes before a wait, ends it, or comes after its end.
CREATE TABLE {schema}.waiting (
    job_id   bigint PRIMARY KEY,
    queue_id integer NOT NULL,
    attempt  integer NOT NULL,  -- the number of attempts that counted so far
    step     text NOT NULL,  -- the wait
    until    timestamptz,  -- as in `step`
    for_job  bigint  -- as in `step`
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX waiting_until ON {schema}.waiting (until) WHERE until IS NOT NULL;
CREATE INDEX waiting_for_job ON {schema}.waiting (for_job) WHERE for_job IS NOT NULL;

-- The busiest table: narrow, with a single index, which is in the order of claims. There is no index on job_id: a job
-- that has been ready since it was enqueued is found by pos = created_at, and any other by a scan of its queue and
-- priority. The pos of a job that has a tenant says when its turn comes, as the turns of `tenant_turn` do.
CREATE TABLE {schema}.ready (
    job_id   bigint NOT NULL,
    pos      bigint NOT NULL,  -- when the job became ready, in microseconds since the epoch
    queue_id integer NOT NULL,
    attempt  integer NOT NULL,  -- the number of attempts that counted so far
    priority smallint NOT NULL,
    since    bigint  -- when the job became ready, where pos does not say it; null: pos says it
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.2);
CREATE INDEX ready_claim ON {schema}.ready (queue_id, priority, pos);
-- Where a publication covers all tables, PostgreSQL refuses to delete from a table without a replica identity. This
-- table and `tally` have no primary key, because every job would have to pay for it, so that the full row is the
-- identity. Full rows are written to the write-ahead log only with wal_level = logical, and these rows are narrow.
ALTER TABLE {schema}.ready REPLICA IDENTITY FULL;

CREATE TABLE {schema}.claimed (
    job_id              bigint PRIMARY KEY,
    worker_id           bigint NOT NULL,
    claimed_at          timestamptz NOT NULL,
    cancel_requested_at timestamptz,
    attempt             integer NOT NULL,  -- including the one that runs
    queue_id            integer NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_vacuum_cost_delay = 0);
CREATE INDEX claimed_cancel ON {schema}.claimed (worker_id) WHERE cancel_requested_at IS NOT NULL;

CREATE TABLE {schema}.finished (
    job_id      bigint PRIMARY KEY,
    worker_id   bigint,  -- null: the job never ran
    started_at  timestamptz,
    finished_at timestamptz NOT NULL,
    queue_id    integer NOT NULL,
    attempt     integer NOT NULL,
    state       text NOT NULL CHECK (state IN ('done', 'dead', 'expired')),
    error       text,
    result      bytea,
    links       smallint  -- as in `job`, where its end concerns other nodes of a flow, or jobs that wait for it, which hear of it; else null
);
-- Only for those that are not done, which are few: an entry for each job would be an eighth of what a job costs the server.
CREATE INDEX finished_undone ON {schema}.finished (queue_id, finished_at) WHERE state <> 'done';

-- Which jobs of a queue were done at which moment, so that they are found again in the order in which they ended. Each
-- statement that records jobs as done appends one row for each of its queues: whoever sets `state`, `queue_id` or
-- `finished_at` of a done job adds a row here. Rows may name jobs that are not there any more. A row goes when its
-- moment is past the retention of its queue and none of its jobs is left.
CREATE TABLE {schema}.done_together (
    at       timestamptz NOT NULL,  -- finished_at of these jobs
    first_id bigint NOT NULL,  -- their lowest id
    last_id  bigint NOT NULL,  -- their highest id
    queue_id integer NOT NULL,
    jobs     integer NOT NULL,  -- how many they were
    job_ids  bigint[]  -- null: they are most of those from first_id to last_id
);
CREATE INDEX done_together_order ON {schema}.done_together (queue_id, at);
ALTER TABLE {schema}.done_together REPLICA IDENTITY FULL;  -- for the same reason as `ready`


-- Failed attempts, and the counts of jobs

-- The newest 32 errors of each job.
CREATE TABLE {schema}.failure (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id    bigint NOT NULL,
    attempt   integer NOT NULL,
    at        timestamptz NOT NULL,
    worker_id bigint,
    error     text NOT NULL
);
CREATE INDEX failure_job ON {schema}.failure (job_id, id);

-- What people have done by hand, to jobs and to what else there is, written by what did it. A row stays with its job, at most for
-- a year, and others for the longest time that any queue keeps its dead jobs.
CREATE TABLE {schema}.intervention (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id       bigint,  -- null: it was done to something else than a job
    at           timestamptz NOT NULL,
    what         text NOT NULL,
    by_whom      text NOT NULL,  -- as that program said
    role         text DEFAULT session_user,  -- of the server; null: it was done in SQLite, which has none
    was          text,  -- the state of the job before; null: not known
    becomes      text,  -- its state after; null: it is gone, or not known
    operation_id bigint,  -- of which it was a part; null: of none
    subject      text,  -- to what else it was done, like "queue mail" or "flow 7"; null: to the job
    note         text  -- what else is known; null: nothing
);
CREATE INDEX intervention_subject ON {schema}.intervention (subject, id) WHERE subject IS NOT NULL;
CREATE INDEX intervention_job ON {schema}.intervention (job_id, id);
CREATE INDEX intervention_at ON {schema}.intervention (at);

-- How many jobs each state of a queue has gained or lost. Each statement that moves jobs appends a row, so that no row
-- is updated by every transaction, and a count is the sum of a few rows. From time to time the leader replaces the
-- rows of a queue by their sum.
CREATE TABLE {schema}.tally (
    queue_id    integer NOT NULL,
    pending     bigint NOT NULL DEFAULT 0,
    scheduled   bigint NOT NULL DEFAULT 0,
    in_progress bigint NOT NULL DEFAULT 0,
    done        bigint NOT NULL DEFAULT 0,
    dead        bigint NOT NULL DEFAULT 0,
    blocked     bigint,  -- null in the rows of statements that concern no group
    expired     bigint,  -- null in those that concern no time limit
    waiting     bigint  -- null in those that concern no signal
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE {schema}.tally REPLICA IDENTITY FULL;  -- for the same reason as `ready`

-- What processes have counted of the attempts that ended in a minute, handed in once by each. The leader adds it to
-- `minute_statistic`; a row stays for an hour after that, so that nothing that is handed in again is added twice.
CREATE TABLE {schema}.handed_in (
    process bigint NOT NULL,  -- random
    number  integer NOT NULL,  -- of the minutes that the process has handed in
    queue   text NOT NULL,
    kind    text NOT NULL,
    minute  timestamptz NOT NULL,
    counts  jsonb NOT NULL,  -- by name: outcomes, and buckets of how long jobs waited and ran
    added   boolean NOT NULL DEFAULT false,
    PRIMARY KEY (process, number, queue, kind)
);
CREATE INDEX handed_in_minute ON {schema}.handed_in (added, minute);

-- The same, of all processes together, for 30 days.
CREATE TABLE {schema}.minute_statistic (
    minute timestamptz NOT NULL,
    queue  text NOT NULL,
    kind   text NOT NULL,
    counts jsonb NOT NULL,
    PRIMARY KEY (minute, queue, kind)
);


-- Workers

CREATE TABLE {schema}.worker (
    id                bigint PRIMARY KEY,  -- random, never used again
    label             text NOT NULL,
    host              text NOT NULL,
    pid               integer NOT NULL,
    version           text NOT NULL,
    -- where an operator runs the worker: the pool, the version of the pool and the pod
    pool              text,
    version_id        text,
    pod               text,
    queues            text[] NOT NULL,
    kinds             text[] NOT NULL,
    concurrency       integer NOT NULL,
    crons             jsonb NOT NULL DEFAULT '{}',  -- what its handlers declare of crons, as text by the name
    draining          boolean NOT NULL DEFAULT false,
    cordoned          boolean NOT NULL DEFAULT false,
    observed_revision bigint NOT NULL DEFAULT 0,  -- last control_revision that it followed; -1: cordoned changed since
    started_at        timestamptz NOT NULL,
    -- as the worker said with its last heartbeat
    beat_at           timestamptz NOT NULL,
    era               bigint,  -- the era in which the worker knows all of its claims; null: not said yet
    ailment           text,  -- what keeps the worker from working; null: nothing
    succeeded         bigint NOT NULL DEFAULT 0,
    failed            bigint NOT NULL DEFAULT 0,
    run_seconds       double precision NOT NULL DEFAULT 0,
    record            jsonb NOT NULL DEFAULT '{}',  -- how its attempts ended, as counts by name
    -- what only the worker knows, and what explains why a job does not end
    stuck             bigint[] NOT NULL DEFAULT '{}',  -- the jobs whose handlers go on although they were told to stop
    adrift            bigint[] NOT NULL DEFAULT '{}'  -- the jobs that the worker has claimed but does not run
) WITH (fillfactor = 50);
CREATE INDEX worker_of_version ON {schema}.worker (pool, version_id);

-- The labels of workers. A row stays when its worker is gone, so that the history of jobs can still be read and a
-- claim can be traced to the version of its worker.
CREATE TABLE {schema}.worker_label (
    worker_id  bigint PRIMARY KEY,
    label      text NOT NULL,
    at         timestamptz NOT NULL,
    pool       text,
    version_id text,
    paused     boolean NOT NULL DEFAULT false  -- by a user, which holds for whom its process registers as next
);

-- The workers that wait for jobs of a queue and want to be notified.
CREATE UNLOGGED TABLE {schema}.idle (
    queue_id  integer NOT NULL,
    worker_id bigint NOT NULL,
    marked_at timestamptz NOT NULL DEFAULT now(),  -- shows which marks were left behind by processes that are gone
    PRIMARY KEY (queue_id, worker_id)
);

-- The era of the database: the number of a stretch of its history that nothing has cut. An unlogged table is emptied
-- by a crash, is missing on standbys, and is not brought back by a backup of the files. So a missing row means that
-- there was a crash, a failover or a restore, and that some claims may be lost. A clean restart keeps the row.
CREATE UNLOGGED TABLE {schema}.era (
    one    boolean PRIMARY KEY DEFAULT true CHECK (one),
    number bigint NOT NULL  -- random
);

-- The worker that leads. Whatever it writes as the leader names its epoch; what an earlier epoch writes is
-- refused.
CREATE TABLE {schema}.leader (
    one       boolean PRIMARY KEY DEFAULT true CHECK (one),
    worker_id bigint,
    epoch     bigint NOT NULL,
    until     timestamptz NOT NULL
) WITH (fillfactor = 50);


-- Versions of worker pools

-- The versions of each pool, whose states are the gates that let their workers claim. Only an operator writes them.
-- Without an operator there are no gates, and all workers may claim.
CREATE TABLE {schema}.worker_version (
    pool             text NOT NULL,  -- the uid of the owner of the pool
    id               text NOT NULL,
    version          text NOT NULL,
    deployment       text NOT NULL,
    spec_hash        text NOT NULL,
    state            text NOT NULL CHECK (
        state IN ('pending', 'ramping', 'current', 'draining', 'drained', 'retired', 'failed')),
    weight_percent   integer NOT NULL CHECK (weight_percent BETWEEN 0 AND 100),
    control_revision bigint NOT NULL,  -- grows by 1 with every change of state; workers acknowledge it
    -- The queues that its workers serve and the kinds that they have handlers for, which are known even while no
    -- worker runs. The owner of the pool sets the queues, and workers set both when they register. Null: not set yet.
    queues           text[],
    kinds            text[],
    created_at       timestamptz NOT NULL,
    state_changed_at timestamptz NOT NULL,  -- when the state or the weight changed
    ramping_since    timestamptz,  -- since when the version has had a share; null: it has none
    last_current_at  timestamptz,
    drain_started_at timestamptz,
    drained_at       timestamptz,
    record           jsonb NOT NULL DEFAULT '{}',  -- how the attempts of its workers that are gone have ended
    baseline         jsonb,  -- the record of all versions of the pool when this one got its present share
    failure_message  text,  -- why the version failed
    PRIMARY KEY (pool, id)
);
CREATE UNIQUE INDEX worker_version_current ON {schema}.worker_version (pool) WHERE state = 'current';

-- The operator that writes versions: one row, which every write of an operator locks.
CREATE TABLE {schema}.operator (
    one    boolean PRIMARY KEY DEFAULT true CHECK (one),
    holder text NOT NULL,
    epoch  bigint NOT NULL
);


-- Limits over all workers

-- One row for each job that a queue with a limited concurrency may have in progress.
CREATE TABLE {schema}.slot (
    queue_id  integer NOT NULL REFERENCES {schema}.queue ON DELETE CASCADE,
    number    integer NOT NULL,  -- from 1
    worker_id bigint,  -- null: free
    PRIMARY KEY (queue_id, number)
) WITH (fillfactor = 50);

CREATE TABLE {schema}.rate_limit (
    scope       text PRIMARY KEY,
    capacity    double precision NOT NULL CHECK (capacity > 0),
    refill      double precision NOT NULL CHECK (refill >= 0),  -- tokens per second
    tokens      double precision NOT NULL,
    refilled_at timestamptz NOT NULL,
    generation  bigint NOT NULL DEFAULT 0,  -- grows by 1 when the bucket is emptied, which voids the leased tokens
    emptied_at  timestamptz,
    managed_by  text,
    -- How many tokens have flowed towards each key from the beginning to a moment; `rate_key` and `permit` measure in
    -- these, so that what is said here holds for all keys at once.
    flowed      double precision NOT NULL DEFAULT 0,
    flowed_at   timestamptz NOT NULL DEFAULT now(),
    emptied     double precision NOT NULL DEFAULT 0,  -- no bucket is full before so many have flowed
    void_to     double precision NOT NULL DEFAULT 0,  -- permits up to this number were for tokens that were emptied away
    changed_at  timestamptz,  -- when its capacity or refill changed the last time
    reset_at    timestamptz,  -- when one of its keys was made full by hand the last time
    -- What is spent of its keys is in `spend_log`; `rate_key` does not have it yet.
    is_logged   boolean NOT NULL DEFAULT false,
    unlogged_at timestamptz
) WITH (fillfactor = 50);

-- The keys of a rate limit that are in use, each with a bucket of its own. A row is deleted some time after its bucket is
-- full again.
CREATE TABLE {schema}.rate_key (
    scope       text NOT NULL REFERENCES {schema}.rate_limit ON DELETE CASCADE,
    key         text NOT NULL,
    full_at     double precision NOT NULL,  -- how many tokens have flowed when all that was spent and promised is refilled
    free_to     double precision NOT NULL DEFAULT 0,  -- what was given back before others is free until so many have flowed
    reset_at    timestamptz,  -- when it was made full by hand: nothing is for it that was emptied, or given out, before
    PRIMARY KEY (scope, key)
) WITH (fillfactor = 50);
CREATE INDEX rate_key_reset ON {schema}.rate_key (reset_at) WHERE reset_at IS NOT NULL;

-- What whole claims have spent of the keys of a rate limit, each in one row behind that of the one before: whoever writes
-- a row has read all before it. A worker that has them in its memory decides by itself which of its jobs have their tokens,
-- and the row that it writes is refused if another one stands there already.
CREATE TABLE {schema}.spend_log (
    scope   text NOT NULL REFERENCES {schema}.rate_limit ON DELETE CASCADE,
    number  bigint GENERATED ALWAYS AS IDENTITY,
    behind  bigint NOT NULL,  -- the stamp of the row before
    stamp   bigint NOT NULL,
    keys    text NOT NULL,  -- separated by U+001F
    full_at bytea NOT NULL,  -- of each key, as in `rate_key`: IEEE 754 doubles, the most significant byte first
    written_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, number),
    UNIQUE (scope, behind)
);
-- They are short-lived, and numbers and names of keys hardly become smaller. Numbers are bytes, since drivers look at each item
-- of an array.
ALTER TABLE {schema}.spend_log ALTER keys SET STORAGE EXTERNAL, ALTER full_at SET STORAGE EXTERNAL;

-- Return where the buckets of the keys stand that are named in the log before this number. Of a key counts the last place at
-- which it is named; a number that is not 0 is 1.m * 2^(e - 1023) by the bits of its exponent e and its mantissa m.
CREATE FUNCTION {schema}.logged_keys(of_scope text, before bigint) RETURNS TABLE (key text, full_at double precision)
LANGUAGE sql STABLE AS $$
    WITH log AS MATERIALIZED (
        SELECT row_number() OVER (ORDER BY number) AS turn, keys, full_at || ''::bytea AS full_at  -- read once, and not for each key
        FROM {schema}.spend_log WHERE scope = of_scope AND number < before
    ), last AS MATERIALIZED (
        SELECT named.key, max(log.turn << 32 | named.place) AS at
        FROM log CROSS JOIN LATERAL unnest(string_to_array(log.keys, chr(31))) WITH ORDINALITY AS named (key, place)
        GROUP BY named.key
    ), read AS MATERIALIZED (
        SELECT last.key, ('x' || encode(substr(log.full_at, (at & 4294967295)::integer * 8 - 7, 8), 'hex'))::bit(64)::bigint AS bits
        FROM last JOIN log ON log.turn = last.at >> 32
    )
    SELECT key, CASE WHEN bits = 0 THEN 0 ELSE ((bits & 4503599627370495) + 4503599627370496)::double precision
                                               * power(2::double precision, ((bits >> 52) - 1075)::double precision) END
    FROM read
$$;

-- What stands in the log before this number has gone into the rows of the keys.
CREATE FUNCTION {schema}.fold_spends(of_scope text, before bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM {schema}.rate_limit WHERE scope = of_scope FOR KEY SHARE;  -- whoever ends the log waits
    PERFORM FROM {schema}.spend_log WHERE scope = of_scope AND number < before ORDER BY number FOR UPDATE;
    INSERT INTO {schema}.rate_key (scope, key, full_at)
    SELECT of_scope, logged.key COLLATE "C" AS key, logged.full_at FROM {schema}.logged_keys(of_scope, before) AS logged ORDER BY key
    ON CONFLICT (scope, key) DO UPDATE SET full_at = greatest(rate_key.full_at, excluded.full_at);
    DELETE FROM {schema}.spend_log WHERE scope = of_scope AND number < before;
END
$$;

-- The keys of a rate limit are in their rows, and nobody begins a log before the end of the transaction.
CREATE FUNCTION {schema}.end_log(of_scope text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM {schema}.rate_limit WHERE scope = of_scope FOR NO KEY UPDATE;  -- nobody begins a log, also where there is none
    PERFORM FROM {schema}.rate_limit WHERE scope = of_scope AND is_logged FOR UPDATE;  -- nobody writes behind what is read now
    IF FOUND THEN
        PERFORM {schema}.fold_spends(of_scope, 9223372036854775807);
        UPDATE {schema}.rate_limit SET is_logged = false, unlogged_at = clock_timestamp() WHERE scope = of_scope;
    END IF;
END
$$;

-- Permits to spend tokens of a key from a moment on, for jobs that wait for one of them. Who asks for the same once more
-- gets what was kept for it.
CREATE TABLE {schema}.permit (
    job_id  bigint NOT NULL,
    scope   text NOT NULL REFERENCES {schema}.rate_limit ON DELETE CASCADE,
    key     text NOT NULL,
    take    integer NOT NULL,  -- which one of this key it is in a run of the job, from 1
    cost    double precision NOT NULL,  -- tokens
    full_at double precision NOT NULL,  -- as in `rate_key`; it is for when its tokens are in the bucket, a capacity before
    until   timestamptz NOT NULL,  -- a day after that moment, if nobody has used it, it is deleted
    PRIMARY KEY (job_id, scope, key, take)
);
CREATE INDEX permit_until ON {schema}.permit (until);
CREATE INDEX permit_scope ON {schema}.permit (scope, job_id);

-- The permits of programs that are settled already.
CREATE TABLE {schema}.settled_permit (
    id    bigint PRIMARY KEY,
    until timestamptz NOT NULL  -- an hour after its tokens have flowed back it is deleted
);
CREATE INDEX settled_permit_until ON {schema}.settled_permit (until);


-- Groups

-- A job with groups is pending or in progress only while it has a place in each of them. A group has as many places as
-- its limit; jobs for which there is none are in `blocked`. Whoever gives places away locks the row of the group, which
-- is hardly ever updated, decides with what the next statement sees, and keeps the lock until it commits.
CREATE TABLE {schema}.job_group (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name      text NOT NULL UNIQUE,
    said      integer NOT NULL CHECK (said > 0),  -- the limit that the newest job said that said one
    said_at   timestamptz NOT NULL,
    set_limit integer CHECK (set_limit > 0)  -- the limit that people have set, which is stronger; null: none
);

-- The groups that are paused, whether anybody uses them or not.
CREATE TABLE {schema}.paused_group (
    name      text PRIMARY KEY,
    until     timestamptz,  -- when the pause ends; null: when somebody ends it
    reason    text,  -- in the words of whoever paused it
    paused_at timestamptz NOT NULL
);

-- The jobs that have a place in a group.
CREATE TABLE {schema}.occupant (
    job_id   bigint NOT NULL,
    group_id bigint NOT NULL,
    since    bigint NOT NULL,  -- microseconds since the epoch; never less than that of the group's front
    PRIMARY KEY (job_id, group_id)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX occupant_group ON {schema}.occupant (group_id, since);

-- Where the rows of a group begin in `occupant` and in `blocked`: no job of it stands before that. While a long
-- transaction keeps rows from being cleared away that were deleted, nobody walks over them. For the same reason a new row
-- with the next number takes the place of the old one from time to time, and the row with the largest number is read.
CREATE TABLE {schema}.group_front (
    group_id bigint NOT NULL,
    number   bigint NOT NULL,
    since    bigint NOT NULL,
    lines    jsonb NOT NULL,  -- the first pos of each priority; where a priority is missing, no job of it is blocked
    PRIMARY KEY (group_id, number)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- What groups still need when a transaction is committed, for whoever looks first: the one that caused it, or else any
-- worker. A transaction of a caller locks no group, so it gives no place away.
CREATE TABLE {schema}.unsettled (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    group_id bigint,  -- its free places are to be given away
    job_id   bigint,  -- it is to be cancelled, since newer jobs of a group want its place
    said     integer,  -- the limit of the group, as a job said it that was replaced; null: it stays what it is
    said_at  timestamptz,
    CHECK (num_nonnulls(group_id, job_id) = 1),
    CHECK (num_nonnulls(said, said_at) IN (0, 2))
) WITH (autovacuum_vacuum_scale_factor = 0.05);


-- Flows

-- Jobs that depend on each other. Whoever ends nodes of a flow locks its row first, so that for each flow one transaction
-- after the other sees what its end means for the others.
CREATE TABLE {schema}.flow (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL,
    state      text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'dead', 'cancelled')),
    created_at timestamptz NOT NULL,
    deadline   timestamptz,  -- when all nodes have to have ended
    cancel_requested_at timestamptz,
    ended_at   timestamptz,
    -- how many nodes there are, and how many of them have ended how
    nodes      integer NOT NULL,
    done       integer NOT NULL DEFAULT 0,
    dead       integer NOT NULL DEFAULT 0,
    skipped    integer NOT NULL DEFAULT 0,
    failed     integer NOT NULL DEFAULT 0,  -- of the dead, those that the flow cannot do without
    is_awaited boolean NOT NULL DEFAULT false,  -- whether somebody has waited for its end, of which all who listen are told then
    CHECK ((state = 'running') = (ended_at IS NULL))
) WITH (fillfactor = 50);
CREATE INDEX flow_ended ON {schema}.flow (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX flow_running ON {schema}.flow (id) WHERE ended_at IS NULL;

CREATE TABLE {schema}.flow_node (
    job_id    bigint PRIMARY KEY,
    flow_id   bigint NOT NULL,
    number    integer NOT NULL,  -- in the order in which they were added
    name      text NOT NULL,
    codec     text NOT NULL,  -- of its result
    plan      text NOT NULL,  -- JSON: what a worker does with what its predecessors returned
    tolerated boolean NOT NULL,  -- the flow can do without it
    delay     double precision,  -- seconds that it waits when its predecessors have ended; null: none
    allowed   double precision,  -- seconds of its own until it has to have ended, from when it is due on, where its flow has a deadline
    missing   integer NOT NULL,  -- how many predecessors have not ended
    fed       integer NOT NULL DEFAULT 0,  -- of those that have, how many lead to it; 0 of some: it is skipped
    failed_by bigint,  -- the dead job that it needs
    answered_by bigint,  -- the job of the node that it has added, and whose result counts in place of its own
    state     text CHECK (state IN ('done', 'dead', 'skipped')),  -- null: it has not ended
    result    bytea,
    error     text
) WITH (fillfactor = 45);  -- all nodes of a page may end at once
-- None that says which have not ended: then each end would have to be written into every index.
CREATE INDEX flow_node_flow ON {schema}.flow_node (flow_id, number);

CREATE TABLE {schema}.flow_edge (
    from_job bigint NOT NULL,
    to_job   bigint NOT NULL,
    position integer NOT NULL,  -- among the predecessors of to_job
    on_dead  text NOT NULL CHECK (on_dead IN ('fail', 'skip', 'continue')),
    taken    boolean NOT NULL DEFAULT true,  -- false: a branch led elsewhere
    PRIMARY KEY (from_job, to_job)
);
CREATE INDEX flow_edge_to ON {schema}.flow_edge (to_job, position);

-- Nodes that transactions of callers have ended. Those lock no flow; whoever looks after the commit hands on what they left.
CREATE TABLE {schema}.ended_node (
    job_id bigint PRIMARY KEY
);


-- Tenants

-- In a queue, and among its jobs of one priority, tenants take turns. The turn of a job is its `pos` in `ready`. A new job
-- gets the next turn of its tenant: one stride after the last one that the tenant was given, or in the stride after the one
-- that comes now, if that is later. So jobs of tenants with many are spread over the turns to come, and nobody waits for more than
-- one of each other tenant's before the next one of its own.

-- The weights that people have set. The stride of a tenant is that of a weight of 1, divided by its own.
CREATE TABLE {schema}.tenant_weight (
    queue_id integer NOT NULL REFERENCES {schema}.queue ON DELETE CASCADE,
    tenant   text NOT NULL,
    weight   double precision NOT NULL CHECK (weight > 0),
    PRIMARY KEY (queue_id, tenant)
);

-- Where the last turn that a tenant was given ends, in thousandths of a `pos`. While a long transaction keeps rows from
-- being cleared away that were deleted, nobody walks over them: a new row with the next number takes the place of the old
-- one, and the row with the largest number is read. Of two that take turns for a tenant at once, the second waits until the
-- first has taken the old row away; where there is none, a row with the number 0 is made for it. A row whose turn has come says nothing more, and goes some time later. The numbers of a tenant
-- begin with its first turn, to the second, so they are larger then than before.
CREATE TABLE {schema}.tenant_turn (
    queue_id integer NOT NULL,
    priority smallint NOT NULL,
    tenant   text NOT NULL,
    number   bigint NOT NULL,
    until    bigint NOT NULL,
    PRIMARY KEY (queue_id, priority, tenant, number)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- Which turns have come: each claim that takes jobs of tenants adds the last `pos` that it took. The largest is read,
-- for the same reason; the leader deletes the others. After a crash of the server the table is empty, and the first
-- job that is ready says where the turns are.
CREATE UNLOGGED TABLE {schema}.tenant_clock (
    queue_id integer NOT NULL,
    priority smallint NOT NULL,
    pos      bigint NOT NULL
);
CREATE INDEX tenant_clock_pos ON {schema}.tenant_clock (queue_id, priority, pos);


-- Bulk operations

-- Changes of all jobs that match, made in steps of a transaction each, which also writes here how far they are: whoever
-- makes the next step, while this row is locked, goes on there.
CREATE TABLE {schema}.operation (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    move       text NOT NULL,  -- what the jobs are afterwards
    -- which jobs are meant
    states     text[] NOT NULL,
    queue      text,  -- null: of all queues
    kind       text,
    tags       text[] NOT NULL,
    job_key    text,
    job_group  text,
    last_id    bigint NOT NULL,  -- the highest id of a job when it was asked for
    into_queue text,
    priority   smallint,
    rate       double precision CHECK (rate > 0),  -- jobs per second; null: as fast as it goes
    asked_by   text NOT NULL,
    asked_at   timestamptz NOT NULL,
    meant      bigint NOT NULL,  -- how many jobs matched when it was asked for
    sample     bigint[] NOT NULL,  -- some of them
    -- how far it is
    state      text NOT NULL CHECK (state IN ('working', 'done', 'cancelled')),
    position   text NOT NULL,  -- JSON: where the next step goes on
    changed    bigint NOT NULL DEFAULT 0,
    skipped    bigint NOT NULL DEFAULT 0,
    running    bigint NOT NULL DEFAULT 0,
    locked     bigint NOT NULL DEFAULT 0,
    next_at    timestamptz NOT NULL,
    ended_at   timestamptz,
    error      text,  -- why the last step could not be made
    CHECK ((state = 'working') = (ended_at IS NULL))
) WITH (fillfactor = 50);
CREATE INDEX operation_working ON {schema}.operation (next_at) WHERE state = 'working';


-- Crons

CREATE TABLE {schema}.cron (
    id            integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          text NOT NULL UNIQUE,
    expression    text NOT NULL,
    timezone      text NOT NULL,
    enabled       boolean NOT NULL,
    kind          text NOT NULL,
    payload       bytea NOT NULL,
    codec         text NOT NULL,
    -- A cron may leave its queue and its priority to its kind. Then these columns hold what the kind declares at
    -- present, so that nobody has to look there.
    queue_id      integer NOT NULL REFERENCES {schema}.queue,
    queue_said    boolean NOT NULL DEFAULT true,
    priority      smallint NOT NULL,
    priority_said boolean NOT NULL DEFAULT true,
    max_attempts  integer,  -- null: as the kind, or else the queue, says
    timeout       double precision,  -- seconds
    -- the time limits of its jobs, in seconds from when they are enqueued
    start_by      double precision,
    deadline      double precision,
    key           text,  -- of its jobs
    key_mode      text NOT NULL DEFAULT 'dedupe',
    tags          text[] NOT NULL DEFAULT '{}',  -- of its jobs
    groups        text,  -- of its jobs, as in `job`
    tenant        text,  -- of its jobs; excludes groups
    hold          text,  -- what makes its jobs unique for a time, JSON; excludes a key
    overlap       boolean NOT NULL,
    missed        text NOT NULL CHECK (missed IN ('skip', 'latest', 'all')),
    missed_limit  integer NOT NULL CHECK (missed_limit > 0),
    missed_within double precision,  -- seconds; fires that are older are not made up for
    managed_by    text,
    -- What handlers declared of it last, and digests of what they declared before. An older release that says the latter
    -- again has nothing new to say. See `rules/cron_declarations.py`.
    declared        text,
    declared_before text[] NOT NULL DEFAULT '{}',
    next_fire_at  timestamptz,
    last_fire_at  timestamptz,
    last_error    text,
    skipped       bigint NOT NULL DEFAULT 0
);

-- Each fire time of a cron has one job, whichever worker fires it.
CREATE TABLE {schema}.fire (
    cron_id integer NOT NULL REFERENCES {schema}.cron ON DELETE CASCADE,
    fire_at timestamptz NOT NULL,
    job_id  bigint NOT NULL,
    PRIMARY KEY (cron_id, fire_at)
);


-- Notifications

-- Notifies the processes that listen. If one of them does not read its notifications for a long time, the server's
-- queue of notifications fills up, and then each transaction that notifies fails when it commits. So nothing is sent
-- while half of the queue or more is full, and jobs that wait are found by polling.
CREATE FUNCTION {schema}.tell(message text) RETURNS void LANGUAGE sql AS $$
    SELECT CASE WHEN pg_notification_queue_usage() < 0.5 THEN pg_notify({channel}, $1) END
$$;

-- Notifies the processes that wait for jobs of this queue, if there are any. When a transaction with a NOTIFY commits,
-- it takes a lock that the whole server shares, so a busy system must send none.
CREATE FUNCTION {schema}.wake(queue_id integer) RETURNS void LANGUAGE sql AS $$
    SELECT {schema}.tell('queue:' || $1)
    WHERE EXISTS (SELECT FROM {schema}.idle WHERE idle.queue_id = $1)
$$;

-- Counts a change of the configuration and notifies all processes that listen.
CREATE FUNCTION {schema}.configured() RETURNS void LANGUAGE sql AS $$
    UPDATE {schema}.revision SET revision = revision + 1;
    SELECT {schema}.tell('config:')
$$;


-- Functions

CREATE FUNCTION {schema}.micros(moment timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT (extract(epoch FROM $1) * 1000000)::bigint
$$;

-- Adds up two records of attempts, name by name.
CREATE FUNCTION {schema}.summed(one jsonb, other jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(jsonb_object_agg(name, total), '{}')
    FROM (SELECT name, sum(amount::bigint) AS total
          FROM (SELECT * FROM jsonb_each_text($1) UNION ALL SELECT * FROM jsonb_each_text($2)) AS pairs (name, amount)
          GROUP BY name) AS totals
$$;

-- The rows of `job_tag` are those of `job.tags`.
CREATE FUNCTION {schema}.write_tags() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM {schema}.job_tag WHERE job_tag.tag = ANY (OLD.tags) AND job_tag.job_id = OLD.id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO {schema}.job_tag (tag, job_id) SELECT unnest(NEW.tags), NEW.id;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER tagged AFTER INSERT ON {schema}.job FOR EACH ROW WHEN (NEW.tags IS NOT NULL)
    EXECUTE FUNCTION {schema}.write_tags();
CREATE TRIGGER untagged AFTER DELETE ON {schema}.job FOR EACH ROW WHEN (OLD.tags IS NOT NULL)
    EXECUTE FUNCTION {schema}.write_tags();
CREATE TRIGGER retagged AFTER UPDATE OF tags ON {schema}.job FOR EACH ROW WHEN (NEW.tags IS DISTINCT FROM OLD.tags)
    EXECUTE FUNCTION {schema}.write_tags();

-- What a handler saved and reported goes with its job.
CREATE FUNCTION {schema}.forget_reports() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM {schema}.saved_state WHERE saved_state.job_id = OLD.id;
    DELETE FROM {schema}.progress WHERE progress.job_id = OLD.id;
    DELETE FROM {schema}.step WHERE step.job_id = OLD.id;
    DELETE FROM {schema}.signal WHERE signal.job_id = OLD.id;
    DELETE FROM {schema}.pin WHERE pin.job_id = OLD.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER gone AFTER DELETE ON {schema}.job FOR EACH ROW WHEN (OLD.links & 132 <> 0)
    EXECUTE FUNCTION {schema}.forget_reports();
CREATE TRIGGER replaced AFTER UPDATE OF links ON {schema}.job FOR EACH ROW
    WHEN (OLD.links & 132 <> 0 AND coalesce(NEW.links & 132, 0) = 0)
    EXECUTE FUNCTION {schema}.forget_reports();

-- Which of these tags the fewest jobs have, counted up to 1,000: a look for jobs that have all of them begins there. In
-- order: else the planner, which takes each tag for a frequent one, reads the whole table for one that hardly any job has.
CREATE FUNCTION {schema}.rarest(tags text[]) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT one FROM unnest($1) AS one
    ORDER BY (SELECT count(*) FROM (
        SELECT FROM {schema}.job_tag WHERE job_tag.tag = one ORDER BY job_tag.job_id LIMIT 1000) AS few) LIMIT 1
$$;

-- Finds the row of a pending job in `ready`; null: the job is in another state. The index finds a job that has been
-- ready since it was enqueued, and a scan of its queue and priority finds any other.
CREATE FUNCTION {schema}.place(job_id bigint) RETURNS tid LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        (SELECT ready.ctid FROM {schema}.ready
         WHERE ready.queue_id = job.queue_id AND ready.priority = job.priority
           AND ready.pos = {schema}.micros(job.created_at) AND ready.job_id = job.id LIMIT 1),
        (SELECT ready.ctid FROM {schema}.ready
         WHERE ready.queue_id = job.queue_id AND ready.priority = job.priority AND ready.job_id = job.id LIMIT 1))
    FROM {schema}.job
    WHERE job.id = $1
      AND NOT EXISTS (SELECT FROM {schema}.scheduled WHERE scheduled.job_id = $1)
      AND NOT EXISTS (SELECT FROM {schema}.blocked WHERE blocked.job_id = $1)
      AND NOT EXISTS (SELECT FROM {schema}.waiting WHERE waiting.job_id = $1)
      AND NOT EXISTS (SELECT FROM {schema}.claimed WHERE claimed.job_id = $1)
      AND NOT EXISTS (SELECT FROM {schema}.finished WHERE finished.job_id = $1)
$$;

-- How many places a group has free; while it is paused it gives none away. Whoever asks has locked its row.
CREATE FUNCTION {schema}.places_left(of_group bigint, even_if_paused boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
    RETURN (
        SELECT CASE WHEN NOT even_if_paused
                     AND EXISTS (SELECT FROM {schema}.paused_group WHERE paused_group.name = job_group.name) THEN 0
        ELSE coalesce(job_group.set_limit, job_group.said) - (
            SELECT count(*) FROM {schema}.occupant
            WHERE occupant.group_id = of_group AND occupant.since >= coalesce((
                SELECT front.since FROM {schema}.group_front AS front
                WHERE front.group_id = of_group ORDER BY front.number DESC LIMIT 1), 0)) END
        FROM {schema}.job_group WHERE job_group.id = of_group);
END
$$;

-- The front of a group, whose row the caller has locked, is where its first job stands.
CREATE FUNCTION {schema}.move_front(of_group bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    front {schema}.group_front;
BEGIN
    SELECT * INTO front FROM {schema}.group_front WHERE group_id = of_group ORDER BY number DESC LIMIT 1;
    DELETE FROM {schema}.group_front WHERE group_id = of_group AND number = front.number;
    INSERT INTO {schema}.group_front (group_id, number, since, lines)
    SELECT of_group, coalesce(front.number, 0) + 1,
           coalesce((SELECT min(occupant.since) FROM {schema}.occupant
                     WHERE occupant.group_id = of_group AND occupant.since >= coalesce(front.since, 0)), front.since, 0),
           coalesce((
               SELECT jsonb_object_agg(line.key, first.pos)
               FROM jsonb_each_text(front.lines) AS line
               CROSS JOIN LATERAL (
                   SELECT blocked.pos FROM {schema}.blocked
                   WHERE blocked.group_id = of_group AND blocked.priority = line.key::smallint
                     AND blocked.pos >= line.value::bigint
                   ORDER BY blocked.pos LIMIT 1) AS first), '{}');
END
$$;

-- The job stands in the line of a group whose row the caller has locked.
CREATE FUNCTION {schema}.stand_in_line(
    new_id bigint, of_group bigint, since bigint, into_queue integer, attempts integer, urgency smallint, all_groups bigint[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    front {schema}.group_front;
BEGIN
    INSERT INTO {schema}.blocked (job_id, group_id, pos, queue_id, attempt, priority, groups)
    VALUES (new_id, of_group, since, into_queue, attempts, urgency,
            CASE WHEN cardinality(all_groups) > 1 THEN all_groups END);
    SELECT * INTO front FROM {schema}.group_front WHERE group_id = of_group ORDER BY number DESC LIMIT 1;
    IF coalesce((front.lines ->> urgency::text)::bigint > stand_in_line.since, true) THEN
        DELETE FROM {schema}.group_front WHERE group_id = of_group AND number = front.number;
        INSERT INTO {schema}.group_front (group_id, number, since, lines)
        VALUES (of_group, coalesce(front.number, 0) + 1, coalesce(front.since, 0),
                coalesce(front.lines, '{}') || jsonb_build_object(urgency, stand_in_line.since));
    END IF;
END
$$;

-- The job has a place in each of these groups, whose rows the caller has locked, and is ready.
CREATE FUNCTION {schema}.let_in(
    new_id bigint, all_groups bigint[], place bigint, into_queue integer, attempts integer, urgency smallint
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO {schema}.occupant (job_id, group_id, since)
    SELECT new_id, one, greatest({schema}.micros(now()), (
        SELECT front.since FROM {schema}.group_front AS front
        WHERE front.group_id = one ORDER BY front.number DESC LIMIT 1))
    FROM unnest(all_groups) AS one;
    INSERT INTO {schema}.ready (job_id, pos, queue_id, attempt, priority)
    VALUES (new_id, place, into_queue, attempts, urgency);
    IF random() < 0.04 THEN
        PERFORM {schema}.move_front(one) FROM unnest(all_groups) AS one;
    END IF;
END
$$;

-- Gives the free places of these groups to the jobs that stand in their lines: by priority, and then to those that have
-- waited longest. A job of several groups that has no place in another one goes over to the line of that one. Returns
-- groups that have to be admitted to again, in a transaction of its own: the row of one of them was locked, and to wait
-- for it would be out of order. They are `unsettled` as well, should the caller not get to it. Null: there are none.
CREATE FUNCTION {schema}.admit(wanted bigint[]) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    locked bigint[];
    also bigint[];
    todo bigint[];
    again bigint[];
    of_group bigint;
    free bigint;
    refused text[];  -- the sets of groups of which one has no place
    full_group bigint;
    line record;
    next {schema}.blocked;
    admitted integer[] := '{}';
BEGIN
    SELECT array_agg(id) INTO locked FROM (
        SELECT id FROM {schema}.job_group WHERE id = ANY (wanted) ORDER BY id FOR NO KEY UPDATE) AS ours;
    todo := locked;
    WHILE cardinality(todo) > 0 LOOP
        of_group := todo[1];
        todo := todo[2:];
        free := {schema}.places_left(of_group);
        refused := '{}';
        <<places>>
        WHILE free > 0 LOOP
            FOR line IN
                SELECT each.key::smallint AS priority, each.value::bigint AS pos
                FROM (SELECT front.lines FROM {schema}.group_front AS front
                      WHERE front.group_id = of_group ORDER BY front.number DESC LIMIT 1) AS front
                CROSS JOIN LATERAL jsonb_each_text(front.lines) AS each
                ORDER BY each.key::smallint
            LOOP
                SELECT * INTO next FROM {schema}.blocked
                WHERE blocked.group_id = of_group AND blocked.priority = line.priority AND blocked.pos >= line.pos
                  AND (blocked.groups IS NULL OR blocked.groups::text <> ALL (refused))
                ORDER BY blocked.pos, blocked.job_id LIMIT 1
                FOR UPDATE SKIP LOCKED;  -- whoever takes a job out of the line does not wait here, and nobody for it
                EXIT WHEN FOUND;
            END LOOP;
            IF next.job_id IS NULL THEN
                INSERT INTO {schema}.unsettled (group_id)  -- for whoever looks when no other has the job locked
                SELECT of_group WHERE EXISTS (
                    SELECT FROM (SELECT front.lines FROM {schema}.group_front AS front
                                 WHERE front.group_id = of_group ORDER BY front.number DESC LIMIT 1) AS front
                    CROSS JOIN LATERAL jsonb_each_text(front.lines) AS each
                    CROSS JOIN LATERAL (
                        SELECT FROM {schema}.blocked
                        WHERE blocked.group_id = of_group AND blocked.priority = each.key::smallint
                          AND blocked.pos >= each.value::bigint
                          AND (blocked.groups IS NULL OR blocked.groups::text <> ALL (refused))
                        ORDER BY blocked.pos LIMIT 1) AS held);
                EXIT places;
            END IF;
            full_group := NULL;
            IF next.groups IS NOT NULL THEN
                SELECT array_agg(id) INTO also FROM (
                    SELECT id FROM {schema}.job_group WHERE id = ANY (next.groups) AND id <> ALL (locked)
                    FOR NO KEY UPDATE SKIP LOCKED) AS more;
                locked := locked || also;
                IF NOT next.groups <@ locked THEN
                    again := again || next.groups;
                    refused := refused || next.groups::text;
                    next := NULL;
                    CONTINUE;
                END IF;
                SELECT one INTO full_group FROM unnest(next.groups) AS one WHERE {schema}.places_left(one) <= 0 LIMIT 1;
                todo := todo || array_remove(next.groups, of_group);
            END IF;
            DELETE FROM {schema}.blocked WHERE blocked.job_id = next.job_id;
            IF full_group IS NULL THEN
                PERFORM {schema}.let_in(next.job_id, coalesce(next.groups, ARRAY[of_group]),
                                        {schema}.micros(now()) + cardinality(admitted), next.queue_id, next.attempt, next.priority);
                admitted := admitted || next.queue_id;
                free := free - 1;
            ELSE
                PERFORM {schema}.stand_in_line(next.job_id, full_group, next.pos, next.queue_id, next.attempt,
                                               next.priority, next.groups);
                refused := refused || next.groups::text;
            END IF;
            next := NULL;
        END LOOP;
    END LOOP;
    IF cardinality(admitted) > 0 THEN
        INSERT INTO {schema}.tally (queue_id, pending, blocked)
        SELECT one, count(*), -count(*) FROM unnest(admitted) AS one GROUP BY one;
        PERFORM {schema}.wake(one) FROM (SELECT DISTINCT one FROM unnest(admitted) AS one) AS queues;
    END IF;
    IF again IS NOT NULL THEN
        INSERT INTO {schema}.unsettled (group_id) SELECT DISTINCT one FROM unnest(again) AS one;
    END IF;
    RETURN again;
END
$$;

-- The jobs have no place in any group any more, and those that stand in line there, or in the groups `also`, get what is
-- free now. Returns what `admit` returns.
CREATE FUNCTION {schema}.leave_groups(ids bigint[], also bigint[] DEFAULT NULL) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    vacated bigint[];
BEGIN
    WITH gone AS (
        DELETE FROM {schema}.occupant WHERE job_id = ANY (ids) RETURNING group_id
    )
    SELECT array_agg(DISTINCT group_id) INTO vacated FROM gone;
    RETURN CASE WHEN vacated IS NOT NULL OR cardinality(also) > 0 THEN {schema}.admit(vacated || also) END;
END
$$;

-- The job is in no state to run any more, or never was: it has no place in these groups, and stands in no line. `groups`
-- is what `job.groups` was. The places are given away here, which locks the groups until the transaction ends, or,
-- where that may be long (`late`), by whoever looks after its commit.
CREATE FUNCTION {schema}.hand_over(gone_id bigint, groups text, late boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    left_groups bigint[];
BEGIN
    DELETE FROM {schema}.occupant WHERE occupant.job_id = gone_id;
    IF groups IS NULL THEN
        RETURN;
    END IF;
    SELECT array_agg(job_group.id) INTO left_groups  -- all: it may have been the only one in the line of one of them
    FROM jsonb_object_keys(groups::jsonb) AS rule (name) JOIN {schema}.job_group ON job_group.name = rule.name;
    IF late THEN
        INSERT INTO {schema}.unsettled (group_id) SELECT one FROM unnest(left_groups) AS one;
    ELSE
        left_groups := {schema}.admit(left_groups);
    END IF;
    IF left_groups IS NOT NULL THEN
        PERFORM {schema}.tell('due:');
    END IF;
END
$$;

-- Whether a job that says these groups keeps the places that it has by those that it said before.
CREATE FUNCTION {schema}.keeps_places(before text, now_said text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT (SELECT coalesce(array_agg(name ORDER BY name), '{}') FROM jsonb_object_keys($1::jsonb) AS name)
         = (SELECT coalesce(array_agg(name ORDER BY name), '{}') FROM jsonb_object_keys($2::jsonb) AS name)
$$;

-- The jobs that are pending in a paused group, whose row the caller has locked, stand in its line again, before those that
-- stand there. Returns the other groups in which they had places.
CREATE FUNCTION {schema}.withdraw(of_group bigint) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    again bigint[];
    waited record;
    its_groups bigint[];
BEGIN
    IF NOT {schema}.has_unclaimed(of_group) THEN  -- else nobody has to look for them in all that is ready
        RETURN NULL;
    END IF;
    FOR waited IN
        SELECT ready.ctid AS at, ready.* FROM {schema}.ready
        WHERE ready.job_id = ANY (ARRAY(SELECT occupant.job_id FROM {schema}.occupant WHERE occupant.group_id = of_group))
        ORDER BY ready.pos DESC FOR UPDATE SKIP LOCKED
    LOOP
        DELETE FROM {schema}.ready WHERE ready.ctid = waited.at;
        WITH gone AS (
            DELETE FROM {schema}.occupant WHERE occupant.job_id = waited.job_id RETURNING occupant.group_id
        )
        SELECT array_agg(gone.group_id ORDER BY gone.group_id), again || array_agg(gone.group_id) FILTER (WHERE gone.group_id <> of_group)
        INTO its_groups, again FROM gone;
        PERFORM {schema}.stand_in_line(
            waited.job_id, of_group,
            least(waited.pos, (SELECT (front.lines ->> waited.priority::text)::bigint - 1 FROM {schema}.group_front AS front
                               WHERE front.group_id = of_group ORDER BY front.number DESC LIMIT 1)),
            waited.queue_id, waited.attempt, waited.priority, its_groups);
        INSERT INTO {schema}.tally (queue_id, pending, blocked) VALUES (waited.queue_id, -1, 1);
    END LOOP;
    INSERT INTO {schema}.unsettled (group_id)  -- for whoever looks when no other has the job locked
    SELECT of_group WHERE {schema}.has_unclaimed(of_group);
    RETURN again;
END
$$;

-- Whether a job that has a place in the group is not in progress.
CREATE FUNCTION {schema}.has_unclaimed(of_group bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM {schema}.occupant
        WHERE occupant.group_id = of_group
          AND NOT EXISTS (SELECT FROM {schema}.claimed WHERE claimed.job_id = occupant.job_id));
END
$$;

-- The jobs of these groups are as they should be: those that are pending stand in line while the group is paused, and else
-- free places are given away. Returns what `admit` returns.
CREATE FUNCTION {schema}.settle(wanted bigint[]) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    of_group bigint;
    others bigint[];
    again bigint[];
BEGIN
    PERFORM FROM {schema}.job_group WHERE job_group.id = ANY (wanted) ORDER BY job_group.id FOR NO KEY UPDATE;
    FOR of_group IN
        SELECT job_group.id FROM {schema}.job_group JOIN {schema}.paused_group USING (name) WHERE job_group.id = ANY (wanted)
    LOOP
        others := others || {schema}.withdraw(of_group);
    END LOOP;
    again := {schema}.admit(wanted);
    IF others IS NOT NULL THEN
        INSERT INTO {schema}.unsettled (group_id) SELECT DISTINCT one FROM unnest(others) AS one;
    END IF;
    RETURN again || others;
END
$$;

-- What transactions have left `unsettled` is done for up to so many entries. Returns how many there were, and what `admit`
-- returns. Whoever gets here first takes entries on, so that none waits for another one.
CREATE FUNCTION {schema}.settle_next(most integer, OUT settled integer, OUT again bigint[]) LANGUAGE plpgsql AS $$
DECLARE
    group_ids bigint[];
    limits integer[];
    moments timestamptz[];
BEGIN
    WITH mine AS (
        DELETE FROM {schema}.unsettled WHERE id = ANY (ARRAY(
            SELECT id FROM {schema}.unsettled WHERE group_id IS NOT NULL ORDER BY id LIMIT most FOR UPDATE SKIP LOCKED))
        RETURNING group_id, said, said_at
    )
    SELECT count(*), array_agg(group_id), array_agg(said), array_agg(said_at) INTO settled, group_ids, limits, moments FROM mine;
    PERFORM FROM {schema}.job_group WHERE job_group.id = ANY (group_ids) ORDER BY job_group.id FOR NO KEY UPDATE;
    PERFORM {schema}.say(group_ids, limits, moments);
    again := {schema}.settle(ARRAY(SELECT DISTINCT one FROM unnest(group_ids) AS one));
END
$$;

-- These groups, whose rows the caller has locked, have the limits that were said last; those of queues are of no moment.
CREATE FUNCTION {schema}.say(group_ids bigint[], limits integer[], moments timestamptz[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE {schema}.job_group SET said = newest.said, said_at = newest.at
    FROM (
        SELECT DISTINCT ON (one.group_id) one.*
        FROM unnest(group_ids, limits, moments) WITH ORDINALITY AS one (group_id, said, at, number)
        WHERE one.said IS NOT NULL ORDER BY one.group_id, one.at DESC, one.number DESC) AS newest
    WHERE job_group.id = newest.group_id AND job_group.said_at <= newest.at
      AND (job_group.said <> newest.said OR (job_group.said_at = '-infinity' AND newest.at > '-infinity'));
END
$$;

-- These groups were paused or resumed by this transaction, and their jobs follow. Whoever uses one of them for the first time
-- at this moment makes its row, and so does this: one of the two waits, and then sees what the other has done. Returns
-- what `admit` returns.
CREATE FUNCTION {schema}.switched(names text[]) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    made bigint[];
    again bigint[];
BEGIN
    WITH new AS (
        INSERT INTO {schema}.job_group (name, said, said_at)
        SELECT one, 1, '-infinity' FROM unnest(names) AS one ORDER BY one
        ON CONFLICT DO NOTHING
        RETURNING id
    )
    SELECT array_agg(new.id) INTO made FROM new;
    again := {schema}.settle(ARRAY(SELECT job_group.id FROM {schema}.job_group WHERE job_group.name = ANY (names)));
    DELETE FROM {schema}.job_group WHERE job_group.id = ANY (made);
    PERFORM {schema}.configured();
    RETURN again;
END
$$;

-- The jobs `gone` were handed back and have ended; the others are pending again in the places that they kept, unless a group
-- of theirs is paused. Returns what `admit` returns.
CREATE FUNCTION {schema}.handed_back(gone bigint[], kept bigint[]) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    its_groups bigint[];
BEGIN
    SELECT array_agg(ours.id) INTO its_groups FROM (  -- whoever pauses one of them at this moment waits, or is waited for
        SELECT job_group.id FROM {schema}.job_group
        WHERE job_group.id = ANY (ARRAY(SELECT occupant.group_id FROM {schema}.occupant WHERE occupant.job_id = ANY (gone || kept)))
        ORDER BY job_group.id FOR NO KEY UPDATE) AS ours;
    RETURN {schema}.leave_groups(gone) || {schema}.settle(ARRAY(
        SELECT job_group.id FROM {schema}.job_group JOIN {schema}.paused_group USING (name) WHERE job_group.id = ANY (its_groups)));
END
$$;

-- These jobs, which are in no state, are ready at their places, or blocked, in their order. `rules` are their groups as
-- in `job.groups`; those that `are_new` ask for the first time. `dropped` are those that their rules drop because there
-- is no place: they stay in no state; `holders` are the jobs that have the places. `in_way` are
-- jobs that are to be cancelled, as the rules of others say; they are `unsettled` until that is done. `again` is what
-- `admit` returns.
CREATE FUNCTION {schema}.join_groups(
    ids bigint[], queue_ids integer[], priorities smallint[], attempts integer[], places bigint[], rules text[],
    asked_at timestamptz[], are_new boolean[], OUT dropped bigint[], OUT holders bigint[], OUT in_way bigint[], OUT again bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    names text[];
    locked bigint[];
    mine bigint[];
    full_groups bigint[];
    rule record;
    has_said boolean;
    is_dropped boolean;
    ready integer[] := '{}';
    waiting integer[] := '{}';
BEGIN
    IF ids IS NULL THEN
        RETURN;
    END IF;
    SELECT coalesce(array_agg(DISTINCT one.key), '{}'), bool_or(one.value ? 'limit') INTO names, has_said
    FROM unnest(rules) AS asked (rules) CROSS JOIN LATERAL jsonb_each(asked.rules::jsonb) AS one;
    has_said := has_said OR EXISTS (
        SELECT FROM {schema}.queue WHERE queue.id = ANY (queue_ids) AND queue.group_limit IS NOT NULL);
    LOOP
        WITH made AS (  -- in one order, so that no two wait for each other
            INSERT INTO {schema}.job_group (name, said, said_at)
            SELECT one, 1, '-infinity' FROM unnest(names) AS one
            WHERE NOT EXISTS (SELECT FROM {schema}.job_group WHERE job_group.name = one)
            ORDER BY one
            ON CONFLICT DO NOTHING
            RETURNING id
        )
        INSERT INTO {schema}.group_front (group_id, number, since, lines) SELECT made.id, 0, 0, '{}' FROM made;
        SELECT array_agg(id) INTO locked FROM (
            SELECT job_group.id FROM {schema}.job_group WHERE job_group.name = ANY (names)
            ORDER BY job_group.id FOR NO KEY UPDATE) AS ours;
        EXIT WHEN coalesce(cardinality(locked), 0) = cardinality(names);  -- else one was forgotten meanwhile
    END LOOP;
    IF has_said THEN
        PERFORM {schema}.say(array_agg(job_group.id ORDER BY asked.number),
                             array_agg(coalesce((one.value ->> 'limit')::integer, queue.group_limit) ORDER BY asked.number),
                             array_agg(CASE WHEN one.value ? 'limit' THEN asked.at ELSE '-infinity' END ORDER BY asked.number))
        FROM unnest(rules, asked_at, queue_ids) WITH ORDINALITY AS asked (rules, at, queue_id, number)
        JOIN {schema}.queue ON queue.id = asked.queue_id
        CROSS JOIN LATERAL jsonb_each(asked.rules::jsonb) AS one
        JOIN {schema}.job_group ON job_group.name = one.key;
    END IF;
    again := {schema}.admit(locked);  -- those that stand in line come first
    FOR number IN 1 .. cardinality(ids) LOOP
        SELECT array_agg(job_group.id ORDER BY job_group.id) INTO mine FROM {schema}.job_group
        WHERE job_group.name IN (SELECT jsonb_object_keys(rules[number]::jsonb));
        SELECT array_agg(one) INTO full_groups FROM unnest(mine) AS one WHERE {schema}.places_left(one) <= 0;
        IF full_groups IS NULL THEN
            -- in its queue it is behind those that are ready, although it may have asked long before
            PERFORM {schema}.let_in(ids[number], coalesce(mine, '{}'),
                                    greatest(places[number], {schema}.micros(now()) + cardinality(ready)),
                                    queue_ids[number], attempts[number], priorities[number]);
            ready := ready || queue_ids[number];
            CONTINUE;
        END IF;
        is_dropped := false;
        IF are_new[number] THEN  -- one that has waited here or run before waits for its turn
            FOR rule IN
                SELECT job_group.id, one.value ->> 'overflow' AS overflow
                FROM jsonb_each(rules[number]::jsonb) AS one JOIN {schema}.job_group ON job_group.name = one.key
                WHERE job_group.id = ANY (full_groups) AND one.value ? 'overflow'
                ORDER BY one.value ->> 'overflow' DESC  -- dropped or not is to be known first
            LOOP
                IF rule.overflow = 'drop_newest' THEN
                    -- One that is full only because it is paused has as many who wait as it has places.
                    CONTINUE WHEN {schema}.places_left(rule.id, true)
                        > (SELECT count(*) FROM {schema}.blocked WHERE blocked.group_id = rule.id);
                    is_dropped := true;
                    dropped := dropped || ids[number];
                    holders := holders || coalesce(
                        (SELECT occupant.job_id FROM {schema}.occupant
                         WHERE occupant.group_id = rule.id ORDER BY occupant.since LIMIT 1),
                        (SELECT blocked.job_id FROM {schema}.blocked
                         WHERE blocked.group_id = rule.id ORDER BY blocked.priority, blocked.pos LIMIT 1));
                    EXIT;
                ELSIF rule.overflow = 'cancel_running' THEN
                    in_way := in_way
                        || ARRAY(SELECT blocked.job_id FROM {schema}.blocked WHERE blocked.group_id = rule.id)
                        || ARRAY(SELECT blocked.job_id FROM {schema}.blocked WHERE blocked.groups @> ARRAY[rule.id])
                        || ARRAY(SELECT occupant.job_id FROM {schema}.occupant
                                 WHERE occupant.group_id = rule.id AND {schema}.places_left(rule.id, true) <= 0
                                 ORDER BY occupant.since, occupant.job_id LIMIT 1);
                END IF;
            END LOOP;
        END IF;
        IF NOT is_dropped THEN
            PERFORM {schema}.stand_in_line(ids[number], full_groups[1], places[number], queue_ids[number],
                                           attempts[number], priorities[number], mine);
            waiting := waiting || queue_ids[number];
        END IF;
    END LOOP;
    INSERT INTO {schema}.unsettled (job_id) SELECT DISTINCT one FROM unnest(in_way) AS one;
    INSERT INTO {schema}.tally (queue_id, pending, blocked)
    SELECT one.queue_id, count(*) FILTER (WHERE one.is_ready), count(*) FILTER (WHERE NOT one.is_ready)
    FROM (SELECT unnest(ready) AS queue_id, true AS is_ready UNION ALL SELECT unnest(waiting), false) AS one
    GROUP BY one.queue_id;
    PERFORM {schema}.wake(one) FROM (SELECT DISTINCT one FROM unnest(ready) AS one) AS queues;
END
$$;

-- The turn that comes now, among the jobs of one priority of a queue: the last one of which a job was claimed, or, if that
-- is later, what is just before the turn of the first job that waits. Where none waits, the turns go on from the present
-- moment, as the places of jobs without tenants do.
CREATE FUNCTION {schema}.coming_turn(queue_id integer, priority smallint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    last bigint;
    foremost bigint;
BEGIN
    SELECT clock.pos INTO last FROM {schema}.tenant_clock AS clock
    WHERE clock.queue_id = coming_turn.queue_id AND clock.priority = coming_turn.priority ORDER BY clock.pos DESC LIMIT 1;
    SELECT ready.pos INTO foremost FROM {schema}.ready
    WHERE ready.queue_id = coming_turn.queue_id AND ready.priority = coming_turn.priority AND ready.pos >= coalesce(last, 0)
    ORDER BY ready.pos LIMIT 1;
    RETURN greatest(last, coalesce(foremost - 1, {schema}.micros(now())));
END
$$;

-- Takes away the newest row of a tenant's turns, which is made anew by who took it; returns its number, 0 if there was none, and
-- where its turns end.
CREATE FUNCTION {schema}.taken_turn(queue_id integer, priority smallint, tenant text, OUT number bigint, OUT until bigint)
LANGUAGE plpgsql AS $$
BEGIN
    LOOP
        DELETE FROM {schema}.tenant_turn AS turn
        WHERE turn.queue_id = taken_turn.queue_id AND turn.priority = taken_turn.priority AND turn.tenant = taken_turn.tenant
          AND turn.number = (
              SELECT newest.number FROM {schema}.tenant_turn AS newest
              WHERE newest.queue_id = taken_turn.queue_id AND newest.priority = taken_turn.priority
                AND newest.tenant = taken_turn.tenant ORDER BY newest.number DESC LIMIT 1)
        RETURNING turn.number, turn.until INTO taken_turn.number, taken_turn.until;
        EXIT WHEN FOUND;
        -- It has no row yet, or another transaction was first, which has ended: of two that find none, the second waits here.
        INSERT INTO {schema}.tenant_turn (queue_id, priority, tenant, number, until)
        VALUES (taken_turn.queue_id, taken_turn.priority, taken_turn.tenant, 0, 0)
        ON CONFLICT DO NOTHING;
    END LOOP;
END
$$;

-- Gives these jobs, which have tenants, their turns, in their order; wakes idle workers, and tells them where jobs stand that
-- they may have passed. The caller makes the jobs ready at the turns that this returns. Which turns come now, and who is
-- idle, is asked when everything is locked: whoever was waited for may have taken long. Jobs of kinds that are paused take
-- turns among those that were passed over: for them it is the turn of the first job that waits that comes.
CREATE FUNCTION {schema}.take_turns(
    ids bigint[], queue_ids integer[], priorities smallint[], tenants text[], are_paused boolean[] DEFAULT NULL
)
RETURNS TABLE (job_id bigint, pos bigint) LANGUAGE plpgsql AS $$
DECLARE
    line record;
    of_class record;
    last record;
    numbers bigint[] := '{}';  -- of the rows that were taken away, in the order of the lines
    ends bigint[] := '{}';
    at integer := 0;
    stride bigint;
    part bigint;  -- where in each of its strides the tenant begins
    given bigint;  -- where the last turn ends that the tenant was given
    first bigint;
    foremost bigint;  -- of those that are given
    comes bigint;
    behind bigint;  -- which turn comes, where kinds are paused, of those that were passed over
BEGIN
    IF ids IS NULL THEN
        RETURN;
    END IF;
    FOR line IN  -- in one order, so that no two wait for each other; tenants as programs sort, which ask in pieces
        SELECT asked.queue_id, asked.priority, asked.tenant
        FROM unnest(queue_ids, priorities, tenants) AS asked (queue_id, priority, tenant)
        GROUP BY 1, 2, 3 ORDER BY 1, 2, asked.tenant COLLATE "C"
    LOOP
        last := {schema}.taken_turn(line.queue_id, line.priority, line.tenant);
        numbers := numbers || last.number;
        ends := ends || last.until;
    END LOOP;
    FOR of_class IN
        SELECT DISTINCT asked.queue_id, asked.priority FROM unnest(queue_ids, priorities) AS asked (queue_id, priority)
        ORDER BY 1, 2
    LOOP
        comes := {schema}.coming_turn(of_class.queue_id, of_class.priority);
        foremost := NULL;
        IF true = ANY (are_paused) THEN
            SELECT least(comes, ready.pos - 1) INTO behind FROM {schema}.ready
            WHERE ready.queue_id = of_class.queue_id AND ready.priority = of_class.priority ORDER BY ready.pos LIMIT 1;
        END IF;
        FOR line IN
            SELECT asked.tenant, array_agg(asked.job_id ORDER BY asked.number) FILTER (WHERE asked.is_paused IS NOT TRUE) AS jobs,
                   array_agg(asked.job_id ORDER BY asked.number) FILTER (WHERE asked.is_paused) AS paused
            FROM unnest(ids, queue_ids, priorities, tenants, are_paused) WITH ORDINALITY
                 AS asked (job_id, queue_id, priority, tenant, is_paused, number)
            WHERE asked.queue_id = of_class.queue_id AND asked.priority = of_class.priority
            GROUP BY asked.tenant ORDER BY asked.tenant COLLATE "C"
        LOOP
            at := at + 1;
            stride := greatest(1, round(10000 / coalesce((
                SELECT weight FROM {schema}.tenant_weight
                WHERE tenant_weight.queue_id = of_class.queue_id AND tenant_weight.tenant = line.tenant), 1)));
            -- Were very many tenants' first turns in one place, each claim would walk over all that was claimed of it. So a
            -- stride has ten places at which tenants begin, the same in every stride: whoever comes later does not pass a job that
            -- waits again and again. Those that were enqueued together, and lie together, have the same place; the next
            -- ones have the one before it, which comes last.
            part := stride * (9 - (coalesce(line.jobs, line.paused))[1] / 10000 % 10) / 10;
            given := ends[at];
            IF line.paused IS NOT NULL THEN
                first := coalesce(behind, comes) * 1000;
                first := greatest(first - (first - part) % stride, given);
                given := first + cardinality(line.paused) * stride;
                foremost := least(foremost, (first + stride) / 1000);
                RETURN QUERY SELECT one.id, (first + one.number * stride) / 1000
                             FROM unnest(line.paused) WITH ORDINALITY AS one (id, number);
            END IF;
            IF line.jobs IS NOT NULL THEN
                first := comes * 1000;
                first := greatest(first - (first - part) % stride, given);
                given := first + cardinality(line.jobs) * stride;
                foremost := least(foremost, (first + stride) / 1000);
                RETURN QUERY SELECT one.id, (first + one.number * stride) / 1000
                             FROM unnest(line.jobs) WITH ORDINALITY AS one (id, number);
            END IF;
            INSERT INTO {schema}.tenant_turn (queue_id, priority, tenant, number, until)
            VALUES (of_class.queue_id, of_class.priority, line.tenant,
                    CASE numbers[at] WHEN 0 THEN comes / 1000000 * 1000000000 ELSE numbers[at] + 1 END, given);
        END LOOP;
        PERFORM {schema}.wake(of_class.queue_id);
        PERFORM {schema}.tell('behind:' || concat_ws(',', of_class.queue_id, of_class.priority, foremost, 0))
        WHERE foremost <= {schema}.micros(now())
          AND EXISTS (SELECT FROM {schema}.idle WHERE idle.queue_id = of_class.queue_id);
    END LOOP;
END
$$;

-- The turns that these tenants were given, in one priority of a queue, end so late at least, in thousandths of a `pos`. Their
-- rows are taken away and made anew as `take_turns` does it.
CREATE FUNCTION {schema}.end_turns(queue_id integer, priority smallint, tenants text[], untils bigint[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    line record;
    last record;
BEGIN
    FOR line IN
        SELECT asked.tenant, asked.until FROM unnest(tenants, untils) AS asked (tenant, until)
        ORDER BY asked.tenant COLLATE "C"
    LOOP
        last := {schema}.taken_turn(end_turns.queue_id, end_turns.priority, line.tenant);
        INSERT INTO {schema}.tenant_turn (queue_id, priority, tenant, number, until)
        VALUES (end_turns.queue_id, end_turns.priority, line.tenant,
                CASE last.number WHEN 0 THEN line.until / 1000000000 * 1000000000 ELSE last.number + 1 END,
                greatest(last.until, line.until));
    END LOOP;
END
$$;

-- A job that is in no state begins to wait: until `due`, or, when that is past or null, at the place `pos` in its queue,
-- the last one unless it is given. In a transaction that others may outrun (`late`), workers are told in any case, and
-- also where the job stands, since jobs after it may have been claimed by the time it is seen.
CREATE FUNCTION {schema}.begin_wait(
    job_id bigint, queue_id integer, priority smallint, due timestamptz, late boolean, pos bigint DEFAULT NULL,
    links smallint DEFAULT NULL, since bigint DEFAULT NULL
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- One with groups or a tenant is scheduled for now: nothing that others need is locked, and whoever makes it pending
    -- sees to it.
    IF coalesce(links & 9, 0) <> 0 OR begin_wait.due > statement_timestamp() THEN
        INSERT INTO {schema}.scheduled (job_id, run_at, queue_id, attempt, priority, reason, links)
        VALUES (begin_wait.job_id, coalesce(begin_wait.due, statement_timestamp()), begin_wait.queue_id, 0,
                begin_wait.priority, 'delayed', begin_wait.links);
        INSERT INTO {schema}.tally (queue_id, scheduled) VALUES (begin_wait.queue_id, 1);
        IF late OR coalesce(links & 9, 0) <> 0 OR begin_wait.due < statement_timestamp() + interval '10 seconds' THEN
            PERFORM {schema}.tell('due:');
        END IF;
        RETURN;
    END IF;
    INSERT INTO {schema}.ready (job_id, pos, queue_id, attempt, priority, since)
    VALUES (begin_wait.job_id, coalesce(begin_wait.pos, {schema}.micros(statement_timestamp())), begin_wait.queue_id, 0,
            begin_wait.priority, begin_wait.since);
    INSERT INTO {schema}.tally (queue_id, pending) VALUES (begin_wait.queue_id, 1);
    IF late OR EXISTS (SELECT FROM {schema}.idle WHERE idle.queue_id = begin_wait.queue_id) THEN
        PERFORM {schema}.tell('queue:' || begin_wait.queue_id);
    END IF;
    IF late OR begin_wait.pos IS NOT NULL THEN
        PERFORM {schema}.tell('behind:' || concat_ws(',', begin_wait.queue_id, begin_wait.priority,
                              coalesce(begin_wait.pos, {schema}.micros(statement_timestamp())), 0));
    END IF;
END
$$;

-- What a job with these groups, time limits and tenant is linked to; null: nothing.
CREATE FUNCTION {schema}.links_of(groups text, start_by timestamptz, deadline timestamptz, tenant text) RETURNS smallint
LANGUAGE sql IMMUTABLE AS $$
    SELECT nullif(($1 IS NOT NULL)::integer + 2 * (coalesce($2, $3) IS NOT NULL)::integer + 8 * ($4 IS NOT NULL)::integer,
                  0)::smallint
$$;

-- Whether two payloads mean something different. JSON is compared by its meaning; what is no JSON that the database
-- knows, byte by byte.
CREATE FUNCTION {schema}.differs(one bytea, codec text, other bytea, other_codec text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF codec = other_codec AND one = other THEN
        RETURN false;
    END IF;
    RETURN codec <> 'json' OR other_codec <> 'json' OR convert_from(one, 'UTF8')::jsonb <> convert_from(other, 'UTF8')::jsonb;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    RETURN true;
END
$$;

-- Whether a job was enqueued with another payload; null: it is gone, or the role may not read payloads.
CREATE FUNCTION {schema}.payload_differs(job_id bigint, payload bytea, codec text) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF has_column_privilege('{schema_text}.job', 'payload', 'SELECT')
       AND has_column_privilege('{schema_text}.job', 'codec', 'SELECT') THEN
        RETURN (SELECT {schema}.differs(job.payload, job.codec, payload_differs.payload, payload_differs.codec)
                FROM {schema}.job WHERE job.id = payload_differs.job_id);
    END IF;
    RETURN NULL;
END
$$;

-- Whether bytes are a list in JSON, as far as the database can tell.
CREATE FUNCTION {schema}.is_list(payload bytea) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN json_typeof(convert_from(payload, 'UTF8')::json) = 'array';
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    RETURN false;
END
$$;

-- The payload of a job that waits, with the items of another one after its own: both are JSON lists. They are joined as they
-- are written, so that what no database could write again stays as it is; but what is added has to be read, so that it
-- does not spoil what waits.
CREATE FUNCTION {schema}.merged(
    waits bytea, waits_codec text, added bytea, added_codec text, most_bytes integer
) RETURNS bytea LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    blank bytea := '\x20090a0d';
    empty_note bytea := '{"forge_jobs.items":{}},';  -- as enqueue puts it before an item that would be read as a note
    lists bytea[];
    size bigint;
BEGIN
    waits := btrim(waits, blank);
    added := btrim(added, blank);
    IF waits_codec <> 'json' OR added_codec <> 'json' OR substr(waits, 1, 1) <> '['
       OR substr(waits, length(waits)) <> ']' OR NOT {schema}.is_list(added) THEN
        RAISE EXCEPTION 'key_mode is "merge" and a payload is no list in JSON, allowed are lists, which are joined.'
            USING ERRCODE = 'FJ001';
    END IF;
    waits := btrim(substr(waits, 2, length(waits) - 2), blank);
    added := btrim(substr(added, 2, length(added) - 2), blank);
    IF waits <> '' AND substr(added, 1, length(empty_note)) = empty_note THEN  -- behind other items nothing is read as a note
        added := substr(added, length(empty_note) + 1);
    END IF;
    lists := array_remove(ARRAY[waits, added], '');
    size := length(waits) + length(added) + greatest(cardinality(lists) - 1, 0) + 2;
    IF size > most_bytes THEN
        RAISE EXCEPTION 'The payload would have % bytes with what waits under its key, allowed are %.',
            to_char(size, 'FM999,999,999,999'), to_char(most_bytes, 'FM999,999,999,999') USING ERRCODE = 'FJ001';
    END IF;
    RETURN '['::bytea || coalesce(lists[1], '') || CASE WHEN cardinality(lists) = 2 THEN ','::bytea || lists[2] ELSE '' END
           || ']'::bytea;
END
$$;

-- Makes a waiting job the one that is asked for, with its id, as if it was enqueued now; false: it does not wait. Of a job
-- whose attempts have not counted, 'preserve_run_at' keeps the place or the time, and 'put_off' lets it wait anew, but no
-- longer than `max_wait` since it was enqueued first, or stay where it is if it is pending. 'merge' keeps its items, before
-- those that are asked for. Time limits are moments, or count from when the job is due then, or from now if that is past.
--
-- The row of the job's state is locked first, and made anew, so that no claim that looked before takes the job with its
-- old payload.
CREATE FUNCTION {schema}.rewrite_job(
    job_id bigint, queue_id integer, priority smallint, max_attempts integer, timeout double precision, codec text,
    payload bytea, mode text, max_wait interval, due timestamptz, late boolean, groups text, tags text[], start_by timestamptz,
    deadline timestamptz, start_within interval, ends_within interval, tenant text, most_bytes integer, meta text
) RETURNS boolean LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    waited record;
    stood {schema}.blocked;  -- its place in a line; null: it is not blocked
    waits boolean := false;  -- for a signal
    stays boolean;
    keeps boolean;
    groups_before text;
    tenant_before text;
    priority_before smallint;
    created timestamptz;
BEGIN
    DELETE FROM {schema}.ready WHERE ready.ctid = {schema}.place(rewrite_job.job_id)
    RETURNING ready.queue_id, ready.attempt, ready.pos, NULL::timestamptz AS run_at, ready.since INTO waited;
    IF NOT FOUND THEN
        DELETE FROM {schema}.scheduled WHERE scheduled.job_id = rewrite_job.job_id
        RETURNING scheduled.queue_id, scheduled.attempt, NULL::bigint AS pos, scheduled.run_at, NULL::bigint AS since INTO waited;
    END IF;
    IF NOT FOUND THEN
        DELETE FROM {schema}.blocked WHERE blocked.job_id = rewrite_job.job_id RETURNING blocked.* INTO stood;
        IF FOUND THEN
            SELECT stood.queue_id, stood.attempt, stood.pos, NULL::timestamptz AS run_at, NULL::bigint AS since INTO waited;
        END IF;
    END IF;
    IF NOT FOUND THEN
        PERFORM FROM {schema}.job WHERE job.id = rewrite_job.job_id AND EXISTS (
            SELECT FROM {schema}.waiting WHERE waiting.job_id = rewrite_job.job_id) FOR NO KEY UPDATE;
        DELETE FROM {schema}.waiting WHERE waiting.job_id = rewrite_job.job_id
        RETURNING waiting.queue_id, waiting.attempt, NULL::bigint AS pos, statement_timestamp() AS run_at, NULL::bigint AS since INTO waited;
        IF NOT FOUND THEN
            RETURN false;
        END IF;
        waits := true;
    END IF;
    INSERT INTO {schema}.tally (queue_id, pending, scheduled, blocked, waiting)
    VALUES (waited.queue_id, -(waited.run_at IS NULL AND stood.job_id IS NULL)::integer, -(waited.run_at IS NOT NULL AND NOT waits)::integer,
            -nullif((stood.job_id IS NOT NULL)::integer, 0), -nullif(waits::integer, 0));
    stays := mode IN ('preserve_run_at', 'put_off') AND waited.attempt = 0;
    SELECT job.groups, job.tenant, job.priority, job.created_at
    INTO groups_before, tenant_before, priority_before, created
    FROM {schema}.job WHERE job.id = rewrite_job.job_id;
    IF stays AND mode = 'put_off' AND waited.run_at IS NOT NULL THEN
        due := least(rewrite_job.due, created + max_wait);
    ELSIF stays THEN  -- with groups, it is scheduled for when it began to wait, and stands in its line as of then
        due := coalesce(waited.run_at, timestamptz 'epoch' + coalesce(waited.since, waited.pos) * interval '1 microsecond');
    END IF;
    start_by := coalesce(rewrite_job.start_by, greatest(rewrite_job.due, statement_timestamp()) + start_within);
    deadline := coalesce(rewrite_job.deadline, greatest(rewrite_job.due, statement_timestamp()) + ends_within);
    IF mode = 'merge' THEN
        rewrite_job.payload := (
            SELECT {schema}.merged(job.payload, job.codec, rewrite_job.payload, rewrite_job.codec, most_bytes)
            FROM {schema}.job WHERE job.id = rewrite_job.job_id);
    END IF;
    -- with another priority, it would stand elsewhere in the line of a group, whose row is not locked here
    keeps := stays AND waited.run_at IS NULL AND coalesce(stood.priority = rewrite_job.priority, true)
             AND {schema}.keeps_places(groups_before, rewrite_job.groups)
             AND tenant_before IS NOT DISTINCT FROM rewrite_job.tenant
             AND (tenant_before IS NULL  -- elsewhere its turn means nothing
                  OR (waited.queue_id, priority_before) = (rewrite_job.queue_id, rewrite_job.priority));
    IF tenant_before IS NOT NULL AND rewrite_job.tenant IS NULL THEN  -- its place is a turn, and not a moment
        waited.pos := coalesce(waited.since, waited.pos);
        waited.since := NULL;
    END IF;
    UPDATE {schema}.job
    SET queue_id = rewrite_job.queue_id, priority = rewrite_job.priority, max_attempts = rewrite_job.max_attempts,
        timeout = rewrite_job.timeout, codec = rewrite_job.codec, payload = rewrite_job.payload,
        created_at = CASE WHEN stays THEN job.created_at ELSE statement_timestamp() END,
        links = nullif(coalesce({schema}.links_of(rewrite_job.groups, rewrite_job.start_by, rewrite_job.deadline,
                                                  rewrite_job.tenant), 0) | (coalesce(job.links, 0) & 64), 0),
        groups = rewrite_job.groups, tags = rewrite_job.tags, asked_priority = NULL, tenant = rewrite_job.tenant,
        meta = rewrite_job.meta, replaced = coalesce(job.replaced, 0) + 1
    WHERE job.id = rewrite_job.job_id;
    DELETE FROM {schema}.time_limit WHERE time_limit.job_id = rewrite_job.job_id;
    INSERT INTO {schema}.time_limit (job_id, start_by, deadline, look_at)
    SELECT rewrite_job.job_id, rewrite_job.start_by, rewrite_job.deadline, least(rewrite_job.start_by, rewrite_job.deadline)
    WHERE coalesce(rewrite_job.start_by, rewrite_job.deadline) IS NOT NULL;
    DELETE FROM {schema}.failure WHERE failure.job_id = rewrite_job.job_id;
    IF keeps AND stood.job_id IS NOT NULL THEN
        INSERT INTO {schema}.blocked (job_id, group_id, pos, queue_id, attempt, priority, groups)
        VALUES (stood.job_id, stood.group_id, stood.pos, rewrite_job.queue_id, 0, stood.priority, stood.groups);
        INSERT INTO {schema}.tally (queue_id, blocked) VALUES (rewrite_job.queue_id, 1);
    ELSE
        PERFORM {schema}.begin_wait(
            rewrite_job.job_id, rewrite_job.queue_id, rewrite_job.priority, rewrite_job.due, late,
            CASE WHEN stays THEN waited.pos END,
            CASE WHEN keeps THEN {schema}.links_of(NULL, rewrite_job.start_by, rewrite_job.deadline, NULL)
                 ELSE {schema}.links_of(rewrite_job.groups, rewrite_job.start_by, rewrite_job.deadline, rewrite_job.tenant) END,
            waited.since);
    END IF;
    IF NOT keeps THEN
        PERFORM {schema}.hand_over(rewrite_job.job_id, groups_before, late);
    END IF;
    IF stays AND rewrite_job.groups IS NOT NULL THEN  -- it does not ask anew, so that nobody else sees what it says of its groups
        INSERT INTO {schema}.unsettled (group_id, said, said_at)
        SELECT job_group.id, (rule.value ->> 'limit')::integer, statement_timestamp()
        FROM jsonb_each(rewrite_job.groups::jsonb) AS rule JOIN {schema}.job_group ON job_group.name = rule.key
        WHERE (rule.value ->> 'limit')::integer <> job_group.said
           OR (rule.value ? 'limit' AND job_group.said_at = '-infinity');
        IF FOUND THEN
            PERFORM {schema}.tell('due:');
        END IF;
    END IF;
    RETURN true;
END
$$;

-- Enqueues a job whose key or fingerprint another one may have. The outcome is 'new', 'duplicate' or 'replaced'.
--
-- With a key, the new job takes the place of the living one that has it: one that waits is rewritten, and one that runs
-- goes on, but loses its key to the new job, so that it is never tried again. With a fingerprint, the job has a hold for a
-- time, in which others of the kind with that fingerprint are duplicates, whether it has ended or not; with the mode
-- 'replace' they rewrite it while it waits. If `extends`, each of them begins the time anew, no longer than `max_wait`
-- since the first.
--
-- Each step locks one row, and changes something only if it was there. What others did meanwhile shows in finding
-- nothing, and then all begins again.
CREATE FUNCTION {schema}.put_job(
    queue_id integer, priority smallint, max_attempts integer, timeout double precision, kind text, codec text,
    payload bytea, key text, mode text, max_wait interval, fingerprint bytea, within interval, extends boolean,
    due timestamptz, late boolean, groups text DEFAULT NULL, tags text[] DEFAULT NULL, start_by timestamptz DEFAULT NULL,
    deadline timestamptz DEFAULT NULL, start_within interval DEFAULT NULL, ends_within interval DEFAULT NULL,
    tenant text DEFAULT NULL, most_bytes integer DEFAULT NULL, meta text DEFAULT NULL,
    OUT id bigint, OUT outcome text, OUT supersedes bigint, OUT differs boolean
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    moment timestamptz := statement_timestamp();
    holder bigint;
    tries integer := 0;
BEGIN
    LOOP
        tries := tries + 1;
        IF tries > 100 THEN
            RAISE EXCEPTION 'the job with the key % is moved by others all the time', put_job.key
                USING ERRCODE = 'serialization_failure';
        END IF;
        IF fingerprint IS NULL THEN
            SELECT job_key.job_id INTO holder FROM {schema}.job_key
            WHERE job_key.kind = put_job.kind AND job_key.key = put_job.key;
        ELSE
            SELECT unique_hold.job_id INTO holder FROM {schema}.unique_hold
            WHERE unique_hold.kind = put_job.kind AND unique_hold.fingerprint = put_job.fingerprint
              AND unique_hold.until > moment;
        END IF;
        IF NOT FOUND THEN
            put_job.id := nextval('{schema_text}.job_id_seq');
            IF put_job.fingerprint IS NULL THEN
                INSERT INTO {schema}.job_key (kind, key, job_id)
                VALUES (put_job.kind, put_job.key, put_job.id) ON CONFLICT DO NOTHING;
            ELSE
                INSERT INTO {schema}.unique_hold (kind, fingerprint, since, until, job_id)
                VALUES (put_job.kind, put_job.fingerprint, moment, moment + within, put_job.id)
                ON CONFLICT (kind, fingerprint) DO UPDATE
                SET since = excluded.since, until = excluded.until, job_id = excluded.job_id
                WHERE unique_hold.until <= moment;
            END IF;
            EXIT WHEN FOUND;
            CONTINUE;
        END IF;
        put_job.differs := {schema}.payload_differs(holder, put_job.payload, put_job.codec);
        IF put_job.fingerprint IS NULL OR mode = 'replace' THEN
            IF {schema}.rewrite_job(
                holder, put_job.queue_id, put_job.priority, put_job.max_attempts, put_job.timeout, put_job.codec,
                put_job.payload, put_job.mode, put_job.max_wait, put_job.due, put_job.late, put_job.groups, put_job.tags,
                put_job.start_by, put_job.deadline, put_job.start_within, put_job.ends_within, put_job.tenant,
                coalesce(put_job.most_bytes, 1048576), put_job.meta)
            THEN
                put_job.id := holder;
                outcome := 'replaced';
                RETURN;
            END IF;
        END IF;
        IF put_job.fingerprint IS NOT NULL THEN
            IF extends THEN
                UPDATE {schema}.unique_hold SET until = greatest(until, least(moment + within, since + max_wait))
                WHERE unique_hold.kind = put_job.kind AND unique_hold.fingerprint = put_job.fingerprint
                  AND unique_hold.job_id = holder;
            END IF;
            put_job.id := holder;
            outcome := 'duplicate';
            RETURN;
        END IF;
        PERFORM FROM {schema}.claimed WHERE claimed.job_id = holder FOR NO KEY UPDATE;  -- it may be saving its state
        IF FOUND THEN
            put_job.id := nextval('{schema_text}.job_id_seq');
            UPDATE {schema}.job_key SET job_id = put_job.id
            WHERE job_key.kind = put_job.kind AND job_key.key = put_job.key AND job_key.job_id = holder;
            IF FOUND THEN
                supersedes := holder;
                EXIT;
            END IF;
        END IF;
    END LOOP;
    outcome := 'new';
    start_by := coalesce(put_job.start_by, greatest(put_job.due, moment) + start_within);
    deadline := coalesce(put_job.deadline, greatest(put_job.due, moment) + ends_within);
    differs := CASE WHEN supersedes IS NULL THEN false ELSE differs END;
    INSERT INTO {schema}.job (id, queue_id, priority, max_attempts, timeout, kind, codec, key, created_at, payload, links,
                              groups, tags, tenant, meta)
    VALUES (put_job.id, put_job.queue_id, put_job.priority, put_job.max_attempts, put_job.timeout, put_job.kind,
            put_job.codec, put_job.key, moment, put_job.payload,
            {schema}.links_of(put_job.groups, put_job.start_by, put_job.deadline, put_job.tenant), put_job.groups,
            put_job.tags, put_job.tenant, put_job.meta);
    IF coalesce(put_job.start_by, put_job.deadline) IS NOT NULL THEN
        INSERT INTO {schema}.time_limit (job_id, start_by, deadline, look_at)
        VALUES (put_job.id, put_job.start_by, put_job.deadline, least(put_job.start_by, put_job.deadline));
    END IF;
    PERFORM {schema}.begin_wait(put_job.id, put_job.queue_id, put_job.priority, put_job.due, late, NULL,
                                {schema}.links_of(put_job.groups, put_job.start_by, put_job.deadline, put_job.tenant));
END
$$;

-- Removes the living job of a kind that has this key: 'deleted', 'will_not_retry' if it runs, which then goes on without
-- its key and is never tried again, or 'not_found'. With `at_once` the places in groups that this frees are given away
-- here, which locks the groups until the transaction ends; else a worker that hears of the commit gives them away.
CREATE FUNCTION {schema}.remove(kind text, key text, at_once boolean DEFAULT false) RETURNS text LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    holder bigint;
    waited record;
    its_groups text;
BEGIN
    FOR round IN 1..100 LOOP
        SELECT job_key.job_id INTO holder FROM {schema}.job_key
        WHERE job_key.kind = remove.kind AND job_key.key = remove.key;
        IF NOT FOUND THEN
            RETURN 'not_found';
        END IF;
        DELETE FROM {schema}.ready WHERE ready.ctid = {schema}.place(holder)
        RETURNING ready.queue_id, 'pending' AS state INTO waited;
        IF NOT FOUND THEN
            DELETE FROM {schema}.scheduled WHERE scheduled.job_id = holder
            RETURNING scheduled.queue_id, 'scheduled' AS state INTO waited;
        END IF;
        IF NOT FOUND THEN
            DELETE FROM {schema}.blocked WHERE blocked.job_id = holder
            RETURNING blocked.queue_id, 'blocked' AS state INTO waited;
        END IF;
        IF NOT FOUND THEN
            PERFORM FROM {schema}.job WHERE job.id = holder AND EXISTS (
                SELECT FROM {schema}.waiting WHERE waiting.job_id = holder) FOR NO KEY UPDATE;
            DELETE FROM {schema}.waiting WHERE waiting.job_id = holder
            RETURNING waiting.queue_id, 'waiting' AS state INTO waited;
        END IF;
        IF FOUND THEN
            INSERT INTO {schema}.tally (queue_id, pending, scheduled, blocked, waiting)
            VALUES (waited.queue_id, -(waited.state = 'pending')::integer, -(waited.state = 'scheduled')::integer,
                    -(waited.state = 'blocked')::integer, -nullif((waited.state = 'waiting')::integer, 0));
            DELETE FROM {schema}.job_key WHERE job_key.job_id = holder;
            DELETE FROM {schema}.failure WHERE failure.job_id = holder;
            DELETE FROM {schema}.time_limit WHERE time_limit.job_id = holder;
            DELETE FROM {schema}.job WHERE job.id = holder RETURNING job.groups INTO its_groups;
            PERFORM {schema}.hand_over(holder, its_groups, NOT at_once);
            RETURN 'deleted';
        END IF;
        PERFORM FROM {schema}.claimed WHERE claimed.job_id = holder FOR NO KEY UPDATE;  -- it may be saving its state
        IF FOUND THEN
            DELETE FROM {schema}.job_key
            WHERE job_key.kind = remove.kind AND job_key.key = remove.key AND job_key.job_id = holder;
            IF FOUND THEN
                RETURN 'will_not_retry';
            END IF;
        END IF;
    END LOOP;
    RAISE EXCEPTION 'the job with the key % is moved by others all the time', remove.key
        USING ERRCODE = 'serialization_failure';
END
$$;

-- Enqueues a job from any language: SELECT forge_jobs.enqueue('send_email', '{"to": "a@example.com"}', queue => 'mail')
-- For an argument that is null, the value that the handler of the kind declares is taken, or else that of the queue.
-- The job is created at the time of the statement, since the transaction may have begun long ago.
-- A payload in another codec, or one that is encoded already, goes to enqueue_bytes, which has every option.
CREATE FUNCTION {schema}.enqueue_bytes(
    kind text, payload bytea, codec text DEFAULT 'json', queue text DEFAULT NULL, priority integer DEFAULT NULL,
    run_at timestamptz DEFAULT NULL, max_attempts integer DEFAULT NULL,
    timeout interval DEFAULT NULL, key text DEFAULT NULL, key_mode text DEFAULT NULL, delay interval DEFAULT NULL,
    group_name text DEFAULT NULL, group_limit integer DEFAULT NULL, overflow text DEFAULT NULL, tags text[] DEFAULT NULL,
    start_by timestamptz DEFAULT NULL, deadline timestamptz DEFAULT NULL, tenant text DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    declared {schema}.kind;
    into_queue record;
    seconds double precision;
    new_id bigint;
    held_by bigint;
    its_groups text;
BEGIN
    SELECT * INTO declared FROM {schema}.kind d WHERE d.kind = enqueue_bytes.kind;
    queue := coalesce(enqueue_bytes.queue, declared.queue, 'default');
    priority := coalesce(enqueue_bytes.priority, declared.priority, 0);
    SELECT q.id, q.max_attempts INTO into_queue FROM {schema}.queue q WHERE q.name = enqueue_bytes.queue;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'There is no queue "%".', enqueue_bytes.queue USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF coalesce(enqueue_bytes.kind, '') = '' OR length(enqueue_bytes.kind) > 128 THEN
        RAISE EXCEPTION 'kind is "%", allowed are 1 to 128 characters.', enqueue_bytes.kind
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF enqueue_bytes.payload IS NULL THEN
        RAISE EXCEPTION 'payload is null, allowed are bytes.' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF coalesce(enqueue_bytes.codec, '') = '' OR length(enqueue_bytes.codec) > 128 THEN
        RAISE EXCEPTION 'codec is "%", allowed are 1 to 128 characters.', left(enqueue_bytes.codec, 80)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF declared.sealed AND enqueue_bytes.codec <> declared.codec AND enqueue_bytes.payload <> '{}' THEN
        RAISE EXCEPTION 'Jobs of kind "%" are sealed, and the payload is %; allowed is the codec "%", by enqueue_bytes, or no arguments.',
            enqueue_bytes.kind, enqueue_bytes.codec, declared.codec USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF declared.sealed AND enqueue_bytes.payload = '{}' THEN  -- what its handler saves and returns is to be sealed
        codec := declared.codec;
    END IF;
    IF enqueue_bytes.run_at IS NOT NULL AND enqueue_bytes.delay IS NOT NULL THEN
        RAISE EXCEPTION 'delay and run_at are both given, allowed is one of them.'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    run_at := coalesce(enqueue_bytes.run_at, statement_timestamp() + enqueue_bytes.delay);
    IF enqueue_bytes.max_attempts = 0 OR enqueue_bytes.max_attempts < -1 THEN
        RAISE EXCEPTION 'max_attempts is %, allowed is 1 (no retry) or more, or -1 for ever.', enqueue_bytes.max_attempts
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF enqueue_bytes.timeout <= interval '0' OR enqueue_bytes.timeout > interval '365000 days' THEN
        RAISE EXCEPTION 'timeout is %, allowed is more than zero and at most 365,000 days.', enqueue_bytes.timeout
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF enqueue_bytes.key = '' OR length(enqueue_bytes.key) > 512 THEN
        RAISE EXCEPTION 'key is "%", allowed are 1 to 512 characters.', left(enqueue_bytes.key, 80)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF enqueue_bytes.key_mode NOT IN ('dedupe', 'replace', 'preserve_run_at', 'merge') THEN
        RAISE EXCEPTION 'key_mode is "%", allowed is one of dedupe, replace, preserve_run_at, merge.', left(enqueue_bytes.key_mode, 80)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF enqueue_bytes.key_mode IS NOT NULL AND enqueue_bytes.key IS NULL THEN
        RAISE EXCEPTION 'key_mode is given and key is not, allowed is both.' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF enqueue_bytes.key_mode = 'merge'
       AND (enqueue_bytes.codec <> 'json' OR substr(btrim(enqueue_bytes.payload, '\x20090a0d'), 1, 1) <> '[') THEN
        RAISE EXCEPTION 'key_mode is "merge" and the payload is no list in JSON, allowed is a list.'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF enqueue_bytes.group_name = '' OR length(enqueue_bytes.group_name) > 128 THEN
        RAISE EXCEPTION 'group_name is "%", allowed are 1 to 128 characters.', left(enqueue_bytes.group_name, 80)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF enqueue_bytes.group_limit NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION 'group_limit is %, allowed is a whole number from 1 to 1000.', enqueue_bytes.group_limit
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF enqueue_bytes.overflow NOT IN ('wait', 'drop_newest', 'cancel_running') THEN
        RAISE EXCEPTION 'overflow is "%", allowed is one of wait, drop_newest, cancel_running.', left(enqueue_bytes.overflow, 80)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF enqueue_bytes.group_name IS NULL AND (enqueue_bytes.group_limit IS NOT NULL OR enqueue_bytes.overflow IS NOT NULL) THEN
        RAISE EXCEPTION 'group_limit or overflow is given and group_name is not, allowed is both.'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF enqueue_bytes.tenant = '' OR length(enqueue_bytes.tenant) > 128 THEN
        RAISE EXCEPTION 'tenant is "%", allowed are 1 to 128 characters.', left(enqueue_bytes.tenant, 80)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF enqueue_bytes.tenant IS NOT NULL AND enqueue_bytes.group_name IS NOT NULL THEN
        RAISE EXCEPTION 'tenant and group_name are both given, allowed is one of them.'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF enqueue_bytes.group_name IS NOT NULL THEN
        its_groups := jsonb_build_object(enqueue_bytes.group_name, jsonb_strip_nulls(jsonb_build_object(
            'limit', enqueue_bytes.group_limit, 'overflow', nullif(enqueue_bytes.overflow, 'wait'))))::text;
    END IF;
    IF enqueue_bytes.tags IS NOT NULL THEN
        SELECT array_agg(DISTINCT one) INTO tags FROM unnest(enqueue_bytes.tags) AS one;
        IF cardinality(enqueue_bytes.tags) > 10 THEN
            RAISE EXCEPTION 'tags has % entries, allowed are at most 10.', cardinality(enqueue_bytes.tags)
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        IF EXISTS (SELECT FROM unnest(enqueue_bytes.tags) AS one
                   WHERE one IS NULL OR one = '' OR length(one) > 64 OR one ~ '[[:cntrl:]]') THEN
            RAISE EXCEPTION 'tags is %, allowed are tags of 1 to 64 printable characters.', left(enqueue_bytes.tags::text, 80)
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END IF;
    IF enqueue_bytes.start_by <= enqueue_bytes.run_at OR enqueue_bytes.deadline <= enqueue_bytes.run_at THEN
        RAISE EXCEPTION 'start_by or deadline is not after run_at, which is %, allowed is a later moment.', enqueue_bytes.run_at
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF enqueue_bytes.deadline <= enqueue_bytes.start_by THEN
        RAISE EXCEPTION 'deadline is %, allowed is a moment after start_by, which is %.', enqueue_bytes.deadline,
            enqueue_bytes.start_by USING ERRCODE = 'invalid_parameter_value';
    END IF;
    max_attempts := coalesce(nullif(enqueue_bytes.max_attempts, -1), CASE WHEN enqueue_bytes.max_attempts = -1 THEN 0 END,
                             declared.max_attempts, into_queue.max_attempts);
    seconds := coalesce(extract(epoch FROM enqueue_bytes.timeout), declared.timeout);
    IF enqueue_bytes.key_mode <> 'dedupe' THEN
        SELECT made.id INTO new_id
        FROM {schema}.put_job(into_queue.id, enqueue_bytes.priority::smallint, enqueue_bytes.max_attempts, seconds,
                              enqueue_bytes.kind, enqueue_bytes.codec, enqueue_bytes.payload, enqueue_bytes.key, enqueue_bytes.key_mode, NULL,
                              NULL, NULL, false, enqueue_bytes.run_at, true, its_groups, enqueue_bytes.tags,
                              enqueue_bytes.start_by, enqueue_bytes.deadline,
                              make_interval(secs => declared.start_by), make_interval(secs => declared.deadline),
                              enqueue_bytes.tenant, declared.most_bytes) AS made;
        RETURN new_id;
    END IF;
    start_by := coalesce(enqueue_bytes.start_by, greatest(enqueue_bytes.run_at, statement_timestamp())
                                                 + make_interval(secs => declared.start_by));
    deadline := coalesce(enqueue_bytes.deadline, greatest(enqueue_bytes.run_at, statement_timestamp())
                                                 + make_interval(secs => declared.deadline));
    new_id := nextval(pg_get_serial_sequence('{schema_text}.job', 'id'));
    WHILE enqueue_bytes.key IS NOT NULL LOOP
        INSERT INTO {schema}.job_key AS k (kind, key, job_id) VALUES (enqueue_bytes.kind, enqueue_bytes.key, new_id)
            ON CONFLICT DO NOTHING;
        EXIT WHEN FOUND;
        SELECT k.job_id INTO held_by
        FROM {schema}.job_key k WHERE k.kind = enqueue_bytes.kind AND k.key = enqueue_bytes.key;
        IF FOUND THEN
            RETURN held_by;
        END IF;
    END LOOP;
    INSERT INTO {schema}.job (id, queue_id, priority, max_attempts, timeout, kind, codec, key, created_at, payload, links,
                              groups, tags, tenant)
    VALUES (new_id, into_queue.id, enqueue_bytes.priority, enqueue_bytes.max_attempts, seconds, enqueue_bytes.kind,
            enqueue_bytes.codec, enqueue_bytes.key, statement_timestamp(), enqueue_bytes.payload,
            {schema}.links_of(its_groups, enqueue_bytes.start_by, enqueue_bytes.deadline, enqueue_bytes.tenant), its_groups,
            enqueue_bytes.tags, enqueue_bytes.tenant);
    IF coalesce(enqueue_bytes.start_by, enqueue_bytes.deadline) IS NOT NULL THEN
        INSERT INTO {schema}.time_limit (job_id, start_by, deadline, look_at)
        VALUES (new_id, enqueue_bytes.start_by, enqueue_bytes.deadline, least(enqueue_bytes.start_by, enqueue_bytes.deadline));
    END IF;
    PERFORM {schema}.begin_wait(new_id, into_queue.id, enqueue_bytes.priority::smallint, enqueue_bytes.run_at, true, NULL,
                                {schema}.links_of(its_groups, enqueue_bytes.start_by, enqueue_bytes.deadline,
                                                  enqueue_bytes.tenant));
    RETURN new_id;
END
$$;

CREATE FUNCTION {schema}.enqueue(
    kind text, payload jsonb DEFAULT '{}', queue text DEFAULT NULL, priority integer DEFAULT NULL,
    run_at timestamptz DEFAULT NULL, max_attempts integer DEFAULT NULL,
    timeout interval DEFAULT NULL, key text DEFAULT NULL, key_mode text DEFAULT NULL, delay interval DEFAULT NULL,
    group_name text DEFAULT NULL, group_limit integer DEFAULT NULL, overflow text DEFAULT NULL, tags text[] DEFAULT NULL,
    start_by timestamptz DEFAULT NULL, deadline timestamptz DEFAULT NULL, tenant text DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    said text := enqueue.payload::text;
BEGIN
    IF coalesce(jsonb_typeof(enqueue.payload), 'null') NOT IN ('object', 'array') THEN
        RAISE EXCEPTION 'payload is a JSON %, allowed is an object, or an array for a handler that takes a list.', coalesce(jsonb_typeof(enqueue.payload), 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF enqueue.payload -> 0 ? 'forge_jobs.items' THEN  -- an item, and no note of items that are done
        said := '[{"forge_jobs.items":{}},' || substr(said, 2);
    END IF;
    RETURN {schema}.enqueue_bytes(
        enqueue.kind, convert_to(said, 'UTF8'), 'json', enqueue.queue, enqueue.priority,
        enqueue.run_at, enqueue.max_attempts, enqueue.timeout, enqueue.key, enqueue.key_mode, enqueue.delay,
        enqueue.group_name, enqueue.group_limit, enqueue.overflow, enqueue.tags, enqueue.start_by, enqueue.deadline,
        enqueue.tenant);
END
$$;


-- Signals

-- Whether the job would wait for itself if it waited for the other one: since that waits for the end of this job, or for that of
-- a third one that does, and so on, without a timeout; or is a node of a flow that waits for such nodes. Of jobs that begin to wait
-- at one moment each has shown its step before it parks, so the last one sees them all.
CREATE FUNCTION {schema}.is_in_circle(job_id bigint, other bigint) RETURNS boolean LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    RETURN EXISTS (
        WITH RECURSIVE way (id) AS (
            SELECT is_in_circle.other
            UNION
            SELECT next.id FROM way CROSS JOIN LATERAL (
                SELECT step.for_job FROM {schema}.step
                WHERE step.job_id = way.id AND step.for_job IS NOT NULL AND step.signals IS NULL AND step.until IS NULL
                  AND step.ended_at IS NULL
                  AND (EXISTS (SELECT FROM {schema}.waiting WHERE waiting.job_id = way.id AND waiting.step = step.name)
                       OR EXISTS (SELECT FROM {schema}.claimed WHERE claimed.job_id = way.id))
                UNION ALL
                SELECT edge.from_job FROM {schema}.flow_edge AS edge
                JOIN {schema}.flow_node AS node ON node.job_id = edge.from_job AND node.state IS NULL
                WHERE edge.to_job = way.id
            ) AS next (id)
        )
        SELECT FROM (SELECT way.id FROM way LIMIT 10000) AS others WHERE others.id = is_in_circle.job_id);
END
$$;

-- The wait, a step of a job whose row the caller has locked, is over if it was, or if a signal that none has taken, the end of the
-- other job, that they would wait for each other, or its timeout ends it now. Returns whether it is.
CREATE FUNCTION {schema}.meet(job_id bigint, step text) RETURNS boolean LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    wait {schema}.step;
    taken {schema}.signal;
    other record;
BEGIN
    SELECT * INTO wait FROM {schema}.step
    WHERE step.job_id = meet.job_id AND step.name = meet.step AND step.sort = 'wait' AND step.ended_at IS NULL;
    IF NOT FOUND THEN
        RETURN true;
    END IF;
    IF wait.signals IS NOT NULL THEN
        SELECT * INTO taken FROM {schema}.signal
        WHERE signal.job_id = meet.job_id AND signal.name = ANY (wait.signals) AND signal.step IS NULL ORDER BY signal.id LIMIT 1;
        IF FOUND THEN
            UPDATE {schema}.signal SET step = meet.step, value = NULL WHERE signal.id = taken.id;
            UPDATE {schema}.step
            SET ended_at = statement_timestamp(), signal = taken.name, result = taken.value, codec = taken.codec
            WHERE step.job_id = meet.job_id AND step.name = meet.step;
            RETURN true;
        END IF;
    END IF;
    IF wait.for_job IS NOT NULL THEN
        SELECT coalesce(finished.state, 'gone') AS state, finished.error, job.codec,
               coalesce(finished.result, saved_state.result) AS result
        INTO other
        FROM (SELECT) AS one
        LEFT JOIN {schema}.job ON job.id = wait.for_job
        LEFT JOIN {schema}.finished ON finished.job_id = wait.for_job
        LEFT JOIN {schema}.saved_state ON saved_state.job_id = wait.for_job
        WHERE job.id IS NULL OR finished.job_id IS NOT NULL;
        IF FOUND THEN
            UPDATE {schema}.step
            SET ended_at = statement_timestamp(), signal = other.state,
                result = CASE WHEN other.state = 'done' THEN other.result
                              ELSE convert_to(to_json(other.error)::text, 'UTF8') END,
                codec = CASE WHEN other.state = 'done' THEN other.codec ELSE 'json' END
            WHERE step.job_id = meet.job_id AND step.name = meet.step;
            RETURN true;
        END IF;
        IF wait.signals IS NULL AND wait.until IS NULL AND {schema}.is_in_circle(meet.job_id, wait.for_job) THEN
            UPDATE {schema}.step SET ended_at = statement_timestamp(), signal = 'circle'
            WHERE step.job_id = meet.job_id AND step.name = meet.step;
            RETURN true;
        END IF;
    END IF;
    UPDATE {schema}.step SET ended_at = statement_timestamp()
    WHERE step.job_id = meet.job_id AND step.name = meet.step AND step.until <= statement_timestamp();
    RETURN FOUND;
END
$$;

-- An attempt comes to a wait: returns the step, which is made unless it is there, and ended if it can be. Null: the claim was lost.
-- The other job for whose end it waits is linked, unless somebody holds its row, who is not waited for; and the worker that has it is
-- told, since it may have read the links before.
CREATE FUNCTION {schema}.wait_for(
    job_id bigint, worker_id bigint, attempt integer, number integer, step text, signals text[], for_job bigint,
    seconds double precision, serial integer
) RETURNS {schema}.step LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    wait {schema}.step;
    its record;
BEGIN
    PERFORM FROM {schema}.claimed
    WHERE claimed.job_id = wait_for.job_id AND claimed.worker_id = wait_for.worker_id AND claimed.attempt = wait_for.attempt
    FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    PERFORM FROM {schema}.job WHERE job.id = wait_for.job_id FOR NO KEY UPDATE;
    UPDATE {schema}.job SET links = coalesce(job.links, 0) | 4
    WHERE job.id = wait_for.job_id AND coalesce(job.links & 4, 0) = 0;
    INSERT INTO {schema}.step (job_id, number, serial, name, sort, attempt, at, until, signals, for_job)
    VALUES (wait_for.job_id, wait_for.number, wait_for.serial, wait_for.step, 'wait', wait_for.attempt, statement_timestamp(),
            statement_timestamp() + make_interval(secs => wait_for.seconds), wait_for.signals, wait_for.for_job)
    ON CONFLICT DO NOTHING;
    PERFORM {schema}.meet(wait_for.job_id, wait_for.step);
    SELECT * INTO wait FROM {schema}.step WHERE step.job_id = wait_for.job_id AND step.name = wait_for.step;
    IF wait.for_job IS NOT NULL AND wait.ended_at IS NULL AND EXISTS (
        SELECT FROM {schema}.job AS other WHERE other.id = wait.for_job AND coalesce(other.links & 64, 0) = 0) THEN
        UPDATE {schema}.job SET links = coalesce(job.links, 0) | 64 WHERE job.id = (
            SELECT other.id FROM {schema}.job AS other WHERE other.id = wait.for_job FOR NO KEY UPDATE SKIP LOCKED);
        SELECT claimed.worker_id, claimed.attempt INTO its FROM {schema}.claimed WHERE claimed.job_id = wait.for_job;
        PERFORM {schema}.tell('link:' || concat_ws(',', wait.for_job, coalesce(its.worker_id, 0), coalesce(its.attempt, 0)));
    END IF;
    RETURN wait;
END
$$;

-- These jobs, which the statement that calls this has scheduled for now, wait for what ends these steps of theirs. One whose wait
-- is over stays scheduled. The rows in `job` are updated, not only locked: a transaction that sees the jobs as they were before,
-- since it reads one snapshot, is refused when it sends them a signal. Returns whether any waits for the end of another job.
CREATE FUNCTION {schema}.park(ids bigint[], steps text[]) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    one record;
    was record;
    soon boolean := false;
    for_jobs boolean;
BEGIN
    FOR one IN SELECT * FROM unnest(ids, steps) AS given (job_id, step) ORDER BY given.job_id LOOP
        UPDATE {schema}.job SET links = job.links WHERE job.id = one.job_id;
        IF {schema}.meet(one.job_id, one.step) THEN
            soon := true;
            CONTINUE;
        END IF;
        DELETE FROM {schema}.scheduled WHERE scheduled.job_id = one.job_id
        RETURNING scheduled.queue_id, scheduled.attempt INTO was;
        CONTINUE WHEN NOT FOUND;
        INSERT INTO {schema}.waiting (job_id, queue_id, attempt, step, until, for_job)
        SELECT step.job_id, was.queue_id, was.attempt, step.name, step.until, step.for_job
        FROM {schema}.step WHERE step.job_id = one.job_id AND step.name = one.step;
        INSERT INTO {schema}.tally (queue_id, scheduled, waiting) VALUES (was.queue_id, -1, 1);
        soon := soon OR EXISTS (SELECT FROM {schema}.waiting WHERE waiting.job_id = one.job_id
                                AND waiting.until < statement_timestamp() + interval '10 seconds');
    END LOOP;
    IF soon THEN
        PERFORM {schema}.tell('due:');
    END IF;
    SELECT count(*) > 0 INTO for_jobs FROM {schema}.waiting WHERE waiting.job_id = ANY (ids) AND waiting.for_job IS NOT NULL;
    RETURN for_jobs;
END
$$;

-- The job, whose row the caller has locked, goes on if it waits and something has ended that. Returns whether it does. One that has
-- to be let in is scheduled for now, and so is any in a transaction that others may outrun (`late`).
CREATE FUNCTION {schema}.end_wait(job_id bigint, late boolean) RETURNS boolean LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    waited {schema}.waiting;
    its record;
BEGIN
    SELECT * INTO waited FROM {schema}.waiting WHERE waiting.job_id = end_wait.job_id;
    IF NOT FOUND OR NOT {schema}.meet(end_wait.job_id, waited.step) THEN
        RETURN false;
    END IF;
    DELETE FROM {schema}.waiting WHERE waiting.job_id = end_wait.job_id;
    IF NOT FOUND THEN  -- somebody has ended the job meanwhile
        RETURN false;
    END IF;
    SELECT job.priority, job.links INTO its FROM {schema}.job WHERE job.id = end_wait.job_id;
    IF late OR its.links & 9 <> 0 THEN
        INSERT INTO {schema}.scheduled (job_id, run_at, queue_id, attempt, priority, reason, links)
        VALUES (waited.job_id, statement_timestamp(), waited.queue_id, waited.attempt, its.priority, 'rescheduled', its.links);
        INSERT INTO {schema}.tally (queue_id, scheduled, waiting) VALUES (waited.queue_id, 1, -1);
        PERFORM {schema}.tell('due:');
    ELSE
        INSERT INTO {schema}.ready (job_id, pos, queue_id, attempt, priority)
        VALUES (waited.job_id, {schema}.micros(statement_timestamp()), waited.queue_id, waited.attempt, its.priority);
        INSERT INTO {schema}.tally (queue_id, pending, waiting) VALUES (waited.queue_id, 1, -1);
        PERFORM {schema}.wake(waited.queue_id);
    END IF;
    RETURN true;
END
$$;

-- Jobs that wait for the ends of these, which have ended or are gone, go on, 500 at most; the leader finds the others, and those
-- whose rows somebody holds.
CREATE FUNCTION {schema}.end_waits_for(ids bigint[], late boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM {schema}.end_wait(waits.job_id, end_waits_for.late) FROM (
        SELECT waiting.job_id FROM {schema}.waiting JOIN {schema}.job ON job.id = waiting.job_id
        WHERE waiting.for_job = ANY (end_waits_for.ids)
        LIMIT 500 FOR NO KEY UPDATE OF job SKIP LOCKED) AS waits;
END
$$;

-- Sends a signal to a job and says what became of it: it has 'woken' the job, or is 'kept' for its next wait; or nothing was sent,
-- since it is a 'duplicate' (the job was sent one of this name, and the mode is 'first'), the token was 'used', another job was
-- 'replaced' since that was made, the job has as many signals as it may (it is 'full'), has 'ended', or is 'unknown'. The row in `job` is updated each time: a transaction that reads one
-- snapshot, and so does not see this signal, is refused when it sends the job one, which may be the same.
CREATE FUNCTION {schema}.send(
    job_id bigint, name text, value bytea, codec text, mode text, token text, late boolean, of_replaced integer
) RETURNS text LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    times integer;
    kept record;
BEGIN
    SELECT coalesce(job.replaced, 0) INTO times FROM {schema}.job WHERE job.id = send.job_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN 'unknown';
    END IF;
    IF times <> send.of_replaced THEN
        RETURN 'replaced';
    END IF;
    IF EXISTS (SELECT FROM {schema}.finished WHERE finished.job_id = send.job_id) THEN
        RETURN 'ended';
    END IF;
    IF EXISTS (SELECT FROM {schema}.signal WHERE signal.job_id = send.job_id AND signal.token = send.token) THEN
        RETURN 'used';
    END IF;
    IF mode = 'first' AND EXISTS (
        SELECT FROM {schema}.signal WHERE signal.job_id = send.job_id AND signal.name = send.name) THEN
        RETURN 'duplicate';
    END IF;
    IF send.value IS NOT NULL THEN
        SELECT declared.kind, declared.codec INTO kept FROM {schema}.kind AS declared JOIN {schema}.job ON job.kind = declared.kind
        WHERE job.id = send.job_id AND declared.sealed AND declared.codec <> send.codec;
        IF FOUND THEN
            RAISE EXCEPTION 'Jobs of kind "%" are sealed, and the value of signal "%" is %; allowed is the codec "%", or no value.',
                kept.kind, send.name, send.codec, kept.codec USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END IF;
    SELECT count(*) AS signals, coalesce(sum(octet_length(signal.value)), 0) AS bytes INTO kept
    FROM {schema}.signal WHERE signal.job_id = send.job_id;
    IF kept.signals >= 1000 OR kept.bytes + coalesce(octet_length(send.value), 0) > 4194304 THEN
        RETURN 'full';
    END IF;
    INSERT INTO {schema}.signal (job_id, name, value, codec, at, token)
    VALUES (send.job_id, send.name, send.value, send.codec, statement_timestamp(), send.token);
    UPDATE {schema}.job SET links = coalesce(job.links, 0) | 4 WHERE job.id = send.job_id;
    RETURN CASE WHEN {schema}.end_wait(send.job_id, late) THEN 'woken' ELSE 'kept' END;
END
$$;

-- Sends a signal, whose value is encoded, to a job, or to the living one of a kind with a key, or to up to `most` of the living ones
-- with a tag, of one kind or of all, whose ids are above `after`. Each that is sent to has a row in the answer. With a callback
-- token, `of_replaced` says how many times the job had been replaced when that was made.
--
-- A role that may not write signals by itself sends them by the rights of the owner, if it was granted to call `signal_as_owner`.
CREATE FUNCTION {schema}.signal_bytes(
    name text, value bytea, codec text DEFAULT 'json', job bigint DEFAULT NULL, kind text DEFAULT NULL, key text DEFAULT NULL,
    tag text DEFAULT NULL, mode text DEFAULT 'first', token text DEFAULT NULL, late boolean DEFAULT true,
    after bigint DEFAULT 0, most integer DEFAULT NULL, of_replaced integer DEFAULT NULL
) RETURNS TABLE (job_id bigint, answer text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    job_ids bigint[];
    answers text[];
BEGIN
    IF NOT has_table_privilege('{schema_text}.signal', 'INSERT') THEN
        CALL {schema}.signal_as_owner(
            signal_bytes.name, value, codec, job, kind, key, tag, mode, token, late, after, most, of_replaced, job_ids, answers);
        RETURN QUERY SELECT * FROM unnest(job_ids, answers);
        RETURN;
    END IF;
    IF coalesce(signal_bytes.name, '') = '' OR length(signal_bytes.name) > 128 THEN
        RAISE EXCEPTION 'The name of the signal is "%", allowed are 1 to 128 characters.', left(signal_bytes.name, 80)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF num_nonnulls(job, key, tag) <> 1 THEN
        RAISE EXCEPTION 'Of job, key and tag % are given, allowed is exactly one of them.', num_nonnulls(job, key, tag)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF (key IS NOT NULL AND kind IS NULL) OR (job IS NOT NULL AND kind IS NOT NULL) THEN
        RAISE EXCEPTION 'kind is %, allowed is one with a key, which is that of a kind, or with a tag.', coalesce('"' || left(kind, 80) || '"', 'not given')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF coalesce(mode, '') NOT IN ('first', 'append') THEN
        RAISE EXCEPTION 'mode is "%", allowed is one of first, append.', left(mode, 80) USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF length(value) > 262144 THEN
        RAISE EXCEPTION 'The value of signal "%" has % bytes, allowed are 262,144.', signal_bytes.name, to_char(length(value), 'FM999,999,999,999')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF key IS NOT NULL THEN
        job := coalesce((SELECT job_key.job_id FROM {schema}.job_key
                         WHERE job_key.kind = signal_bytes.kind AND job_key.key = signal_bytes.key), 0);
    END IF;
    IF tag IS NULL THEN
        RETURN QUERY SELECT nullif(job, 0), {schema}.send(job, signal_bytes.name, value, codec, mode, token, late, of_replaced);
        RETURN;
    END IF;
    FOR job IN  -- in one order, so that no two wait for each other
        SELECT job_tag.job_id FROM {schema}.job_tag
        WHERE job_tag.tag = signal_bytes.tag AND job_tag.job_id > after
          AND (SELECT finished.job_id FROM {schema}.finished WHERE finished.job_id = job_tag.job_id) IS NULL
          AND (signal_bytes.kind IS NULL OR (SELECT job.kind FROM {schema}.job WHERE job.id = job_tag.job_id) = signal_bytes.kind)
        ORDER BY job_tag.job_id LIMIT most
    LOOP
        RETURN QUERY SELECT job, {schema}.send(job, signal_bytes.name, value, codec, mode, token, late, of_replaced);
    END LOOP;
END
$$;

-- The same, by the rights of the owner, for roles that may do nothing but send signals. A procedure, since rights to all functions
-- are granted to roles for other purposes.
CREATE PROCEDURE {schema}.signal_as_owner(
    name text, value bytea, codec text, job bigint, kind text, key text, tag text, mode text, token text, late boolean, after bigint,
    most integer, of_replaced integer, INOUT job_ids bigint[], INOUT answers text[]
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    SELECT array_agg(sent.job_id), array_agg(sent.answer) INTO job_ids, answers
    FROM {schema}.signal_bytes(name, value, codec, job, kind, key, tag, mode, token, late, after, most, of_replaced) AS sent;
END
$$;
REVOKE ALL ON PROCEDURE {schema}.signal_as_owner FROM PUBLIC;

-- Sends a signal from any language: SELECT * FROM forge_jobs.signal('approved', '{"by": "ada"}', job => 42)
CREATE FUNCTION {schema}.signal(
    name text, value jsonb DEFAULT NULL, job bigint DEFAULT NULL, kind text DEFAULT NULL, key text DEFAULT NULL,
    tag text DEFAULT NULL, mode text DEFAULT 'first'
) RETURNS TABLE (job_id bigint, answer text) LANGUAGE sql AS $$
    SELECT * FROM {schema}.signal_bytes($1, convert_to($2::text, 'UTF8'), 'json', $3, $4, $5, $6, $7)
$$;


-- Flows

-- These nodes, whose predecessors have ended, wait no longer for them: they are ready, or scheduled where they have a delay
-- or have to be let in. Time limits that count from when a job is due count from 9000 until then: now they count from here.
CREATE FUNCTION {schema}.free_nodes(ids bigint[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    told bigint;
BEGIN
    IF ids IS NULL THEN
        RETURN;
    END IF;
    WITH gone AS MATERIALIZED (
        DELETE FROM {schema}.blocked WHERE blocked.job_id = ANY (ids) AND blocked.group_id IS NULL
        RETURNING blocked.job_id, blocked.queue_id, blocked.attempt, blocked.priority
    ), free AS MATERIALIZED (
        SELECT gone.*, job.links, node.allowed, now() + make_interval(secs => coalesce(node.delay, 0)) AS due,
               coalesce(node.delay, 0) > 0 OR coalesce(job.links & 9, 0) <> 0 AS is_later
        FROM gone JOIN {schema}.job ON job.id = gone.job_id JOIN {schema}.flow_node AS node ON node.job_id = gone.job_id
    ), planned AS (
        INSERT INTO {schema}.scheduled (job_id, run_at, queue_id, attempt, priority, reason, links)
        SELECT free.job_id, due, queue_id, attempt, priority,
               CASE WHEN coalesce(links & 9, 0) <> 0 THEN 'rescheduled' ELSE 'delayed' END, links
        FROM free WHERE is_later
    ), placed AS (
        INSERT INTO {schema}.ready (job_id, pos, queue_id, attempt, priority)
        SELECT free.job_id, {schema}.micros(now()) + row_number() OVER (ORDER BY free.job_id), queue_id, attempt, priority
        FROM free WHERE NOT is_later
    ), limited AS (
        UPDATE {schema}.time_limit AS mine SET start_by = limits.begins, deadline = limits.ends,
                                               look_at = least(limits.begins, limits.ends)
        FROM (
            SELECT theirs.job_id,
                   CASE WHEN theirs.start_by >= '9000-01-01Z' THEN free.due + (theirs.start_by - '9000-01-01Z')
                        ELSE theirs.start_by END AS begins,
                   CASE WHEN theirs.deadline >= '9000-01-01Z' THEN free.due + (theirs.deadline - '9000-01-01Z')
                        ELSE least(theirs.deadline, free.due + make_interval(secs => free.allowed)) END AS ends
            FROM free JOIN {schema}.time_limit AS theirs ON theirs.job_id = free.job_id) AS limits
        WHERE mine.job_id = limits.job_id
    ), tallied AS (
        INSERT INTO {schema}.tally (queue_id, pending, scheduled, blocked)
        SELECT queue_id, count(*) FILTER (WHERE NOT is_later), count(*) FILTER (WHERE is_later), -count(*)
        FROM free GROUP BY queue_id
    )
    SELECT count(CASE WHEN freed.is_later THEN {schema}.tell('due:') ELSE {schema}.wake(freed.queue_id) END) INTO told
    FROM (SELECT DISTINCT free.queue_id, free.is_later FROM free) AS freed;
END
$$;

-- These nodes, which wait for others, end without having run; returns those that did wait. When those that are skipped go is said
-- once their flow is over.
CREATE FUNCTION {schema}.end_waiting_nodes(ids bigint[], as_state text, as_error text DEFAULT NULL) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    ended bigint[];
BEGIN
    IF ids IS NULL THEN
        RETURN NULL;
    END IF;
    WITH gone AS MATERIALIZED (
        DELETE FROM {schema}.blocked WHERE blocked.job_id = ANY (ids) AND blocked.group_id IS NULL
        RETURNING blocked.job_id, blocked.queue_id, blocked.attempt
    ), told AS MATERIALIZED (
        SELECT gone.*, coalesce(as_error, (
                   SELECT concat('job ', other.job_id, ' (', other.name, '), which it needs, is dead')
                   FROM {schema}.flow_node AS node JOIN {schema}.flow_node AS other ON other.job_id = node.failed_by
                   WHERE node.job_id = gone.job_id)) AS why
        FROM gone
    ), kept AS (
        INSERT INTO {schema}.finished (job_id, finished_at, queue_id, attempt, state, error, links)
        SELECT told.job_id, now(), queue_id, attempt, CASE as_state WHEN 'dead' THEN 'dead' ELSE 'done' END, why,
               (SELECT nullif(job.links & 64, 0) FROM {schema}.job WHERE job.id = told.job_id)  -- its flow is told by the caller
        FROM told
    ), unlimited AS (
        DELETE FROM {schema}.time_limit WHERE time_limit.job_id = ANY (ARRAY(SELECT told.job_id FROM told))
    ), tallied AS (
        INSERT INTO {schema}.tally (queue_id, done, dead, blocked)
        SELECT queue_id, CASE as_state WHEN 'dead' THEN 0 ELSE count(*) END, CASE as_state WHEN 'dead' THEN count(*) ELSE 0 END,
               -count(*)
        FROM told GROUP BY queue_id
    ), noted AS (
        UPDATE {schema}.flow_node AS node SET state = as_state, error = told.why FROM told WHERE node.job_id = told.job_id
    )
    SELECT array_agg(told.job_id) INTO ended FROM told;
    RETURN ended;
END
$$;

-- The skipped nodes of these flows, which are done, go when the retention of their queues is over. Those of other flows are kept with
-- them, since they run when the flow is retried.
CREATE FUNCTION {schema}.date_skipped(flow_ids bigint[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO {schema}.done_together (at, first_id, last_id, queue_id, jobs, job_ids)
    SELECT finished.finished_at, min(finished.job_id), max(finished.job_id), finished.queue_id, count(*), array_agg(finished.job_id)
    FROM {schema}.flow_node AS node JOIN {schema}.finished ON finished.job_id = node.job_id AND finished.state = 'done'
    WHERE node.flow_id = ANY (flow_ids) AND node.state = 'skipped' GROUP BY finished.queue_id, finished.finished_at
$$;

-- These nodes have just ended, and `flow_node` says how. Those that wait for them hear of it: they are freed, skipped, or
-- dead, which those hear that wait for them. Whoever calls has locked their flows.
CREATE FUNCTION {schema}.hand_on(ended bigint[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    todo bigint[] := ended;
    all_ended bigint[] := '{}';
    fallen bigint[];
    passed bigint[];
    freed bigint[];
    told bigint;
    well bigint[];  -- flows that are done, and of which nodes were skipped
BEGIN
    WHILE cardinality(todo) > 0 LOOP
        all_ended := all_ended || todo;
        WITH heard AS MATERIALIZED (
            SELECT edge.to_job, count(*) AS edges,
                   count(*) FILTER (WHERE edge.taken AND node.state <> 'skipped'
                                      AND NOT (node.state = 'dead' AND edge.on_dead = 'skip')) AS fed,
                   min(node.job_id) FILTER (WHERE node.state = 'dead' AND edge.on_dead = 'fail') AS failed_by
            FROM {schema}.flow_edge AS edge JOIN {schema}.flow_node AS node ON node.job_id = edge.from_job
            WHERE edge.from_job = ANY (todo) GROUP BY edge.to_job
        ), told AS (
            UPDATE {schema}.flow_node AS node
            SET missing = node.missing - heard.edges, fed = node.fed + heard.fed,
                failed_by = CASE WHEN node.state IS NULL THEN coalesce(node.failed_by, heard.failed_by)
                                 ELSE node.failed_by END
            FROM heard WHERE node.job_id = heard.to_job
            RETURNING node.job_id, node.missing, node.fed, node.failed_by, node.state
        )
        SELECT array_agg(told.job_id) FILTER (WHERE told.failed_by IS NOT NULL),
               array_agg(told.job_id) FILTER (WHERE told.failed_by IS NULL AND told.missing = 0 AND told.fed = 0),
               array_agg(told.job_id) FILTER (WHERE told.failed_by IS NULL AND told.missing = 0 AND told.fed > 0)
        INTO fallen, passed, freed FROM told WHERE told.state IS NULL;
        PERFORM {schema}.free_nodes(freed);
        todo := {schema}.end_waiting_nodes(fallen, 'dead')
             || {schema}.end_waiting_nodes(passed, 'skipped', 'skipped: nothing led to it');
    END LOOP;
    WITH counted AS (
        UPDATE {schema}.flow SET
            done = flow.done + sums.done, dead = flow.dead + sums.dead, skipped = flow.skipped + sums.skipped,
            failed = flow.failed + sums.failed, ended_at = CASE WHEN outlook.is_over THEN now() END,
            state = CASE WHEN NOT outlook.is_over THEN 'running' WHEN flow.cancel_requested_at IS NOT NULL THEN 'cancelled'
                         WHEN flow.failed + sums.failed > 0 THEN 'dead' ELSE 'done' END
        FROM (
            SELECT node.flow_id, count(*) FILTER (WHERE node.state = 'done') AS done,
                   count(*) FILTER (WHERE node.state = 'dead') AS dead,
                   count(*) FILTER (WHERE node.state = 'skipped') AS skipped,
                   count(*) FILTER (WHERE node.state = 'dead' AND NOT node.tolerated) AS failed, count(*) AS ended
            FROM {schema}.flow_node AS node WHERE node.job_id = ANY (all_ended) GROUP BY node.flow_id) AS sums
        JOIN {schema}.flow AS before ON before.id = sums.flow_id
        CROSS JOIN LATERAL (
            SELECT before.done + before.dead + before.skipped + sums.ended >= before.nodes AS is_over) AS outlook
        WHERE flow.id = sums.flow_id
        RETURNING flow.id, flow.is_awaited AND flow.ended_at IS NOT NULL AS is_told, flow.state, flow.skipped
    )
    SELECT count(CASE WHEN counted.is_told THEN {schema}.tell('flow:' || counted.id) END),
           array_agg(counted.id) FILTER (WHERE counted.state = 'done' AND counted.skipped > 0)
    INTO told, well FROM counted;
    IF well IS NOT NULL THEN
        PERFORM {schema}.date_skipped(well);
    END IF;
END
$$;

-- Those of these jobs that are nodes and have ended, or are gone, have ended in their flows as well, however often it is said;
-- returns how many. The lock comes first: what is looked at then is what all that ended before have left.
CREATE FUNCTION {schema}.end_nodes(ids bigint[]) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    ended bigint[];
BEGIN
    PERFORM FROM {schema}.flow WHERE flow.id = ANY (ARRAY(
        SELECT node.flow_id FROM {schema}.flow_node AS node WHERE node.job_id = ANY (ids) AND node.state IS NULL))
    ORDER BY flow.id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    WITH told AS (
        UPDATE {schema}.flow_node AS node SET
            state = CASE WHEN its_end.state = 'done' THEN 'done' ELSE 'dead' END,
            result = its_end.result,
            error = CASE WHEN its_end.state IS NULL THEN 'it was deleted' ELSE its_end.error END
        FROM (
            SELECT given.job_id, finished.state, finished.error, coalesce(finished.result, (
                       SELECT saved_state.result FROM {schema}.saved_state WHERE saved_state.job_id = finished.job_id)) AS result
            FROM unnest(ids) AS given (job_id) LEFT JOIN {schema}.finished ON finished.job_id = given.job_id
            WHERE finished.job_id IS NOT NULL
               OR NOT EXISTS (SELECT FROM {schema}.job WHERE job.id = given.job_id)) AS its_end
        WHERE node.job_id = its_end.job_id AND node.state IS NULL
        RETURNING node.job_id
    )
    SELECT array_agg(told.job_id) INTO ended FROM told;
    PERFORM {schema}.hand_on(ended);
    RETURN coalesce(cardinality(ended), 0);
END
$$;

-- Whatever ends or deletes nodes hands on in the same statement: its rows say before they are written which nodes they are, and
-- when all are there, that is done for all of them at once. So it is with jobs for whose ends others wait. Of any other job nothing
-- is asked.
CREATE FUNCTION {schema}.note_ended_node() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    is_gone boolean := TG_OP = 'DELETE';
    noted text := nullif(current_setting('forge_jobs.ended_nodes', true), '');
    links smallint;
    ended bigint;
BEGIN
    IF is_gone THEN
        links := OLD.links;
        ended := OLD.id;
    ELSE
        links := NEW.links;
        ended := NEW.job_id;
    END IF;
    IF links & 32 <> 0 THEN
        IF length(noted) > 4000 THEN  -- put aside, so that the next does not copy all that were noted before
            PERFORM set_config('forge_jobs.more_ended_nodes',
                               concat_ws(',', nullif(current_setting('forge_jobs.more_ended_nodes', true), ''), noted), true);
            noted := NULL;
        END IF;
        PERFORM set_config('forge_jobs.ended_nodes', concat_ws(',', noted, ended), true);
    END IF;
    IF links & 64 <> 0 THEN  -- of one that is gone, the number below zero
        PERFORM set_config('forge_jobs.ended_awaited',
                           concat_ws(',', nullif(current_setting('forge_jobs.ended_awaited', true), ''),
                                     CASE WHEN is_gone THEN -ended ELSE ended END), true);
    END IF;
    IF is_gone THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END
$$;
CREATE FUNCTION {schema}.end_noted_nodes() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    noted text := nullif(current_setting('forge_jobs.ended_nodes', true), '');
    awaited text := nullif(current_setting('forge_jobs.ended_awaited', true), '');
    more text := nullif(current_setting('forge_jobs.more_ended_nodes', true), '');
BEGIN
    IF awaited IS NOT NULL THEN
        PERFORM set_config('forge_jobs.ended_awaited', '', true);
        PERFORM {schema}.end_waits_for(ARRAY(
            SELECT id FROM unnest(string_to_array(awaited, ',')::bigint[]) AS id WHERE id > 0), false);
        PERFORM {schema}.end_waits_for(ARRAY(  -- perhaps in a caller's transaction, which ends much later
            SELECT -id FROM unnest(string_to_array(awaited, ',')::bigint[]) AS id WHERE id < 0), true);
    END IF;
    IF noted IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM set_config('forge_jobs.ended_nodes', '', true);
    IF more IS NOT NULL THEN
        PERFORM set_config('forge_jobs.more_ended_nodes', '', true);
    END IF;
    PERFORM {schema}.end_nodes(string_to_array(concat_ws(',', more, noted), ',')::bigint[]);
    RETURN NULL;
END
$$;
CREATE TRIGGER node_ended BEFORE INSERT ON {schema}.finished FOR EACH ROW WHEN (NEW.links & 96 <> 0)
    EXECUTE FUNCTION {schema}.note_ended_node();
CREATE TRIGGER nodes_ended AFTER INSERT ON {schema}.finished FOR EACH STATEMENT
    WHEN (current_setting('forge_jobs.ended_nodes', true) <> '' OR current_setting('forge_jobs.ended_awaited', true) <> '')
    EXECUTE FUNCTION {schema}.end_noted_nodes();
-- A trigger before the deletion would lock each row once more, those of plain jobs too. The one of the statement is asked whether
-- it is wanted before those of the rows have run, so it always is.
CREATE TRIGGER node_gone AFTER DELETE ON {schema}.job FOR EACH ROW WHEN (OLD.links & 96 <> 0)
    EXECUTE FUNCTION {schema}.note_ended_node();
CREATE TRIGGER nodes_gone AFTER DELETE ON {schema}.job FOR EACH STATEMENT EXECUTE FUNCTION {schema}.end_noted_nodes();

-- Whatever ends these flows tells from now on; returns of which of them that is so. Whoever ends one has locked it: either sees what
-- the other has done. One that somebody keeps locked is not waited for long, and none is asked to tell by who may only look.
CREATE FUNCTION {schema}.await_flows(ids bigint[]) RETURNS bigint[] LANGUAGE plpgsql AS $$
BEGIN
    IF NOT has_table_privilege('{schema_text}.flow', 'UPDATE') OR current_setting('transaction_read_only')::boolean THEN
        RETURN '{}';
    END IF;
    -- What a crash of the server loses is found by looking, so nobody waits for the disk.
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM set_config('lock_timeout', '100ms', true);
    PERFORM FROM {schema}.flow WHERE flow.id = ANY (ids) AND NOT flow.is_awaited ORDER BY flow.id FOR NO KEY UPDATE;
    UPDATE {schema}.flow SET is_awaited = true WHERE flow.id = ANY (ids) AND NOT flow.is_awaited;
    RETURN ids;
EXCEPTION WHEN lock_not_available THEN
    UPDATE {schema}.flow SET is_awaited = true WHERE flow.id IN (
        SELECT its.id FROM {schema}.flow AS its
        WHERE its.id = ANY (ids) AND NOT its.is_awaited ORDER BY its.id FOR NO KEY UPDATE SKIP LOCKED);
    RETURN ARRAY(SELECT flow.id FROM {schema}.flow WHERE flow.id = ANY (ids) AND flow.is_awaited);
END
$$;

-- Hands on what transactions of callers have left; returns how many nodes they had ended.
CREATE FUNCTION {schema}.settle_nodes() RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    ids bigint[];
BEGIN
    SELECT array_agg(left_over.job_id) INTO ids FROM (
        SELECT ended_node.job_id FROM {schema}.ended_node
        ORDER BY ended_node.job_id LIMIT 500 FOR UPDATE SKIP LOCKED) AS left_over;
    IF ids IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM {schema}.end_nodes(ids);
    PERFORM {schema}.end_waits_for(ids, false);
    DELETE FROM {schema}.ended_node WHERE ended_node.job_id = ANY (ids);
    RETURN cardinality(ids);
END
$$;

-- The flow is to end: nodes that wait for others are dead. Returns its state before, and the jobs that are left, which the
-- caller cancels without the lock of the flow.
CREATE FUNCTION {schema}.cancel_flow(wanted bigint, OUT was text, OUT open_jobs bigint[]) LANGUAGE plpgsql AS $$
BEGIN
    SELECT flow.state INTO was FROM {schema}.flow WHERE flow.id = wanted FOR UPDATE;
    IF was IS DISTINCT FROM 'running' THEN
        RETURN;
    END IF;
    UPDATE {schema}.flow SET cancel_requested_at = coalesce(flow.cancel_requested_at, now()) WHERE flow.id = wanted;
    PERFORM {schema}.hand_on({schema}.end_waiting_nodes(
        ARRAY(SELECT node.job_id FROM {schema}.flow_node AS node
              WHERE node.flow_id = wanted AND node.state IS NULL ORDER BY node.job_id),
        'dead', 'cancelled by user'));
    SELECT array_agg(node.job_id ORDER BY node.job_id) INTO open_jobs
    FROM {schema}.flow_node AS node WHERE node.flow_id = wanted AND node.state IS NULL;
END
$$;

-- The dead nodes that the flow cannot do without run again, with attempts counted from 0, when what they need is there, and so do
-- those that are dead, or were skipped, for want of them, whether or not the flow can do without these. What a branch has not
-- taken is skipped for good.
-- Returns the state of the flow before; null: there is none. `gone` is a node whose job was deleted: then nothing changes.
CREATE FUNCTION {schema}.retry_flow(wanted bigint, OUT was text, OUT gone bigint) LANGUAGE plpgsql AS $$
DECLARE
    again bigint[];
    led_to bigint[];  -- of those, the ones that wait for nothing
    passed bigint[];  -- and those to which nothing leads
BEGIN
    SELECT flow.state INTO was FROM {schema}.flow WHERE flow.id = wanted FOR UPDATE;
    IF was IS NULL OR was NOT IN ('dead', 'cancelled') THEN
        RETURN;
    END IF;
    WITH RECURSIVE back (job_id) AS (
        SELECT node.job_id FROM {schema}.flow_node AS node
        WHERE node.flow_id = wanted AND node.state = 'dead' AND (NOT node.tolerated OR was = 'cancelled')
        UNION
        SELECT next.job_id FROM back CROSS JOIN LATERAL (
            SELECT node.job_id FROM {schema}.flow_edge AS edge JOIN {schema}.flow_node AS node ON node.job_id = edge.to_job
            WHERE edge.from_job = back.job_id
              AND ((node.state = 'skipped' AND edge.taken) OR (node.state = 'dead' AND node.failed_by = back.job_id))) AS next
    )
    SELECT array_agg(back.job_id ORDER BY back.job_id) INTO again FROM back;
    IF again IS NULL THEN  -- it was cancelled, and all of its nodes were done all the same
        UPDATE {schema}.flow SET state = 'done' WHERE flow.id = wanted;
        PERFORM {schema}.date_skipped(ARRAY[wanted]);
        RETURN;
    END IF;
    SELECT min(one) INTO gone FROM unnest(again) AS one WHERE NOT EXISTS (SELECT FROM {schema}.job WHERE job.id = one);
    IF gone IS NOT NULL THEN
        RETURN;
    END IF;
    WITH revived AS (
        DELETE FROM {schema}.finished
        WHERE finished.job_id = ANY (again) AND (finished.state <> 'done' OR EXISTS (
            SELECT FROM {schema}.flow_node AS node WHERE node.job_id = finished.job_id AND node.state = 'skipped'))
        RETURNING finished.job_id, finished.queue_id, finished.state
    ), waits AS (
        INSERT INTO {schema}.blocked (job_id, group_id, pos, queue_id, attempt, priority)
        SELECT job.id, NULL, {schema}.micros(now()), job.queue_id, 0, job.priority
        FROM revived JOIN {schema}.job ON job.id = revived.job_id
    )
    INSERT INTO {schema}.tally (queue_id, done, dead, expired, blocked)
    SELECT revived.queue_id, -count(*) FILTER (WHERE revived.state = 'done'), -count(*) FILTER (WHERE revived.state = 'dead'),
           -count(*) FILTER (WHERE revived.state = 'expired'), count(*)
    FROM revived GROUP BY revived.queue_id;
    UPDATE {schema}.flow SET state = 'running', ended_at = NULL, cancel_requested_at = NULL, deadline = NULL,
        dead = flow.dead - sums.dead, skipped = flow.skipped - sums.skipped, failed = flow.failed - sums.failed
    FROM (SELECT count(*) FILTER (WHERE node.state = 'dead') AS dead, count(*) FILTER (WHERE node.state = 'skipped') AS skipped,
                 count(*) FILTER (WHERE node.state = 'dead' AND NOT node.tolerated) AS failed
          FROM {schema}.flow_node AS node WHERE node.job_id = ANY (again)) AS sums
    WHERE flow.id = wanted;
    UPDATE {schema}.flow_node AS node SET state = NULL, error = NULL, failed_by = NULL WHERE node.job_id = ANY (again);
    UPDATE {schema}.flow_node AS node SET (missing, fed) = (
        SELECT count(*) FILTER (WHERE before.state IS NULL),
               count(*) FILTER (WHERE edge.taken AND before.state <> 'skipped'
                                  AND NOT (before.state = 'dead' AND edge.on_dead = 'skip'))
        FROM {schema}.flow_edge AS edge JOIN {schema}.flow_node AS before ON before.job_id = edge.from_job
        WHERE edge.to_job = node.job_id)
    WHERE node.job_id = ANY (again);
    SELECT array_agg(free.job_id) FILTER (WHERE free.is_led_to), array_agg(free.job_id) FILTER (WHERE NOT free.is_led_to)
    INTO led_to, passed
    FROM (SELECT node.job_id, node.fed > 0 OR NOT EXISTS (
                     SELECT FROM {schema}.flow_edge AS edge WHERE edge.to_job = node.job_id) AS is_led_to
          FROM {schema}.flow_node AS node WHERE node.job_id = ANY (again) AND node.missing = 0) AS free;
    PERFORM {schema}.free_nodes(led_to);
    PERFORM {schema}.end_nodes(again);  -- those that people have completed meanwhile
    PERFORM {schema}.hand_on({schema}.end_waiting_nodes(passed, 'skipped', 'skipped: nothing led to it'));
END
$$;


-- Views, for people and other tools

-- Every job with its state. A queue that is being deleted has a temporary name that nobody should see: 'deleting:',
-- its id, ':' and its former name. Its jobs are shown under the former name, and its counts are not shown at all.
CREATE VIEW {schema}.jobs AS
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
FROM {schema}.job
JOIN {schema}.queue ON queue.id = job.queue_id
LEFT JOIN {schema}.finished ON finished.job_id = job.id
LEFT JOIN {schema}.claimed ON claimed.job_id = job.id
LEFT JOIN {schema}.scheduled ON scheduled.job_id = job.id
LEFT JOIN {schema}.blocked ON blocked.job_id = job.id
LEFT JOIN {schema}.waiting ON waiting.job_id = job.id
LEFT JOIN {schema}.time_limit ON time_limit.job_id = job.id
LEFT JOIN {schema}.saved_state ON saved_state.job_id = job.id
LEFT JOIN {schema}.progress ON progress.job_id = job.id;

-- How many jobs of each queue are in each state, and since when the oldest pending job is ready, in microseconds since
-- the epoch. That job is found by a loose index scan, which takes one probe for each priority in use, however many jobs
-- wait: of jobs that have tenants, it is the one whose turn is next.
CREATE VIEW {schema}.depth AS
SELECT queue.id AS queue_id, queue.name AS queue,
       coalesce(sums.pending, 0)::bigint AS pending, coalesce(sums.scheduled, 0)::bigint AS scheduled,
       coalesce(sums.in_progress, 0)::bigint AS in_progress, coalesce(sums.done, 0)::bigint AS done,
       coalesce(sums.dead, 0)::bigint AS dead, coalesce(sums.blocked, 0)::bigint AS blocked,
       coalesce(sums.expired, 0)::bigint AS expired, coalesce(sums.waiting, 0)::bigint AS waiting,
       oldest.since AS oldest_since
FROM {schema}.queue
LEFT JOIN (
    SELECT queue_id, sum(pending) AS pending, sum(scheduled) AS scheduled, sum(in_progress) AS in_progress,
           sum(done) AS done, sum(dead) AS dead, sum(blocked) AS blocked, sum(expired) AS expired,
           sum(waiting) AS waiting
    FROM {schema}.tally GROUP BY queue_id
) AS sums ON sums.queue_id = queue.id
LEFT JOIN LATERAL (
    WITH RECURSIVE class AS (
        (SELECT priority, coalesce(since, pos) AS since FROM {schema}.ready
         WHERE queue_id = queue.id ORDER BY priority, pos LIMIT 1)
        UNION ALL
        SELECT next.priority, coalesce(next.since, next.pos)
        FROM class CROSS JOIN LATERAL (
            SELECT ready.priority, ready.pos, ready.since FROM {schema}.ready
            WHERE ready.queue_id = queue.id AND ready.priority > class.priority
            ORDER BY ready.priority, ready.pos LIMIT 1) AS next
    )
    SELECT min(since) AS since FROM class
) AS oldest ON true
WHERE substr(queue.name, 1, length('deleting:' || queue.id || ':')) <> 'deleting:' || queue.id || ':';

-- For each queue, the kinds that are handled by those who serve it and that are not paused: by workers that may claim, and by versions that
-- may, even while they have no worker. A queue is left out where that is not known: either nobody serves it, or a
-- version that is to serve it has had no worker yet and may have any handler.
CREATE VIEW {schema}.handled AS
WITH serving AS (
    SELECT worker.queues, worker.kinds
    FROM {schema}.worker
    LEFT JOIN {schema}.worker_version AS version ON version.pool = worker.pool AND version.id = worker.version_id
    WHERE NOT worker.draining AND NOT worker.cordoned AND worker.kinds <> '{}'
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
LEFT JOIN LATERAL unnest(serving.kinds) AS handler (kind)
    ON NOT EXISTS (SELECT FROM {schema}.paused_kind WHERE coalesce(until > now(), true) AND paused_kind.kind = handler.kind)
WHERE NOT EXISTS (SELECT FROM untold WHERE untold.queues IS NULL)
  AND NOT EXISTS (SELECT FROM untold CROSS JOIN LATERAL unnest(untold.queues) AS theirs (name)
                  WHERE theirs.name = queue.name)
GROUP BY queue.id, queue.name;

-- The jobs that wait in vain, counted by kind: the kind is paused, or nobody who serves their queue has a handler for
-- it. Workers skip such
-- jobs, which therefore collect at the front of their queue. So the view looks at the first 100 pending jobs of each
-- queue, and at the first 100,000 where none of those 100 can be run. Jobs of paused kinds may stand anywhere, and
-- are told whoever serves their queue: while a kind is paused, it looks at the first 10,000 at least. Of the due jobs it looks
-- at the first 1,000. The kind of a job is found by a subquery, since the planner may turn a join into a scan of all
-- of `job`.
CREATE VIEW {schema}.unhandled AS
SELECT queue.id AS queue_id, queue.name AS queue, waiting.kind, waiting.pending, waiting.due, waiting.paused
FROM {schema}.queue
LEFT JOIN {schema}.handled ON handled.queue_id = queue.id
CROSS JOIN LATERAL (
    SELECT kind, count(*) FILTER (WHERE is_pending) AS pending, count(*) FILTER (WHERE NOT is_pending) AS due,
           EXISTS (SELECT FROM {schema}.paused_kind WHERE coalesce(until > now(), true) AND paused_kind.kind = each.kind) AS paused
    FROM (
        SELECT (SELECT job.kind FROM {schema}.job WHERE job.id = first.job_id) AS kind, first.is_pending
        FROM (
            (SELECT ready.job_id, true AS is_pending FROM {schema}.ready
             WHERE ready.queue_id = queue.id
             ORDER BY ready.priority, ready.pos
             LIMIT CASE
                 WHEN handled.kinds IS NULL AND NOT EXISTS (SELECT FROM {schema}.paused_kind WHERE coalesce(until > now(), true)) THEN 0
                 WHEN NOT EXISTS (
                     SELECT FROM (
                         SELECT ready.job_id FROM {schema}.ready
                         WHERE ready.queue_id = queue.id
                         ORDER BY ready.priority, ready.pos LIMIT 100) AS few
                     WHERE CASE
                         WHEN handled.kinds IS NOT NULL
                         THEN (SELECT job.kind FROM {schema}.job WHERE job.id = few.job_id) = ANY (handled.kinds)
                         ELSE NOT EXISTS (SELECT FROM {schema}.paused_kind WHERE coalesce(until > now(), true) AND paused_kind.kind = (
                             SELECT job.kind FROM {schema}.job WHERE job.id = few.job_id)) END
                 ) THEN 100000
                 WHEN EXISTS (SELECT FROM {schema}.paused_kind WHERE coalesce(until > now(), true)) THEN 10000
                 ELSE 100 END)
            UNION ALL
            (SELECT scheduled.job_id, false FROM {schema}.scheduled
             WHERE scheduled.queue_id = queue.id AND scheduled.run_at <= now()
             ORDER BY scheduled.run_at
             LIMIT CASE WHEN handled.kinds IS NULL AND NOT EXISTS (SELECT FROM {schema}.paused_kind WHERE coalesce(until > now(), true)) THEN 0 ELSE 1000 END)
        ) AS first
    ) AS each
    GROUP BY kind
) AS waiting
WHERE (waiting.paused OR waiting.kind <> ALL (handled.kinds))
  AND substr(queue.name, 1, length('deleting:' || queue.id || ':')) <> 'deleting:' || queue.id || ':';

-- For autoscalers: how many jobs of each queue wait and run, in one row per queue, in which no number is null. Blocked
-- jobs are no work: nobody can run them before those that have the places of their groups. Nor are those that wait for a signal. While there are no workers,
-- nobody makes due jobs pending, ends waits whose time is over or that were for jobs that have ended, ends pauses, fires crons or sets the
-- first fire time of a new cron, so whatever is due counts as work too: of each group whose pause is over one job. Jobs that a pause (of the queue, or of the kind) or the concurrency keeps from starting are `held`. Jobs
-- that nobody has a handler for do not count as work; they have a column of their own.
CREATE VIEW {schema}.work AS
SELECT queue.id AS queue_id, depth.queue, depth.pending, depth.scheduled, depth.blocked, depth.waiting, depth.in_progress,
       due.jobs AS due, workable.jobs AS workable, coalesce(vain.paused, 0) AS paused_jobs,
       coalesce(vain.unhandled, 0) AS unhandled, queue.paused AND coalesce(queue.paused_until > now(), true) AS is_paused, queue.concurrency,
       coalesce(greatest(({schema}.micros(now()) - depth.oldest_since) / 1000000.0, 0), 0)::double precision
           AS oldest_pending_age_seconds
FROM {schema}.depth
JOIN {schema}.queue ON queue.id = depth.queue_id
LEFT JOIN {schema}.handled ON handled.queue_id = queue.id
CROSS JOIN LATERAL (
    SELECT (SELECT count(*) FROM (
                SELECT FROM (
                    (SELECT scheduled.job_id FROM {schema}.scheduled
                     WHERE scheduled.queue_id = queue.id AND scheduled.run_at <= now()
                     ORDER BY scheduled.run_at LIMIT 100000)
                    UNION ALL
                    (SELECT waiting.job_id FROM {schema}.waiting
                     WHERE waiting.queue_id = queue.id AND waiting.until <= now() ORDER BY waiting.until LIMIT 1000)
                    UNION ALL
                    (SELECT head.job_id FROM {schema}.paused_group JOIN {schema}.job_group USING (name)
                     CROSS JOIN LATERAL (
                         SELECT blocked.job_id FROM {schema}.blocked
                         WHERE blocked.group_id = job_group.id AND blocked.queue_id = queue.id
                         ORDER BY blocked.priority, blocked.pos, blocked.job_id LIMIT 1) AS head
                     WHERE paused_group.until <= now() LIMIT 1000)
                    UNION ALL
                    SELECT waits.job_id FROM (
                        SELECT waiting.job_id, waiting.for_job FROM {schema}.waiting
                        WHERE waiting.queue_id = queue.id AND waiting.for_job IS NOT NULL LIMIT 10000) AS waits
                    WHERE (SELECT finished.job_id FROM {schema}.finished WHERE finished.job_id = waits.for_job) IS NOT NULL
                       OR (SELECT job.id FROM {schema}.job WHERE job.id = waits.for_job) IS NULL) AS first
                WHERE CASE
                    WHEN handled.kinds IS NOT NULL
                    THEN (SELECT job.kind FROM {schema}.job WHERE job.id = first.job_id) = ANY (handled.kinds)
                    ELSE NOT EXISTS (SELECT FROM {schema}.paused_kind WHERE coalesce(until > now(), true) AND paused_kind.kind = (
                        SELECT job.kind FROM {schema}.job WHERE job.id = first.job_id)) END
                LIMIT 1000) AS counted)
         + (SELECT count(*) FROM {schema}.cron
            WHERE cron.queue_id = queue.id AND cron.enabled
              AND coalesce(cron.next_fire_at, '-infinity') <= now()
              AND coalesce(cron.kind = ANY (handled.kinds), NOT EXISTS (
                  SELECT FROM {schema}.paused_kind WHERE coalesce(until > now(), true) AND paused_kind.kind = cron.kind))) AS jobs
) AS due
LEFT JOIN (
    SELECT queue_id, sum(pending)::bigint AS pending, sum(pending) FILTER (WHERE paused)::bigint AS paused,
           sum(pending + due) FILTER (WHERE NOT paused)::bigint AS unhandled
    FROM {schema}.unhandled GROUP BY queue_id
) AS vain ON vain.queue_id = queue.id
CROSS JOIN LATERAL (SELECT greatest(depth.pending - coalesce(vain.pending, 0), 0) AS jobs) AS workable;

CREATE VIEW {schema}.scaling_signal AS
SELECT queue, pending, scheduled, blocked, waiting, in_progress, due,
       paused_jobs + workable - CASE
           WHEN is_paused THEN 0
           ELSE greatest(least(workable, concurrency - in_progress), 0) END AS held,
       CASE WHEN is_paused THEN in_progress
            ELSE greatest(in_progress, least(in_progress + workable + due, concurrency)) END AS workload,
       oldest_pending_age_seconds, unhandled
FROM {schema}.work;

-- The jobs that have begun and that one version of the program has to go on with, by queue and version.
CREATE VIEW {schema}.pinned_work AS
SELECT job.queue_id, pin.version, count(claimed.job_id) AS in_progress,
       count(*) FILTER (WHERE claimed.job_id IS NULL AND blocked.job_id IS NULL AND waiting.job_id IS NULL
                          AND scheduled.job_id IS NULL) AS pending,
       count(*) FILTER (WHERE scheduled.run_at <= now() OR waiting.until <= now()) AS due
FROM {schema}.pin
JOIN {schema}.job ON job.id = pin.job_id
LEFT JOIN {schema}.claimed ON claimed.job_id = pin.job_id
LEFT JOIN {schema}.scheduled ON scheduled.job_id = pin.job_id
LEFT JOIN {schema}.blocked ON blocked.job_id = pin.job_id
LEFT JOIN {schema}.waiting ON waiting.job_id = pin.job_id
WHERE NOT EXISTS (SELECT FROM {schema}.finished WHERE finished.job_id = pin.job_id)
GROUP BY job.queue_id, pin.version;

-- The same as `scaling_signal` for the workers of one version: without the jobs that another version has to go on with. It
-- reads the views `work` and `pinned_work`.
CREATE FUNCTION {schema}.scaling_signal_of(wanted text) RETURNS SETOF {schema}.scaling_signal LANGUAGE sql STABLE AS $$
    SELECT work.queue, greatest(work.pending - other.pending, 0), work.scheduled, work.blocked, work.waiting,
           own.in_progress, own.due,
           work.paused_jobs + own.workable - CASE
               WHEN work.is_paused THEN 0
               ELSE greatest(least(own.workable, work.concurrency - work.in_progress), 0) END,
           CASE WHEN work.is_paused THEN own.in_progress
                ELSE greatest(own.in_progress, least(
                    own.in_progress + own.workable + own.due, work.concurrency - other.in_progress)) END,
           work.oldest_pending_age_seconds, work.unhandled
    FROM {schema}.work
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(pinned.pending), 0)::bigint AS pending, coalesce(sum(pinned.due), 0)::bigint AS due,
               coalesce(sum(pinned.in_progress), 0)::bigint AS in_progress
        FROM {schema}.pinned_work AS pinned
        WHERE pinned.queue_id = work.queue_id AND pinned.version <> wanted) AS other
    CROSS JOIN LATERAL (
        SELECT greatest(work.workable - other.pending, 0) AS workable, greatest(work.due - other.due, 0) AS due,
               greatest(work.in_progress - other.in_progress, 0) AS in_progress) AS own
$$;


-- A vacuum that gives the pages at the end of a table back locks it against everybody until the file system has done so, which
-- may be busy with other files for half a minute: nobody could claim a job or end one meanwhile. Pages that are free are
-- used again.

DO $$
DECLARE
    one text;
BEGIN
    FOREACH one IN ARRAY ARRAY[  -- by their names: others may have tables in this schema, too
        'blocked', 'claimed', 'cron', 'done_together', 'ended_node', 'era', 'failure', 'finished', 'fire', 'flow',
        'flow_edge', 'flow_node', 'group_front', 'handed_in', 'idle', 'intervention', 'job', 'job_group', 'job_key',
        'job_tag', 'key_state', 'kind', 'leader', 'migration', 'minute_statistic', 'occupant', 'operation',
        'operator', 'paused_group', 'paused_kind', 'permit', 'pin', 'progress', 'queue', 'rate_key', 'rate_limit',
        'ready', 'revision', 'saved_state', 'scheduled', 'settled_permit', 'signal', 'slot', 'spend_log', 'step', 'tally',
        'tenant_clock', 'tenant_turn', 'tenant_weight', 'time_limit', 'unique_hold', 'unsettled', 'waiting', 'worker',
        'worker_label', 'worker_version'
    ] LOOP
        EXECUTE format('ALTER TABLE %s.%I SET (vacuum_truncate = false, toast.vacuum_truncate = false)', '{schema_text}', one);
    END LOOP;
END $$;


-- The rows that are there from the beginning

INSERT INTO {schema}.revision DEFAULT VALUES;
INSERT INTO {schema}.queue (name) VALUES ('default');
