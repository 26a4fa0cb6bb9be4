"""Jobs that wait for permits of a rate limit come sooner when it became larger or faster, or their key was reset, and are counted.

Whoever changes the limit, or resets a key, moves those that wait. A job that was put off by the numbers of before, and that nobody
had written down by then, is found here; so are all of them where that program ended in between.
"""

import time

from forge_jobs.maintenance.loop import breather
from forge_jobs.storage.interface.permits import Permits
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.telemetry.events import TokensAwaited
from forge_jobs.telemetry.telemetry import Telemetry

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
