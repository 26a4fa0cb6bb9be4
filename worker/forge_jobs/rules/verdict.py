"""What becomes of a job after an attempt: a verdict. Pure functions."""

import asyncio
from datetime import timedelta
from enum import StrEnum
from typing import Any

import msgspec
from msgspec.structs import replace

from forge_jobs.errors import InvalidPayload, MissingCodec, UnfitPayload
from forge_jobs.model.completion import Completion, Fate
from forge_jobs.model.decision import (
    Asleep,
    AwaitsTurn,
    Dead,
    Decision,
    HandedBack,
    ItemsLeft,
    Reschedule,
    Retry,
    Throttled,
    asked,
)
from forge_jobs.model.error_text import describe, kept
from forge_jobs.model.job import (
    CANCELLED_BY_USER,
    FOREVER,
    HISTORY_LIMIT,
    SUPERSEDED,
    WORKER_LOST,
    Claim,
    End,
    Postponement,
    Reason,
    Settled,
    State,
)
from forge_jobs.model.kind import OnLost
from forge_jobs.model.mask import masked
from forge_jobs.model.moments import as_duration, as_moment
from forge_jobs.model.queue import QueueConfig
from forge_jobs.model.run import Outcome, Run
from forge_jobs.model.time_limit import overdue
from forge_jobs.rules import backoff
from forge_jobs.rules.retries import AS_QUEUE, Retries
from forge_jobs.rules.returned import kept_result

MOST_LINKS = 50  # how many exceptions of a chain are followed


ENDED, DONE = State.DONE, Outcome.DONE  # a look-up in an Enum is slower than one thinks
NO_TIME = timedelta(0)


class Stop(StrEnum):
    """Why a handler was told to stop."""

    CANCELLED = CANCELLED_BY_USER
    TIMED_OUT = "timed out"
    OVERDUE = "its deadline has come"
    LATE = "it may not begin any more"
    STOPPING = "the worker stops"
    CUT_OFF = "the worker was cut off"
    UNKNOWN = "the database does not know its claim"
    EXITED = "it called for an exit"


class Verdict(msgspec.Struct, gc=False):
    """What becomes of a job after an attempt: what `recorder` writes, and what telemetry hears.

    A Claim in `write` is handed back. `throttled` is the decision that cools the queue down; it is
    None again once it is known for how long, and the job waits as long: `wait_for_cooldown`.
    `unanswered` once the database was asked to write it and gave no answer: it may have. `size` is
    how many bytes of result and error are to be written, about.
    """

    write: End | Postponement | Claim | Settled
    run: Run
    throttled: Throttled | None = None
    unanswered: bool = False
    size: int = 0


def done(claim: Claim, queue: QueueConfig, codec: str, result: Any, wait: float, duration: float) -> Verdict:
    """Judge an attempt that returned `result`."""
    encoded, note = None, None
    if result is not None:
        try:
            kept_of_it = kept_result(result, codec, claim.job_id)
        except Retry as unfinished:
            return failed(claim, queue, unfinished.reason, wait, duration)
        encoded, note = kept_of_it.encoded, kept_of_it.note
    verdict = Verdict(
        End(claim, ENDED, duration, encoded, note and kept(note), queue.done_retention > NO_TIME),
        Run(claim, queue.name, DONE, wait, duration, note),
    )
    if encoded:
        verdict.size = len(encoded)
    return verdict


def judge(
    claim: Claim,
    queue: QueueConfig,
    error: BaseException,
    stopped: Stop | None,
    wait: float,
    duration: float,
    retries: Retries = AS_QUEUE,
) -> Verdict:
    """Judge an attempt that raised `error`, any exception of any class."""
    if stopped is Stop.TIMED_OUT:
        retries = retries.of_timeout()
    try:
        return _judge(claim, queue, error, stopped, wait, duration, retries)
    except BaseException:
        return failed(claim, queue, describe(error), wait, duration, retries=retries)


