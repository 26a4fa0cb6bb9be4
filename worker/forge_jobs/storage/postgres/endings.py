"""What follows when jobs leave a state, as parts of the statements that take them out.

Each statement begins with a CTE `gone`: the jobs that it has taken out of the table of their state. What follows
from that is written here once, as further CTEs. `of` is what stands after FROM: `gone`, or a part of it.
"""

from forge_jobs.model.job import CANCELLED_BY_USER, HISTORY_LIMIT, SUPERSEDED

# ANY (ARRAY) everywhere: a join might read whole tables, since the planner guesses that they are small,
# or, where that is forbidden, compare each row of a batch with each other row.


def forgotten(of: str) -> str:
    """The jobs and their errors are deleted: `forgotten`, `unfailed`."""
    return f"""forgotten AS (
    DELETE FROM {{schema}}.job WHERE id = ANY (ARRAY(SELECT job_id FROM {of}))
), unfailed AS (
    DELETE FROM {{schema}}.failure WHERE job_id = ANY (ARRAY(SELECT job_id FROM {of}))
)"""


def unkeyed(of: str) -> str:
    """The jobs give their keys back: `unkeyed`."""
    return f"""unkeyed AS (
    DELETE FROM {{schema}}.job_key WHERE job_id = ANY (ARRAY(SELECT job_id FROM {of}))
)"""


def failed(which: str) -> str:
    """The errors of those of `gone` are the newest of their histories, which stay within their limit: `trimmed`, `failed`."""
    return f"""trimmed AS (
    DELETE FROM {{schema}}.failure USING (SELECT job_id FROM gone WHERE {which}) AS broken
    WHERE failure.job_id BETWEEN broken.job_id AND broken.job_id AND failure.id <= (
          SELECT id FROM {{schema}}.failure AS older
          WHERE older.job_id = broken.job_id ORDER BY id DESC OFFSET {HISTORY_LIMIT - 1} LIMIT 1)
), failed AS (
    INSERT INTO {{schema}}.failure (job_id, attempt, at, worker_id, error)
    SELECT job_id, attempt, now(), worker_id, error FROM gone WHERE {which}
)"""


BY_USER = f"'{CANCELLED_BY_USER}'"

BY_WHAT = f"CASE WHEN is_cancelled THEN '{CANCELLED_BY_USER}' ELSE '{SUPERSEDED}' END"


def cancelled(
    which: str = "true", *, ran: str = "NULL::bigint, NULL::timestamptz", error: str = BY_USER
) -> str:
    """Those of `gone` are dead, "cancelled by user" or as `error` says, or forgotten where the dead are not kept.

    `kept`, `unkept`, `forgotten`, `unfailed`, `unkeyed`; `ran` gives the columns that say who ran them, and since when.
    """
    return f"""kept AS (
    INSERT INTO {{schema}}.finished (job_id, worker_id, started_at, finished_at, queue_id, attempt, state, error)
    SELECT job_id, {ran}, now(), queue_id, attempt, 'dead', {error} FROM gone
    WHERE {which} AND (SELECT dead_retention FROM {{schema}}.queue WHERE queue.id = gone.queue_id) > interval '0'
    RETURNING job_id, queue_id
), unkept AS MATERIALIZED (
    SELECT job_id FROM gone WHERE {which} EXCEPT SELECT job_id FROM kept
), {forgotten("unkept")}, {unkeyed(f"gone WHERE {which}")}"""


def placed(of: str = "gone", *, pos: str = "", order: str = "job_id", attempt: str = "0") -> str:
    """The jobs are ready in this order, behind all that are ready, or where `pos` says: `placed`."""
    pos = pos or f"{{schema}}.micros(now()) + row_number() OVER (ORDER BY {order})"
    return f"""placed AS (
    INSERT INTO {{schema}}.ready (job_id, pos, queue_id, attempt, priority)
    SELECT job_id, {pos}, queue_id, {attempt}, priority FROM {of}
    RETURNING queue_id
)"""


def tallied(of: str = "gone", **changes: str) -> str:
    """The counts of the queues change by these aggregates, given by the names of their columns: `tallied`."""
    return f"""tallied AS (
    INSERT INTO {{schema}}.tally (queue_id, {", ".join(changes)})
    SELECT queue_id, {", ".join(changes.values())} FROM {of} GROUP BY queue_id
)"""


WOKEN = (
    "(SELECT count(*) FROM (SELECT DISTINCT queue_id FROM placed) AS woken, {schema}.wake(woken.queue_id))"
)
"""Whoever waits for jobs of the queues in which some were `placed` is told; a column of the answer."""
