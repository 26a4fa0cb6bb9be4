"""What the leader has to do."""

from datetime import timedelta
from typing import Protocol

from forge_jobs.model.chore import Chore


class Chores(Protocol):
    """All chores that begin when there is something to do, looked at together."""

    async def due(self, within: timedelta) -> frozenset[Chore]:
        """Return the chores that have something to do now, or within that time by what is known now; those without moments of
        their own, if there may be anything that they look at. Nothing is written.
        """
