"""Jobs that rise while they wait."""

from typing import Protocol

from forge_jobs.model.ageing import Rise
from forge_jobs.model.epoch import LeaderEpoch


class Ageing(Protocol):
    """The priorities of pending jobs, in queues that say `age_after`."""

    async def rise(
        self, queue_id: int, *, epoch: LeaderEpoch, after: Rise | None = None, limit: int = 1000
    ) -> Rise:
        """Up to `limit` jobs of the queue rise that are due to since the look `after` which this one comes; None: since ever.

        A job that has been pending for n times `age_after` has a priority that is smaller by n than what was asked
        for, but than no other job's that is pending there: beyond that it would overtake nobody. It keeps its place among
        those of its new priority, by how long it waits. A job is never lowered. One that somebody has locked rises at a later
        look; a job that came to its place after the look `after` may be missed where that says where priorities begin. Nothing changes where `epoch` no longer leads,
        where the queue has no `age_after`, or when it is done again.
        """
