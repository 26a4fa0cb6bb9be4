-- Jobs that wait for other jobs are to be called blocked; those that a pause or a full queue keeps
-- from starting are held. Nothing of ours reads the view, and no release had the old name, so it
-- is renamed, and not kept beside the new one.
ALTER VIEW {schema}.scaling_signal RENAME COLUMN blocked TO held;
