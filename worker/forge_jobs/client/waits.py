"""Waits for the ends of jobs, or of flows: all of a program share one look, and where the database can tell, one ear.

A young wait is looked after every few milliseconds. One that lasts is announced, to the workers or in the flow, and whoever ends it
tells; then it is looked after seldom, in case that nobody did.
"""

import asyncio
import heapq
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from contextvars import Context as Variables
from dataclasses import dataclass, field
from datetime import timedelta
from math import inf
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from forge_jobs.errors import ForgeError, StorageUnavailable, StorageUnusable, WaitTimeout
from forge_jobs.storage.interface.ends import EXPECTED, AwaitedEnds
from forge_jobs.storage.outage import Outage
from forge_jobs.system.own_task import OwnTask
from forge_jobs.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    from forge_jobs.rules.why import Why
    from forge_jobs.storage.interface.wakeups import Wakeups

T = TypeVar("T")
Reason = Callable[[int], Awaitable[str]]
"""Says of one that is waited for why it has not ended; "": that is not known."""

FIRST_PAUSE = 0.005  # seconds between two looks after a job
LONGEST_PAUSE = 0.5  # ... also where workers tell: one that came after the announcement has not heard of it
GROWTH = 1.5  # of the pause
YOUNG = 0.05  # seconds: a job that ends before that is found by looking alone
SHARED = 0.25  # of its pause: so much earlier a job is looked after together with others
ANNOUNCE_AGAIN = EXPECTED.total_seconds() / 3
LINGER = 30.0  # seconds for which an ear stays that nobody needs
LAST_LOOK = timedelta(seconds=1)
"""For the last question, when the time is over: has the job ended, and if not, why?"""


@dataclass(slots=True)
class _Wait(Generic[T]):
    """For the end of one of them, which many may await. Moments are those of the event loop."""

    id: int
    end: "asyncio.Future[T | None]"  # None: there is none of this id
    since: float
    next_at: float
    pause: float = field(default_factory=lambda: FIRST_PAUSE)
    announced_at: float | None = None


