-- Versions of worker pools, and the gates that let their workers claim. An operator writes
-- them; without one the tables stay empty, and every gate is open.

CREATE TABLE {schema}.worker_version (
    pool             text NOT NULL,  -- the uid of its owner
    id               text NOT NULL,
    version          text NOT NULL,
    deployment       text NOT NULL,
    state            text NOT NULL CHECK (
        state IN ('pending', 'ramping', 'current', 'draining', 'drained', 'retired', 'failed')),
    weight_percent   integer NOT NULL CHECK (weight_percent BETWEEN 0 AND 100),
    control_revision bigint NOT NULL,  -- +1 with every change of state; workers acknowledge it
    spec_hash        text NOT NULL,
    created_at       timestamptz NOT NULL,
    state_changed_at timestamptz NOT NULL,  -- also with a new weight
    last_current_at  timestamptz,
    drain_started_at timestamptz,
    drained_at       timestamptz,
    PRIMARY KEY (pool, id)
);
CREATE UNIQUE INDEX worker_version_current ON {schema}.worker_version (pool) WHERE state = 'current';

-- The operator that writes. One row, which every write of an operator locks.
CREATE TABLE {schema}.operator (
    one    boolean PRIMARY KEY DEFAULT true CHECK (one),
    holder text NOT NULL,
    epoch  bigint NOT NULL
);

-- Workers of the release before insert without these.
ALTER TABLE {schema}.worker
    ADD COLUMN pool              text,
    ADD COLUMN version_id        text,
    ADD COLUMN pod               text,
    ADD COLUMN retiring          boolean NOT NULL DEFAULT false,
    ADD COLUMN observed_revision bigint NOT NULL DEFAULT 0,  -- of its version's control; -1: told to retire, or not to
    ADD COLUMN succeeded         bigint NOT NULL DEFAULT 0,
    ADD COLUMN failed            bigint NOT NULL DEFAULT 0,
    ADD COLUMN run_seconds       double precision NOT NULL DEFAULT 0;
CREATE INDEX worker_of_version ON {schema}.worker (pool, version_id);

-- so that a claim leads to its version when its worker is gone
ALTER TABLE {schema}.worker_label
    ADD COLUMN pool       text,
    ADD COLUMN version_id text;

-- so that marks of those who are gone and were never workers can be told
ALTER TABLE {schema}.idle ADD COLUMN marked_at timestamptz NOT NULL DEFAULT now();
