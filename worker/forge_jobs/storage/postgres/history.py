"""The sweep in PostgreSQL: ended jobs go when their queue's retention is over."""

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.storage.postgres import endings
from forge_jobs.storage.postgres.connection import PostgresDatabase

# One walk of the index `finished_sweep` for each queue and state, from the oldest on. Rows
# that somebody has locked (a retry by a user) are passed over, so the sweep waits for nobody.
# ANY (ARRAY): a join might read whole tables, since the planner guesses that they are small.
SWEEP = """
WITH old AS MATERIALIZED (
    SELECT ended.place
    FROM {schema}.queue
    CROSS JOIN (VALUES ('done'), ('dead')) AS kind (state)
    CROSS JOIN LATERAL (
        SELECT finished.ctid AS place
        FROM {schema}.finished
        WHERE finished.queue_id = queue.id AND finished.state = kind.state
          AND finished.finished_at
              <= now() - make_interval(secs => extract(epoch FROM
                  CASE kind.state WHEN 'done' THEN queue.done_retention ELSE queue.dead_retention END)::double precision)
        ORDER BY finished.finished_at
        LIMIT $2
        FOR UPDATE SKIP LOCKED
    ) AS ended
    WHERE EXISTS (SELECT FROM {schema}.leader WHERE leader.epoch = $1 AND leader.until > now())
    LIMIT $2
), gone AS (
    DELETE FROM {schema}.finished WHERE finished.ctid = ANY (ARRAY(SELECT place FROM old))
    RETURNING finished.job_id, finished.queue_id, finished.state
), {forgotten}, {tallied}
SELECT count(*) FROM gone
""".replace("{forgotten}", endings.forgotten("gone")).replace(
    "{tallied}",
    endings.tallied(
        done="-count(*) FILTER (WHERE state = 'done')", dead="-count(*) FILTER (WHERE state = 'dead')"
    ),
)

SWEEP_FIRES = """
WITH old AS MATERIALIZED (
    SELECT fire.cron_id, fire.fire_at
    FROM {schema}.cron JOIN {schema}.fire ON fire.cron_id = cron.id AND fire.fire_at < now() - interval '30 days'
    WHERE EXISTS (SELECT FROM {schema}.leader WHERE leader.epoch = $1 AND leader.until > now())
    LIMIT $2
    FOR UPDATE OF fire SKIP LOCKED
)
DELETE FROM {schema}.fire USING old WHERE fire.cron_id = old.cron_id AND fire.fire_at = old.fire_at
"""

# The label of a registered worker is kept as of today; the others are kept for longer than any job
# that may name them.
SWEEP_LABELS = """
WITH leads AS MATERIALIZED (
    SELECT FROM {schema}.leader WHERE leader.epoch = $1 AND leader.until > now()
), living AS (
    UPDATE {schema}.worker_label SET at = now() FROM {schema}.worker, leads
    WHERE worker.id = worker_label.worker_id AND worker_label.at < now() - interval '1 day'
    RETURNING worker_label.worker_id
)
DELETE FROM {schema}.worker_label USING leads
WHERE at < now() - (SELECT greatest(interval '60 days', 2 * max(done_retention), 2 * max(dead_retention))
                    FROM {schema}.queue)
  AND NOT EXISTS (SELECT FROM {schema}.worker WHERE worker.id = worker_label.worker_id)
"""


class PostgresHistory:
    """`History` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def sweep(self, *, epoch: LeaderEpoch, limit: int = 1000) -> int:
        swept: int = await self._database.fetchval(SWEEP, epoch, limit)
        if swept < limit:  # once, at the end of a series of full batches
            await self._database.execute(SWEEP_FIRES, epoch, limit)
            await self._database.execute(SWEEP_LABELS, epoch)
        return swept
