-- What is due soon in one queue, however much waits in the others.
CREATE INDEX IF NOT EXISTS scheduled_queue ON scheduled (queue_id, run_at);
