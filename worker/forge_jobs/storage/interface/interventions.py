"""What people have done by hand, to jobs and to what else there is."""

from collections.abc import Sequence
from typing import Protocol

from forge_jobs.model.intervention import Intervention


class Interventions(Protocol):
    """Each is written in the transaction of what was done, where that is told by whom."""

    async def of_job(self, job_id: int) -> Sequence[Intervention]:
        """Return what was done to a job, which may be gone, or to its flow, the oldest first; nothing of one that there never was."""

    async def all(self, *, subject: str | None = None, limit: int = 100) -> Sequence[Intervention]:
        """Return what was done to the subject, None: to whatever, the newest first."""
