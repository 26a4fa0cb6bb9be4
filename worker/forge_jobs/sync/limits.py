"""`forge.sync.limits`: what `forge.limits` does, without an event loop. Written by worker/tests/test_sync_nouns.py."""

from collections.abc import Sequence
from datetime import timedelta

from forge_jobs.client.limits import Limits
from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.model.permit import KeyUse, Permit
from forge_jobs.model.rate_limit import RateLimit
from forge_jobs.sync.noun import SyncNoun


class SyncLimits(SyncNoun[Limits]):
    """All rate limits. Reached as `forge.sync.limits`. An operator names its `epoch`, as for queues."""

    def list(self) -> Sequence[RateLimit]:
        """Return all rate limits by scope, each with its tokens as of now."""
        return self._do(self._noun.list())

    def get(self, scope: str) -> RateLimit:
        """Return the rate limit. Raises UnknownScope."""
        return self._do(self._noun.get(scope))

    def set(
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
        return self._do(
            self._noun.set(scope, capacity, per=per, refill=refill, managed_by=managed_by, epoch=epoch)
        )

    def ensure(
        self,
        scope: str,
        capacity: float,
        *,
        per: timedelta | float | None = None,
        refill: float | None = None,
    ) -> None:
        """The rate limit exists; an existing one keeps its numbers. Raises InvalidInput."""
        self._do(self._noun.ensure(scope, capacity, per=per, refill=refill))

    def delete(
        self, scope: str, *, managed_by: str | None = None, epoch: OperatorEpoch | None = None
    ) -> None:
        """The rate limit is deleted. Raises UnknownScope, PastEpoch, and Managed when it is not `managed_by`'s."""
        self._do(self._noun.delete(scope, managed_by=managed_by, epoch=epoch))

    def reserve(
        self, scope: str, key: str, cost: float = 1, *, within: timedelta | float | None = None
    ) -> Permit:
        """`cost` tokens of the key are spent; they may be used after `wait` of the permit that is returned.

        Each key has a bucket of its own, as large and as fast as the rate limit says. When its
        tokens come later than `within` (0: now; None: ever), nothing is spent and
        RateLimited is raised. For programs that are no jobs; a handler has `ctx.rate_limit`. Raises UnknownScope, InvalidInput.
        """
        return self._do(self._noun.reserve(scope, key, cost, within=within))

    def settle(self, permit: Permit, actual: float) -> bool:
        """`actual` tokens were used in place of the permit's `cost`: what was used beyond it is spent, and what is left
        is given back. To be called when its `wait` is over.

        False when the permit was settled before, which stays as it was said then: after an outage it may be called again. Raises
        UnknownScope, InvalidInput.
        """
        return self._do(self._noun.settle(permit, actual))

    def hottest(self, scope: str, *, limit: int = 20) -> Sequence[KeyUse]:
        """Return the keys of which the most is spent at this moment, the most first. Raises UnknownScope, InvalidInput."""
        return self._do(self._noun.hottest(scope, limit=limit))

    def reset(self, scope: str, key: str) -> bool:
        """The bucket of the key is full, whatever was spent of it, also since the limit was emptied. False when it was full before.

        Jobs that wait for its tokens get those first, one after another as they came: the first ones
        run now, as many as the bucket lets in, and the others sooner than they were told. What was spent before is forgotten, so a
        permit of then gives nothing back when it is settled. Raises UnknownScope, InvalidInput.
        """
        return self._do(self._noun.reset(scope, key))

    def empty(self, scope: str) -> None:
        """The bucket and those of all its keys are empty, and tokens leased from it are void, everywhere at once.
        A job to which a later moment was promised keeps that. Raises UnknownScope.
        """
        self._do(self._noun.empty(scope))