def _judge(
    claim: Claim,
    queue: QueueConfig,
    error: BaseException,
    stopped: Stop | None,
    wait: float,
    duration: float,
    retries: Retries,
) -> Verdict:
    error = _decided_in(error)
    if isinstance(error, ItemsLeft):
        cancelled = stopped if stopped is Stop.CANCELLED else None
        return _left(_judge(claim, queue, error.then, cancelled, wait, duration, retries), error)
    if stopped is Stop.CANCELLED or (stopped is not None and isinstance(error, asyncio.CancelledError)):
        return judge_stopped(claim, queue, stopped, wait, duration, retries)
    if isinstance(error, Dead):
        return dead(claim, queue, _reason(error), wait, duration)
    if isinstance(error, Reschedule):
        at, after = asked(as_moment, error, "at"), asked(as_duration, error, "after")
        if at is None and after is None:
            return failed(
                claim,
                queue,
                f"rescheduled, but not to a moment: {describe(error)}",
                wait,
                duration,
                retries=retries,
            )
        delay = timedelta(0) if after is None else after
        return Verdict(
            Postponement(claim, Reason.RESCHEDULED, delay, run_at=at, afresh=True),
            Run(claim, queue.name, Outcome.RESCHEDULED, wait, duration),
        )
    if isinstance(error, Asleep):
        return asleep(claim, queue, error, wait, duration)
    if isinstance(error, AwaitsTurn):
        return Verdict(
            Postponement(claim, Reason.THROTTLED, run_at=error.at, counted=False),
            Run(claim, queue.name, Outcome.THROTTLED, wait, duration, error.reason),
        )
    if isinstance(error, Throttled):
        reason = _reason(error)
        return Verdict(
            Postponement(claim, Reason.THROTTLED, counted=False),
            Run(claim, queue.name, Outcome.THROTTLED, wait, duration, reason),
            throttled=Throttled(asked(as_duration, error, "retry_after"), reason),
        )
    if isinstance(error, HandedBack):
        return handed_back(claim, queue, wait, duration)
    if isinstance(error, Retry):
        after = asked(as_duration, error, "after")
        return failed(claim, queue, _reason(error), wait, duration, after=after, retries=retries)
    if stopped is Stop.TIMED_OUT:
        error_text = f"{timed_out(claim)}, then {describe(error)}"
        return failed(claim, queue, error_text, wait, duration, retries=retries)
    if stopped is Stop.OVERDUE:
        return dead(claim, queue, f"{past_deadline(claim)}, then {describe(error)}", wait, duration)
    if stopped is not None and _came_of_stopping(error):
        return handed_back(claim, queue, wait, duration)
    answer, text = retries.answer(error, claim.attempt)
    if answer is None:
        return failed(claim, queue, text, wait, duration, retries=retries)
    return _judge(claim, queue, answer, None, wait, duration, retries)


def asleep(claim: Claim, queue: QueueConfig, sleep: Asleep, wait: float, duration: float) -> Verdict:
    """The job waits until a sleep or a wait of its handler ends; its attempt is not counted."""
    wait_in = sleep.name if sleep.until is None else None
    return Verdict(
        Postponement(claim, Reason.SLEEPING, run_at=sleep.until, counted=False, wait=wait_in),
        Run(claim, queue.name, Outcome.RESCHEDULED, wait, duration),
    )


def _decided_in(error: BaseException) -> BaseException:
    """Return the decision or the sleep that was raised, which a task group wraps; any other error as it is."""
    inner = error
    for _ in range(MOST_LINKS):
        if not isinstance(inner, BaseExceptionGroup) or len(inner.exceptions) != 1:
            break
        inner = inner.exceptions[0]
    return inner if isinstance(inner, Decision | Asleep) else error


def _left(verdict: Verdict, left: ItemsLeft) -> Verdict:
    """Return the verdict of a job of which these items are left."""
    payload = left.if_dead if isinstance(verdict.write, End) else left.payload
    if payload is not None and isinstance(verdict.write, End | Postponement):
        verdict.write.payload = payload
        verdict.size += len(payload)
    return verdict


def _reason(error: Decision) -> str:
    """Return the reason of a handler's decision; a subclass may have none."""
    reason = asked(lambda given, _: str(given), error, "reason")
    return describe(error) if reason is None else masked(reason)


def _came_of_stopping(error: BaseException) -> bool:
    """Whether the exception was raised while a cancellation was handled."""
    for _ in range(MOST_LINKS):
        link = error.__cause__ or error.__context__
        if link is None:
            return False
        if isinstance(link, asyncio.CancelledError):
            return True
        error = link
    return False


