"""The reaper: jobs of workers that are gone wait again, or are dead.

A lost run counts as an attempt, so a job that kills its worker every time ends. What is
written is what the worker itself would have written, guarded the same way, so a worker
that comes back in this moment, or a second reaper, does no harm.
"""

from collections.abc import Sequence
from datetime import timedelta

from forge_jobs import batches
from forge_jobs.attempt import Verdict, lost
from forge_jobs.errors import StorageBusy, StorageUnavailable
from forge_jobs.storage.interface import Storage
from forge_jobs.telemetry import JobsReaped, OutcomesHeld, Telemetry

BATCH = 500


async def reap(storage: Storage, telemetry: Telemetry, stale: timedelta) -> float | None:
    """Make one pass; return 0 when there is more."""
    claims = await storage.claims.lost(stale, limit=BATCH)
    if not claims:
        return None
    queues = {queue.id: queue for queue in await storage.queues.all()}
    verdicts = [lost(claim, queues[claim.queue_id]) for claim in claims if claim.queue_id in queues]

    def reaped(part: Sequence[Verdict], too_late: Sequence[int]) -> None:
        if runs := [verdict.run for verdict in part if verdict.run.claim.job_id not in too_late]:
            telemetry.emit(JobsReaped(runs))

    held = await batches.write_apart(storage.claims, telemetry, verdicts, reaped)
    if not held:
        return 0.0 if len(claims) == BATCH else None
    error = held[0].error
    if isinstance(error, StorageUnavailable) and not isinstance(error, StorageBusy):
        raise error
    ids = [each.verdict.run.claim.job_id for each in held]
    telemetry.emit(OutcomesHeld(ids, str(error), stale.total_seconds() / 3))
    return None
