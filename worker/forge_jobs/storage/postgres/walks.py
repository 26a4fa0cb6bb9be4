"""The ways over all jobs of a state in PostgreSQL."""

from dataclasses import dataclass

from forge_jobs.model.job import State


@dataclass(frozen=True, slots=True)
class Walk:
    """The way over all jobs of a state, along an index: which rows come next, and where the last one stands.

    Of the arguments $1 is how many rows are looked at, $2 the last id, $3 the kind, $4 the queue's
    id; from $5 on they say where the last row stands.
    """

    table: str
    after: str
    order: str
    row: str = "job_id"  # by what a row is found again
    condition: str = "true"
    bound: str = ""  # what comes before the columns of `order` where a row stands
    by_queue: bool = False  # whether the index begins with the queue, so that each queue is walked by itself
    of_queue: str = "true"  # of the rows that are looked at, which are meant


def _by_id(table: str, condition: str) -> Walk:
    after = "job_id > $5::bigint AND ($4::integer IS NULL OR queue_id = $4)"
    return Walk(table, after, "job_id", condition=condition)


WALKS = {
    State.PENDING: Walk(
        "ready",
        "queue_id = $4 AND (priority, pos) >= ($5::smallint, $6::bigint) AND (priority, pos, job_id) > ($5, $6, $7::bigint)",
        "priority, pos, job_id",
        row="ctid",
        by_queue=True,
    ),
    State.SCHEDULED: _by_id("scheduled", "reason <> 'retry'"),
    State.RETRYING: _by_id("scheduled", "reason = 'retry'"),
    State.BLOCKED: _by_id("blocked", "true"),
    State.IN_PROGRESS: _by_id("claimed", "cancel_requested_at IS NULL"),
    # Millions may be done, and no index says of which queue: all that are done are looked at, a batch at a time.
    State.DONE: Walk(
        "finished",
        "job_id > $5::bigint",
        "job_id",
        condition="state = 'done'",
        of_queue="($4::integer IS NULL OR queue_id = $4)",
    ),
    State.DEAD: Walk(
        "finished",
        "queue_id = $4 AND finished_at BETWEEN $6::timestamptz AND $5::timestamptz AND (finished_at, job_id) > ($6, $7::bigint)",
        "finished_at, job_id",
        condition="state = 'dead'",
        bound="$5, ",
        by_queue=True,
    ),
}
