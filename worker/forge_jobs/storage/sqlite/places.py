"""Where a job is in SQLite, and what it takes to move it."""

from dataclasses import dataclass

from forge_jobs.errors import JobNotFound
from forge_jobs.model.job import State
from forge_jobs.storage.sqlite.transaction import Transaction

ASKED_PRIORITY = "coalesce(job.asked_priority, job.priority)"

FIND = f"""
SELECT job.id, jobs.state, job.queue_id, job.priority, {ASKED_PRIORITY} AS asked_priority, job.kind, job.key, jobs.attempt,
       job.created_at, job.groups, job.tenant
FROM job JOIN jobs ON jobs.id = job.id WHERE job.id = ?
"""

OF_CLASS = (
    "SELECT pos, attempt FROM ready WHERE queue_id = :queue_id AND priority = :priority AND job_id = :id"
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job is, and what it takes to move it."""

    id: int
    state: State
    queue_id: int
    priority: int  # to which it may have risen
    asked_priority: int
    kind: str
    key: str | None
    attempt: int
    pos: int | None  # of a pending job
    created_at: int
    groups: str | None  # as in `job`
    tenant: str | None


def place(transaction: Transaction, job_id: int) -> Place:
    """Return where the job is. Raises JobNotFound."""
    job = transaction.record(FIND, (job_id,))
    if job is None:
        raise JobNotFound(job_id)
    pos, attempt = None, job["attempt"]
    if job["state"] == State.PENDING:
        wanted = {
            "id": job_id,
            "queue_id": job["queue_id"],
            "priority": job["priority"],
            "pos": job["created_at"],
        }
        row = transaction.row(OF_CLASS + " AND pos = :pos", wanted)
        # it may have become ready later than it was enqueued
        pos, attempt = row or transaction.rows(OF_CLASS, wanted)[0]
    return Place(
        job_id,
        State(job["state"]),
        job["queue_id"],
        job["priority"],
        job["asked_priority"],
        job["kind"],
        job["key"],
        attempt,
        pos,
        job["created_at"],
        job["groups"],
        job["tenant"],
    )
