"""Who does the chores."""

from datetime import timedelta
from typing import Protocol

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.worker import Leader


class Leadership(Protocol):
    """The lease of the worker that does the chores."""

    async def lead(self, worker_id: int, duration: timedelta) -> LeaderEpoch | None:
        """Return the epoch when the worker leads for `duration` from now, None when another does.

        The epoch grows with every change of leader. A lease that ends later than twice `duration`
        from now does not count: the database's clock was set back after it was given.
        """

    async def resign(self, worker_id: int) -> None:
        """The worker does not lead."""

    async def get(self) -> Leader | None:
        """Return the present leader; None when the lease has run out."""
