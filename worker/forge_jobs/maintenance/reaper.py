"""The reaper: jobs of workers that are gone wait again, or are dead.

A lost run counts as an attempt, so a job that kills its worker every time ends. What is
written is what the worker itself would have written, guarded the same way, so a worker
that comes back in this moment, or a second reaper, does no harm.
"""

from datetime import timedelta

from forge_jobs.attempt import as_written, lost
from forge_jobs.job import End, Postponement
from forge_jobs.storage.interface import Storage
from forge_jobs.telemetry import JobsReaped, Telemetry

BATCH = 500


async def reap(storage: Storage, telemetry: Telemetry, stale: timedelta) -> float | None:
    """Make one pass; return 0 when there is more."""
    claims = await storage.claims.lost(stale, limit=BATCH)
    if not claims:
        return None
    queues = {queue.id: queue for queue in await storage.queues.all()}
    verdicts = [lost(claim, queues[claim.queue_id]) for claim in claims if claim.queue_id in queues]
    ends = [verdict.write for verdict in verdicts if isinstance(verdict.write, End)]
    postponed = [verdict.write for verdict in verdicts if isinstance(verdict.write, Postponement)]
    too_late = set(await storage.claims.finish(ends) if ends else [])
    too_late.update(await storage.claims.postpone(postponed) if postponed else [])
    runs = [as_written(verdict) for verdict in verdicts if verdict.run.claim.job_id not in too_late]
    if runs:
        telemetry.emit(JobsReaped(runs))
    return 0.0 if len(claims) == BATCH else None
