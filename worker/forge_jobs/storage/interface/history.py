"""Jobs that have ended."""

from typing import Protocol

from forge_jobs.model.epoch import LeaderEpoch


class History(Protocol):
    """Ended jobs."""

    async def sweep(self, *, epoch: LeaderEpoch, limit: int = 1000) -> int:
        """Up to `limit` ended jobs past their queue's retention are gone, done and dead counted together.

        Return how many; none go when `epoch` no longer leads. Fire times of crons go after 30 days.
        """
