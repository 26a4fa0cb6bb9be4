-- Jobs that wait for other jobs are to be called blocked; those that a pause or a full queue keeps
-- from starting are held. Nothing of ours reads the view, and no release had the old name, so it
-- is renamed, and not kept beside the new one.
ALTER VIEW {schema}.scaling_signal RENAME COLUMN blocked TO held;

-- As before, but a number of attempts is 1 or more, or -1 for ever, as everywhere: 0 was "for ever"
-- for one who meant "no retry". And a timeout is one that every program can read.
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
    IF enqueue.max_attempts = 0 OR enqueue.max_attempts < -1 THEN
        RAISE EXCEPTION 'max_attempts is %, allowed is 1 (no retry) or more, or -1 for ever.', enqueue.max_attempts
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF enqueue.timeout <= interval '0' OR enqueue.timeout > interval '365000 days' THEN
        RAISE EXCEPTION 'timeout is %, allowed is more than zero and at most 365,000 days.', enqueue.timeout
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
            coalesce(nullif(enqueue.max_attempts, -1), CASE WHEN enqueue.max_attempts = -1 THEN 0 END, declared.max_attempts, into_queue.max_attempts),
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
