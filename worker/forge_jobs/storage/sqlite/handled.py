"""Handled kinds in SQLite: those for which whoever serves a queue has a handler. And the jobs of other kinds."""

import json

from forge_jobs.model.job import Unhandled
from forge_jobs.storage.closed_queues import IS_OPEN
from forge_jobs.storage.sqlite.transaction import Transaction

FEW_PENDING, SOME_PENDING, MOST_PENDING, MOST_DUE = 100, 10_000, 100_000, 1000
"""How many jobs of a queue are looked at, as in PostgreSQL: most pending ones only where none of the first few can be run; some while a kind is paused."""

QUEUES = f"""
SELECT queue.id AS queue_id, queue.name AS queue, handled.kinds
FROM queue LEFT JOIN handled ON handled.queue_id = queue.id WHERE {IS_OPEN} ORDER BY queue.name
"""

# The first jobs are read in order before any kind is looked up.
PENDING = """
WITH first AS MATERIALIZED (
    SELECT job_id FROM ready WHERE queue_id = ?1 ORDER BY priority, pos LIMIT ?2)
SELECT job.kind, count(*) FROM first CROSS JOIN job ON job.id = first.job_id GROUP BY job.kind
"""

DUE = """
WITH first AS MATERIALIZED (
    SELECT job_id FROM scheduled WHERE queue_id = ?1 AND run_at <= ?3 ORDER BY run_at LIMIT ?2)
SELECT job.kind, count(*) FROM first CROSS JOIN job ON job.id = first.job_id GROUP BY job.kind
"""


def handled(transaction: Transaction) -> dict[str, frozenset[str]]:
    """Return the handled kinds by queue; a queue of which they are not known is left out."""
    rows = transaction.rows("SELECT queue, kinds FROM handled")
    return {queue: frozenset(json.loads(kinds)) for queue, kinds in rows}


def unhandled(transaction: Transaction) -> list[Unhandled]:
    """Return the jobs that wait in vain, by queue."""
    unhandled: list[Unhandled] = []
    paused = {kind for (kind,) in transaction.rows("SELECT kind FROM paused_kind")}
    for row in transaction.records(QUEUES):
        queue_id, queue = row["queue_id"], row["queue"]
        kinds = None if row["kinds"] is None else frozenset[str](json.loads(row["kinds"]))
        if kinds is None and not paused:
            continue
        # Jobs of paused kinds may stand anywhere, and are told whoever serves their queue.
        pending = dict[str, int](transaction.rows(PENDING, (queue_id, FEW_PENDING)))
        can_be_run = pending.keys() - paused if kinds is None else pending.keys() & kinds
        if pending and (paused or not can_be_run):
            most = SOME_PENDING if can_be_run else MOST_PENDING
            pending = dict(transaction.rows(PENDING, (queue_id, most)))
        due = dict[str, int](transaction.rows(DUE, (queue_id, MOST_DUE, transaction.now)))
        in_vain = [
            Unhandled(queue, kind, pending.get(kind, 0), due.get(kind, 0), kind in paused)
            for kind in pending.keys() | due.keys()
            if kind in paused or (kinds is not None and kind not in kinds)
        ]
        unhandled += sorted(in_vain, key=lambda jobs: (-jobs.jobs, jobs.kind))
    return unhandled
