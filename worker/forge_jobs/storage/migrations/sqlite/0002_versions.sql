-- Versions of worker pools, and the gates that let their workers claim. An operator writes
-- them; without one the tables stay empty, and every gate is open.

CREATE TABLE worker_version (
    pool             TEXT NOT NULL,  -- the uid of its owner
    id               TEXT NOT NULL,
    version          TEXT NOT NULL,
    deployment       TEXT NOT NULL,
    state            TEXT NOT NULL CHECK (
        state IN ('pending', 'ramping', 'current', 'draining', 'drained', 'retired', 'failed')),
    weight_percent   INTEGER NOT NULL CHECK (weight_percent BETWEEN 0 AND 100),
    control_revision INTEGER NOT NULL,  -- +1 with every change of state; workers acknowledge it
    spec_hash        TEXT NOT NULL,
    created_at       INTEGER NOT NULL,
    state_changed_at INTEGER NOT NULL,  -- also with a new weight
    last_current_at  INTEGER,
    drain_started_at INTEGER,
    drained_at       INTEGER,
    PRIMARY KEY (pool, id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX worker_version_current ON worker_version (pool) WHERE state = 'current';

-- the operator that writes
CREATE TABLE operator (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    holder TEXT NOT NULL,
    epoch  INTEGER NOT NULL
);

-- Workers of the release before insert without these.
ALTER TABLE worker ADD COLUMN pool TEXT;
ALTER TABLE worker ADD COLUMN version_id TEXT;
ALTER TABLE worker ADD COLUMN pod TEXT;
ALTER TABLE worker ADD COLUMN retiring INTEGER NOT NULL DEFAULT 0;
-- of its version's control; -1: told to retire, or not to
ALTER TABLE worker ADD COLUMN observed_revision INTEGER NOT NULL DEFAULT 0;
ALTER TABLE worker ADD COLUMN succeeded INTEGER NOT NULL DEFAULT 0;
ALTER TABLE worker ADD COLUMN failed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE worker ADD COLUMN run_seconds REAL NOT NULL DEFAULT 0;
CREATE INDEX worker_of_version ON worker (pool, version_id);

-- so that a claim leads to its version when its worker is gone
ALTER TABLE worker_label ADD COLUMN pool TEXT;
ALTER TABLE worker_label ADD COLUMN version_id TEXT;
