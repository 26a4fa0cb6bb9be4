"""Rate limits."""

from typing import Protocol

from forge_jobs.model.rate_limit import Lease, RateLimit


class Limits(Protocol):
    """Token buckets. An operator names its epoch, as for queues."""

    async def set(
        self,
        scope: str,
        *,
        capacity: float,
        refill: float,
        managed_by: str | None = None,
        epoch: int | None = None,
    ) -> RateLimit:
        """The rate limit exists with these numbers: full when new, otherwise its tokens stay, cut to the capacity. Raises Managed."""

    async def ensure(self, scope: str, *, capacity: float, refill: float) -> None:
        """The rate limit exists; one that did keeps its numbers."""

    async def all(self) -> list[RateLimit]:
        """Return all rate limits by scope."""

    async def delete(self, scope: str, *, managed_by: str | None = None, epoch: int | None = None) -> None:
        """The rate limit is gone. Raises UnknownScope, and Managed when somebody other than `managed_by` owns it."""

    async def lease(self, scope: str, tokens: int) -> Lease:
        """Up to `tokens` whole tokens are taken out of the bucket. Raises UnknownScope."""

    async def give_back(self, scope: str, tokens: int, generation: int) -> None:
        """Unspent tokens are in the bucket again, unless it was emptied since."""

    async def empty(self, scope: str) -> int:
        """The bucket is empty, tokens leased from it are void, everybody is told; return the new generation. Raises UnknownScope."""
