-- What a queue says of its jobs that say nothing themselves: how long an attempt may take.
-- And the scope of the rate limit of which each start takes a token; it may be missing, since
-- rate limits come and go by themselves.
ALTER TABLE {schema}.queue
    ADD COLUMN timeout    interval CHECK (timeout > interval '0'),
    ADD COLUMN rate_limit text;
