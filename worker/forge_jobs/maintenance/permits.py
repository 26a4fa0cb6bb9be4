"""The look after permits of rate limits: those of jobs that have ended are given back, and keys that nobody uses are swept.

Jobs that wait for permits come sooner when their rate limit became larger or faster, or their key was reset, and are counted.
Whoever changes the limit, or resets a key, moves those that wait. A job that was put off by the numbers of before, and that
nobody had written down by then, is found here; so are all of them where that program ended in between.
"""

import time

from forge_jobs.maintenance.loop import breather
from forge_jobs.storage.interface.permits import Permits
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.telemetry.events import TokensAwaited
from forge_jobs.telemetry.telemetry import Telemetry

BATCH = 1000
LONGEST_REST = 20
"""Keys are walked over again and again, as long as there are any. A look after which all are gone is followed by a rest as long as it
took, one after which half of them are by twice that, and so on, up to so many times.
"""

SHARE = 50
"""A count rests for so many times as long as it took, which is less than a second for a million jobs that wait."""


async def move(storage: Storage) -> None:
    """Make one pass over the rate limits that changed lately, and over the keys that were reset."""
    changed = await storage.limits.changed()
    for scope in changed:
        await storage.permits.moved(scope)
    for scope, key in await storage.permits.reset_lately():
        if scope not in changed:
            await storage.permits.moved(scope, key)


async def give_back(permits: Permits) -> float | None:
    """Make one pass over permits that were kept for jobs which have ended; return when the next should come if there is more."""
    began = time.monotonic()
    return breather(began) if await permits.give_back(limit=BATCH) else None


async def sweep(permits: Permits) -> float | None:
    """Make one look at keys and old permits; return when the next should come if there is more."""
    began = time.monotonic()
    swept = await permits.sweep(limit=BATCH)
    if not swept.is_more:
        return None
    return breather(began) * (min(LONGEST_REST, BATCH / swept.gone) if swept.gone else LONGEST_REST)


class AwaitedTokens:
    """Tells how many jobs wait for tokens of keys, by rate limit, as long as any do."""

    def __init__(self, permits: Permits, telemetry: Telemetry) -> None:
        self._permits = permits
        self._telemetry = telemetry
        self._told: set[str] = set()
        self._rests_until = 0.0  # monotonic

    async def tell(self) -> float | None:
        """Make one look, unless the last one took so long that it rests: return for how many seconds it still does."""
        began = time.monotonic()
        if began < self._rests_until:
            return self._rests_until - began
        waiting = await self._permits.waiting()
        self._rests_until = began + SHARE * breather(began)
        for scope in {*self._told, *waiting}:
            self._telemetry.emit(TokensAwaited(scope, waiting.get(scope, 0)))
        self._told = set(waiting)
        return None
