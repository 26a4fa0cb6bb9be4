"""Jobs as people see them, from rows of SQLite."""

from collections.abc import Sequence

from forge_jobs.model import redaction
from forge_jobs.model.group import decoded
from forge_jobs.model.job import Job, JobProgress, Reason, State
from forge_jobs.model.moments import stored_duration
from forge_jobs.storage.sqlite import tags
from forge_jobs.storage.sqlite.micros import moment
from forge_jobs.storage.sqlite.transaction import Record, Transaction


def jobs(transaction: Transaction, rows: Sequence[Record]) -> list[Job]:
    """Return the jobs of these rows, with the attempts of pending ones that became ready later than they were enqueued."""
    attempts: dict[int, int] = {}
    if missing := [str(row["id"]) for row in rows if row["attempt"] is None]:  # ids, from the database
        attempts = dict(
            transaction.rows(f"SELECT job_id, attempt FROM ready WHERE job_id IN ({', '.join(missing)})")
        )
    return [shown(row, attempts[row["id"]] if row["attempt"] is None else row["attempt"]) for row in rows]


def shown(row: Record, attempt: int) -> Job:
    """Return the job of a row that has had so many attempts."""
    return Job(
        id=row["id"],
        queue=row["queue"],
        kind=row["kind"],
        state=State(row["state"]),
        payload=row["payload"],
        codec=row["codec"],
        priority=row["priority"],
        attempt=attempt,
        max_attempts=row["max_attempts"],
        timeout=stored_duration(row["timeout"]),
        key=row["key"],
        created_at=moment(row["created_at"]),
        run_at=moment(row["run_at"]),
        reason=None if row["reason"] is None else Reason(row["reason"]),
        worker_id=row["worker_id"],
        worker=row["worker"],
        claimed_at=moment(row["claimed_at"]),
        cancel_requested_at=moment(row["cancel_requested_at"]),
        started_at=moment(row["started_at"]),
        finished_at=moment(row["finished_at"]),
        error=row["error"],
        result=row["result"],
        groups=tuple(decoded(row["groups"]).values()),
        tenant=row["tenant"],
        tags=tags.decoded(row["tags"]),
        risen=row["risen"],
        rerun_of=row["rerun_of"],
        start_by=moment(row["start_by"]),
        deadline=moment(row["deadline"]),
        redacted=redaction.decoded(row["redacted"]),
        progress=None
        if row["share"] is None
        else JobProgress(row["share"], row["note"], row["reported_by"], moment(row["reported_at"])),
    )
