"""What the leader has to do."""

from datetime import datetime, timedelta
from typing import Protocol

from forge_jobs.model.chore import Outlook
from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.storage.outset import FROM_THE_BEGINNING


class Chores(Protocol):
    """All chores that begin when there is something to do, looked at together."""

    async def look(
        self,
        within: timedelta,
        *,
        epoch: LeaderEpoch,
        duration: timedelta,
        since: datetime = FROM_THE_BEGINNING,
    ) -> Outlook:
        """Return the chores that have something to do now, or within that time by what is known now; those without moments of
        their own, if there may be anything that they look at.

        Of jobs with moments only those from `since` on are looked for, and jobs may wait for the ends of others: so
        no row is walked over that was deleted before, as a long transaction may still see it.

        The lead in this epoch lasts for `duration` from now, if a quarter of it or more is over and it has not run out. Nothing else is
        written, and nobody is waited for who has locked the lead.
        """