def refused(
    claim: Claim, queue: QueueConfig, error: InvalidPayload, wait: float, retries: Retries = AS_QUEUE
) -> Verdict:
    """Judge an attempt whose payload was refused: one that does not fit this handler may fit the next
    worker's."""
    if isinstance(error, UnfitPayload):
        return failed(claim, queue, str(error), wait, retries=retries)
    return dead(claim, queue, str(error), wait)


def unreadable(
    claim: Claim,
    queue: QueueConfig,
    error: MissingCodec,
    times: int,
    wait: float,
    duration: float = 0.0,
    *,
    has_begun: bool = False,
    is_news: bool = True,
) -> Verdict:
    """Judge an attempt for which a codec or key is not here, which met that job so many `times`: it waits, longer each
    time, and loses no attempt. The error goes to its history if it `is_news`.
    """
    delay, text = backoff.unreadable_delay(queue, times), kept(str(error))
    reason = Reason.RETRY if has_begun else Reason.UNREADABLE
    return Verdict(
        Postponement(claim, reason, delay, error=text if is_news else None, counted=False),
        Run(claim, queue.name, Outcome.FAILED, wait, duration, text, delay.total_seconds()),
        size=len(text),
    )


def failed(
    claim: Claim,
    queue: QueueConfig,
    error: str,
    wait: float = 0.0,
    duration: float = 0.0,
    *,
    after: timedelta | None = None,
    outcome: Outcome = Outcome.FAILED,
    retries: Retries = AS_QUEUE,
) -> Verdict:
    """The attempt failed: the job waits for `after` or its backoff, or is dead when it was the last."""
    number = retries.counts_as(queue, claim.attempt, duration)
    if claim.max_attempts != FOREVER and number >= claim.max_attempts:
        return dead(claim, queue, error, wait, duration)
    delay = retries.wait(queue, number) if after is None else after
    error = kept(error)
    return Verdict(
        Postponement(
            claim,
            Reason.RETRY,
            delay,
            error=error,
            counts_as=None if number == claim.attempt else number,
        ),
        Run(
            claim,
            queue.name,
            outcome,
            wait,
            duration,
            error,
            delay.total_seconds(),
            is_grave=retries.is_grave(number),
            counts_anew=number != claim.attempt,
        ),
        size=len(error),
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
        End(claim, State.DEAD, duration, error=error, keep=queue.dead_retention > NO_TIME),
        Run(claim, queue.name, outcome, wait, duration, error),
        size=len(error),
    )


def handed_back(claim: Claim, queue: QueueConfig, wait: float = 0.0, duration: float = 0.0) -> Verdict:
    """The job is handed back, its attempt not counted."""
    return Verdict(claim, Run(claim, queue.name, Outcome.HANDED_BACK, wait, duration))


def wait_for_cooldown(verdict: Verdict, delay: timedelta) -> None:
    """The job of a throttled verdict waits for `delay`, as long as its queue cools down; its attempt is not counted."""
    left = verdict.write.payload if isinstance(verdict.write, Postponement) else None
    verdict.write = Postponement(verdict.run.claim, Reason.THROTTLED, delay, counted=False, payload=left)
    verdict.throttled = None


def lost(claim: Claim, queue: QueueConfig, on_lost: str | None = None, lost_before: int = 0) -> Verdict:
    """Judge an attempt whose worker is lost: it counts, so that a job which kills its worker ends, unless its handler says
    otherwise (an OnLost). The job has lost its worker so often before.
    """
    if claim.cancel_requested:
        return dead(claim, queue, CANCELLED_BY_USER, outcome=Outcome.CANCELLED)
    if on_lost == OnLost.DEAD:
        return dead(claim, queue, WORKER_LOST)
    verdict = failed(claim, queue, WORKER_LOST, outcome=Outcome.LOST)
    most = claim.max_attempts if claim.max_attempts != FOREVER else HISTORY_LIMIT
    if on_lost == OnLost.REFUND and lost_before < min(most, HISTORY_LIMIT):
        delay = backoff.retry_delay(queue, lost_before + 1)
        verdict.write = Postponement(claim, Reason.RETRY, delay, error=WORKER_LOST, counted=False)
        verdict.run = replace(
            verdict.run, outcome=Outcome.LOST, error=WORKER_LOST, retry_in=delay.total_seconds()
        )
    return verdict


