"""Tokens of rate limits in this process: leased in slices, spent by handlers.

A token leaves the bucket in the database before it is spent here, so the cluster never
spends one too many. A slice is what handlers wait for at this moment plus a quarter of
a second's use, so that a busy process writes the bucket's row a few times a second
rather than once a job. What is not spent within half a second goes back.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Sequence
from contextvars import Context as Variables
from dataclasses import dataclass, field
from datetime import timedelta

from forge_jobs.errors import ForgeError, InvalidInput, StorageUnavailable, StorageUnusable
from forge_jobs.model.decision import Throttled
from forge_jobs.model.job import Claim
from forge_jobs.model.moments import as_duration
from forge_jobs.model.permit import Taken
from forge_jobs.model.rate_limit import Lease
from forge_jobs.storage.interface.permits import Permits
from forge_jobs.storage.interface.tokens import Tokens
from forge_jobs.system.own_task import OwnTask
from forge_jobs.telemetry.events import LimitEmptied, TokensLeased
from forge_jobs.telemetry.telemetry import Telemetry
from forge_jobs.worker.key_tokens import KeyTokens

DEFAULT_WAIT = 1.0
AHEAD = 0.25  # seconds of use that are leased beyond what is waited for
KEEP = 0.5  # seconds that unspent tokens are kept
SHORTEST_RETRY, LONGEST_RETRY = 1.0, 60.0


@dataclass(slots=True)
class Portion:
    """Tokens of one lease that nobody has spent."""

    lease: Lease
    tokens: int


@dataclass(slots=True)
class Waiter:
    """A handler that waits for tokens."""

    tokens: int
    until: float  # monotonic
    granted: asyncio.Future[None]
    spent: Sequence[Portion] = ()  # what was granted


@dataclass(slots=True)
class Slice:
    """What this process holds of one bucket, and who waits for more."""

    scope: str
    portions: deque[Portion] = field(default_factory=deque)  # the oldest, which is spent first, at the left
    generation: int = -1
    voided: bool = False  # the bucket was emptied since the last lease was asked for
    waiters: deque[Waiter] = field(default_factory=deque)
    lessor: asyncio.Task[None] | None = None
    wanted: asyncio.Event = field(default_factory=asyncio.Event)  # somebody waits
    spent: deque[float] = field(default_factory=deque)  # when tokens were spent, the last second

    @property
    def tokens(self) -> int:
        """How many tokens may be spent here."""
        return sum(portion.tokens for portion in self.portions)

    def take(self, tokens: int) -> list[Portion]:
        """So many tokens, which are here, are spent; return which."""
        taken: list[Portion] = []
        while tokens:
            portion = self.portions[0]
            taken.append(Portion(portion.lease, min(tokens, portion.tokens)))
            portion.tokens -= taken[-1].tokens
            tokens -= taken[-1].tokens
            if not portion.tokens:
                self.portions.popleft()
        return taken

    def put_back(self, portions: Sequence[Portion]) -> None:
        """What was taken is here, unless it has become void."""
        if not self.voided:
            valid = [portion for portion in portions if portion.lease.generation == self.generation]
            self.portions.extendleft(reversed(valid))


class LeasedTokens:
    """The tokens of one process, for all its handlers. `close` gives back what is left."""

    def __init__(self, tokens: Tokens, permits: Permits, telemetry: Telemetry) -> None:
        self._tokens = tokens
        self.of_keys = KeyTokens(permits, telemetry)
        self.has_paid = self.of_keys.has_paid
        self.pays = self.of_keys.pays
        self.taken = Taken
        self.take_ahead = self.of_keys.take_ahead
        self.take_ahead_for_all = self.of_keys.take_ahead_for_all
        self._telemetry = telemetry
        self._slices: dict[str, Slice] = {}

    async def acquire(self, scope: str, tokens: float = 1, *, wait: timedelta | float | None = None) -> None:
        """See `ProcessTokens.acquire`."""
        if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
            raise InvalidInput(f"tokens is {tokens!r}, allowed is a whole number from 1.")
        patience = as_duration(wait, "wait")
        slice = self._slices.setdefault(scope, Slice(scope))
        if slice.tokens >= tokens and not slice.waiters:
            self._spend(slice, tokens)
            return
        seconds = DEFAULT_WAIT if patience is None else patience.total_seconds()
        waiter = Waiter(tokens, time.monotonic() + seconds, asyncio.get_running_loop().create_future())
        slice.waiters.append(waiter)
        slice.wanted.set()
        if slice.lessor is None or slice.lessor.done():
            # In no job's context: it leases for all of them.
            slice.lessor = OwnTask(
                self._lease(slice), self._telemetry, name=f"tokens of {scope}", context=Variables()
            )
        try:
            await waiter.granted
        except asyncio.CancelledError:
            if (
                waiter.granted.done()
                and not waiter.granted.cancelled()
                and waiter.granted.exception() is None
            ):
                slice.put_back(waiter.spent)  # granted and cancelled in the same moment
            elif waiter in slice.waiters:
                slice.waiters.remove(waiter)
            raise

    async def take_of_keys(
        self,
        tokens: Sequence[tuple[str, str, float]],
        *,
        wait: timedelta | float | None,
        claim: Claim,
        taken: Taken,
    ) -> None:
        """See `ProcessTokens.take_of_keys`."""
        patience = as_duration(DEFAULT_WAIT if wait is None else wait, "wait") or timedelta(0)
        self.of_keys.part(claim)
        await self.of_keys.take(tokens, patience, claim.job_id, taken)

    async def empty(self, scope: str) -> None:
        """See `ProcessTokens.empty`."""
        generation = await self._tokens.empty(scope)
        self.void(scope)
        if scope in self._slices:
            self._slices[scope].generation = generation
        self._telemetry.emit(LimitEmptied(scope))

    def void(self, scope: str) -> None:
        """Tokens leased from `scope` are void (another process emptied it)."""
        self.of_keys.void(scope)
        if slice := self._slices.get(scope):
            slice.portions.clear()
            slice.voided = True

    async def close(self) -> None:
        """Nothing is held any more; handlers that still wait are throttled."""
        await self.of_keys.close()
        for slice in self._slices.values():
            if slice.lessor is not None:
                slice.lessor.cancel()
            _refuse(slice, SHORTEST_RETRY, everybody=True)
            await self._give_back(slice)
        self._slices.clear()

    def _spend(self, slice: Slice, tokens: int) -> Sequence[Portion]:
        taken = slice.take(tokens)
        now = time.monotonic()
        slice.spent.extend([now] * min(tokens, 1000))
        while slice.spent and slice.spent[0] < now - 1:
            slice.spent.popleft()
        return taken

    async def _lease(self, slice: Slice) -> None:
        """Lease while somebody waits, then give back what is not used soon."""
        while slice.waiters or slice.tokens:
            slice.wanted.clear()
            while slice.waiters:
                await self._lease_once(slice)
            try:
                async with asyncio.timeout(KEEP):
                    await slice.wanted.wait()
            except TimeoutError:
                await self._give_back(slice)

    async def _lease_once(self, slice: Slice) -> None:
        wanted = sum(waiter.tokens for waiter in slice.waiters) - slice.tokens
        generation, slice.voided = slice.generation, False
        try:
            lease = await self._tokens.lease(slice.scope, max(1, wanted + int(len(slice.spent) * AHEAD)))
        except Exception as error:
            if isinstance(error, StorageUnavailable) and not isinstance(error, StorageUnusable):
                # An outage is no mistake of the job: who cannot wait longer is throttled, which counts no attempt.
                _refuse(slice, SHORTEST_RETRY, why=f"rate limit {slice.scope!r} cannot be asked: {error}")
                if slice.waiters:
                    await asyncio.sleep(SHORTEST_RETRY * random.uniform(0.5, 1.0))
                return
            # Any other error: those who wait must get it.
            for waiter in slice.waiters:
                if not waiter.granted.done():
                    waiter.granted.set_exception(error)
            slice.waiters.clear()
            return
        self._telemetry.emit(TokensLeased(slice.scope, lease.tokens, lease.retry_after))
        if slice.voided and generation in (-1, lease.generation):
            return  # emptied while it was on its way, perhaps after it was taken
        if lease.generation != slice.generation:
            slice.portions.clear()
            slice.generation = lease.generation
        if lease.tokens:
            slice.portions.append(Portion(lease, lease.tokens))
        _refuse_impossible(slice, lease.capacity)
        self._grant(slice)
        if slice.waiters:
            _refuse(slice, lease.retry_after, everybody=lease.time_stands_still)
        if slice.waiters:
            await asyncio.sleep(min(max(lease.retry_after, 0.01), 1.0) * random.uniform(1.0, 1.2))
            _refuse(slice, lease.retry_after, late=True)

    def _grant(self, slice: Slice) -> None:
        while slice.waiters and slice.waiters[0].tokens <= slice.tokens:
            waiter = slice.waiters.popleft()
            if not waiter.granted.done():
                waiter.spent = self._spend(slice, waiter.tokens)
                waiter.granted.set_result(None)

    async def _give_back(self, slice: Slice) -> None:
        while slice.portions:
            portion = slice.portions.popleft()
            try:
                await self._tokens.give_back(portion.lease, portion.tokens)
            except ForgeError:
                pass  # they are lost to the bucket, which refills: too few, never too many


def _refuse(
    slice: Slice, retry_after: float, *, late: bool = False, everybody: bool = False, why: str | None = None
) -> None:
    """Throttle the waiters whose patience ends before the next token, or (`late`) has ended."""
    now = time.monotonic()
    ready_at = now if late else now + retry_after
    stay: deque[Waiter] = deque()
    for waiter in slice.waiters:
        if waiter.granted.done():
            continue
        if everybody or waiter.until < ready_at:
            again = retry_after if everybody else min(max(retry_after, SHORTEST_RETRY), LONGEST_RETRY)
            why = why or f"rate limit {slice.scope!r} has no token"
            waiter.granted.set_exception(Throttled(again, why))
        else:
            stay.append(waiter)
    slice.waiters = stay


def _refuse_impossible(slice: Slice, capacity: float) -> None:
    """Refuse those who want more than the bucket can ever hold: they would be throttled again and again, silently."""
    for waiter in slice.waiters:
        if waiter.tokens > capacity and not waiter.granted.done():
            waiter.granted.set_exception(
                InvalidInput(
                    f"tokens is {waiter.tokens}, allowed are at most {capacity:g}, "
                    f"the capacity of rate limit {slice.scope!r}."
                )
            )
    slice.waiters = deque(waiter for waiter in slice.waiters if not waiter.granted.done())
