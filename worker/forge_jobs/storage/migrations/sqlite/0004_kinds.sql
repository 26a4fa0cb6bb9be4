-- What handlers declare of their kinds, for jobs that others enqueue by name. Programs write it when
-- they open, if it is not there already; null: the handler says nothing of it.
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

-- Crons may leave the queue and the priority to the kind. queue_id is then the queue that the
-- kind has now, so that what reads it alone is right.
ALTER TABLE cron ADD COLUMN queue_said INTEGER NOT NULL DEFAULT 1;
ALTER TABLE cron ADD COLUMN priority_said INTEGER NOT NULL DEFAULT 1;
