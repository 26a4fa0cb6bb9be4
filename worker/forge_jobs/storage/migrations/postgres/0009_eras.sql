-- An era of the database: a stretch of its history that nothing has cut. The row is in a table that a crash
-- empties, that no standby has and that no backup of files brings back, so after a crash, a fail-over or a
-- restore it is gone, and with it maybe claims that had been made. A clean restart keeps it.
CREATE UNLOGGED TABLE {schema}.era (
    one    boolean PRIMARY KEY DEFAULT true CHECK (one),
    number bigint NOT NULL  -- random
);

-- The era in which the worker knows all of its claims; null: a worker of the release before.
ALTER TABLE {schema}.worker ADD COLUMN era bigint;
