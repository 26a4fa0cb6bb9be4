"""The ends of jobs and of flows, for those who wait for them."""

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Protocol, TypeVar

from forge_jobs.model.flow import FlowStatus
from forge_jobs.model.job import EndedJob

E = TypeVar("E", covariant=True)

EXPECTED = timedelta(seconds=15)
"""For so long workers remember that somebody waits for the end of a job."""


class ThreadsEar(Protocol):
    """What threads without an event loop hear of ends, while one of them waits: inside of `with`."""

    @property
    def notices(self) -> int:
        """How many notices were heard so far."""

    def opens(self) -> bool:
        """Whether ends are heard from now on."""

    def wait(self, notice: str, ids: Collection[int], seconds: float, since: int) -> None:
        """Return when one of these may have ended, as a `notice` after `since` said, or when so many seconds have passed."""

    def __enter__(self) -> "ThreadsEar": ...

    def __exit__(self, *_: object) -> None: ...


class AwaitedEnds(Protocol[E]):
    """Who waits for something looks whether it has ended, and says that he waits, so that its end is told."""

    subject: str  # what it is: "job" or "flow"
    notice: str  # of which kind the notices are that tell of its end
    ear: (
        ThreadsEar | None
    )  # of threads that wait, where the storage needs no event loop; None: they hear nothing

    @property
    def are_told(self) -> bool:
        """Whether ends are told now; else looking is the only means."""

    async def look(self, ids: Sequence[int]) -> Mapping[int, E | None]:
        """Return those that have ended, by id, and None for those that are not there. The others are left out."""

    async def announce(self, ids: Sequence[int]) -> Collection[int]:
        """Somebody waits for the ends of these; return for which of them whoever ends them tells from now on."""


class FlowEnds(AwaitedEnds[FlowStatus], Protocol):
    """Flows say that somebody waits for them, so that whatever ends one tells all who listen: "flow" with its id."""


class Ends(AwaitedEnds[EndedJob], Protocol):
    """Workers are told who waits for jobs, and not the database, so that a job for which nobody waits costs nothing. All who listen
    hear "wait" with the ids of `announce`, and the worker that ends one of the jobs within EXPECTED tells.
    """

    async def tell(self, job_ids: Sequence[int]) -> None:
        """All who listen hear "ended" with these ids."""
