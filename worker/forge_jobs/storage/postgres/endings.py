"""What follows when jobs leave a state, as parts of the statements that take them out.

Each statement begins with a CTE `gone`: the jobs that it has taken out of the table of their state. What follows
from that is written here once, as further CTEs. `of` is what stands after FROM: `gone`, or a part of it.
"""

from forge_jobs.model.job import CANCELLED_BY_USER, HISTORY_LIMIT, SUPERSEDED
from forge_jobs.model.links import FLOW, GROUPS
from forge_jobs.model.tenant import LET_IN

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


def unheld(of: str) -> str:
    """The jobs, which never ran, give back what makes them unique for a time: `unheld`. Who enqueues at this moment is not waited for."""
    return f"""unheld AS (
    DELETE FROM {{schema}}.unique_hold WHERE ctid = ANY (ARRAY(
        SELECT unique_hold.ctid FROM {{schema}}.unique_hold
        WHERE unique_hold.job_id = ANY (ARRAY(SELECT job_id FROM {of})) FOR UPDATE SKIP LOCKED))
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


def unlimited(of: str) -> str:
    """The jobs have no time limits any more, and need no version of the program: `unlimited`, `unpinned`."""
    return f"""unlimited AS (
    DELETE FROM {{schema}}.time_limit WHERE job_id = ANY (ARRAY(SELECT job_id FROM {of}))
), unpinned AS (
    DELETE FROM {{schema}}.pin WHERE job_id = ANY (ARRAY(SELECT job_id FROM {of}))
)"""


BY_USER = f"'{CANCELLED_BY_USER}'"

BY_WHAT = f"CASE WHEN is_cancelled THEN '{CANCELLED_BY_USER}' ELSE '{SUPERSEDED}' END"


BY_TIME = "limit_error"
"""The error of those of `gone` that end since their time is over, and null of all others."""


LINKS = "(SELECT job.links FROM {schema}.job WHERE job.id = gone.job_id)"
"""What those of `gone` are linked to; written with their end, so that flows hear of the end of their nodes."""


def cancelled(
    which: str = "true",
    *,
    ran: str = "NULL::bigint, NULL::timestamptz",
    error: str = BY_USER,
    state: str = "'dead'",
    attempt: str = "attempt",
) -> str:
    """Those of `gone` are dead, "cancelled by user" or as the others say, or forgotten where the dead are not kept.

    `kept`, `unkept`, `forgotten`, `unfailed`, `unkeyed`; `ran` gives the columns that say who ran them, and since when.
    """
    return f"""kept AS (
    INSERT INTO {{schema}}.finished (job_id, worker_id, started_at, finished_at, queue_id, attempt, state, error, links)
    SELECT job_id, {ran}, now(), queue_id, {attempt}, {state}, {error}, {LINKS} FROM gone
    WHERE {which} AND (SELECT dead_retention FROM {{schema}}.queue WHERE queue.id = gone.queue_id) > interval '0'
       OR {which} AND {LINKS} & {FLOW} <> 0
    RETURNING job_id, queue_id
), unkept AS MATERIALIZED (
    SELECT job_id FROM gone WHERE {which} EXCEPT SELECT job_id FROM kept
), {forgotten("unkept")}, {unkeyed(f"gone WHERE {which}")}"""


def placed(
    of: str = "gone", *, pos: str = "", order: str = "job_id", attempt: str = "0", since: str = ""
) -> str:
    """The jobs are ready in this order, behind all that are ready, or where `pos` says: `placed`.

    `since` says when they became ready, where `pos` does not.
    """
    pos = pos or f"{{schema}}.micros(now()) + row_number() OVER (ORDER BY {order})"
    return f"""placed AS (
    INSERT INTO {{schema}}.ready (job_id, pos, queue_id, attempt, priority{", since" if since else ""})
    SELECT job_id, {pos}, queue_id, {attempt}, priority{f", {since}" if since else ""} FROM {of}
    RETURNING queue_id, job_id
)"""


HAVE_GROUPS = f"coalesce(links & {GROUPS}, 0) <> 0"
HAVE_NO_GROUPS = f"coalesce(links & {GROUPS}, 0) = 0"

ARE_LET_IN = f"coalesce(links & {LET_IN}, 0) <> 0"
"""Jobs that have groups to join, or a tenant whose turns they take: by whoever makes jobs pending."""
ARE_NOT_LET_IN = f"coalesce(links & {LET_IN}, 0) = 0"


def due_now(attempt: str) -> str:
    """Those of `gone` that have to be let in are scheduled for now: whoever makes jobs pending lets them in, as jobs that are not new: `due`."""
    return f"""due AS (
    INSERT INTO {{schema}}.scheduled (job_id, run_at, queue_id, attempt, priority, reason, links)
    SELECT job_id, now(), queue_id, {attempt}, priority, 'rescheduled', links FROM gone WHERE {ARE_LET_IN}
    RETURNING job_id
)"""


TOLD_DUE = "(SELECT {schema}.tell('due:') FROM due LIMIT 1), (SELECT count(*) FROM due) AS due"
"""Whoever makes jobs pending is told of those that are `due`; columns of the answer."""


def tallied(of: str = "gone", **changes: str) -> str:
    """The counts of the queues change by these aggregates, given by the names of their columns: `tallied`."""
    return f"""tallied AS (
    INSERT INTO {{schema}}.tally (queue_id, {", ".join(changes)})
    SELECT queue_id, {", ".join(changes.values())} FROM {of} GROUP BY queue_id
)"""


SPREAD = 2
"""Jobs that were done together are noted as a range of ids when that is less than so many times as long as they are many."""

JOB_IDS = f"CASE WHEN max(job_id) - min(job_id) >= {SPREAD} * count(*) THEN array_agg(job_id) END"
"""Of jobs that were done together, the ids, where their range does not say enough."""


def dated(of: str, *, queue: str = "queue_id", at: str = "now()") -> str:
    """It is noted that these jobs are done, and since when: `dated`."""
    return f"""dated AS (
    INSERT INTO {{schema}}.done_together (at, first_id, last_id, queue_id, jobs, job_ids)
    SELECT at, min(job_id), max(job_id), queue_id, count(*), {JOB_IDS}
    FROM (SELECT job_id, {queue} AS queue_id, {at} AS at FROM {of}) AS done GROUP BY queue_id, at
)"""


DATED_JOBS = """unnest(coalesce(dated.job_ids, ARRAY(SELECT generate_series(dated.first_id, dated.last_id)))) AS given (job_id)
    CROSS JOIN LATERAL (
        SELECT finished.ctid AS place, finished.started_at
        FROM {schema}.finished
        WHERE finished.job_id = given.job_id AND finished.state = 'done'
          AND finished.finished_at = dated.at AND finished.queue_id = dated.queue_id
        OFFSET 0) AS done"""
"""The jobs that a row `dated` of `done_together` names, where they are still the same, each looked up; what stands after FROM."""


def vacated(of: str) -> str:
    """The places that the jobs had in groups are free, and given away after the commit: `vacated`, `unsettled`."""
    return f"""vacated AS (
    DELETE FROM {{schema}}.occupant WHERE job_id = ANY (ARRAY(SELECT job_id FROM {of})) RETURNING group_id
), unsettled AS (
    INSERT INTO {{schema}}.unsettled (group_id) SELECT DISTINCT group_id FROM vacated
)"""


LEFT = "{schema}.leave_groups(array_agg(job_id)) AS again"
"""Those of `gone` have no places in groups any more; a column of the answer with groups to `admit` to again."""


def handed_back(ended: str) -> str:
    """The same holds for those of `gone` that have `ended`; those that are `placed` keep what they have, unless a group is paused."""
    # once they are placed, so that the function sees them
    return f"{{schema}}.handed_back(array_agg(job_id) FILTER (WHERE {ended}), (SELECT array_agg(job_id) FROM placed)) AS again"


def with_payloads(statement: str, *, number: int, stays: str) -> str:
    """Return the statement with one parameter more: the payloads that its jobs have from now on, null for those as before.

    It is the one of this `number`; `stays` says which of `gone` are not deleted.
    """
    payloads = f"""), gone_on AS (
    UPDATE {{schema}}.job SET payload = given.payload
    FROM unnest($1::bigint[], ${number}::bytea[]) AS given (job_id, payload)
    WHERE job.id BETWEEN given.job_id AND given.job_id AND given.payload IS NOT NULL
      AND job.id = ANY (ARRAY(SELECT job_id FROM gone WHERE {stays}))
)
SELECT array_agg(job_id)"""
    before, after = statement.rsplit(")\nSELECT array_agg(job_id)", 1)
    return before + payloads + after


WOKEN = (
    "(SELECT count(*) FROM (SELECT DISTINCT queue_id FROM placed) AS woken, {schema}.wake(woken.queue_id))"
)
"""Whoever waits for jobs of the queues in which some were `placed` is told; a column of the answer."""
