"""Single jobs that people end or change in PostgreSQL. Each is one statement, which is repeated when it raced with another move."""

from contextlib import suppress

from forge_jobs.errors import ForgeError
from forge_jobs.model.correction import Correction
from forge_jobs.model.intervention import Deed
from forge_jobs.model.job import ENDED, WAITING, State
from forge_jobs.model.links import FLOW
from forge_jobs.model.unset import Unset
from forge_jobs.storage import refusals
from forge_jobs.storage.postgres import endings, groups
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.moves import OF_WAITING, SAME, Noted, move
from forge_jobs.storage.postgres.queues import unknown_queue
from forge_jobs.storage.postgres.schedule import join
from forge_jobs.storage.postgres.statement import filled

_STATE = "(SELECT state FROM {schema}.jobs WHERE id = $1) AS state"

END = filled(
    """
WITH unqueued AS (
    DELETE FROM {schema}.ready WHERE ctid = {schema}.place($1) RETURNING job_id, queue_id, attempt
), unscheduled AS (
    DELETE FROM {schema}.scheduled WHERE job_id = $1 RETURNING job_id, queue_id, attempt
), unblocked AS (
    DELETE FROM {schema}.blocked WHERE job_id = $1 RETURNING job_id, queue_id, attempt, groups
), unwaited AS (
    DELETE FROM {schema}.waiting WHERE job_id = ANY (ARRAY({waiting})) RETURNING job_id, queue_id, attempt
), unfinished AS (
    DELETE FROM {schema}.finished WHERE job_id = $1 AND state <> 'done' AND $2::text = 'done'
    RETURNING job_id, queue_id, attempt, state, worker_id, started_at
), gone AS (
    SELECT *, 'pending' AS state, NULL::bigint AS worker_id, NULL::timestamptz AS started_at FROM unqueued
    UNION ALL SELECT *, 'scheduled', NULL, NULL FROM unscheduled
    UNION ALL SELECT job_id, queue_id, attempt, 'blocked', NULL, NULL FROM unblocked
    UNION ALL SELECT *, 'waiting', NULL, NULL FROM unwaited
    UNION ALL SELECT * FROM unfinished
), kept AS (
    INSERT INTO {schema}.finished (job_id, worker_id, started_at, finished_at, queue_id, attempt, state, error, result, links)
    SELECT job_id, worker_id, started_at, now(), queue_id, attempt, $2::text, $3::text, $4::bytea, {links} FROM gone
    WHERE (SELECT CASE $2::text WHEN 'done' THEN done_retention ELSE dead_retention END
           FROM {schema}.queue WHERE queue.id = gone.queue_id) > interval '0' OR {links} & {flow} <> 0
    RETURNING job_id, queue_id
), unkept AS MATERIALIZED (
    SELECT job_id FROM gone EXCEPT SELECT job_id FROM kept
), {forgotten}, {unkeyed}, {unlimited}, {dated}, {tallied}
SELECT {state}, (SELECT count(*) FROM gone) AS moved,
       {schema}.leave_groups(
           ARRAY(SELECT job_id FROM gone), ARRAY(SELECT one FROM unblocked CROSS JOIN LATERAL unnest(groups) AS one)) AS again
""",
    state=_STATE,
    waiting=OF_WAITING,
    links=endings.LINKS,
    flow=str(FLOW),
    forgotten=endings.forgotten("unkept"),
    unkeyed=endings.unkeyed("gone"),
    unlimited=endings.unlimited("gone"),
    dated=endings.dated("kept WHERE $2::text = 'done'"),
    tallied=endings.tallied(
        "(SELECT queue_id, state, -1 AS jobs FROM gone UNION ALL SELECT queue_id, $2::text, 1 FROM kept) AS moves",
        **{
            state: f"sum(jobs) FILTER (WHERE state = '{state}')"
            if state in ("blocked", "expired", "waiting")
            else f"coalesce(sum(jobs) FILTER (WHERE state = '{state}'), 0)"
            for state in ("pending", "scheduled", "blocked", "done", "dead", "expired", "waiting")
        },
    ),
)

FOR_OTHERS = """($5::boolean AND EXISTS (
           SELECT FROM {schema}.blocked WHERE blocked.job_id = $1 AND blocked.group_id IS NULL))"""
"""A time is said of a node of a flow that waits for others."""

