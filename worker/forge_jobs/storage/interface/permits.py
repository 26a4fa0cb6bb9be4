"""Permits to spend tokens of a rate limit by key."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Protocol

from forge_jobs.model.permit import AwaitedKey, Granted, KeyUse, Permit, PermitRequest, Spent, Swept


class Permits(Protocol):
    """Each key of a rate limit has a bucket of its own, with the capacity and the refill of the limit.

    A bucket is one number: how many tokens will have flowed towards each key of the limit when all that was
    spent and promised of this key is refilled (the "theoretical arrival time" of the generic cell rate
    algorithm, ITU-T I.371, with the tokens as its clock). So a limit that flows faster or slower, or is
    emptied, is so for all keys and permits at once. A key has a row while that number lies ahead.
    """

    async def reserve(self, wanted: Sequence[PermitRequest]) -> list[Permit]:
        """The tokens are spent at the next moments at which the keys have them; return a permit for each.

        Requests for one key get theirs in the order of `wanted`. Raises UnknownScope, and InvalidInput when a limit is
        never refilled or can never hold so many; then nothing is spent.
        """

    async def spend(self, scope: str, cost: float, keys: Sequence[str], job_ids: Sequence[int]) -> Spent:
        """`cost` tokens of each key are spent, for the job at the same place, where it has them now. Nothing is spent for a job for
        which a permit is kept, nor where `reserve` would raise. None is the answer also where nobody looked: `reserve` knows.
        """

    async def keep(self, granted: Sequence[Granted]) -> None:
        """Permits that were granted to jobs, which have not used them, are kept until they ask again; none of a rate
        limit that is gone, or for tokens that were emptied away meanwhile.
        """

    async def reserve_within(self, scope: str, key: str, cost: float, within: timedelta) -> Permit:
        """As `reserve` for somebody who is no job, unless the moment lies further ahead than `within`: then nothing is
        spent, and RateLimited is raised. Tokens that were given back are taken first.
        """

    async def settle(self, permit: Permit, more: float) -> bool:
        """So many more tokens of the permit's key are spent; where it is less than 0, so many fewer of the permit are used.

        Those are there again, but for those that have flowed back since. Where others have got tokens of the key since, they are there
        for `reserve_within`, until as many have flowed. Those of a permit that is for later are lost then.

        Return whether that is so now: a permit with an id is settled once, and whoever calls again, perhaps since the first call
        was not answered, changes nothing. Raises UnknownScope, and InvalidInput when more is spent of a limit that is never refilled.
        """

    async def hottest(self, scope: str, *, limit: int) -> list[KeyUse]:
        """Return the keys of which the most is spent, the most first. Raises UnknownScope."""

    async def awaited(self, job_id: int) -> AwaitedKey | None:
        """Return the key that has tokens for the job last, if the job is scheduled for when that is."""

    async def reset(self, scope: str, key: str, *, by: str | None = None) -> bool:
        """The bucket of the key is full, and what was spent of it before is forgotten; return whether it was not full.

        Jobs that wait for its tokens are promised those of the full bucket, one after another as before; `moved`
        says so to them. What was granted already stays so, and is not there once more when it is settled. Raises UnknownScope.
        """

    async def reset_lately(self) -> Sequence[tuple[str, str]]:
        """Return the rate limits and keys of theirs that were reset `LATELY`."""

    async def waiting(self) -> Mapping[str, int]:
        """Return how many jobs wait for tokens of keys, by rate limit, without those for which none does. One that waits for several counts
        in each. It walks over all that was promised.
        """

    async def moved(self, scope: str, key: str | None = None) -> None:
        """Jobs that wait for a permit of the rate limit, or of one of its keys, come when it is for by the numbers of
        now, if that is earlier.
        """

    async def give_back(self, *, limit: int) -> bool:
        """Of permits that were kept for jobs which have ended, the last ones of their keys are gone, and nothing is spent for them: nobody was
        promised anything behind them. Those stay that may be used: whose moment has come, or whose limit was changed within a day.
        Those of up to `limit` jobs are looked at, which are before the last ones. Return whether there may be more.
        """

    async def sweep(self, *, limit: int) -> Swept:
        """Look at up to `limit` keys, those after the last ones, and at as many old permits: what nobody uses any more
        is gone.
        """
