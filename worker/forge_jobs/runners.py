"""Runners: a fixed number of tasks that take jobs from the hand and run their handlers.

`claimer` fills the hand, `recorder` takes the verdicts. A runner awaits handlers itself
instead of making a task for each job, which would cost more than a short job does.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from forge_jobs.app import Forge
from forge_jobs.attempt import (
    Attempt,
    Record,
    Stop,
    Verdict,
    call,
    dead,
    done,
    failed,
    judge,
    refused,
    released,
)
from forge_jobs.children import Children
from forge_jobs.context import Context, Tokens
from forge_jobs.errors import InvalidPayload, StorageUnavailable
from forge_jobs.handlers import Placement
from forge_jobs.job import CANCELLED_BY_USER, Claim
from forge_jobs.logs import current_claim, current_queue
from forge_jobs.returned import PLAIN, settled
from forge_jobs.served import ServedQueue
from forge_jobs.telemetry import JobStarted, Outcome
from forge_jobs.uptime import uptime

AHEAD = 0.05  # seconds of work that are claimed ahead
MOST_AHEAD = 500  # jobs
LONG_JOB = 0.2  # seconds of mean run time from which nothing is claimed ahead
BREATH = 0.002  # seconds after which a runner lets others have the loop
MOST_LEFT_BEHIND = 1000  # threads whose attempt is over
SECOND_WORD = 1.0  # seconds that a handler has after it was stopped once more


class Threads(ThreadPoolExecutor):
    """Threads for plain handlers, made as they are needed, which know the calls that have not ended.

    There may be more than `count`: one whose attempt is over, and which did not look
    whether it should end, keeps its thread, and those after it shall not wait for that.
    """

    def __init__(self, count: int) -> None:
        super().__init__(count + MOST_LEFT_BEHIND, thread_name_prefix="forge-jobs")
        self.calls: set[Future[Any]] = set()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        call = super().submit(function, *args, **kwargs)
        self.calls.add(call)
        call.add_done_callback(self.calls.discard)
        return call


class Runners:
    """`count` handlers at most run at once. Moments are the event loop's monotonic seconds."""

    def __init__(
        self,
        count: int,
        forge: Forge,
        tokens: Tokens,
        record: Record,
        hungry: Callable[[], None],
        clock_offset: float,
    ) -> None:
        self.count = count
        self.running: dict[int, Attempt] = {}
        self.fence_at = float("inf")  # an `uptime`: from then on no handler is started
        self.clock_offset = clock_offset  # seconds that the database's clock is ahead of ours
        self._forge = forge
        self._handlers = forge.handlers
        self._telemetry = forge.telemetry
        self._tokens = tokens
        self._record = record
        self._hungry = hungry
        self._low = 0  # so few in hand that more should be claimed
        self._reading: dict[int, tuple[Claim, ServedQueue]] = {}  # by job, those whose payload is being read
        self._hand: deque[tuple[Claim, ServedQueue]] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._mean: float | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = Threads(count)
        self._processes = Children()
        self._ended = asyncio.Event()
        self._closed = False
        self._context = copy_context()  # that every job begins with

    @property
    def in_hand(self) -> int:
        """Jobs that run, or wait here to be run."""
        return len(self._hand) + len(self._reading) + len(self.running)

    @property
    def free(self) -> int:
        """Handlers that could be started at once."""
        return max(0, self.count - self.in_hand)

    @property
    def ahead(self) -> int:
        """How many jobs to claim ahead of those that run, by how long a job takes."""
        if self._mean is None or self._mean > LONG_JOB:
            return 0
        return min(MOST_AHEAD, int(self.count * AHEAD / max(self._mean, 1e-6)))

    def wanted(self) -> int:
        """How many more jobs should be claimed now; few are not worth a statement."""
        ahead = self.ahead
        self._low = ahead // 2
        if len(self._hand) > self._low:
            return 0
        return max(0, self.count + ahead - self.in_hand)

    def start(self) -> None:
        """Runners wait for jobs."""
        for _ in range(self.count):
            self._spawn()

    def add(self, queue: ServedQueue, claims: Iterable[Claim]) -> None:
        """These jobs will be run, in this order."""
        before = len(self._hand)
        self._hand.extend((claim, queue) for claim in claims)
        for _ in range(min(len(self._hand) - before, len(self._idle))):
            waiting = self._idle.popleft()
            if not waiting.done():
                waiting.set_result(None)

    def take_back(self) -> list[tuple[Claim, ServedQueue]]:
        """Return the jobs that no handler has begun; they are no longer in hand."""
        hand = [*self._reading.values(), *self._hand]
        self._reading.clear()
        self._hand.clear()
        return hand

    def slow_down(self) -> None:
        """Nothing is claimed ahead until jobs are seen to be short again."""
        self._mean = 2 * LONG_JOB

    def stop(self, why: Stop) -> None:
        """Every handler is told to stop."""
        for attempt in list(self.running.values()):
            attempt.stop(why)

    def cancel(self, job_id: int) -> None:
        """A user cancelled the job: its handler is told to stop, or it is dead without having been begun."""
        if attempt := self.running.get(job_id):
            attempt.stop(Stop.CANCELLED)
            return
        if job_id in self._reading:
            claim, queue = self._reading.pop(job_id)
            self._record(dead(claim, queue.config, CANCELLED_BY_USER, outcome=Outcome.CANCELLED))
            return
        for place, (claim, queue) in enumerate(self._hand):
            if claim.job_id == job_id:
                del self._hand[place]
                self._record(dead(claim, queue.config, CANCELLED_BY_USER, outcome=Outcome.CANCELLED))
                return

    async def ended(self, within: float) -> bool:
        """Whether all handlers ended within this many seconds."""
        try:
            async with asyncio.timeout(within):
                while self.running:
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> int:
        """No job is begun any more. Return how many handlers ignored being stopped: those are left behind."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=SECOND_WORD)
        await self._processes.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        return len(self._tasks) + len(self._threads.calls)

    def _spawn(self) -> None:
        task = asyncio.create_task(self._runner(), name="runner", context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _runner(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        current_claim.set(None)
        current_queue.set(None)
        clean = copy_context()
        breath = time.monotonic()
        while not self._closed:
            while not self._hand:
                waiting = asyncio.get_running_loop().create_future()
                self._idle.append(waiting)
                await waiting
                breath = time.monotonic()
            if len(self._hand) - 1 <= self._low:
                self._hungry()
                if len(self._hand) - 1 == self._low:
                    await asyncio.sleep(0)  # the next claim is on its way while the rest runs
                    if not self._hand:
                        continue
            claim, queue = self._hand.popleft()
            await self._perform(task, claim, queue)
            current_claim.set(None)
            current_queue.set(None)
            if copy_context() != clean:  # a handler set a context variable: no other job may see it
                self._spawn()
                return
            if time.monotonic() - breath > BREATH:
                await asyncio.sleep(0)
                breath = time.monotonic()

    def _took(self, seconds: float) -> None:
        self._mean = seconds if self._mean is None else self._mean + (seconds - self._mean) * 0.05

    async def _has_payload(self, claim: Claim, queue: ServedQueue) -> bool:
        """Read the large payload of a job that is about to begin. False: it is no longer in hand."""
        began = time.monotonic()
        read = self._reading[claim.job_id] = claim, queue
        verdict: Verdict | None = released(claim, queue.config)
        try:
            claim.payload = await self._forge.storage.claims.payload(claim)
            if claim.payload is not None:
                verdict = None
                self._took(time.monotonic() - began)  # as long as it takes, no more should be claimed ahead
        except StorageUnavailable:
            pass
        except Exception as error:
            verdict = failed(claim, queue.config, f"its payload could not be read: {error}")
        finally:
            is_in_hand = self._reading.get(claim.job_id) is read
            if is_in_hand:
                del self._reading[claim.job_id]
                if verdict is not None:
                    self._record(verdict)
        return is_in_hand and verdict is None

    async def _perform(self, task: "asyncio.Task[None]", claim: Claim, queue: ServedQueue) -> None:
        if claim.payload is None and not await self._has_payload(claim, queue):
            return
        if uptime() > self.fence_at:
            self._record(
                released(claim, queue.config)
            )  # others may have it by now; the session ends in a moment
            return
        started = time.monotonic()
        config = queue.config
        wait = max(0.0, time.time() + self.clock_offset - claim.pos / 1_000_000)
        handler = self._handlers[claim.kind]
        try:
            arguments = handler.arguments.decode(claim.payload or b"", claim.codec)
            claim.payload = b""  # a large one would be kept until the outcome is recorded
        except InvalidPayload as error:
            self._record(refused(claim, config, error, wait))
            return
        if claim.timeout is None and config.timeout is not None:
            claim.timeout = config.timeout.total_seconds()  # for this attempt: the next asks the queue again
        context = Context(claim, config.name, self._forge, self._tokens)
        attempt = self.running[claim.job_id] = Attempt(claim, context, task)
        timer = (
            None
            if claim.timeout is None
            else asyncio.get_running_loop().call_later(claim.timeout, attempt.stop, Stop.TIMED_OUT)
        )
        current_claim.set(claim)
        current_queue.set(config.name)
        if self._telemetry.wants_starts:
            self._telemetry.emit(JobStarted(claim, config.name))
        try:
            if handler.placement is Placement.LOOP:
                result = await (
                    handler.function(context, **arguments)
                    if handler.takes_context
                    else handler.function(**arguments)
                )
            else:
                result = await call(handler, context, arguments, self._threads, self._processes)
            if type(result) not in PLAIN:
                result = await settled(result)
            verdict = done(claim, queue.config, claim.codec, result, wait, time.monotonic() - started)
        except asyncio.CancelledError as error:
            if attempt.stopped is None and task.cancelling():
                raise  # the runner itself ends
            verdict = judge(claim, queue.config, error, attempt.stopped, wait, time.monotonic() - started)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever a handler raises is its job's business only
            verdict = judge(claim, queue.config, error, attempt.stopped, wait, time.monotonic() - started)
        finally:
            self.running.pop(claim.job_id, None)
            if timer is not None:
                timer.cancel()
            if not self.running:
                self._ended.set()
        if attempt.stopped is not None:
            while task.cancelling():
                task.uncancel()
        self._took(verdict.run.duration)
        self._record(verdict)
