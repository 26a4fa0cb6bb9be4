"""Waits for the ends of jobs: all of a program share one look, and where the database can tell, one ear.

A young wait is looked after every few milliseconds. One that lasts is announced to the workers, who tell when the job
ends; then it is looked after seldom, in case that nobody did.
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
from typing import TYPE_CHECKING, Any

from forge_jobs.errors import StorageUnavailable, WaitTimeout
from forge_jobs.model.job import EndedJob
from forge_jobs.storage.interface.ends import EXPECTED
from forge_jobs.storage.outage import Outage
from forge_jobs.system.own_task import OwnTask
from forge_jobs.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    from forge_jobs.rules.why import Why
    from forge_jobs.storage.interface.storage import Storage

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
class _Wait:
    """For the end of one job, which many may await. Moments are those of the event loop."""

    job_id: int
    end: "asyncio.Future[EndedJob | None]"  # None: there is no such job
    since: float
    next_at: float
    pause: float = field(default_factory=lambda: FIRST_PAUSE)
    announced_at: float | None = None


class Waits:
    """The waits of one program in one event loop."""

    def __init__(self, storage: "Storage", telemetry: Telemetry, is_open: Callable[[], bool]) -> None:
        self.loop = asyncio.get_running_loop()
        self._storage = storage
        self._telemetry = telemetry
        self._is_open = is_open
        self._outage = Outage("waiting for a job", telemetry)
        self._deafness = Outage("listening for the ends of jobs", telemetry)
        self._waits: dict[int, _Wait] = {}
        self._waiting: Counter[int] = Counter()  # how many await each
        # A heap: when to look after which job. It may name some that are gone, or have another moment by now.
        self._agenda: list[tuple[float, int]] = []
        self._stirred = asyncio.Event()
        self._looking: OwnTask[None] | None = None
        self._listening: OwnTask[None] | None = None
        self._hears = False
        self._resting: asyncio.TimerHandle | None = None

    async def ended(
        self, job_ids: Sequence[int], limit: timedelta | None, why: Callable[[int], Awaitable["Why"]]
    ) -> list[EndedJob | None]:
        """Return how these jobs have ended, once all have; None for those that are not there. Raises WaitTimeout when `limit` is over.

        They are looked at once at least, also when the limit is zero. A database that does not answer is asked again for as
        long as there is time and it is open here.
        """
        futures = {job_id: self._begin(job_id) for job_id in dict.fromkeys(job_ids)}
        try:
            if futures:
                await asyncio.wait(
                    futures.values(),
                    timeout=None if limit is None else limit.total_seconds(),
                    return_when=asyncio.FIRST_EXCEPTION,
                )
            ends = {job_id: future.result() for job_id, future in futures.items() if future.done()}
        finally:
            self._leave(futures)
        if limit is not None and len(ends) < len(futures):
            left = [job_id for job_id in futures if job_id not in ends]
            found, reason = await self._last_look(left, why)
            ends |= found
            for job_id in left:
                if job_id not in ends:
                    raise WaitTimeout(job_id, limit.total_seconds(), reason)
        return [ends[job_id] for job_id in job_ids]

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

    def _begin(self, job_id: int) -> "asyncio.Future[EndedJob | None]":
        self._waiting[job_id] += 1
        self._stay()
        wait = self._waits.get(job_id)
        if wait is None:
            now = self.loop.time()
            wait = self._waits[job_id] = _Wait(job_id, self.loop.create_future(), now, now)
            self._hurry(wait)
            if self._looking is None or self._looking.done():
                self._looking = self._task(self._look(), "waits")
        return wait.end

    def _task(self, coroutine: Coroutine[Any, Any, None], name: str) -> OwnTask[None]:
        """Return a task that is nobody's but ours, also when a handler waits."""
        return OwnTask(coroutine, self._telemetry, name=name, context=Variables())

    def _leave(self, job_ids: Iterable[int]) -> None:
        for job_id in job_ids:
            self._waiting[job_id] -= 1
            if not self._waiting[job_id]:
                del self._waiting[job_id]
                if (wait := self._waits.pop(job_id, None)) is not None:
                    wait.end.cancel()
        if not self._waits:
            self._stirred.set()

    def _hurry(self, wait: _Wait) -> None:
        """The job is looked after at once."""
        wait.next_at = self.loop.time()
        heapq.heappush(self._agenda, (wait.next_at, wait.job_id))
        self._stirred.set()

    async def _look(self) -> None:
        """Look after jobs for as long as somebody waits."""
        while self._waits:
            self._stirred.clear()
            if due := self._due():
                try:
                    await self._look_after(due)
                except Exception as error:
                    if not isinstance(error, StorageUnavailable) or not self._is_open():
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
        """No job is looked after for so many seconds."""
        next_at = self.loop.time() + pause
        for wait in self._waits.values():
            wait.next_at = next_at
        self._agenda = [(next_at, job_id) for job_id in sorted(self._waits)]

    def _due(self) -> list[_Wait]:
        """Return the waits whose turn it is, and those whose turn comes soon after."""
        now = self.loop.time()
        due: dict[int, _Wait] = {}
        while self._agenda:
            at, job_id = self._agenda[0]
            wait = self._waits.get(job_id)
            if wait is not None and at == wait.next_at:
                if at > now + (SHARED * wait.pause if due else 0.0):
                    break
                due[job_id] = wait
                wait.next_at = inf
            heapq.heappop(self._agenda)
        return list(due.values())

    async def _look_after(self, waits: Sequence[_Wait]) -> None:
        await self._announce([wait for wait in waits if self._is_to_be_announced(wait)])
        # After that: who ends a job from now on has heard of the wait, or does so in a moment.
        ends = await self._storage.ends.look([wait.job_id for wait in waits])
        now = self.loop.time()
        is_told = self._storage.ends.are_told
        for wait in waits:
            if wait.job_id in ends:
                if self._waits.get(wait.job_id) is wait:
                    del self._waits[wait.job_id]
                if not wait.end.done():
                    wait.end.set_result(ends[wait.job_id])
                continue
            if wait.next_at < inf:  # it was heard meanwhile that the job has ended
                continue
            if not is_told or now - wait.since > YOUNG:
                wait.pause = min(GROWTH * wait.pause, LONGEST_PAUSE)
                if is_told:
                    self._listen()
            wait.next_at = now + wait.pause
            heapq.heappush(self._agenda, (wait.next_at, wait.job_id))

    def _is_to_be_announced(self, wait: _Wait) -> bool:
        now = self.loop.time()
        if not self._hears or now - wait.since <= YOUNG:
            return False
        return wait.announced_at is None or now - wait.announced_at > ANNOUNCE_AGAIN

    async def _announce(self, waits: Sequence[_Wait]) -> None:
        if waits:
            await self._storage.ends.announce([wait.job_id for wait in waits])
            now = self.loop.time()
            for wait in waits:
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
            self._listening = self._task(self._listen_until_cancelled(), "ear of waits")

    async def _listen_until_cancelled(self) -> None:
        try:
            while True:
                try:
                    await self._storage.wakeups.listen(self._heard)
                except Exception as error:  # looking goes on meanwhile
                    self._unhear()
                    if not self._is_open():
                        return
                    await self._deafness.wait(error)
        finally:
            self._unhear()

    def _heard(self, kind: str, subject: str) -> None:
        if kind == "ended":
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

    async def _last_look(
        self, job_ids: Sequence[int], why: Callable[[int], Awaitable["Why"]]
    ) -> tuple[dict[int, EndedJob | None], str]:
        """Return those that have ended, and the main reason why the first of the others has not; no reason when that
        cannot be learned."""
        ends: dict[int, EndedJob | None] = {}
        with suppress(StorageUnavailable, TimeoutError):
            async with asyncio.timeout(LAST_LOOK.total_seconds()):
                ends |= await self._storage.ends.look(job_ids)
                for job_id in job_ids:
                    if job_id not in ends:
                        reasons = (await why(job_id)).reasons
                        return ends, reasons[0] if reasons else ""
        return ends, ""