class Waits(Generic[T]):
    """The waits of one program in one event loop for what `ends` tells of."""

    def __init__(
        self,
        ends: AwaitedEnds[T],
        wakeups: "Wakeups",
        telemetry: Telemetry,
        is_open: Callable[[], bool],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._ends, self._wakeups = ends, wakeups
        self._telemetry = telemetry
        self._is_open = is_open
        self._outage = Outage(f"waiting for a {ends.subject}", telemetry)
        self._deafness = Outage(f"listening for the ends of {ends.subject}s", telemetry)
        self._waits: dict[int, _Wait[T]] = {}
        self._waiting: Counter[int] = Counter()  # how many await each
        # A heap: when to look after which. It may name some that are gone, or have another moment by now.
        self._agenda: list[tuple[float, int]] = []
        self._stirred = asyncio.Event()
        self._looking: OwnTask[None] | None = None
        self._listening: OwnTask[None] | None = None
        self._hears = False
        self._resting: asyncio.TimerHandle | None = None

    async def ended(self, ids: Sequence[int], limit: timedelta | None, why: Reason) -> list[T | None]:
        """Return how these have ended, once all have; None for those that are not there. Raises WaitTimeout when `limit` is over.

        They are looked at once at least, also when the limit is zero. A database that does not answer is asked again for as
        long as there is time and it is open here. Raises StorageUnusable, which waiting does not cure.
        """
        futures = {one: self._begin(one) for one in dict.fromkeys(ids)}
        try:
            if futures:
                await asyncio.wait(
                    futures.values(),
                    timeout=None if limit is None else limit.total_seconds(),
                    return_when=asyncio.FIRST_EXCEPTION,
                )
            ends = {one: future.result() for one, future in futures.items() if future.done()}
        finally:
            self._leave(futures)
        if limit is not None and len(ends) < len(futures):
            left = [one for one in futures if one not in ends]
            found, reason = await self._last_look(left, why)
            ends |= found
            for one in left:
                if one not in ends:
                    what = self._ends.subject.capitalize()
                    raise WaitTimeout(one, limit.total_seconds(), reason, what)
        return [ends[one] for one in ids]

    async def close(self) -> None:
        """Nobody listens any more, and who still waits is told that the database is not open."""
        if self._listening is not None:
            self._listening.tell()
        for wait in self._waits.values():
            self._hurry(wait)
        for task in (self._listening, self._looking):
            if task is not None:
                await asyncio.gather(task, return_exceptions=True)
        self._stay()

    def _begin(self, one: int) -> "asyncio.Future[T | None]":
        self._waiting[one] += 1
        self._stay()
        wait = self._waits.get(one)
        if wait is None:
            now = self.loop.time()
            wait = self._waits[one] = _Wait(one, self.loop.create_future(), now, now)
            self._hurry(wait)
            if self._looking is None or self._looking.done():
                self._looking = self._task(self._look(), f"waits for {self._ends.subject}s")
        return wait.end

    def _task(self, coroutine: Coroutine[Any, Any, None], name: str) -> OwnTask[None]:
        """Return a task that is nobody's but ours, also when a handler waits."""
        return OwnTask(coroutine, self._telemetry, name=name, context=Variables())

    def _leave(self, ids: Iterable[int]) -> None:
        for one in ids:
            self._waiting[one] -= 1
            if not self._waiting[one]:
                del self._waiting[one]
                if (wait := self._waits.pop(one, None)) is not None:
                    wait.end.cancel()
        if not self._waits:
            self._stirred.set()

    def _hurry(self, wait: _Wait[T]) -> None:
        """It is looked after at once."""
        wait.next_at = self.loop.time()
        heapq.heappush(self._agenda, (wait.next_at, wait.id))
        self._stirred.set()

    async def _look(self) -> None:
        """Look after them for as long as somebody waits."""
        while self._waits:
            self._stirred.clear()
            if due := self._due():
                try:
                    await self._look_after(due)
                except Exception as error:
                    is_outage = isinstance(error, StorageUnavailable) and not isinstance(
                        error, StorageUnusable
                    )
                    if not is_outage or not self._is_open():
                        self._fail(error)
                        break
                    self._put_off(self._outage.failed(error))
                else:
                    self._outage.over()
            next_at = self._agenda[0][0] if self._agenda else self.loop.time() + LONGEST_PAUSE
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, next_at - self.loop.time())):
                    await self._stirred.wait()
        self._agenda.clear()
        self._stay()
        self._resting = self.loop.call_later(LINGER, self._rest)

    def _put_off(self, pause: float) -> None:
        """None is looked after for so many seconds."""
        next_at = self.loop.time() + pause
        for wait in self._waits.values():
            wait.next_at = next_at
        self._agenda = [(next_at, one) for one in sorted(self._waits)]

    def _due(self) -> list[_Wait[T]]:
        """Return the waits whose turn it is, and those whose turn comes soon after."""
        now = self.loop.time()
        due: dict[int, _Wait[T]] = {}
        while self._agenda:
            at, one = self._agenda[0]
            wait = self._waits.get(one)
            if wait is not None and at == wait.next_at:
                if at > now + (SHARED * wait.pause if due else 0.0):
                    break
                due[one] = wait
                wait.next_at = inf
            heapq.heappop(self._agenda)
        return list(due.values())

    async def _look_after(self, waits: Sequence[_Wait[T]]) -> None:
        await self._announce([wait for wait in waits if self._is_to_be_announced(wait)])
        # After that: who ends one from now on has heard of the wait, or does so in a moment.
        ends = await self._ends.look([wait.id for wait in waits])
        now = self.loop.time()
        is_told = self._ends.are_told
        for wait in waits:
            if wait.id in ends:
                if self._waits.get(wait.id) is wait:
                    del self._waits[wait.id]
                if not wait.end.done():
                    wait.end.set_result(ends[wait.id])
                continue
            if wait.next_at < inf:  # it was heard meanwhile that it has ended
                continue
            if not is_told or now - wait.since > YOUNG:
                wait.pause = min(GROWTH * wait.pause, LONGEST_PAUSE)
                if is_told:
                    self._listen()
            wait.next_at = now + wait.pause
            heapq.heappush(self._agenda, (wait.next_at, wait.id))

    def _is_to_be_announced(self, wait: _Wait[T]) -> bool:
        now = self.loop.time()
        if not self._hears or now - wait.since <= YOUNG:
            return False
        return wait.announced_at is None or now - wait.announced_at > ANNOUNCE_AGAIN

    async def _announce(self, waits: Sequence[_Wait[T]]) -> None:
        told: set[int] = set()
        if waits:
            with suppress(ForgeError):  # then looking is the only means, and says it if nothing answers
                told.update(await self._ends.announce([wait.id for wait in waits]))
        now = self.loop.time()
        for wait in waits:
            if wait.id in told:
                wait.announced_at = now

    def _fail(self, error: Exception) -> None:
        """Whoever waits gets this error."""
        waits, self._waits = self._waits, {}
        self._agenda.clear()
        for wait in waits.values():
            if not wait.end.done():
                wait.end.set_exception(error)
                wait.end.exception()  # of many, one is raised

    def _listen(self) -> None:
        if self._listening is None or self._listening.done():
            self._listening = self._task(
                self._listen_until_cancelled(), f"ear of waits for {self._ends.subject}s"
            )

    async def _listen_until_cancelled(self) -> None:
        try:
            while True:
                try:
                    await self._wakeups.listen(self._heard)
                except Exception as error:  # looking goes on meanwhile
                    self._unhear()
                    if not self._is_open():
                        return
                    await self._deafness.wait(error)
        finally:
            self._unhear()

    def _heard(self, kind: str, subject: str) -> None:
        if kind == self._ends.notice:
            for text in subject.split(","):
                if text.isdigit() and (wait := self._waits.get(int(text))) is not None:
                    self._hurry(wait)
        elif kind == "reconnect":
            self._unhear()
            self._hears = True
            self._deafness.over()
            for wait in self._waits.values():
                self._hurry(wait)

    def _unhear(self) -> None:
        """What was announced may not be heard of any more."""
        self._hears = False
        for wait in self._waits.values():
            wait.announced_at = None

    def _stay(self) -> None:
        """The ear is not given up yet."""
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    def _rest(self) -> None:
        """The ear is given up when nobody waits."""
        if not self._waits and self._listening is not None:
            self._listening.tell()

    async def _last_look(self, ids: Sequence[int], why: Reason) -> tuple[dict[int, T | None], str]:
        """Return those that have ended, and why the first of the others has not; no reason when that cannot be learned."""
        ends: dict[int, T | None] = {}
        try:
            async with asyncio.timeout(LAST_LOOK.total_seconds()):
                ends |= await self._ends.look(ids)
        except StorageUnusable:
            raise
        except (StorageUnavailable, TimeoutError):
            return ends, ""
        with suppress(StorageUnavailable, TimeoutError):
            async with asyncio.timeout(LAST_LOOK.total_seconds()):
                for one in ids:
                    if one not in ends:
                        return ends, await why(one)
        return ends, ""


def main_reason(why: "Callable[[int], Awaitable[Why]]") -> Reason:
    """Return what says the main reason why a job has not ended."""

    async def reason(job_id: int) -> str:
        reasons = (await why(job_id)).reasons
        return reasons[0] if reasons else ""

    return reason