# The row of the job's state is made anew, so that a claim, or another move, that looked before finds nothing to take. That of a node
# that waits for others stays: whoever hands on to it at this moment waits for it, and finds it as it is by then. A job
# that stands in the line of a group at another priority from now on asks for its places as one that is due just now.
CHANGE = filled(
    """
WITH target AS MATERIALIZED (
    SELECT id FROM {schema}.queue WHERE name = $2::text
), meant AS MATERIALIZED (
    SELECT $1::bigint AS job_id WHERE $2::text IS NULL OR EXISTS (SELECT FROM target)
), unqueued AS (
    DELETE FROM {schema}.ready WHERE ctid = (SELECT {schema}.place(job_id) FROM meant)
    RETURNING job_id, queue_id, attempt, priority, pos, since
), unscheduled AS (
    DELETE FROM {schema}.scheduled WHERE job_id = (SELECT job_id FROM meant)
    RETURNING job_id, queue_id, attempt, priority, run_at, reason
), unblocked AS (
    DELETE FROM {schema}.blocked WHERE job_id = (SELECT job_id FROM meant) AND group_id IS NOT NULL
    RETURNING job_id, queue_id, attempt, priority, pos, group_id, groups
), for_nodes AS MATERIALIZED (
    SELECT job_id, queue_id, attempt, priority FROM {schema}.blocked
    WHERE job_id = (SELECT job_id FROM meant) AND group_id IS NULL AND NOT $5::boolean FOR UPDATE
), stayed AS (
    UPDATE {schema}.blocked
    SET queue_id = coalesce((SELECT id FROM target), blocked.queue_id), attempt = coalesce($4::integer, blocked.attempt),
        priority = coalesce($3::smallint, blocked.priority)
    FROM for_nodes WHERE blocked.job_id = for_nodes.job_id
), unwaited AS (
    DELETE FROM {schema}.waiting WHERE job_id = ANY (ARRAY({waiting})) AND job_id = (SELECT job_id FROM meant) AND NOT $5::boolean
    RETURNING job_id, queue_id, attempt, step, until, for_job
), gone AS MATERIALIZED (
    SELECT place.job_id, place.queue_id AS old_queue_id, coalesce((SELECT id FROM target), place.queue_id) AS queue_id,
           coalesce($4::integer, place.attempt) AS attempt, coalesce($3::smallint, place.priority) AS priority,
           place.pos, place.since, place.group_id, place.groups, place.step, place.until, place.for_job, place.state, job.links,
           CASE WHEN $5::boolean THEN coalesce($6::timestamptz, now() + make_interval(secs => $7::double precision))
                WHEN place.group_id IS NOT NULL AND place.priority <> $3::smallint THEN now()
                ELSE place.run_at END AS run_at,
           coalesce(place.reason, 'rescheduled') AS reason
    FROM (
        SELECT job_id, queue_id, attempt, priority, pos, since, NULL::bigint AS group_id, NULL::bigint[] AS groups,
               'pending' AS state, NULL::timestamptz AS run_at, NULL::text AS reason, NULL::text AS step,
               NULL::timestamptz AS until, NULL::bigint AS for_job
        FROM unqueued
        UNION ALL
        SELECT job_id, queue_id, attempt, priority, NULL, NULL, NULL, NULL, 'scheduled', run_at, reason, NULL, NULL, NULL
        FROM unscheduled
        UNION ALL
        SELECT job_id, queue_id, attempt, priority, pos, NULL, group_id, groups, 'blocked', NULL, NULL, NULL, NULL, NULL
        FROM unblocked
        UNION ALL
        SELECT job_id, queue_id, attempt, priority, NULL, NULL, NULL, NULL, 'blocked', NULL, NULL, NULL, NULL, NULL
        FROM for_nodes
        UNION ALL
        SELECT job_id, queue_id, attempt, (SELECT job.priority FROM {schema}.job WHERE job.id = job_id), NULL, NULL, NULL, NULL,
               'waiting', NULL, NULL, step, until, for_job
        FROM unwaited
    ) AS place JOIN {schema}.job ON job.id = place.job_id
), placed AS (
    INSERT INTO {schema}.ready (job_id, pos, queue_id, attempt, priority, since)
    SELECT job_id, pos, queue_id, attempt, priority, since FROM gone WHERE state = 'pending' AND run_at IS NULL
    RETURNING queue_id
), stood AS (
    INSERT INTO {schema}.blocked (job_id, group_id, pos, queue_id, attempt, priority, groups)
    SELECT job_id, group_id, pos, queue_id, attempt, priority, groups FROM gone
    WHERE state = 'blocked' AND run_at IS NULL AND group_id IS NOT NULL
), waits AS (
    INSERT INTO {schema}.waiting (job_id, queue_id, attempt, step, until, for_job)
    SELECT job_id, queue_id, attempt, step, until, for_job FROM gone WHERE state = 'waiting'
), put_off AS (
    INSERT INTO {schema}.scheduled (job_id, run_at, queue_id, attempt, priority, reason, links)
    SELECT job_id, run_at, queue_id, attempt, priority, reason, links FROM gone WHERE run_at IS NOT NULL
    RETURNING job_id, run_at
), asleep AS (
    UPDATE {schema}.step SET until = put_off.run_at FROM put_off WHERE step.job_id = put_off.job_id AND step.until > now()
), rewritten AS (
    UPDATE {schema}.job
    SET queue_id = gone.queue_id, priority = gone.priority,
        asked_priority = CASE WHEN $3::smallint IS NULL THEN job.asked_priority END,
        max_attempts = coalesce($8::integer, job.max_attempts),
        timeout = CASE WHEN $9::boolean THEN $10::double precision ELSE job.timeout END
    FROM gone WHERE job.id = gone.job_id
), {tallied}
SELECT {state}, (SELECT count(*) FROM gone) AS moved, $2::text IS NOT NULL AND NOT EXISTS (SELECT FROM target)
           OR {for_others} AS is_refused, {for_others} AS is_for_others,
       (SELECT count({schema}.wake(queue_id)) FROM placed) AS woken, (SELECT {schema}.tell('due:') FROM put_off) AS told,
       EXISTS (SELECT FROM gone WHERE state = 'blocked' AND run_at <= now()) AS due,
       {schema}.leave_groups(
           ARRAY(SELECT job_id FROM gone WHERE run_at IS NOT NULL AND state <> 'scheduled'),
           ARRAY(SELECT one FROM gone CROSS JOIN LATERAL unnest(groups) AS one WHERE run_at IS NOT NULL)) AS again
""",
    state=_STATE,
    waiting=OF_WAITING,
    for_others=FOR_OTHERS,
    tallied=endings.tallied(
        """(SELECT old_queue_id AS queue_id, state, -1 AS jobs FROM gone
          UNION ALL SELECT queue_id, CASE WHEN run_at IS NULL THEN state ELSE 'scheduled' END, 1 FROM gone) AS moves""",
        pending="coalesce(sum(jobs) FILTER (WHERE state = 'pending'), 0)",
        scheduled="coalesce(sum(jobs) FILTER (WHERE state = 'scheduled'), 0)",
        blocked="sum(jobs) FILTER (WHERE state = 'blocked')",
        waiting="sum(jobs) FILTER (WHERE state = 'waiting')",
    ),
)


