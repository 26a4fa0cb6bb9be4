"""The tokens of rate limits."""

from typing import Protocol

from forge_jobs.model.rate_limit import Lease


class Tokens(Protocol):
    """Tokens: what workers take out of the bucket of a rate limit, and spend."""

    async def lease(self, scope: str, tokens: int) -> Lease:
        """Up to `tokens` whole tokens are taken out of the bucket. Raises UnknownScope."""

    async def give_back(self, lease: Lease, tokens: int) -> None:
        """So many tokens of the lease, which nobody has spent, are in the bucket again, unless it was emptied since; but
        for those that have flowed back since then, which others may have.
        """

    async def empty(self, scope: str, *, by: str | None = None) -> int:
        """The bucket is empty, and so are those of all keys; tokens leased from it, and permits for which the tokens
        were there, are void; everybody is told. Return the new generation. Raises UnknownScope.
        """
