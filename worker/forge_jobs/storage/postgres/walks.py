"""The ways over all jobs of a state in PostgreSQL."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from forge_jobs.model.job import State
from forge_jobs.model.moments import EPOCH
from forge_jobs.storage.interface.claims import END
from forge_jobs.storage.postgres.job_filter import fits, place_fits
from forge_jobs.storage.postgres.statement import filled


@dataclass(frozen=True, slots=True)
class Walk:
    """The way over all jobs of a state, along an index: which rows come next, and where the last one stands.

    Of the arguments $1 is how many rows are looked at, $2 the last id, $3 what they fit, $4 the queue's
    id; from $5 on they say where the last row stands.
    """

    table: str
    after: str
    order: str
    row: str = "job_id"  # by what a row is found again
    condition: str = "true"
    bound: str = ""  # what comes before the columns of `order` where a row stands
    is_backwards: bool = False  # whether the last row of the index comes first
    by_queue: bool = False  # whether the index begins with the queue, so that each queue is walked by itself
    of_queue: str = "true"  # of the rows that are looked at, which are meant

    @property
    def way(self) -> str:
        """How the columns of `order` are sorted."""
        return (
            ", ".join(f"{column} DESC" for column in self.order.split(", "))
            if self.is_backwards
            else self.order
        )


def _by_id(table: str, condition: str) -> Walk:
    after = "job_id > $5::bigint AND ($4::integer IS NULL OR queue_id = $4)"
    return Walk(table, after, "job_id", condition=condition)


def _by_end(condition: str) -> Walk:
    return Walk(
        "finished",
        "queue_id = $4 AND finished_at BETWEEN $6::timestamptz AND $5::timestamptz AND (finished_at, job_id) > ($6, $7::bigint)",
        "finished_at, job_id",
        condition=condition,
        bound="$5, ",
        by_queue=True,
    )


WALKS = {
    # Against the order in which jobs are claimed: one that rises meanwhile is before those that were looked at.
    State.PENDING: Walk(
        "ready",
        "queue_id = $4 AND (priority, pos) <= ($5::smallint, $6::bigint) AND (priority, pos, job_id) < ($5, $6, $7::bigint)",
        "priority, pos, job_id",
        row="ctid",
        is_backwards=True,
        by_queue=True,
    ),
    State.SCHEDULED: _by_id("scheduled", "reason <> 'retry'"),
    State.RETRYING: _by_id("scheduled", "reason = 'retry'"),
    State.BLOCKED: _by_id("blocked", "true"),
    State.WAITING: _by_id("waiting", "true"),
    State.IN_PROGRESS: _by_id("claimed", "cancel_requested_at IS NULL"),
    # Millions may be done, and no index says of which queue: all that are done are looked at, a batch at a time.
    State.DONE: Walk(
        "finished",
        "job_id > $5::bigint",
        "job_id",
        condition="state = 'done'",
        of_queue="($4::integer IS NULL OR queue_id = $4)",
    ),
    State.DEAD: _by_end("state = 'dead'"),
    State.EXPIRED: _by_end("state = 'expired'"),
}


# $1 bounds how many rows are looked at, not how many match: of a rare kind there may be none for long. Those that are
# locked are asked for their queue again: they may have been moved to another one since they were seen.
_PICK = """seen AS MATERIALIZED (
    SELECT ctid AS place, queue_id, {order}
    FROM {schema}.{table}
    WHERE {after} AND {condition} AND job_id <= $2::bigint
    ORDER BY {way} LIMIT $1
), meant AS MATERIALIZED (
    SELECT {found} FROM seen
    WHERE {place_fits} AND {of_queue}
), pick AS MATERIALIZED (
    SELECT ctid AS place, job_id
    FROM {schema}.{table}
    WHERE {row} = ANY (ARRAY(SELECT {found} FROM meant)) AND {condition} AND ($4::integer IS NULL OR queue_id = $4)
    FOR UPDATE SKIP LOCKED
), """

# The same along the tags. A job that has been ready since it was enqueued is found by the index of `ready`; the others,
# if there are any, by one scan.
_PICK_TAGGED = """seen AS MATERIALIZED (
    SELECT job_id FROM {schema}.job_tag
    WHERE tag = (SELECT {schema}.rarest($6::text[])) AND job_id > $5::bigint AND job_id <= $2::bigint
    ORDER BY job_id LIMIT $1
), mine AS MATERIALIZED (
    SELECT job.id AS job_id, job.queue_id, job.priority, {schema}.micros(job.created_at) AS pos FROM {schema}.job
    WHERE job.id = ANY (ARRAY(SELECT job_id FROM seen)) AND job.tags @> $6 AND {of_job}
      AND {fits} AND ($4::integer IS NULL OR job.queue_id = $4)
), {meant}, pick AS MATERIALIZED (
    SELECT ctid AS place, job_id
    FROM {schema}.{table}
    WHERE {row} = ANY (ARRAY(SELECT {found} FROM meant)) AND {condition} AND ($4::integer IS NULL OR queue_id = $4)
    FOR UPDATE SKIP LOCKED
), """

_MEANT = """meant AS MATERIALIZED (
    SELECT job_id FROM {schema}.{table} WHERE job_id = ANY (ARRAY(SELECT job_id FROM mine)) AND {condition}
)"""

_MEANT_READY = """near AS MATERIALIZED (
    SELECT mine.job_id, ready.place
    FROM mine CROSS JOIN LATERAL (
        SELECT ready.ctid AS place FROM {schema}.ready
        WHERE ready.queue_id = mine.queue_id AND ready.priority = mine.priority AND ready.pos = mine.pos
          AND ready.job_id = mine.job_id LIMIT 1) AS ready
), far AS MATERIALIZED (
    SELECT job_id FROM mine
    EXCEPT SELECT job_id FROM near
    EXCEPT SELECT job_id FROM {schema}.scheduled WHERE job_id = ANY (ARRAY(SELECT job_id FROM mine))
    EXCEPT SELECT job_id FROM {schema}.blocked WHERE job_id = ANY (ARRAY(SELECT job_id FROM mine))
    EXCEPT SELECT job_id FROM {schema}.waiting WHERE job_id = ANY (ARRAY(SELECT job_id FROM mine))
    EXCEPT SELECT job_id FROM {schema}.claimed WHERE job_id = ANY (ARRAY(SELECT job_id FROM mine))
    EXCEPT SELECT job_id FROM {schema}.finished WHERE job_id = ANY (ARRAY(SELECT job_id FROM mine))
), meant AS MATERIALIZED (
    SELECT job_id, place FROM near
    UNION ALL
    SELECT job_id, ctid FROM {schema}.ready
    WHERE (SELECT count(*) FROM far) > 0 AND (job_id IN (SELECT job_id FROM far)) IS TRUE
)"""

_IS_FREE = "AND (SELECT true FROM {schema}.job WHERE job.id = waiting.job_id FOR NO KEY UPDATE SKIP LOCKED)"

_ANSWER = """(SELECT count(*) FROM seen) AS seen, (SELECT count(*) FROM meant) AS meant, (SELECT count(*) FROM pick) AS met,
       (SELECT row({bound}{order}) AS standing FROM seen ORDER BY standing {last} LIMIT 1) AS last"""


def beginning(state: State, until: datetime, *, tagged: bool = False) -> Sequence[Any]:
    """Return a place before all rows of the walk; of the jobs in an ended state those are meant that had ended `until` then."""
    walk = WALKS[state]
    if tagged or not walk.by_queue:
        return (0,)
    return (*END, 0) if walk.table == "ready" else (until, EPOCH, 0)


def of_batch(statement: str, state: State, *, tagged: bool = False, of_job: str | None = None) -> str:
    """Return the statement for the next jobs of a state; `tagged`: of those that have all tags of $6, and of ended ones
    those that had ended by $7. `of_job` is a further condition, for a row of `job`.
    """
    walk = WALKS[state]
    pick = _PICK
    if of_job is not None and not tagged:
        meant = f"(SELECT {of_job} FROM {{schema}}.job WHERE job.id = seen.job_id)"
        walk = replace(walk, of_queue=f"{walk.of_queue} AND {meant}")
    if tagged:
        walk = replace(walk, order="job_id", bound="", is_backwards=False)
        if walk.table == "finished":
            walk = replace(walk, condition=f"{walk.condition} AND finished_at <= $7::timestamptz")
        pick = _PICK_TAGGED.replace("{meant}", _MEANT_READY if walk.table == "ready" else _MEANT)
        pick = pick.replace("{of_job}", "true" if of_job is None else of_job)
    if walk.table == "waiting":  # the row in `job` first, as whoever sends a signal does
        pick = pick.replace("FOR UPDATE SKIP LOCKED", f"{_IS_FREE} FOR UPDATE SKIP LOCKED")

    def taken(table: str, column: str = "job_id", type: str = "bigint") -> str:
        return (
            f"SELECT {column} FROM pick"
            if walk.table == table
            else f"SELECT NULL::{type} AS {column} WHERE false"
        )

    return filled(
        statement,
        pick=pick,
        ready=taken("ready", "place", "tid"),
        scheduled=taken("scheduled"),
        blocked=taken("blocked"),
        waiting=taken("waiting"),
        claimed=taken("claimed"),
        finished=taken("finished"),
        dead=taken("finished"),
        fits=fits("$3"),
        place_fits=place_fits("$3", "seen"),
        answer=_ANSWER,
        table=walk.table,
        after=walk.after,
        condition=walk.condition,
        of_queue=walk.of_queue,
        order=walk.order,
        way=walk.way,
        last="" if walk.is_backwards else "DESC",
        row=walk.row,
        found="place" if walk.row == "ctid" else walk.row,
        bound=walk.bound,
    )
