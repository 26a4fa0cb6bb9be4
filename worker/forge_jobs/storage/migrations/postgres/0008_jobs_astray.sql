-- What only a worker knows, and somebody who asks why a job does not end should hear: jobs whose
-- handlers go on though they were told to stop, and jobs that are the worker's and that it does not run.
ALTER TABLE {schema}.worker ADD COLUMN stuck bigint[] NOT NULL DEFAULT '{}';
ALTER TABLE {schema}.worker ADD COLUMN adrift bigint[] NOT NULL DEFAULT '{}';
