"""Permits to spend tokens of a rate limit by key."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from forge_jobs.model.permit import KeyUse, Permit, PermitRequest


class Permits(Protocol):
    """Each key of a rate limit has a bucket of its own, with the capacity and the refill of the limit.

    A bucket is one moment: when all that was spent and promised will be refilled (the "theoretical arrival
    time" of the generic cell rate algorithm, ITU-T I.371). It has a row while that lies ahead.
    """

    async def reserve(self, wanted: Sequence[PermitRequest]) -> list[Permit]:
        """The tokens are spent at the next moments at which the keys have them; return a permit for each.

        Requests for one key get theirs in the order of `wanted`. Raises UnknownScope, and InvalidInput when a limit is
        never refilled or can never hold so many; then nothing is spent.
        """

    async def keep(self, granted: Sequence[PermitRequest]) -> None:
        """Permits that were granted to jobs, which have not used them, are kept until they ask again."""

    async def reserve_within(self, scope: str, key: str, cost: float, within: timedelta) -> Permit:
        """As `reserve`, unless the moment lies further ahead than `within`: then nothing is spent, and
        RateLimited is raised."""

    async def spend_more(self, scope: str, key: str, cost: float) -> None:
        """So many more tokens of the key are spent, or fewer when `cost` is negative. Raises UnknownScope."""

    async def hottest(self, scope: str, *, limit: int) -> list[KeyUse]:
        """Return the keys of which the most is spent, the most first. Raises UnknownScope."""

    async def sweep(self, *, limit: int) -> int:
        """Rows of keys of which nothing is spent any more are gone, up to `limit`, and old permits; return how many rows."""
