"""Jobs that go on with one version of the program only."""

from collections.abc import Sequence
from typing import Any, Protocol

from forge_jobs.model.job import Claim
from forge_jobs.model.pin import Pin, PinnedJobs


class Pins(Protocol):
    """A pin goes with the end of its job, and with its deletion. Claims heed it."""

    async def add(self, claim: Claim, *, connection: Any = None) -> bool:
        """The job goes on with the version of the worker that has the claim, which says so; one that is pinned stays as it is.

        With `connection` this holds once that transaction of the caller's commits. False: the claim was lost.
        """

    async def of_job(self, job_id: int) -> Pin | None:
        """Return the version that has to go on with the job; None: any may."""

    async def remove(self, job_id: int, *, by: str | None = None) -> bool:
        """The job goes on with any version; its queue is looked at. False when it was not pinned. Raises JobNotFound.

        An attempt that is in progress goes on where it is. What is done `by` somebody is noted.
        """

    async def put(self, job_id: int, name: str, *, by: str | None = None) -> bool:
        """The job goes on with the version of this name, which no operator runs; its queue is looked at. False when it was not pinned to
        another one that no operator runs.
        """

    async def of_version(
        self,
        name: str,
        *,
        queue: str | None = None,
        kind: str | None = None,
        key: str | None = None,
        group: str | None = None,
        with_tags: tuple[str, ...] = (),
        of_pools: bool = True,
        after: int = 0,
        limit: int = 1000,
    ) -> Sequence[int]:
        """Return the ids of jobs that are pinned to a version, of this name or id, and that match as in `Jobs.find`, in their order; unless
        `of_pools` to one that no operator runs.
        """

    async def counts(self) -> Sequence[PinnedJobs]:
        """Return how many jobs of each queue are pinned to each version."""
