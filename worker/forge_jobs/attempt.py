"""One attempt: a handler runs once, and a verdict says what becomes of its job.

`runners` makes an Attempt of each job in hand; `recorder` writes its verdict down. A
handler is told to stop by cancelling the task that it runs in; `stopped` remembers why.
"""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from datetime import timedelta
from enum import StrEnum
from typing import Any

import msgspec

from forge_jobs import backoff, logs
from forge_jobs.children import Children
from forge_jobs.context import Context, in_plain_handler
from forge_jobs.error_text import describe, kept
from forge_jobs.errors import InvalidPayload, UnfitPayload
from forge_jobs.handlers import Handler, Placement
from forge_jobs.job import CANCELLED_BY_USER, Claim, End, Postponement, Reason, State
from forge_jobs.outcome import Dead, HandedBack, Reschedule, Retry, Throttled
from forge_jobs.queue_config import QueueConfig
from forge_jobs.returned import kept_result
from forge_jobs.telemetry import Outcome, Run

WORKER_LOST = "worker lost"


class Stop(StrEnum):
    """Why a handler was told to stop."""

    CANCELLED = "cancelled by user"
    TIMED_OUT = "timed out"
    STOPPING = "the worker stops"
    GIVEN_UP = "the worker was given up"


class Verdict(msgspec.Struct, gc=False):
    """What becomes of a job after an attempt: what `recorder` writes, and what telemetry hears.

    A Claim in `write` is handed back. `throttled` is the decision that cools the queue down.
    `unanswered` once the database was asked to write it and gave no answer: it may have.
    """

    write: End | Postponement | Claim
    run: Run
    throttled: Throttled | None = None
    unanswered: bool = False


class Attempt:
    """A job that a handler runs at this moment."""

    __slots__ = ("claim", "context", "stopped", "task")

    def __init__(self, claim: Claim, context: Context, task: "asyncio.Task[Any]") -> None:
        self.claim = claim
        self.context = context
        self.task = task
        self.stopped: Stop | None = None

    def stop(self, why: Stop) -> None:
        """The handler is told to stop, unless it was told already."""
        if self.stopped is None:
            self.stopped = why
            self.context.cancel()
            self.task.cancel()


async def call(
    handler: Handler[Any, Any],
    context: Context,
    arguments: dict[str, Any],
    threads: Executor,
    processes: Children,
) -> Any:
    """Return what the handler's function returns, run where its placement says."""
    if handler.placement is Placement.THREAD:
        function = functools.partial(
            handler.function, *([context] if handler.takes_context else []), **arguments
        )
        # contextvars reach the thread, so that its log lines name the job
        carried = copy_context()
        carried.run(in_plain_handler.set, context)
        return await asyncio.get_running_loop().run_in_executor(threads, carried.run, function)
    handler.require_importable()
    return await processes.call(
        handler.__module__,
        handler.__qualname__,
        context.claim,
        context.queue,
        arguments,
        takes_context=handler.takes_context,
        style=logs.style,
    )


def done(claim: Claim, queue: QueueConfig, codec: str, result: Any, wait: float, duration: float) -> Verdict:
    """Judge an attempt that returned `result`."""
    encoded, note = None, None
    if result is not None:
        try:
            kept_of_it = kept_result(result, codec)
        except Retry as unfinished:
            return failed(claim, queue, unfinished.reason, wait, duration)
        encoded, note = kept_of_it.encoded, kept_of_it.note
    return Verdict(
        End(claim, State.DONE, duration, encoded, note and kept(note), queue.done_retention > timedelta(0)),
        Run(claim, queue.name, Outcome.DONE, wait, duration, note),
    )


