-- An era of the database: a stretch of its history that nothing has cut, as a restore from a backup does.
CREATE TABLE era (
    one    INTEGER PRIMARY KEY DEFAULT 1 CHECK (one = 1),
    number INTEGER NOT NULL  -- random
) STRICT;

-- The era in which the worker knows all of its claims; null: a worker of the release before.
ALTER TABLE worker ADD COLUMN era INTEGER;
