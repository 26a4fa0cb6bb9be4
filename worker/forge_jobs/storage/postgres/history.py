"""The sweep in PostgreSQL: ended jobs go when their queue's retention is over."""

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.storage.postgres import endings, interventions
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.leadership import LEADS

_EXACT = "make_interval(secs => extract(epoch FROM queue.{retention})::double precision)"

# The done are found by the rows of `done_together` whose moment is past their queue's retention, the others by an index
# of their own, both of each queue from the oldest on, and no further than the limit. Rows that somebody has locked (a
# move by a user) are passed over, so the sweep waits for nobody, and so are nodes of which their flows have not heard. A row of `done_together` goes, too, when none of
# its jobs is left behind. ANY (ARRAY) and BETWEEN one AND the same: a join might read whole tables, since the planner
# guesses that they are small.
SWEEP = """
WITH dated AS MATERIALIZED (
    SELECT due.*, row_number() OVER () AS number
    FROM {schema}.queue
    CROSS JOIN LATERAL (
        SELECT dated.ctid AS place, dated.*
        FROM {schema}.done_together AS dated
        WHERE dated.queue_id = queue.id AND dated.at <= now() - {done_retention}
        ORDER BY dated.at
        LIMIT $2
    ) AS due
    WHERE {leads}
    LIMIT $2
), done AS MATERIALIZED (
    SELECT done.place, dated.number
    FROM dated CROSS JOIN LATERAL {locked_jobs}
    WHERE (SELECT job_id FROM {schema}.ended_node WHERE ended_node.job_id = given.job_id) IS NULL
    LIMIT $2
), dead AS MATERIALIZED (
    SELECT ended.place
    FROM {schema}.queue
    CROSS JOIN LATERAL (
        SELECT finished.ctid AS place
        FROM {schema}.finished
        WHERE finished.queue_id = queue.id AND finished.state <> 'done'
          AND finished.finished_at <= now() - {dead_retention}
        ORDER BY finished.finished_at
        LIMIT $2
        FOR UPDATE SKIP LOCKED
    ) AS ended
    WHERE {leads}
    LIMIT $2 - (SELECT count(*) FROM done)
), gone AS (
    DELETE FROM {schema}.finished
    WHERE finished.ctid = ANY (ARRAY(SELECT place FROM done UNION ALL SELECT place FROM dead))
    RETURNING finished.job_id, finished.queue_id, finished.state
), {forgotten}, {tallied}, reached AS MATERIALIZED (
    SELECT dated.*, coalesce(taken.jobs, 0) AS taken
    FROM dated LEFT JOIN (SELECT number, count(*) AS jobs FROM done GROUP BY number) AS taken USING (number)
    WHERE (SELECT count(*) FROM done) < $2 OR number <= (SELECT max(number) FROM done)
), undated AS (
    DELETE FROM {schema}.done_together WHERE ctid = ANY (ARRAY(
        SELECT place FROM reached AS dated
        WHERE jobs = taken OR taken = (SELECT count(*) FROM {dated_jobs})))
    RETURNING at
)
SELECT (SELECT count(*) FROM gone) AS swept, (SELECT count(*) FROM undated) AS undated
"""
SWEEP = (
    SWEEP.replace("{leads}", LEADS.replace("{epoch}", "$1"))
    .replace("{done_retention}", _EXACT.replace("{retention}", "done_retention"))
    .replace("{dead_retention}", _EXACT.replace("{retention}", "dead_retention"))
    .replace("{dated_jobs}", endings.DATED_JOBS)
    .replace("{locked_jobs}", endings.DATED_JOBS.replace("OFFSET 0", "FOR UPDATE SKIP LOCKED"))
    .replace("{forgotten}", endings.forgotten("gone"))
    .replace(
        "{tallied}",
        endings.tallied(
            done="-count(*) FILTER (WHERE state = 'done')",
            dead="-count(*) FILTER (WHERE state = 'dead')",
            expired="-nullif(count(*) FILTER (WHERE state = 'expired'), 0)",
        ),
    )
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

# Of two that meet at a hold, the one who enqueues wins: its row is passed over while it is locked, and is not expired then.
SWEEP_HOLDS = """
WITH old AS MATERIALIZED (
    SELECT unique_hold.ctid AS place FROM {schema}.unique_hold
    WHERE unique_hold.until <= now()
      AND EXISTS (SELECT FROM {schema}.leader WHERE leader.epoch = $1 AND leader.until > now())
    ORDER BY unique_hold.until LIMIT $2
    FOR UPDATE SKIP LOCKED
)
DELETE FROM {schema}.unique_hold WHERE ctid = ANY (ARRAY(SELECT place FROM old))
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
        swept, is_more = 0, True
        while swept < limit and is_more:
            asked = limit - swept
            [(gone, undated)] = await self._database.fetch(SWEEP, epoch, asked)
            swept += gone
            is_more = undated >= asked  # jobs of the past that are all gone are no reason to pause
        if swept < limit:  # once, at the end of a series of full batches
            for sweep in (SWEEP_FIRES, SWEEP_HOLDS, interventions.SWEEP):
                while await self._database.execute(sweep, epoch, limit) == f"DELETE {limit}":
                    pass
            await self._database.execute(SWEEP_LABELS, epoch)
        return swept
