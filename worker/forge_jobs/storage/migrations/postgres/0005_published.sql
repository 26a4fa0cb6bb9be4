-- A publication of all tables lets nothing be deleted from a table whose rows it cannot name. These
-- two have no key, since one would cost each job. Full rows are written to the log only where
-- changes are decoded from it (wal_level = logical), and they are narrow.
ALTER TABLE {schema}.ready REPLICA IDENTITY FULL;
ALTER TABLE {schema}.tally REPLICA IDENTITY FULL;

-- Tell the processes that listen. Where one of them hears nothing for long, the server's queue of
-- notifications fills up, and then each transaction that tells something fails when it commits. So
-- nothing is told while half of it is full: what waits is found by polling.
CREATE FUNCTION {schema}.tell(message text) RETURNS void LANGUAGE sql AS $$
    SELECT CASE WHEN pg_notification_queue_usage() < 0.5 THEN pg_notify({channel}, $1) END
$$;

CREATE OR REPLACE FUNCTION {schema}.wake(queue_id integer) RETURNS void LANGUAGE sql AS $$
    SELECT {schema}.tell('queue:' || $1)
    WHERE EXISTS (SELECT FROM {schema}.idle WHERE idle.queue_id = $1)
$$;

CREATE OR REPLACE FUNCTION {schema}.configured() RETURNS void LANGUAGE sql AS $$
    UPDATE {schema}.revision SET revision = revision + 1;
    SELECT {schema}.tell('config:')
$$;

-- As before, but from the moment of the statement: the transaction may have begun long ago.
CREATE OR REPLACE FUNCTION {schema}.enqueue(
    kind text, payload jsonb DEFAULT '{}', queue text DEFAULT NULL, priority integer DEFAULT NULL,
    run_at timestamptz DEFAULT NULL, max_attempts integer DEFAULT NULL,
    timeout interval DEFAULT NULL, key text DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    declared {schema}.kind;
    into_queue record;
    new_id bigint;
    held_by bigint;
BEGIN
    SELECT * INTO declared FROM {schema}.kind d WHERE d.kind = enqueue.kind;
    queue := coalesce(enqueue.queue, declared.queue, 'default');
    priority := coalesce(enqueue.priority, declared.priority, 0);
    SELECT q.id, q.max_attempts INTO into_queue FROM {schema}.queue q WHERE q.name = enqueue.queue;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'There is no queue "%".', enqueue.queue USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF coalesce(enqueue.kind, '') = '' OR length(enqueue.kind) > 128 THEN
        RAISE EXCEPTION 'kind is "%", allowed are 1 to 128 characters.', enqueue.kind
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF jsonb_typeof(enqueue.payload) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'payload is a JSON %, allowed is an object.', coalesce(jsonb_typeof(enqueue.payload), 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF enqueue.max_attempts < 0 THEN
        RAISE EXCEPTION 'max_attempts is %, allowed is 0 (for ever) or more.', enqueue.max_attempts
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF enqueue.timeout <= interval '0' THEN
        RAISE EXCEPTION 'timeout is %, allowed is more than zero.', enqueue.timeout
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF enqueue.key = '' OR length(enqueue.key) > 512 THEN
        RAISE EXCEPTION 'key is "%", allowed are 1 to 512 characters.', left(enqueue.key, 80)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    new_id := nextval(pg_get_serial_sequence('{schema_text}.job', 'id'));
    WHILE enqueue.key IS NOT NULL LOOP
        INSERT INTO {schema}.job_key AS k (kind, key, job_id) VALUES (enqueue.kind, enqueue.key, new_id)
            ON CONFLICT DO NOTHING;
        EXIT WHEN FOUND;
        SELECT k.job_id INTO held_by FROM {schema}.job_key k WHERE k.kind = enqueue.kind AND k.key = enqueue.key;
        IF FOUND THEN
            RETURN held_by;
        END IF;
    END LOOP;
    INSERT INTO {schema}.job (id, queue_id, priority, max_attempts, timeout, kind, codec, key, created_at, payload)
    VALUES (new_id, into_queue.id, enqueue.priority,
            coalesce(enqueue.max_attempts, declared.max_attempts, into_queue.max_attempts),
            coalesce(extract(epoch FROM enqueue.timeout), declared.timeout), enqueue.kind, 'json', enqueue.key, statement_timestamp(),
            convert_to(enqueue.payload::text, 'UTF8'));
    IF enqueue.run_at > statement_timestamp() THEN
        INSERT INTO {schema}.scheduled (job_id, run_at, queue_id, attempt, priority, reason)
        VALUES (new_id, enqueue.run_at, into_queue.id, 0, enqueue.priority, 'delayed');
        INSERT INTO {schema}.tally (queue_id, scheduled) VALUES (into_queue.id, 1);
        IF enqueue.run_at < statement_timestamp() + interval '10 seconds' THEN
            PERFORM {schema}.tell('due:');
        END IF;
    ELSE
        INSERT INTO {schema}.ready (job_id, pos, queue_id, attempt, priority)
        VALUES (new_id, {schema}.micros(statement_timestamp()), into_queue.id, 0, enqueue.priority);
        INSERT INTO {schema}.tally (queue_id, pending) VALUES (into_queue.id, 1);
        PERFORM {schema}.tell('queue:' || into_queue.id);
    END IF;
    RETURN new_id;
END
$$;
