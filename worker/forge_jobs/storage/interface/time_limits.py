"""Time limits: jobs whose time is over end."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.time_limit import OutOfTime


class JobTimeLimits(Protocol):
    """When jobs have to be begun, and when they have to end."""

    async def expire(
        self, *, epoch: LeaderEpoch, limit: int = 1000
    ) -> tuple[Sequence[OutOfTime], timedelta | None]:
        """Waiting jobs whose time is over have ended, up to `limit`; return them, and how long it is until the next look.

        Those that a worker has are its own business. Nothing is changed when `epoch` no longer leads. None: no job has a
        time limit.
        """
