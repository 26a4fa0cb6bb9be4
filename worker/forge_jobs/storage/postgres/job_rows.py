"""Jobs as people see them, read from PostgreSQL: a page of ids, then the rows of each job.

Both halves are one statement, hence one snapshot of the database: a job that moves meanwhile
is seen where it was, and in one state only.
"""

from collections.abc import Sequence
from typing import Any

from forge_jobs.model import redaction
from forge_jobs.model.group import decoded
from forge_jobs.model.job import HISTORY_LIMIT, MOST_RERUNS, Failure, Job, JobProgress, Reason, State
from forge_jobs.model.moments import stored_duration
from forge_jobs.storage.postgres import tags
from forge_jobs.storage.postgres.job_filter import fits, place_fits

# Each job is shown by itself (hence OFFSET 0): the view has more joins than the planner puts in an order of its own, so
# that it would read all jobs.
# `far` finds pending jobs that became ready later than they were enqueued, all in one scan,
# which is left out when there are none.
_SHOW = """
WITH page AS MATERIALIZED ({page}
), near AS MATERIALIZED (
    SELECT shown.*, page.rank, job.queue_id, job.priority AS stands_in, coalesce(shown.attempt, page.attempt, CASE WHEN shown.state = 'pending' THEN (
        SELECT ready.attempt FROM {schema}.ready
        WHERE ready.queue_id = job.queue_id AND ready.priority = job.priority
          AND ready.pos = {schema}.micros(job.created_at) AND ready.job_id = job.id LIMIT 1) END) AS attempts
    FROM page
    CROSS JOIN LATERAL (SELECT * FROM {schema}.jobs WHERE jobs.id = page.id OFFSET 0) AS shown
    JOIN {schema}.job ON job.id = page.id
), far AS MATERIALIZED (
    SELECT near.id, ready.attempt
    FROM near JOIN {schema}.ready
         ON ready.job_id = near.id AND ready.queue_id = near.queue_id AND ready.priority = near.stands_in
    WHERE near.attempts IS NULL
)
SELECT near.id, near.queue, near.kind, near.state, near.priority, coalesce(near.attempts, far.attempt, 0) AS attempt,
       near.max_attempts, near.timeout, near.key, near.codec, near.payload, near.created_at, near.run_at, near.reason,
       near.claimed_at, near.cancel_requested_at, near.worker_id, coalesce(worker.label, worker_label.label) AS worker,
       near.priority - near.stands_in AS risen, near.started_at, near.finished_at, near.result, near.groups, near.tenant, near.tags,
       near.rerun_of, near.start_by, near.deadline, declared.redact AS redacted,
       near.progress, near.progress_note, near.progress_attempt, near.progress_at,
       CASE WHEN near.state = 'done' THEN near.error ELSE coalesce(near.error, (
           SELECT failure.error FROM {schema}.failure
           WHERE failure.job_id = near.id ORDER BY failure.id DESC LIMIT 1)) END AS error
FROM near
LEFT JOIN far USING (id)
LEFT JOIN {schema}.kind AS declared ON declared.kind = near.kind
LEFT JOIN {schema}.worker ON worker.id = near.worker_id
LEFT JOIN {schema}.worker_label ON worker_label.worker_id = near.worker_id
ORDER BY near.rank DESC, near.id DESC
"""

ONE = _SHOW.replace("{page}", "\n    SELECT $1::bigint AS id, $1 AS rank, NULL::integer AS attempt")

_QUEUE = "($2::text IS NULL OR {job}.queue_id = (SELECT queue.id FROM {schema}.queue WHERE queue.name = $2))"
_FITS = place_fits("$3")

_NEWEST = """
    SELECT place.job_id AS id, place.job_id AS rank, NULL::integer AS attempt FROM {source} AS place
    WHERE place.job_id < $1 AND {queue} AND {fits}
    ORDER BY place.job_id DESC LIMIT $4"""

# Nearly all ended jobs are done, and are met on the way down the ids. The dead are few, and are
# picked out by their own index first (with OFFSET 0, since the planner might not do so).
_SOURCES = {
    State.SCHEDULED: "(SELECT * FROM {schema}.scheduled WHERE reason <> 'retry')",
    State.RETRYING: "(SELECT * FROM {schema}.scheduled WHERE reason = 'retry')",
    State.BLOCKED: "{schema}.blocked",
    State.WAITING: "{schema}.waiting",
    State.IN_PROGRESS: "{schema}.claimed",
    State.DONE: "(SELECT * FROM {schema}.finished WHERE state = 'done')",
    **{
        state: f"""(
        SELECT job_id, queue_id FROM {{schema}}.finished
        WHERE state = '{state}' AND queue_id = ANY (ARRAY(SELECT queue.id FROM {{schema}}.queue)) OFFSET 0)"""
        for state in (State.DEAD, State.EXPIRED)
    },
}

