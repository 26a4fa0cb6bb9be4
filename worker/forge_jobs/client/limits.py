"""Rate limits as people handle them: token buckets for the whole cluster."""

import math
from collections.abc import Sequence
from datetime import timedelta

from forge_jobs.client.acting import who_acts, who_is_named
from forge_jobs.errors import InvalidInput, UnknownScope
from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.model.permit import KeyUse, Permit
from forge_jobs.model.rate_limit import RateLimit
from forge_jobs.rules import names
from forge_jobs.rules.checks import epoch_or_none, number, whole
from forge_jobs.rules.cost import checked_cost
from forge_jobs.rules.duration import checked_duration
from forge_jobs.storage.interface.storage import Storage


class Limits:
    """All rate limits. Reached as `forge.limits`. An operator names its `epoch`, as for queues."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def list(self) -> Sequence[RateLimit]:
        """Return all rate limits by scope, each with its tokens as of now."""
        return await self._storage.limits.all()

    async def get(self, scope: str) -> RateLimit:
        """Return the rate limit. Raises UnknownScope."""
        limits = await self._storage.limits.all()
        for limit in limits:
            if limit.scope == scope:
                return limit
        raise UnknownScope(scope, (limit.scope for limit in limits))

    async def set(
        self,
        scope: str,
        capacity: float,
        *,
        per: timedelta | float | None = None,
        refill: float | None = None,
        managed_by: str | None = None,
        epoch: OperatorEpoch | None = None,
    ) -> RateLimit:
        """The rate limit allows `capacity` tokens `per` that time (timedelta or seconds), or `refill` tokens a second.

        A new one is full; an existing one keeps its tokens, up to the capacity. For its keys the numbers hold
        at once: what was spent of them comes back at the new speed, and jobs that wait for tokens of theirs come
        sooner, or are put off once more. Raises InvalidInput, PastEpoch, and Managed when the row belongs to
        somebody other than `managed_by`.
        """
        names.checked_name(scope, "rate limit")
        capacity, rate = checked_rate(capacity, per, refill)
        limit = await self._storage.limits.set(
            scope,
            capacity=capacity,
            refill=rate,
            managed_by=managed_by,
            epoch=epoch_or_none(epoch),
            by=who_is_named(),
        )
        if scope in await self._storage.limits.changed():
            await self._storage.permits.moved(scope)
        return limit

    async def ensure(
        self,
        scope: str,
        capacity: float,
        *,
        per: timedelta | float | None = None,
        refill: float | None = None,
    ) -> None:
        """The rate limit exists; an existing one keeps its numbers. Raises InvalidInput."""
        names.checked_name(scope, "rate limit")
        capacity, rate = checked_rate(capacity, per, refill)
        await self._storage.limits.ensure(scope, capacity=capacity, refill=rate)

    async def delete(
        self, scope: str, *, managed_by: str | None = None, epoch: OperatorEpoch | None = None
    ) -> None:
        """The rate limit is deleted. Raises UnknownScope, PastEpoch, and Managed when it is not `managed_by`'s."""
        by = who_acts() if managed_by is None else who_is_named()
        await self._storage.limits.delete(scope, managed_by=managed_by, epoch=epoch_or_none(epoch), by=by)

    async def reserve(
        self, scope: str, key: str, cost: float = 1, *, within: timedelta | float | None = None
    ) -> Permit:
        """`cost` tokens of the key are spent; they may be used after `wait` of the permit that is returned.

        Each key has a bucket of its own, as large and as fast as the rate limit says. When its
        tokens come later than `within` (0: now; None: ever), nothing is spent and
        RateLimited is raised. For programs that are no jobs; a handler has `ctx.rate_limit`. Raises UnknownScope, InvalidInput.
        """
        names.checked_name(scope, "rate limit")
        longest = timedelta.max if within is None else checked_duration(within, "within")
        return await self._storage.permits.reserve_within(
            scope, names.key(key), checked_cost(cost, "cost"), longest
        )

    async def settle(self, permit: Permit, actual: float) -> bool:
        """`actual` tokens were used in place of the permit's `cost`: what was used beyond it is spent, and what is left
        is given back. To be called when its `wait` is over.

        False when the permit was settled before, which stays as it was said then: after an outage it may be called again. Raises
        UnknownScope, InvalidInput.
        """
        if not isinstance(permit, Permit) or permit.id is None:
            raise InvalidInput(
                f"permit is {names.shown(permit)}, allowed is one that forge.limits.reserve has returned."
            )
        more = checked_cost(actual, "actual", least=0) - permit.cost
        return await self._storage.permits.settle(permit, more)

    async def hottest(self, scope: str, *, limit: int = 20) -> Sequence[KeyUse]:
        """Return the keys of which the most is spent at this moment, the most first. Raises UnknownScope, InvalidInput."""
        names.checked_name(scope, "rate limit")
        return await self._storage.permits.hottest(scope, limit=whole(limit, "limit", least=1, most=10_000))

    async def reset(self, scope: str, key: str) -> bool:
        """The bucket of the key is full, whatever was spent of it, also since the limit was emptied. False when it was full before.

        Jobs that wait for its tokens get those first, one after another as they came: the first ones
        run now, as many as the bucket lets in, and the others sooner than they were told. What was spent before is forgotten, so a
        permit of then gives nothing back when it is settled. Raises UnknownScope, InvalidInput.
        """
        names.checked_name(scope, "rate limit")
        was_spent = await self._storage.permits.reset(scope, names.key(key), by=who_is_named())
        if was_spent:
            await self._storage.permits.moved(scope, key)
        return was_spent

    async def empty(self, scope: str) -> None:
        """The bucket and those of all its keys are empty, and tokens leased from it are void, everywhere at once.
        A job to which a later moment was promised keeps that. Raises UnknownScope.
        """
        await self._storage.tokens.empty(scope, by=who_is_named())


def checked_rate(
    capacity: object, per: timedelta | float | None, refill: float | None
) -> tuple[float, float]:
    """Return the bucket's capacity and its refill in tokens a second. Raises InvalidInput."""
    tokens = number(capacity, "capacity", least=1)
    if (per is None) == (refill is None):
        raise InvalidInput(
            "A rate limit needs either per (a timedelta or seconds) or refill (tokens a second)."
        )
    if per is None:
        return tokens, number(refill, "refill", least=0)
    seconds = checked_duration(per, "per").total_seconds()
    if not seconds or not math.isfinite(tokens / seconds):
        raise InvalidInput(f"per is {per!r}, allowed is more than 0 s.")
    return tokens, tokens / seconds
