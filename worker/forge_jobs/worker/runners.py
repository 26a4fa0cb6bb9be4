"""Runners: a fixed number of tasks that take jobs from the hand and run their handlers.

`claimer` fills the `hand`, `recorder` takes the verdicts. A runner awaits handlers itself
instead of making a task for each job, which would cost a tenth of what a short job does.
So something of one job could reach the next through the task: a runner in which something may have stayed
behind ends, and a fresh one takes its place.

However a runner is left, its job gets a verdict: from `_perform`, or
from `_left` when even that failed, or from `_give_up` when the handler ignores that it
was told to stop. A job that is in no hand all the same is found by `audit`.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from contextvars import Context as Variables
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any

from forge_jobs.errors import InvalidPayload, MissingCodec, StorageUnavailable
from forge_jobs.forge import Forge
from forge_jobs.handlers.context import Context
from forge_jobs.handlers.context_tokens import ProcessTokens
from forge_jobs.handlers.handler import Handler
from forge_jobs.handlers.placement import Placement
from forge_jobs.model.decision import HandedBack
from forge_jobs.model.error_text import describe
from forge_jobs.model.job import CANCELLED_BY_USER, NOBODY, Claim
from forge_jobs.model.run import Outcome
from forge_jobs.rules.returned import PLAIN, settled
from forge_jobs.rules.verdict import Stop, Verdict, dead, done, failed, handed_back, judge, refused
from forge_jobs.system import exits
from forge_jobs.system.own_task import OwnTask
from forge_jobs.system.threads import Threads
from forge_jobs.system.uptime import uptime
from forge_jobs.telemetry.current_job import current_job
from forge_jobs.telemetry.events import GraceLost, HandlerStuck, JobStarted, RunnerReplaced, StuckHandlerEnded
from forge_jobs.worker.attempt import Attempt, call, given_up, goes_on, left, limited, retries_of
from forge_jobs.worker.calls import calls
from forge_jobs.worker.children import Children
from forge_jobs.worker.completions import HandlerCompletions
from forge_jobs.worker.extra_slots import ExtraSlot
from forge_jobs.worker.hand import Hand
from forge_jobs.worker.held import HeldClaims
from forge_jobs.worker.nodes import NodeRun
from forge_jobs.worker.progress import ProgressWriter
from forge_jobs.worker.recorder import Recorder
from forge_jobs.worker.served_queue import ServedQueue
from forge_jobs.worker.unreadable import UnreadableJobs

IN_LOOP = Placement.LOOP  # a look-up in an Enum is slower than one thinks
OPEN = frozenset({"json", "msgpack"})  # codecs that hide nothing

YIELD_AFTER = 0.002  # seconds after which a runner lets others have the loop
TELL_EVERY = 5.0  # seconds until a handler that goes on is told to stop again
TELLS = 2  # how often a handler is told in vain before another runner takes its place
SECOND_CANCEL_TIMEOUT = 1.0  # seconds that a handler has after it was stopped once more


class Runners:
    """At most `count` handlers run at once. Moments are the event loop's monotonic seconds."""

    def __init__(
        self,
        count: int,
        forge: Forge,
        hand: Hand,
        held: HeldClaims,
        tokens: ProcessTokens,
        reports: ProgressWriter,
        recorder: Recorder,
        clock_offset: float,
    ) -> None:
        self.count = count
        self.stuck: set[Attempt] = set()  # attempts that have their verdict, but whose handlers go on
        self._hand, self._running, self._held = hand, hand.running, held
        self._fence_at = float("inf")  # an `uptime`: from then on no handler is started
        self._clock_offset = clock_offset  # seconds that the database's clock is ahead of ours
        self._forge, self._handlers = forge, forge.handlers.by_kind
        self._calls = calls(forge, hand.running, self._outside)
        self._telemetry = forge.telemetry
        self._tokens, self._has_paid, self._pays = tokens, tokens.has_paid, tokens.pays
        self._reports, self._record = reports, hand.record
        self._completions = HandlerCompletions(forge.storage, forge.telemetry, reports)
        self._recorder, self._unreadable = recorder, UnreadableJobs(forge.telemetry)
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = Threads(count)
        self._processes = Children(self._telemetry, forge.settings.processes)
        self._ended = asyncio.Event()  # all handlers, once somebody waits for that
        self._is_waited_for = self._closed = False
        self._context = copy_context()  # that every job begins with
        self._loop = asyncio.get_running_loop()
        self._owner = asyncio.current_task()  # when it is cancelled, everything that runs here is cancelled

    @property
    def alive(self) -> int:
        """How many runners wait for jobs or run them: `count`, unless something is very wrong."""
        return sum(not task.done() for task in self._tasks)

    def start(self) -> None:
        """Runners wait for jobs."""
        for _ in range(self.count):
            self._spawn()

    def fence(self, moment: float) -> None:
        """From this `uptime` on no handler is started: others may have the jobs by then."""
        self._fence_at = moment

    def stop(self, why: Stop) -> None:
        """Every handler is told to stop."""
        for attempt in list(self._running.values()):
            self._stop(attempt, why)

    def cancel(self, job_id: int) -> None:
        """A user cancelled the job: its handler is told to stop; a job that was not begun is dead."""
        if attempt := self._running.get(job_id):
            self._stop(attempt, Stop.CANCELLED)
            return
        if dropped := self._hand.drop(job_id):
            claim, queue = dropped
            self._record(dead(claim, queue.config, CANCELLED_BY_USER, outcome=Outcome.CANCELLED))

    def exited(self, claim: Claim, error: BaseException) -> None:
        """A callback, timer or task of this job's handler would have ended the process: the attempt fails, if it still runs."""
        attempt = self._running.get(claim.job_id)
        if attempt is not None and attempt.claim is claim and attempt.exited is None:
            attempt.exited = error
            self._stop(attempt, Stop.EXITED)

    async def stop_disowned(self) -> None:
        """Jobs with a claim that is NOBODY's are not begun, and their handlers were told to stop and had the time to."""
        for claim, queue in self._hand.take_back():
            if claim.worker_id == NOBODY:
                self._record(handed_back(claim, queue.config))
            else:
                self._hand.add(queue, [claim])
        disowned = [attempt for attempt in self._running.values() if attempt.claim.worker_id == NOBODY]
        for attempt in disowned:
            self._stop(attempt, Stop.UNKNOWN)
        until = time.monotonic() + SECOND_CANCEL_TIMEOUT
        while (
            any(self._running.get(attempt.claim.job_id) is attempt for attempt in disowned)
            and time.monotonic() < until
        ):
            await asyncio.sleep(0.01)

    async def ended(self, within: float) -> bool:
        """Whether all handlers ended within this many seconds."""
        self._is_waited_for = True
        try:
            async with asyncio.timeout(within):
                while self._running:
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            return False
        return True

    async def give_up(self) -> None:
        """No handler is waited for any more: each is told to stop once more, and then every job that still runs gets its verdict."""
        for attempt in list(self._running.values()):
            attempt.tell()
        await self.ended(SECOND_CANCEL_TIMEOUT)
        self._closed = True
        for attempt in list(self._running.values()):
            self._give_up(attempt)

    async def close(self) -> int:
        """No job is begun any more. Return how many handlers ignored being stopped: those are left behind."""
        self._closed = True
        tasks = [*self._tasks, *(attempt.task for attempt in self.stuck)]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=SECOND_CANCEL_TIMEOUT)
        await self._processes.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        return sum(not task.done() for task in tasks) + len(self._threads.calls)

    def _spawn(self) -> None:
        task = OwnTask(self._runner(), self._telemetry, name="runner", context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._left, context=self._context)

    async def _runner(self) -> None:
        task = asyncio.current_task()
        assert isinstance(task, OwnTask)
        current_job.set(None)
        others = [variable for variable in copy_context().items() if variable[0] is not current_job]
        hand, waiting, recorder = self._hand, self._hand.waiting, self._recorder
        references, cancelling = sys.getrefcount, task.cancelling
        alone = references(task)
        yielded_at = uptime()
        while not self._closed:
            while not waiting:
                await hand.arrival()
                yielded_at = uptime()
            if recorder.is_full:
                await recorder.has_room()
                continue
            if len(waiting) - 1 <= hand.low:
                hand.hungry()
                if len(waiting) - 1 == hand.low:
                    await asyncio.sleep(0)  # the next claim is on its way while the rest runs
                    if not waiting:
                        continue
            claim, queue = waiting.popleft()
            if type(claim) is ExtraSlot:
                await hand.extra.keep(claim, lambda: self._is_cancelled)
                ended_at = uptime()
            else:
                ended_at = await self._perform(task, claim, queue)
            # Code that still holds the task may cancel it, whenever a timer fires; a cancellation may wait in it
            # already, before Python 3.13 also one that was taken back; and no other job may see the context
            # variables that a handler set.
            if (
                references(task) != alone
                or cancelling()
                or task._must_cancel  # type: ignore[attr-defined]
                or len(variables := copy_context()) != len(others) + 1
                or (others and _has_another(variables, others))
            ):
                self._replace(task)
                return
            if ended_at - yielded_at > YIELD_AFTER:
                await asyncio.sleep(0)
                yielded_at = uptime()

    async def _has_payload(self, claim: Claim, queue: ServedQueue) -> bool:
        """Read the large payload of a job that is about to begin. False: it is no longer in hand."""
        began = time.monotonic()
        self._hand.reads(claim, queue)
        verdict: Verdict | None = handed_back(claim, queue.config)
        try:
            claim.payload = await self._forge.storage.claims.payload(claim)
            if claim.payload is not None:
                verdict = None
                self._hand.took(time.monotonic() - began)  # meanwhile no more should be claimed ahead
        except StorageUnavailable:
            pass
        except Exception as error:
            verdict = failed(claim, queue.config, f"its payload could not be read: {error}")
        finally:
            is_in_hand = self._hand.has_read(claim)
            if is_in_hand and verdict is not None:
                self._record(verdict)
        return is_in_hand and verdict is None

    async def _perform(self, task: "OwnTask[None]", claim: Claim, queue: ServedQueue) -> float:
        """Run one job; it has a verdict afterwards, whatever its handler and the program's types do. Return the `uptime`
        at which its handler ended.
        """
        if claim.payload is None and not await self._has_payload(claim, queue):
            return uptime()
        config = queue.config
        started = uptime()
        if started > self._fence_at:  # others may have it by now; the session ends in a moment
            self._record(handed_back(claim, config))
            return started
        wait = time.time() + self._clock_offset - (claim.pos / 1e6 if claim.links is None else claim.since)
        if wait < 0.0:  # two clocks were compared
            wait = 0.0
        attempt = self._running[claim.job_id] = Attempt(claim, queue, task, started, wait)
        timer: asyncio.TimerHandle | None = None
        current_job.set((claim, config.name))  # until the next one's
        task.claim = claim
        try:
            handler = self._calls[claim.kind]
            node = (
                None if claim.node is None else NodeRun(claim.node, claim, config.name, handler, self._forge)
            )
            if claim.read is None:
                arguments = (node or handler.arguments).decode(claim.payload or b"", claim.codec)
            else:
                arguments, claim.read = handler.arguments.named(claim.read), None
            claim.payload = b""  # a large one would be kept until the outcome is recorded
            if handler.redact or claim.codec not in OPEN or handler.arguments.codec not in OPEN:
                attempt.hide(handler.arguments.hidden(claim.codec), arguments)
            if claim.timeout is None and config.timeout is not None:  # the next attempt asks the queue again
                claim.timeout = config.timeout.total_seconds()
            if claim.limits is not None:
                timer = limited(attempt, claim.limits, self._stop)
            elif claim.timeout is not None:
                timer = self._loop.call_later(claim.timeout, self._stop, attempt, Stop.TIMED_OUT)
            if self._telemetry.wants_starts:
                self._telemetry.emit(JobStarted(claim, config.name))
            attempt.has_begun = task.is_in_handler = True
            if node is not None and not node.is_called:
                result = node.result
            elif handler.placement is IN_LOOP and (
                not handler.takes_context
                or (handler.pays_ahead and (self._has_paid(claim) or await self._pays(claim)))
            ):
                result = await handler.bare(**arguments)
            else:
                context = Context(claim, config.name, self._forge, self._tokens, self._reports, self._loop)
                attempt.context, context.task_id = context, id(task)
                if node is not None:
                    node.told(context)
                if handler.placement is IN_LOOP:
                    result = await handler.function(context, **arguments)
                else:
                    result = await self._outside(handler, attempt, context, arguments)
            if result is not None and type(result) not in PLAIN:
                result = await settled(result)
            if exits.is_fork:
                exits.end_fork(None)
            if attempt.exited is not None:
                raise attempt.exited
            ended_at = uptime()
            verdict = done(claim, queue.config, claim.codec, result, wait, ended_at - started)
            verdict = verdict if node is None else node.handed_on(verdict, result, attempt.context)
        except GeneratorExit as error:  # this task may await nothing any more
            self._end(attempt, self._judged(attempt, error))
            raise
        except BaseException as error:  # anything that is raised concerns this job only
            ended_at = uptime()
            verdict = self._judged(attempt, error)
        task.is_in_handler = False
        if timer is not None:
            timer.cancel()
        if (told := attempt.context) is not None and (told.completion or told.has_reported):
            verdict = await self._completions.judged(attempt, told, verdict)
        if attempt.mask is not None:
            attempt.show()
        self._end(attempt, verdict)
        return ended_at

    async def _outside(
        self, handler: Handler[Any, Any], attempt: Attempt, context: Context, arguments: dict[str, Any]
    ) -> Any:
        """Call the handler in a thread or a process."""
        is_left = partial(self._is_left, attempt)
        return await call(handler, attempt, context, arguments, self._threads, self._processes, is_left)

    def _is_left(self, attempt: Attempt) -> bool:
        """Whether nobody waits any more for the thread of the attempt."""
        return self._closed or attempt.stopped is None

    def _judged(self, attempt: Attempt, error: BaseException) -> Verdict:
        if exits.is_fork:
            exits.end_fork(error)
        claim, config = attempt.claim, attempt.queue.config
        duration, retries = uptime() - attempt.started, retries_of(self._handlers, attempt)
        if attempt.exited is not None and attempt.stopped is not Stop.CANCELLED:
            return failed(claim, config, describe(attempt.exited), attempt.wait, duration, retries=retries)
        if attempt.stopped is None and isinstance(error, MissingCodec):
            return self._unreadable.judged(attempt, error, duration)
        if not attempt.has_begun and isinstance(error, InvalidPayload):
            return refused(claim, config, error, attempt.wait, retries)
        if isinstance(error, HandedBack):
            self._telemetry.emit(GraceLost(claim, config.name))
        if attempt.stopped is None and isinstance(error, asyncio.CancelledError) and self._is_cancelled:
            attempt.stopped = Stop.STOPPING
        return judge(claim, config, error, attempt.stopped, attempt.wait, duration, retries)

    @property
    def _is_cancelled(self) -> bool:
        """Whether the program is ending and cancels everything that runs here."""
        return self._closed or (self._owner is not None and self._owner.cancelling() > 0)

    def _end(self, attempt: Attempt, verdict: Verdict) -> None:
        """The handler has ended; the verdict counts unless the job has one."""
        attempt.has_ended = True
        if attempt.is_over:
            self._free(attempt)
        else:
            self._settle(attempt, verdict)

    def _settle(self, attempt: Attempt, verdict: Verdict) -> None:
        """The job has its verdict, its first and only one."""
        attempt.is_over = True
        running = self._running
        running.pop(attempt.claim.job_id, None)
        if self._is_waited_for and not running:
            self._ended.set()
        self._hand.took(verdict.run.duration)
        self._record(verdict)
        if verdict.throttled is not None:
            self._held.throttled(attempt.claim, attempt.queue)
            self._hand.hand_back(attempt.queue)  # the other side asked for a pause

    def _free(self, attempt: Attempt) -> None:
        """A stuck handler has ended."""
        self.stuck.discard(attempt)
        claim, duration = attempt.claim, uptime() - attempt.started
        self._telemetry.emit(StuckHandlerEnded(claim, attempt.queue.name, duration, len(self.stuck)))

    def _stop(self, attempt: Attempt, why: Stop) -> None:
        """Tell the handler to stop, and again while it goes on. A cancellation by a user replaces any
        reason given before.
        """
        if attempt.has_ended or attempt.put_off(why, self._stop):
            return
        if attempt.stopped is None:
            attempt.stopped = why
            attempt.tell()
            self._loop.call_later(TELL_EVERY, self._insist, attempt)
        elif why is Stop.CANCELLED:
            attempt.stopped = why
            if attempt.is_shared:
                attempt.tell()

    def _insist(self, attempt: Attempt) -> None:
        if attempt.has_ended:
            return
        if not attempt.is_shared:
            if attempt.times_told >= TELLS and not attempt.is_over:
                self._give_up(attempt)
            attempt.tell()
        elif not attempt.is_said_to_wait:
            attempt.is_said_to_wait = True
            self._telemetry.emit(goes_on(attempt))
        self._loop.call_later(TELL_EVERY, self._insist, attempt)

    def _give_up(self, attempt: Attempt) -> None:
        """The job has its verdict although its handler still runs; another runner takes the place of this one."""
        duration = uptime() - attempt.started
        claim, queue, why = attempt.claim, attempt.queue, attempt.stopped or Stop.STOPPING
        self.stuck.add(attempt)
        self._replace(attempt.task)
        self._settle(attempt, given_up(attempt, why, duration, retries_of(self._handlers, attempt)))
        self._telemetry.emit(HandlerStuck(claim, queue.name, why.value, duration, len(self.stuck)))

    def _replace(self, task: "asyncio.Task[None]") -> None:
        """A fresh runner takes the place of this one, which takes no more jobs."""
        self._tasks.discard(task)
        if not self._closed:
            self._spawn()

    def _left(self, task: "asyncio.Task[None]") -> None:
        """A runner ended. If that was unexpected, its job gets its verdict, and another runner takes its place."""
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        for attempt in [running for running in self._running.values() if running.task is task]:
            self._end(attempt, left(attempt, error or RuntimeError("its runner ended")))
        if task not in self._tasks:
            return
        self._replace(task)
        if not self._is_cancelled:
            self._telemetry.emit(RunnerReplaced(error or RuntimeError("it returned")))


def _has_another(variables: Variables, others: Sequence[tuple[ContextVar[Any], object]]) -> bool:
    """Whether a handler left another object in one of `others`.

    One that is equal is another: it may be the list that the job before has filled, and comparing may raise.
    """
    return any(variables[variable] is not value for variable, value in others)
