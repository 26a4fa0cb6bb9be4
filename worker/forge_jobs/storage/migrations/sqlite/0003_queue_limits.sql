-- What a queue says of its jobs that say nothing themselves: how long an attempt may take.
-- And the scope of the rate limit of which each start takes a token; it may be missing, since
-- rate limits come and go by themselves.
ALTER TABLE queue ADD COLUMN timeout INTEGER CHECK (timeout > 0);
ALTER TABLE queue ADD COLUMN rate_limit TEXT;
