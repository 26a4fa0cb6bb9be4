"""Statistics of attempts: handed in by processes minute by minute, added up by the leader."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.statistics import KindStatistics, Minute


class RunStatistics(Protocol):
    """What attempts came to, by queue, kind and minute. Rows of jobs are neither read nor written for it."""

    async def hand_in(self, minute: Minute) -> None:
        """What a process counted is kept, as of the minute that was `ago`; the same once more changes nothing."""

    async def add_up(self, *, epoch: LeaderEpoch, limit: int = 10_000) -> int:
        """What was handed in is added to that of others, up to so many rows; return how many. What is older than KEPT is gone.

        Nothing is changed when `epoch` no longer leads.
        """

    async def summed(
        self,
        since: timedelta,
        *,
        every: timedelta | None = None,
        queue: str | None = None,
        kind: str | None = None,
    ) -> Sequence[KindStatistics]:
        """Return the sums from the minute on in which this time began, by queue and kind; also of what is not added up yet.

        With `every`, there is one for each such stretch of time in which attempts ended, oldest first.
        """
