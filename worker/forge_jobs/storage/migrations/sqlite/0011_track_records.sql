-- What the attempts of workers came to, by name, and of versions: theirs are kept when workers are gone.

-- Workers of the release before say only how many succeeded and failed.
ALTER TABLE worker ADD COLUMN record TEXT NOT NULL DEFAULT '{}';

ALTER TABLE worker_version ADD COLUMN record TEXT NOT NULL DEFAULT '{}';  -- of workers that are gone
-- of all versions of the pool, when this one got its present share
ALTER TABLE worker_version ADD COLUMN baseline TEXT;
ALTER TABLE worker_version ADD COLUMN ramping_since INTEGER;  -- while it has a share
ALTER TABLE worker_version ADD COLUMN verdict TEXT;  -- why it was given up
