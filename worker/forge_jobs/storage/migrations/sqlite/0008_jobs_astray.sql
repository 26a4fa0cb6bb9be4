-- What only a worker knows, and somebody who asks why a job does not end should hear: jobs whose
-- handlers go on though they were told to stop, and jobs that are the worker's and that it does not run.
ALTER TABLE worker ADD COLUMN stuck TEXT NOT NULL DEFAULT '[]';
ALTER TABLE worker ADD COLUMN adrift TEXT NOT NULL DEFAULT '[]';
