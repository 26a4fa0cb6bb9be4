-- concurrently
-- What is due soon in one queue, however much waits in the others.
CREATE INDEX CONCURRENTLY IF NOT EXISTS scheduled_queue ON {schema}.scheduled (queue_id, run_at);
