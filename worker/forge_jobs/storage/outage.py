"""An outage: what a loop does while the database does not answer.

Every loop of a worker holds one. It waits longer each time, tells telemetry, and says
when the database is back; so a worker survives an outage of any length without a restart.

The loops of one process wait together: while one of them asks soon, the others wait the longer the more of them there are, and
the first one that is answered wakes all others.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from math import inf
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from forge_jobs.errors import (
    ForgeError,
    StorageBusy,
    StorageContended,
    StorageUnavailable,
    StorageUnusable,
)
from forge_jobs.telemetry.events import ChoreFailed, DatabaseBack, DatabaseLost
from forge_jobs.telemetry.telemetry import Telemetry

FIRST_WAIT = 0.1
LONGEST_WAIT = 5.0
LONGEST_TOGETHER = 30.0  # of one of many loops
SPREAD = 0.2  # of a wait, more or less: so that a hundred workers do not come back at once
MOST_SPREAD = (1 + SPREAD) / (1 - SPREAD)

T = TypeVar("T")


class _Together:
    """The loops that wait for one database."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], float] = {}  # monotonic: until when each waits

    def pause(self, alone: float) -> float:
        """Return how many seconds one more of them waits, which would wait for so many alone. One of them always asks as soon as that."""
        soon = time.monotonic() + MOST_SPREAD * alone
        if not any(until <= soon for until in self._waiting.values()):
            return alone
        return max(alone, min(alone * (1 + len(self._waiting)), LONGEST_TOGETHER))

    async def wait(self, seconds: float) -> None:
        """Return after so many seconds, or when another one was answered."""
        answered = asyncio.get_running_loop().create_future()
        self._waiting[answered] = time.monotonic() + seconds
        try:
            async with asyncio.timeout(seconds):
                await answered
        except TimeoutError:
            pass
        finally:
            del self._waiting[answered]

    def answered(self) -> None:
        """All of them try again."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)


_together: "WeakKeyDictionary[Telemetry, _Together]" = WeakKeyDictionary()


class Outage:
    """Waits between the tries of one loop, `doing` this."""

    def __init__(self, doing: str, telemetry: Telemetry) -> None:
        self._doing = doing
        self._telemetry = telemetry
        self._together = _together.setdefault(telemetry, _Together())
        self._wait = FIRST_WAIT
        self.since: float | None = (
            None  # monotonic: of the first of the tries that went wrong; None: the last went well
        )
        self.error: str | None = None  # of the last of them

    async def wait(self, error: Exception, *, at_most: float = inf) -> None:
        """Say what went wrong, and return when it is time to try again, after `at_most` so many seconds."""
        if isinstance(error, StorageUnavailable) and not isinstance(error, StorageBusy | StorageUnusable):
            await self._together.wait(self._failed(error, at_most, self._together.pause))
        else:
            await asyncio.sleep(self.failed(error, at_most=at_most))

    def failed(self, error: Exception, *, at_most: float = inf) -> float:
        """Say what went wrong. Return in how many seconds it is time to try again, at most in so many."""
        return self._failed(error, at_most, lambda alone: alone)

    def _failed(self, error: Exception, at_most: float, longer: Callable[[float], float]) -> float:
        if self.since is None:
            self.since = time.monotonic()
        self.error = str(error) or type(error).__name__
        pause = self._wait * random.uniform(1 - SPREAD, 1 + SPREAD)
        pause = min(longer(pause), at_most)
        self._wait = min(self._wait * 2, LONGEST_WAIT)
        if isinstance(error, ForgeError) and not isinstance(error, StorageContended):
            self._telemetry.emit(DatabaseLost(self._doing, str(error), pause))
        else:
            self._telemetry.emit(ChoreFailed(self._doing, error, pause))
        return pause

    async def until_answered(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what `call` returns, however long the database is away. Raises what waiting does not cure."""
        while True:
            try:
                result = await call()
            except StorageUnusable:
                raise
            except StorageUnavailable as error:
                await self.wait(error)
            else:
                self.over()
                return result

    def over(self) -> None:
        """The last try went well."""
        if self.since is not None:
            self._telemetry.emit(DatabaseBack(self._doing, time.monotonic() - self.since))
            self.since = self.error = None
            self._wait = FIRST_WAIT
            self._together.answered()


async def unless(asked: asyncio.Event, something: Coroutine[Any, Any, Any]) -> None:
    """Await `something`, but no longer than until `asked` is set."""
    doing, asking = asyncio.ensure_future(something), asyncio.ensure_future(asked.wait())
    try:
        await asyncio.wait((doing, asking), return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            doing.result()
    finally:
        for task in (doing, asking):
            task.cancel()
        await asyncio.gather(doing, asking, return_exceptions=True)
