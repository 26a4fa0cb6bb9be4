"""The ends of jobs, for those who wait for them."""

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Protocol

from forge_jobs.model.job import EndedJob

EXPECTED = timedelta(seconds=15)
"""For so long workers remember that somebody waits for the end of a job."""


class ThreadsEar(Protocol):
    """What threads without an event loop hear of the ends of jobs, while one of them waits: inside of `with`."""

    @property
    def notices(self) -> int:
        """How many notices were heard so far."""

    def opens(self) -> bool:
        """Whether ends are heard from now on."""

    def wait(self, job_ids: Collection[int], seconds: float, since: int) -> None:
        """Return when one of the jobs may have ended, as a notice after `since` said, or when so many seconds have passed."""

    def __enter__(self) -> "ThreadsEar": ...

    def __exit__(self, *_: object) -> None: ...


class Ends(Protocol):
    """Who waits for a job looks whether it has ended, or says so to the workers, of which the one that ends it tells.

    Workers are told of waits, and not the database, so that a job for which nobody waits costs nothing.
    """

    ear: (
        ThreadsEar | None
    )  # of threads that wait, where the storage needs no event loop; None: they hear nothing

    @property
    def are_told(self) -> bool:
        """Whether `announce` and `tell` are heard now; else looking is the only means."""

    async def look(self, job_ids: Sequence[int]) -> Mapping[int, EndedJob | None]:
        """Return those of the jobs that have ended, by id, and None for those that are not there. The others are left out."""

    async def announce(self, job_ids: Sequence[int]) -> None:
        """All who listen hear "wait" with these ids: workers `tell` who ends one of the jobs within EXPECTED."""

    async def tell(self, job_ids: Sequence[int]) -> None:
        """All who listen hear "ended" with these ids."""
