"""Jobs that wait for their time."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Protocol

UPCOMING_LIMIT = 1_000
"""How many jobs of a queue `upcoming` counts at most."""


class Schedule(Protocol):
    """Jobs that wait for their time."""

    async def upcoming(self, within: timedelta) -> Mapping[str, tuple[int, datetime]]:
        """Return, by queue, how many jobs are due, or time out waiting, within this time (counted up to UPCOMING_LIMIT) and when the first is.

        Jobs of kinds that nobody handles, as `workers.handled` says, are left out.
        """

    async def make_pending(self, *, limit: int = 1000) -> tuple[int, timedelta | None]:
        """Up to `limit` jobs whose time has come are ready, idle workers are woken. Those of tenants whose turns somebody
        is giving at that moment may stay for the next look; the others, of each tenant up to `limit`, do not wait for them.

        What transactions have left unsettled of groups is done: places are given away, jobs in the way of newer ones cancelled.

        Return how many, and how long until the next look has something to do (None: nothing is scheduled).
        """
