"""Rate limits and how they are configured."""

from typing import Protocol

from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.model.rate_limit import RateLimit


class Limits(Protocol):
    """The configuration of rate limits. An operator names its epoch, as for queues."""

    async def set(
        self,
        scope: str,
        *,
        capacity: float,
        refill: float,
        managed_by: str | None = None,
        epoch: OperatorEpoch | None = None,
        by: str | None = None,
    ) -> RateLimit:
        """The rate limit exists with these numbers: full when new, otherwise its tokens stay, cut to the capacity. What
        is spent of its keys stays spent, and flows back as fast as it says now; keys that are empty since the
        limit was emptied hold what flowed since then. Raises Managed.
        """

    async def ensure(self, scope: str, *, capacity: float, refill: float) -> None:
        """The rate limit exists; one that existed before keeps its numbers."""

    async def changed(self) -> list[str]:
        """Return the rate limits whose capacity or refill changed `LATELY`."""

    async def all(self) -> list[RateLimit]:
        """Return all rate limits by scope."""

    async def delete(
        self,
        scope: str,
        *,
        managed_by: str | None = None,
        epoch: OperatorEpoch | None = None,
        by: str | None = None,
    ) -> None:
        """The rate limit is gone. Raises UnknownScope, and Managed when somebody other than `managed_by` owns it."""
