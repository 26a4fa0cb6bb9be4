"""One attempt: a handler runs once, and a verdict says what becomes of its job.

`runners` makes an Attempt of each job in hand; `recorder` writes its verdict down. A
handler is told to stop by cancelling the task that it runs in; `stopped` remembers why.
"""

import asyncio
import functools
from collections.abc import Callable, Mapping
from contextvars import Token, copy_context
from typing import Any

import msgspec

from forge_jobs.handlers.context import Context, in_plain_handler
from forge_jobs.handlers.handler import Handler
from forge_jobs.handlers.placement import Placement
from forge_jobs.model.error_text import describe
from forge_jobs.model.job import FOREVER, Claim
from forge_jobs.model.mask import Mask, masking, present
from forge_jobs.model.redaction import Redacted
from forge_jobs.model.time_limit import TimeLimits
from forge_jobs.rules.items import Items
from forge_jobs.rules.redaction import secrets
from forge_jobs.rules.retries import AS_QUEUE, Retries
from forge_jobs.rules.verdict import Stop, Verdict, failed, judge_stopped
from forge_jobs.system.own_task import OwnTask
from forge_jobs.system.threads import Threads
from forge_jobs.system.uptime import uptime
from forge_jobs.telemetry import logs
from forge_jobs.telemetry.events import BatchGoesOn
from forge_jobs.worker.child_questions import ChildQuestions
from forge_jobs.worker.children import Children
from forge_jobs.worker.served_queue import ServedQueue

LONGEST_TIMER = 10 * 365 * 86_400.0  # seconds; the event loop takes no longer ones


class Attempt(msgspec.Struct, eq=False):
    """A job that a handler runs at this moment."""

    claim: Claim
    queue: ServedQueue
    task: "OwnTask[Any]"
    started: float  # an `uptime`
    wait: float  # seconds
    context: Context | None = None  # of a handler that takes it, or is called in a thread or a process
    stopped: Stop | None = None
    times_told: int = 0  # how often the handler was told to stop
    exited: BaseException | None = None  # an exit that came out of what the handler gave to the event loop
    has_begun: bool = False  # its payload was read, and its handler is called
    is_over: bool = False  # it has its verdict
    has_ended: bool = False  # its handler has ended
    waits: bool = False  # for room for a process
    went_on: float | None = None  # an `uptime`: when it had that room
    is_said_to_wait: bool = False  # for others, for which the call goes on
    mask: Mask | None = None  # over what is redacted of its arguments; None: nothing is
    shows: "Token[Mask | None] | None" = None  # ends that texts made in its task are masked

    def hide(self, redacted: Redacted, arguments: Mapping[str, Any]) -> None:
        """No text about this attempt shows from now on what is redacted of its arguments, and of what its handler reads later."""
        if redacted:
            said = {
                name: value.values if type(value) is Items else value for name, value in arguments.items()
            }
            self.mask = Mask(secrets(said, redacted), redacted)
            self.shows = present.set(self.mask)

    def show(self) -> None:
        """Texts about what comes next in its task are not masked."""
        if self.shows is not None:
            present.reset(self.shows)

    @property
    def is_final(self) -> bool:
        """Whether the job, which was told to stop, is known not to run again."""
        if self.stopped is Stop.TIMED_OUT:
            if self.may_be_answered:  # its handler may say that another attempt follows the last one
                return False
            return self.claim.max_attempts != FOREVER and self.claim.attempt >= self.claim.max_attempts
        return self.stopped in (Stop.CANCELLED, Stop.OVERDUE)

    @property
    def may_be_answered(self) -> bool:
        """Whether its handler says what becomes of a job that timed out; of one without a context nobody has to know."""
        if self.context is None:
            return False
        handler = self.context.forge.handlers.by_kind.get(self.claim.kind)
        return handler is not None and handler.retries.answers_timeouts

    @property
    def is_shared(self) -> bool:
        """Whether the call was told by this job to stop, and goes on for others."""
        return self.context is not None and self.context.is_shared

    def put_off(self, why: Stop, stop: "Callable[[Attempt, Stop], None]") -> bool:
        """Whether its timeout is later, since it waits, or has waited, for room for a process; it is looked at again then."""
        timeout = self.claim.timeout
        if why is not Stop.TIMED_OUT or timeout is None or not (self.waits or self.went_on):
            return False
        left = timeout if self.waits or self.went_on is None else timeout - (uptime() - self.went_on)
        if left > 0.0:
            asyncio.get_running_loop().call_later(left, stop, self, why)
        return left > 0.0

    def tell(self) -> None:
        """The handler is told to stop, once more."""
        self.times_told += 1
        if self.context is not None:
            self.context.cancel(is_final=self.is_final)
        self.task.tell()

    def obeyed(self) -> bool:
        """Whether to drop what a function returned after it was told to stop. It is too late for a job that
        was cancelled, timed out or overdue. When the worker stops, it counts as a result, unless the function had
        asked whether it should end.
        """
        if self.stopped in (Stop.CANCELLED, Stop.TIMED_OUT, Stop.OVERDUE):
            return True
        return self.context is None or self.context.has_heard


