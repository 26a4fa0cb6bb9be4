-- What the attempts of workers came to, by name, and of versions: theirs are kept when workers are gone.

-- Workers of the release before say only how many succeeded and failed.
ALTER TABLE {schema}.worker ADD COLUMN IF NOT EXISTS record jsonb NOT NULL DEFAULT '{}';

ALTER TABLE {schema}.worker_version
    ADD COLUMN IF NOT EXISTS record        jsonb NOT NULL DEFAULT '{}',  -- of workers that are gone
    ADD COLUMN IF NOT EXISTS baseline      jsonb,        -- of all versions of the pool, when this one got its present share
    ADD COLUMN IF NOT EXISTS ramping_since timestamptz,  -- while it has a share
    ADD COLUMN IF NOT EXISTS verdict       text;         -- why it was given up

CREATE OR REPLACE FUNCTION {schema}.summed(one jsonb, other jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(jsonb_object_agg(name, total), '{}')
    FROM (SELECT name, sum(amount::bigint) AS total
          FROM (SELECT * FROM jsonb_each_text($1) UNION ALL SELECT * FROM jsonb_each_text($2)) AS pairs (name, amount)
          GROUP BY name) AS totals
$$;