def judge(
    claim: Claim, queue: QueueConfig, error: BaseException, stopped: Stop | None, wait: float, duration: float
) -> Verdict:
    """Judge an attempt that raised `error`."""
    if isinstance(error, asyncio.CancelledError) and stopped is not None:
        return _judge_stopped(claim, queue, stopped, wait, duration)
    if isinstance(error, Dead):
        return dead(claim, queue, error.reason, wait, duration)
    if isinstance(error, Reschedule):
        return Verdict(
            Postponement(claim, Reason.RESCHEDULED, run_at=error.at, counted=False),
            Run(claim, queue.name, Outcome.RESCHEDULED, wait, duration),
        )
    if isinstance(error, Throttled):
        return Verdict(
            Postponement(claim, Reason.THROTTLED, counted=False),
            Run(claim, queue.name, Outcome.THROTTLED, wait, duration, error.reason),
            throttled=error,
        )
    if isinstance(error, HandedBack):
        return released(claim, queue, wait, duration)
    if isinstance(error, Retry):
        return failed(claim, queue, error.reason, wait, duration, after=error.after)
    return failed(claim, queue, describe(error), wait, duration)


def refused(claim: Claim, queue: QueueConfig, error: InvalidPayload, wait: float) -> Verdict:
    """Judge an attempt whose payload was refused: one that only does not fit may fit the next worker's handler."""
    judged = failed if isinstance(error, UnfitPayload) else dead
    return judged(claim, queue, str(error), wait)


def failed(
    claim: Claim,
    queue: QueueConfig,
    error: str,
    wait: float = 0.0,
    duration: float = 0.0,
    *,
    after: timedelta | None = None,
    outcome: Outcome = Outcome.FAILED,
) -> Verdict:
    """The attempt failed: the job waits for `after` or the queue's backoff, or is dead when it was the last."""
    if claim.is_last_attempt:
        return dead(claim, queue, error, wait, duration)
    delay = backoff.retry_delay(queue, claim.attempt) if after is None else after
    error = kept(error)
    return Verdict(
        Postponement(claim, Reason.RETRY, delay, error=error),
        Run(claim, queue.name, outcome, wait, duration, error, delay.total_seconds()),
    )


def dead(
    claim: Claim,
    queue: QueueConfig,
    error: str,
    wait: float = 0.0,
    duration: float = 0.0,
    outcome: Outcome = Outcome.DEAD,
) -> Verdict:
    """The job is dead."""
    error = kept(error)
    return Verdict(
        End(claim, State.DEAD, duration, error=error, keep=queue.dead_retention > timedelta(0)),
        Run(claim, queue.name, outcome, wait, duration, error),
    )


def released(claim: Claim, queue: QueueConfig, wait: float = 0.0, duration: float = 0.0) -> Verdict:
    """The job is handed back, its attempt not counted."""
    return Verdict(claim, Run(claim, queue.name, Outcome.RELEASED, wait, duration))


def lost(claim: Claim, queue: QueueConfig) -> Verdict:
    """Judge an attempt whose worker is gone: it counts, so that a job which kills its worker ends."""
    if claim.cancel_requested:
        return dead(claim, queue, CANCELLED_BY_USER, outcome=Outcome.CANCELLED)
    return failed(claim, queue, WORKER_LOST, outcome=Outcome.LOST)


def as_written(verdict: Verdict) -> Run:
    """Return the run as the database has it: a job that a user cancelled does not wait again, whatever was judged."""
    run = verdict.run
    if type(verdict.write) is End or not run.claim.cancel_requested:
        return run
    return Run(run.claim, run.queue, Outcome.CANCELLED, run.wait, run.duration, CANCELLED_BY_USER)


def _judge_stopped(claim: Claim, queue: QueueConfig, stopped: Stop, wait: float, duration: float) -> Verdict:
    if stopped is Stop.CANCELLED:
        return dead(claim, queue, CANCELLED_BY_USER, wait, duration, Outcome.CANCELLED)
    if stopped is Stop.TIMED_OUT:
        return failed(claim, queue, f"timed out after {claim.timeout:g} s", wait, duration)
    return released(claim, queue, wait, duration)


Record = Callable[[Verdict], None]
