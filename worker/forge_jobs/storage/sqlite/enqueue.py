"""Enqueueing in SQLite, as by `jobs.enqueue` and by crons."""

from collections.abc import Sequence

from forge_jobs.handlers.options import resolved
from forge_jobs.model.job import Alike, Enqueued, NewJob, Reason
from forge_jobs.model.queue import DEFAULT_QUEUE
from forge_jobs.storage.pieces import pieces
from forge_jobs.storage.sqlite.kinds import named
from forge_jobs.storage.sqlite.micros import later, micros
from forge_jobs.storage.sqlite.queues import unknown_queue
from forge_jobs.storage.sqlite.tally import count_move
from forge_jobs.storage.sqlite.transaction import Row, Transaction
from forge_jobs.storage.sqlite.waiting import make_ready, make_scheduled

# The columns are named: a later release may add some while this one still runs.
INSERT = """
INSERT INTO job (id, queue_id, priority, max_attempts, timeout, kind, codec, key, created_at, payload)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


def enqueue(transaction: Transaction, jobs: Sequence[NewJob] | Alike) -> list[Enqueued]:
    """All jobs wait; those whose key a living job holds are answered with that one. Raises UnknownQueue."""
    answers: list[Enqueued] = []
    for piece in pieces(jobs):
        answers += _enqueue(transaction, piece)
    return answers


def _enqueue(transaction: Transaction, jobs: Sequence[NewJob]) -> list[Enqueued]:
    jobs = _resolved(transaction, jobs)
    queues = _queues(transaction, jobs)
    now, answers = transaction.now, []
    rows: list[Row] = []
    keys: dict[tuple[str, str], int] = {}
    ready: list[tuple[int, int, int, int, int]] = []
    scheduled: list[tuple[int, int, int, int, int, str]] = []
    # Ids are chosen here, not by the table, since `ready` needs them too; nobody else writes meanwhile.
    job_id: int = transaction.value("SELECT seq FROM sqlite_sequence WHERE name = 'job'") or 0
    for job in jobs:
        queue_id, queue_attempts = queues[job.queue or DEFAULT_QUEUE]
        if job.key is not None:
            holder = keys.get((job.kind, job.key)) or _holder(transaction, job.kind, job.key)
            if holder is not None:
                answers.append(Enqueued(holder, duplicate=True))
                continue
            keys[job.kind, job.key] = job_id + 1
        job_id += 1
        answers.append(Enqueued(job_id))
        priority = job.priority or 0
        attempts = queue_attempts if job.max_attempts is None else job.max_attempts
        timeout = None if job.timeout is None else job.timeout.total_seconds()
        rows.append(
            (
                job_id,
                queue_id,
                priority,
                attempts,
                timeout,
                job.kind,
                job.codec,
                job.key,
                now,
                job.payload,
            )
        )
        due = _due(job, now)
        if due > now:
            scheduled.append((job_id, due, queue_id, 0, priority, Reason.DELAYED.value))
        else:  # one pos for a whole batch: within it, `ready` is in the order of ids
            ready.append((job_id, now, queue_id, 0, priority))
    transaction.execute_many(INSERT, rows)
    transaction.execute_many(
        "INSERT INTO job_key (kind, key, job_id) VALUES (?, ?, ?)",
        [(kind, key, holder) for (kind, key), holder in keys.items()],
    )
    make_ready(transaction, ready)
    make_scheduled(transaction, scheduled)
    count_move(transaction, [job[2] for job in ready], None, "pending")
    count_move(transaction, [job[2] for job in scheduled], None, "scheduled")
    return answers


def _resolved(transaction: Transaction, jobs: Sequence[NewJob]) -> Sequence[NewJob]:
    """Return the jobs; options that they leave open are those of their kinds."""
    kinds = named(transaction, {job.kind for job in jobs if not job.declared})
    return [resolved(job, kinds.get(job.kind)) for job in jobs] if kinds else jobs


def _queues(transaction: Transaction, jobs: Sequence[NewJob]) -> dict[str, tuple[int, int]]:
    """Return (id, max_attempts) of each queue that is named."""
    queues: dict[str, tuple[int, int]] = {}
    for name in {job.queue or DEFAULT_QUEUE for job in jobs}:
        row = transaction.row("SELECT id, max_attempts FROM queue WHERE name = ?", (name,))
        if row is None:
            raise unknown_queue(transaction, name)
        queues[name] = row[0], row[1]
    return queues


def _holder(transaction: Transaction, kind: str, key: str) -> int | None:
    holder: int | None = transaction.value(
        "SELECT job_id FROM job_key WHERE kind = ? AND key = ?", (kind, key)
    )
    return holder


def _due(job: NewJob, now: int) -> int:
    if job.run_at is not None:
        return micros(job.run_at)
    return now if job.delay is None else later(now, job.delay)
