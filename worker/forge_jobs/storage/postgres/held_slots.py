"""Who has the slots of workers in PostgreSQL."""

from forge_jobs.errors import JobNotFound
from forge_jobs.model.facts import HeldSlots, SlotFacts, SlotHolder
from forge_jobs.storage.interface.workers import MOST_HOLDERS
from forge_jobs.storage.postgres.connection import PostgresDatabase

NEEDED = """
SELECT coalesce(kind.slots, 1) FROM {schema}.job LEFT JOIN {schema}.kind ON kind.kind = job.kind WHERE job.id = $1
"""

# Of those that were claimed together, the most urgent one comes first.
HELD = """
WITH its AS MATERIALIZED (
    SELECT claimed.worker_id, claimed.claimed_at, job.priority, job.id
    FROM {schema}.claimed JOIN {schema}.job ON job.id = claimed.job_id WHERE claimed.job_id = $1
), held AS MATERIALIZED (
    SELECT claimed.worker_id, claimed.job_id, job.kind, least(coalesce(kind.slots, 1), worker.concurrency) AS slots,
           row_number() OVER (
               PARTITION BY claimed.worker_id
               ORDER BY least(coalesce(kind.slots, 1), worker.concurrency) DESC, claimed.claimed_at, claimed.job_id) AS number
    FROM {schema}.claimed
    JOIN {schema}.worker ON worker.id = claimed.worker_id
    JOIN {schema}.job ON job.id = claimed.job_id
    LEFT JOIN {schema}.kind ON kind.kind = job.kind
    LEFT JOIN its ON true
    WHERE its.id IS NULL OR (claimed.worker_id = its.worker_id
        AND (claimed.claimed_at, job.priority, job.id) < (its.claimed_at, its.priority, its.id))
)
SELECT worker_id, sum(slots) AS slots, count(*) AS jobs,
       array_agg(job_id ORDER BY number) FILTER (WHERE number <= $2) AS ids,
       array_agg(kind ORDER BY number) FILTER (WHERE number <= $2) AS kinds,
       array_agg(slots ORDER BY number) FILTER (WHERE number <= $2) AS of_each
FROM held GROUP BY worker_id
"""


async def held_slots(database: PostgresDatabase, job_id: int) -> SlotFacts:
    """See `Workers.held_slots`."""
    needed: int | None = await database.fetchval(NEEDED, job_id)
    if needed is None:
        raise JobNotFound(job_id)
    held = {}
    for worker_id, slots, jobs, *holders in await database.fetch(HELD, job_id, MOST_HOLDERS):
        held[worker_id] = HeldSlots(slots, jobs, tuple(map(SlotHolder, *holders)))
    return SlotFacts(needed, held)
