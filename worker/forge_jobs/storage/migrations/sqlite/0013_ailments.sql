-- What keeps a worker from its work, as it said at its last beat; null: nothing, or a worker of the release before.
ALTER TABLE worker ADD COLUMN ailment text;
