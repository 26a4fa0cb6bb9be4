"""How jobs begin to wait, in `ready` or in `scheduled`, whatever makes them wait."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from forge_jobs.storage.sqlite.transaction import Row, Transaction

NOTHING: Mapping[int, int] = MappingProxyType({})


def make_ready(
    transaction: Transaction,
    jobs: Sequence[tuple[int, int, int, int, int]],
    *,
    since: Mapping[int, int] = NOTHING,
) -> None:
    """These (job_id, pos, queue_id, attempt, priority) are ready; workers of their queues are told.

    `since` says, by their ids, when those of them became ready whose pos does not say it.
    """
    if not jobs:
        return
    transaction.execute_many(
        "INSERT INTO ready (job_id, pos, queue_id, attempt, priority) VALUES (?, ?, ?, ?, ?)", jobs
    )
    if since:
        transaction.execute_many(
            "UPDATE ready SET since = ? WHERE queue_id = ? AND priority = ? AND pos = ? AND job_id = ?",
            [(since[job[0]], job[2], job[4], job[1], job[0]) for job in jobs if job[0] in since],
        )
    for queue_id in {job[2] for job in jobs}:
        transaction.tell("queue", queue_id)


def make_scheduled(
    transaction: Transaction, jobs: Sequence[tuple[int, int, int, int, int, str, int | None]]
) -> None:
    """These (job_id, run_at, queue_id, attempt, priority, reason, links) are scheduled.

    Workers that sleep until the next job is due are told when one is due earlier now.
    """
    if not jobs:
        return
    earliest = transaction.value("SELECT min(run_at) FROM scheduled")
    transaction.execute_many(
        "INSERT INTO scheduled (job_id, run_at, queue_id, attempt, priority, reason, links) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        jobs,
    )
    if earliest is None or min(job[1] for job in jobs) < earliest:
        transaction.tell("due")


def remember_failures(transaction: Transaction, failures: Iterable[Row], keep: int) -> None:
    """These (job_id, attempt, at, worker_id, error) are in the history, of which the newest `keep` stay."""
    for failure in failures:
        transaction.execute(
            "INSERT INTO failure (job_id, attempt, at, worker_id, error) VALUES (?, ?, ?, ?, ?)", failure
        )
        transaction.execute(
            """
            DELETE FROM failure
            WHERE job_id = ?1 AND id <= (SELECT id FROM failure WHERE job_id = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)
            """,
            (failure[0], keep),
        )