# There is no index of pending jobs by id: they come in the order in which they became ready, along the claim's
# index from its end, a few of each queue and priority. A page begins at the place of job $1; where that is not
# pending any more, at the moment at which it left, so that none is passed over; where that is not known, at the end.
_PENDING = """
    SELECT found.job_id AS id, found.pos AS rank, found.attempt
    FROM {schema}.queue
    CROSS JOIN LATERAL (
        WITH RECURSIVE class AS (
            (SELECT priority FROM {schema}.ready WHERE queue_id = queue.id ORDER BY priority LIMIT 1)
            UNION ALL
            SELECT next.priority
            FROM class CROSS JOIN LATERAL (
                SELECT ready.priority FROM {schema}.ready
                WHERE ready.queue_id = queue.id AND ready.priority > class.priority
                ORDER BY ready.priority LIMIT 1) AS next
        )
        SELECT last.*
        FROM class CROSS JOIN LATERAL (
            SELECT place.job_id, place.pos, place.attempt FROM {schema}.ready AS place
            WHERE place.queue_id = queue.id AND place.priority = class.priority
              AND place.pos <= {before} AND (place.pos, place.job_id) < ({before}, $1) AND {fits}
            ORDER BY place.pos DESC, place.job_id DESC LIMIT $4) AS last
    ) AS found
    WHERE $2::text IS NULL OR queue.name = $2
    ORDER BY found.pos DESC, found.job_id DESC LIMIT $4"""

_BEFORE = "(SELECT before.pos FROM before)"
_SHOW_PENDING = _SHOW.replace(
    "WITH page",
    """WITH before AS MATERIALIZED (
    SELECT coalesce(
        (SELECT ready.pos FROM {schema}.ready WHERE ready.ctid = {schema}.place($1)),
        (SELECT {schema}.micros(coalesce(claimed_at, started_at, finished_at)) FROM {schema}.jobs WHERE id = $1),
        9223372036854775807) AS pos
), page""",
    1,
)

_ALL = """
    SELECT job.id, job.id AS rank, NULL::integer AS attempt FROM {schema}.job
    WHERE job.id < $1 AND {queue} AND {fits}
    ORDER BY job.id DESC LIMIT $4"""


def _newest(source: str) -> str:
    page = (
        _NEWEST.replace("{source}", source)
        .replace("{queue}", _QUEUE.replace("{job}", "place"))
        .replace("{fits}", _FITS)
    )
    return _SHOW.replace("{page}", page)


NEWEST: dict[State | None, str] = {
    None: _SHOW.replace(
        "{page}", _ALL.replace("{queue}", _QUEUE.replace("{job}", "job")).replace("{fits}", fits("$3"))
    ),
    State.PENDING: _SHOW_PENDING.replace(
        "{page}", _PENDING.replace("{before}", _BEFORE).replace("{fits}", _FITS)
    ),
    **{state: _newest(source) for state, source in _SOURCES.items()},
}
"""By state, the statement that finds jobs of it: those before job $1, of queue $2 that fit $3, at most $4."""

TAGGED: dict[State | None, str] = {state: _SHOW.replace("{page}", page) for state, page in tags.PAGES.items()}
"""The same, of those that have all tags of $5, newest id first."""

FAILURES = """
SELECT failure.attempt, failure.at, coalesce(worker.label, worker_label.label) AS worker, failure.error
FROM {schema}.failure
LEFT JOIN {schema}.worker ON worker.id = failure.worker_id
LEFT JOIN {schema}.worker_label ON worker_label.worker_id = failure.worker_id
WHERE failure.job_id = $1
ORDER BY failure.id DESC LIMIT {limit}
""".replace("{limit}", str(HISTORY_LIMIT))


RERUNS = "SELECT id FROM {schema}.job WHERE rerun_of = $1 ORDER BY id DESC LIMIT {limit}".replace(
    "{limit}", str(MOST_RERUNS)
)


def shown(record: Any, failures: Sequence[Any] = (), reruns: Sequence[Any] = ()) -> Job:
    """Return the job of a record, with failures and reruns newest first as FAILURES and RERUNS find them."""
    facts = dict(record)
    timeout, reason = facts.pop("timeout"), facts.pop("reason")
    groups = tuple(decoded(facts.pop("groups")).values())
    redacted = redaction.decoded(facts.pop("redacted"))
    its_tags = tuple(facts.pop("tags") or ())
    share, *reported = (
        facts.pop(name) for name in ("progress", "progress_note", "progress_attempt", "progress_at")
    )
    return Job(
        **facts | {"state": State(facts["state"])},
        timeout=stored_duration(timeout),
        groups=groups,
        tags=its_tags,
        redacted=redacted,
        progress=None if share is None else JobProgress(share, *reported),
        reruns=tuple(rerun["id"] for rerun in reversed(reruns)),
        reason=None if reason is None else Reason(reason),
        failures=tuple(Failure(**failure) for failure in reversed(failures)),
    )
