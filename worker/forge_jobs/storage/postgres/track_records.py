"""Track records in PostgreSQL: what the attempts of workers came to, kept with their version when they go."""

from forge_jobs.model.track_record import BOUNDS, SHORTEST

# The records of the workers in the statement's `gone` are added to those of their versions. Attempts that they
# still held are counted as lost, and only here, since their workers are not registered any more.
KEPT = """
    UPDATE {schema}.worker_version AS version SET record = {schema}.summed(version.record, sums.record)
    FROM (
        SELECT pool, version_id, jsonb_object_agg(name, total) AS record
        FROM (
            SELECT gone.pool, gone.version_id, each.name, sum(each.amount) AS total
            FROM gone CROSS JOIN LATERAL (
                SELECT key, value::bigint FROM jsonb_each_text({record})
                UNION ALL SELECT 'lost', count(*) FROM {schema}.claimed WHERE claimed.worker_id = gone.id
                UNION ALL SELECT 'workers_lost', {silent}
            ) AS each (name, amount)
            WHERE gone.pool IS NOT NULL AND each.amount > 0
            GROUP BY gone.pool, gone.version_id, each.name
        ) AS totals
        GROUP BY pool, version_id
    ) AS sums
    WHERE version.pool = sums.pool AND version.id = sums.version_id
"""

# The sum of the track records of a version and its workers, as `total`.
TOTAL = """LATERAL (
    SELECT jsonb_object_agg(name, amount) AS record
    FROM (SELECT pairs.name, sum(pairs.amount::bigint) AS amount
          FROM (SELECT version.record
                UNION ALL SELECT worker.record FROM {schema}.worker
                          WHERE worker.pool = version.pool AND worker.version_id = version.id) AS kept
          CROSS JOIN jsonb_each_text(kept.record) AS pairs (name, amount)
          GROUP BY pairs.name) AS sums
) AS total"""

# The bucket of the time since a job was claimed.
AGE = (
    "width_bucket(extract(epoch FROM now() - claimed.claimed_at)::double precision, "
    f"ARRAY[{', '.join(map(repr, BOUNDS))}]::double precision[]) + ({SHORTEST})"
)


def kept(record: str, *, silent: bool) -> str:
    """Return the CTE that keeps the track records of the workers in `gone`, which are in the column `record`."""
    return KEPT.replace("{record}", record).replace("{silent}", str(int(silent)))