def goes_on(attempt: Attempt) -> BatchGoesOn:
    """Return the event that the attempt was told to stop, and its call goes on for others."""
    why = attempt.stopped or Stop.STOPPING
    return BatchGoesOn(attempt.claim, attempt.queue.name, why.value, uptime() - attempt.started)


def retries_of(handlers: Mapping[str, Handler[Any, Any]], attempt: Attempt) -> Retries:
    """Return how the attempt is followed by others if it failed; one that has its verdict is not asked about again."""
    handler = handlers.get(attempt.claim.kind)
    return AS_QUEUE if handler is None or attempt.is_over else handler.retries


def given_up(attempt: Attempt, why: Stop, duration: float, retries: Retries) -> Verdict:
    """Judge an attempt whose handler goes on though it was told to stop."""
    claim, config = attempt.claim, attempt.queue.config
    with masking(attempt.mask):
        if why is Stop.EXITED and attempt.exited is not None:
            return failed(claim, config, describe(attempt.exited), attempt.wait, duration, retries=retries)
        return judge_stopped(claim, config, why, attempt.wait, duration, retries, goes_on=True)


def left(attempt: Attempt, problem: BaseException) -> Verdict:
    """Judge an attempt whose runner ended, though it should not."""
    with masking(attempt.mask):
        return failed(attempt.claim, attempt.queue.config, describe(problem), attempt.wait)


def limited(
    attempt: Attempt, limits: TimeLimits, stop: Callable[[Attempt, Stop], None]
) -> asyncio.TimerHandle | None:
    """Return the timer that stops the attempt at its timeout or at its job's deadline. One that comes too late ends here."""
    now, timeout = uptime() + limits.ahead, attempt.claim.timeout
    if limits.is_over(now):  # the database decides what becomes of it
        attempt.stopped = Stop.LATE
        raise asyncio.CancelledError
    later = asyncio.get_running_loop().call_later
    left = LONGEST_TIMER if limits.deadline is None else limits.deadline - now
    if timeout is not None and timeout <= left:
        return later(timeout, stop, attempt, Stop.TIMED_OUT)
    return None if limits.deadline is None else later(min(left, LONGEST_TIMER), stop, attempt, Stop.OVERDUE)


async def call(
    handler: Handler[Any, Any],
    attempt: Attempt,
    context: Context,
    arguments: dict[str, Any],
    threads: Threads,
    processes: Children,
    is_left: Callable[[], bool],
) -> Any:
    """Return what the handler's function returns, run where its placement says.

    What a thread does is not waited for when the call is cancelled and `is_left` says so.
    """
    if handler.limits:
        await context.take_turn(handler.tokens_of(arguments))
    if handler.placement is Placement.THREAD:
        function = functools.partial(
            handler.function, *([context] if handler.takes_context else []), **arguments
        )
        # contextvars reach the thread, so that its log lines name the job
        carried = copy_context()
        carried.run(in_plain_handler.set, context)
        function = functools.partial(carried.run, function)
        return await threads.run(function, is_left=is_left, obeyed=attempt.obeyed)
    handler.require_importable()
    attempt.waits = processes.room.locked()
    async with processes.room:
        if attempt.waits:
            attempt.waits, attempt.went_on = False, uptime()
        return await processes.call(
            ChildQuestions(context),
            handler.__module__,
            handler.__qualname__,
            context.claim,
            context.queue,
            arguments,
            takes_context=handler.takes_context,
            style=logs.style,
            mask=attempt.mask,
        )


Record = Callable[[Verdict], None]
