"""Who has the slots of workers in SQLite."""

from forge_jobs.errors import JobNotFound
from forge_jobs.model.facts import HeldSlots, SlotFacts, SlotHolder
from forge_jobs.storage.interface.workers import MOST_HOLDERS
from forge_jobs.storage.sqlite.transaction import Transaction

NEEDED = "SELECT coalesce(kind.slots, 1) FROM job LEFT JOIN kind ON kind.kind = job.kind WHERE job.id = ?"

# Of those that were claimed together, the most urgent one comes first.
HELD = """
SELECT claimed.worker_id, claimed.job_id, job.kind, min(coalesce(kind.slots, 1), worker.concurrency) AS slots
FROM claimed
JOIN worker ON worker.id = claimed.worker_id
JOIN job ON job.id = claimed.job_id
LEFT JOIN kind ON kind.kind = job.kind
LEFT JOIN claimed AS its ON its.job_id = :job_id
LEFT JOIN job AS mine ON mine.id = :job_id
WHERE its.job_id IS NULL OR (claimed.worker_id = its.worker_id
    AND (claimed.claimed_at, job.priority, job.id) < (its.claimed_at, mine.priority, mine.id))
ORDER BY slots DESC, claimed.claimed_at, claimed.job_id
"""


def held_slots(transaction: Transaction, job_id: int) -> SlotFacts:
    """See `Workers.held_slots`."""
    needed: int | None = transaction.value(NEEDED, (job_id,))
    if needed is None:
        raise JobNotFound(job_id)
    holders: dict[int, list[SlotHolder]] = {}
    for worker_id, *holder in transaction.rows(HELD, {"job_id": job_id}):
        holders.setdefault(worker_id, []).append(SlotHolder(*holder))
    held = {
        worker_id: HeldSlots(sum(one.slots for one in jobs), len(jobs), tuple(jobs[:MOST_HOLDERS]))
        for worker_id, jobs in holders.items()
    }
    return SlotFacts(needed, held)