class PostgresCorrections:
    """`Corrections` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def end(
        self,
        job_id: int,
        state: State,
        *,
        result: bytes | None = None,
        error: str | None = None,
        by: str | None = None,
    ) -> None:
        noted = Noted(Deed.COMPLETED if state is State.DONE else Deed.FAILED, by, state)
        possible = WAITING | (ENDED - {State.DONE} if state is State.DONE else set())
        record = await move(
            self._database, END, job_id, state.value, error, result, possible=possible, noted=noted
        )
        if not record["moved"]:
            raise refusals.not_ended(job_id, record["state"], state)
        await groups.admit(self._database, record["again"])

    async def change(self, job_id: int, correction: Correction, *, by: str | None = None) -> None:
        noted = Noted(Deed.CHANGED, by, State.SCHEDULED if correction.has_time else SAME)
        timeout = None if isinstance(correction.timeout, Unset) else correction.timeout
        record = await move(
            self._database,
            CHANGE,
            job_id,
            correction.queue,
            correction.priority,
            correction.attempts,
            correction.has_time,
            correction.run_at,
            None if correction.delay is None else correction.delay.total_seconds(),
            correction.max_attempts,
            not isinstance(correction.timeout, Unset),
            None if timeout is None else timeout.total_seconds(),
            possible=WAITING - {State.WAITING} if correction.has_time else WAITING,
            noted=noted,
        )
        if record["is_for_others"]:
            raise refusals.not_timed(job_id)
        if record["is_refused"]:
            raise await unknown_queue(self._database, correction.queue or "")
        if not record["moved"]:
            raise refusals.not_changed(job_id, record["state"])
        await groups.admit(self._database, record["again"])
        if record["due"]:
            with suppress(ForgeError):  # a worker sees to it
                await join(self._database, [job_id])
