"""The ends of jobs, for those who wait for them."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Protocol

from forge_jobs.model.job import EndedJob

EXPECTED = timedelta(seconds=15)
"""For so long workers remember that somebody waits for the end of a job."""


class Ends(Protocol):
    """Who waits for a job looks whether it has ended, or says so to the workers, of which the one that ends it tells.

    Workers are told of waits, and not the database, so that a job for which nobody waits costs nothing.
    """

    @property
    def are_told(self) -> bool:
        """Whether `announce` and `tell` are heard now; else looking is the only means."""

    async def look(self, job_ids: Sequence[int]) -> Mapping[int, EndedJob | None]:
        """Return those of the jobs that have ended, by id, and None for those that are not there. The others are left out."""

    async def announce(self, job_ids: Sequence[int]) -> None:
        """All who listen hear "wait" with these ids: workers `tell` who ends one of the jobs within EXPECTED."""

    async def tell(self, job_ids: Sequence[int]) -> None:
        """All who listen hear "ended" with these ids."""
