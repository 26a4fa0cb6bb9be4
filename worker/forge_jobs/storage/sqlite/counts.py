"""How many jobs of each queue are in each state, as SQLite knows by `tally`."""

from forge_jobs.model.job import Counts
from forge_jobs.storage.closed_queues import IS_OPEN
from forge_jobs.storage.contradictions import COUNTED
from forge_jobs.storage.sqlite.micros import moment
from forge_jobs.storage.sqlite.transaction import Transaction

ALL = f"""
SELECT queue.id, queue.name AS queue, {", ".join(COUNTED)}
FROM queue JOIN tally ON tally.queue_id = queue.id WHERE {IS_OPEN} ORDER BY queue.name
"""

# The first job of each priority: a few steps in the index, however many jobs wait. Of jobs that have tenants, it is the
# one whose turn is next.
OLDEST = """
WITH RECURSIVE class (priority) AS (
    SELECT min(priority) FROM ready WHERE queue_id = :queue_id
    UNION ALL
    SELECT (SELECT min(priority) FROM ready WHERE queue_id = :queue_id AND ready.priority > class.priority)
    FROM class WHERE class.priority IS NOT NULL
)
SELECT min((SELECT coalesce(since, pos) FROM ready
            WHERE queue_id = :queue_id AND ready.priority = class.priority ORDER BY pos, job_id LIMIT 1))
FROM class WHERE class.priority IS NOT NULL
"""


def counts(transaction: Transaction) -> list[Counts]:
    """Return the counts of each queue, by its name."""
    return [
        Counts(
            **{name: row[name] for name in ("queue", *COUNTED)},
            oldest_pending_at=moment(transaction.value(OLDEST, {"queue_id": row["id"]})),
        )
        for row in transaction.records(ALL)
    ]