def as_written(verdict: Verdict) -> Run:
    """Return the run as the database has it: a job that a user cancelled, that lost its key, or whose time is over does
    not wait again, even if the verdict says so."""
    run = verdict.run
    if type(verdict.write) in (End, Settled):
        return run
    if run.claim.cancel_requested:
        return Run(run.claim, run.queue, Outcome.CANCELLED, run.wait, run.duration, CANCELLED_BY_USER)
    if run.claim.superseded:
        return Run(run.claim, run.queue, Outcome.SUPERSEDED, run.wait, run.duration, run.error or SUPERSEDED)
    if run.claim.ended_by is not None:
        outcome = Outcome.EXPIRED if run.claim.expired else Outcome.DEAD
        return replace(
            run,
            outcome=outcome,
            error=run.error or run.claim.ended_by,
            retry_in=None,
            counted=run.outcome is not Outcome.HANDED_BACK,
        )
    return run


def completed(
    claim: Claim, queue: QueueConfig, completion: Completion, fate: Fate, otherwise: Verdict
) -> Verdict:
    """Judge an attempt whose handler completed the job in a transaction that was committed: nothing is left to write.

    `otherwise` is the verdict that it would have had, which shows what the handler did after that.
    """
    run, note = otherwise.run, None
    if fate is Fate.OVERDUE:
        error = past_deadline(claim)
        return Verdict(Settled(claim), Run(claim, queue.name, Outcome.DEAD, run.wait, run.duration, error))
    if run.outcome is not Outcome.DONE:
        note = f"completed by its handler, which ended otherwise: {run.error or run.outcome.value}"
    elif type(otherwise.write) is End and otherwise.write.result is not None:
        note = "completed by its handler; what that returned was not kept"
    outcome = Outcome.CANCELLED if fate is Fate.CANCELLED else completion.outcome
    return Verdict(
        Settled(claim), Run(claim, queue.name, outcome, run.wait, run.duration, note and kept(note))
    )


def not_committed(claim: Claim, queue: QueueConfig, fate: Fate, otherwise: Verdict) -> Verdict:
    """Judge an attempt whose handler completed the job in a transaction that was not committed: it has failed,
    by the sentence for that unless the handler gave a reason of its own."""
    if otherwise.run.outcome is not Outcome.DONE:
        return otherwise
    what = "has not ended" if fate is Fate.OPEN else "was rolled back"
    error = f"The transaction in which its handler completed job {claim.job_id} {what}."
    return failed(claim, queue, error, otherwise.run.wait, otherwise.run.duration)


def judge_stopped(
    claim: Claim,
    queue: QueueConfig,
    stopped: Stop,
    wait: float,
    duration: float,
    retries: Retries = AS_QUEUE,
    *,
    goes_on: bool = False,
) -> Verdict:
    """Judge an attempt that was told to stop; with `goes_on` its handler has not obeyed."""
    if stopped is Stop.CANCELLED:
        return dead(claim, queue, CANCELLED_BY_USER, wait, duration, Outcome.CANCELLED)
    if stopped is Stop.TIMED_OUT:
        retries = retries.of_timeout()
        error = f"{timed_out(claim)}; its handler goes on" if goes_on else timed_out(claim)
        answer, _ = retries.answer(TimeoutError(error), claim.attempt)
        if answer is None:
            verdict = failed(claim, queue, error, wait, duration, retries=retries)
        else:
            verdict = _judge(claim, queue, answer, None, wait, duration, retries)
        verdict.run = replace(verdict.run, timed_out=True)
        return verdict
    if stopped is Stop.OVERDUE:
        error = past_deadline(claim)
        return dead(claim, queue, f"{error}; its handler goes on" if goes_on else error, wait, duration)
    return handed_back(claim, queue, wait, duration)


def timed_out(claim: Claim) -> str:
    """Return the error of an attempt that took longer than its timeout."""
    return f"timed out after {claim.timeout:g} s"


def past_deadline(claim: Claim) -> str:
    """Return the error of an attempt that was stopped at its job's deadline."""
    return overdue(claim.limits.deadline or 0.0) if claim.limits else Stop.OVERDUE.value
