"""Waits of handlers: for signals, and for the ends of other jobs. They are steps that hold nothing."""

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from forge_jobs.codecs.bound import result_of, signal_to
from forge_jobs.codecs.plain import decode
from forge_jobs.errors import InvalidInput, JobDead, JobNotFound
from forge_jobs.handlers import steps
from forge_jobs.handlers.received import received
from forge_jobs.model.decision import CircularWait, NoSignal
from forge_jobs.model.job import MAX_NAME, Enqueued, State
from forge_jobs.model.moments import as_duration
from forge_jobs.model.signal import CIRCLE, GONE
from forge_jobs.model.step import JobStep
from forge_jobs.rules import names

if TYPE_CHECKING:
    from forge_jobs.handlers.context import Context

T = TypeVar("T")
R = TypeVar("R")
Time = timedelta | float | None


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal that has ended a wait."""

    name: str
    value: Any


class WaitingContext:
    """What a Context has to wait with. See docs/signals.md."""

    __slots__ = ()

    @overload
    def wait_for(
        self, signal: str, /, *, timeout: Time = None, step: str | None = None, returns: type[T]
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def wait_for(
        self, signal: str, /, *, timeout: Time = None, step: str | None = None, returns: Any = None
    ) -> Any: ...
    def wait_for(
        self, signal: str, /, *, timeout: Time = None, step: str | None = None, returns: Any = None
    ) -> Any:
        """Return the value of the signal, one that came before too; to be awaited in an async handler.

        Until it comes the job is waiting: the handler ends here, as by `sleep`, and is called again. With `returns`, a type as
        handlers take them, the value is one of these. The wait is a step, "wait for" the signal unless `step` names it, and
        whatever ends it, it ends once. Raises NoSignal, a TimeoutError, in each attempt once `timeout` (seconds or timedelta) is over:
        where the handler lets it through, the job is dead. Raises StepsChanged, ClaimLost, UnfitPayload, InvalidInput.
        """
        return steps.called(_value(_self(self), signal, timeout, step, returns), "ctx.wait_for")

    def wait_for_any(
        self, *signals: str, timeout: Time = None, step: str | None = None
    ) -> Coroutine[Any, Any, Signal]:
        """Return the first of these signals, as `wait_for`."""
        work = _any(_self(self), signals, timeout, step)
        return cast(Coroutine[Any, Any, Signal], steps.called(work, "ctx.wait_for_any"))

    @overload
    def wait_for_job(
        self, job: Enqueued[R], /, *, timeout: Time = None, step: str | None = None
    ) -> Coroutine[Any, Any, R]: ...
    @overload
    def wait_for_job(
        self,
        job: "int | Enqueued[Any]",
        /,
        *,
        timeout: Time = None,
        step: str | None = None,
        returns: type[T],
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def wait_for_job(
        self, job: int, /, *, timeout: Time = None, step: str | None = None, returns: Any = None
    ) -> Any: ...
    def wait_for_job(
        self,
        job: "int | Enqueued[Any]",
        /,
        *,
        timeout: Time = None,
        step: str | None = None,
        returns: Any = None,
    ) -> Any:
        """Return the result of another job, an id or what `enqueue` returned, once it is done; as `wait_for`.

        Raises JobDead when that job ends dead or expired, JobNotFound when there is none, or its queue keeps none, and
        CircularWait when without a timeout they would wait for each other: where the handler lets it through, the job is dead.
        """
        return steps.called(_of_job(_self(self), job, timeout, step, returns), "ctx.wait_for_job")

    def callback_token(
        self, signal: str, /, *, expires: timedelta | float, use: str | None = None
    ) -> Coroutine[Any, Any, str]:
        """Return a text by which somebody may send this signal to the job once, within this time. See `Forge.callback_token`.

        Raises ClaimLost when the job was taken back.
        """
        context = _self(self)
        work = context.forge._callback_token(context.job_id, signal, expires, use, claim=context.claim)
        return cast(Coroutine[Any, Any, str], context.answer(work, "ctx.callback_token"))


def _self(context: WaitingContext) -> "Context":
    return cast("Context", context)


async def _value(context: "Context", signal: str, timeout: Time, step: str | None, returns: Any) -> Any:
    wanted = steps.readable_as(returns, "returns of ctx.wait_for")
    ended = await _ended(
        context, "ctx.wait_for", names.signals([signal], "ctx.wait_for"), None, timeout, step
    )
    return _read(ended, f"value of signal {signal!r}", wanted, of=signal_to(context.claim.kind, signal))


async def _any(context: "Context", signals: Sequence[str], timeout: Time, step: str | None) -> Signal:
    ended = await _ended(
        context, "ctx.wait_for_any", names.signals(signals, "ctx.wait_for_any"), None, timeout, step
    )
    assert ended.signal is not None
    of = signal_to(context.claim.kind, ended.signal)
    return Signal(ended.signal, _read(ended, f"value of signal {ended.signal!r}", of=of))


async def _of_job(
    context: "Context", job: "int | Enqueued[Any]", timeout: Time, step: str | None, returns: Any
) -> Any:
    job_id = names.job_id(job)
    if job_id == context.job_id:
        raise InvalidInput(f"ctx.wait_for_job is given job {job_id} itself, allowed is another one.")
    wanted = steps.readable_as(returns, "returns of ctx.wait_for_job")
    ended = await _ended(context, "ctx.wait_for_job", (), job_id, timeout, step)
    if ended.signal == CIRCLE:
        raise CircularWait(
            f"job {job_id} waits for the end of this job, {context.job_id}, itself or by others: neither would ever end"
        )
    if ended.signal == GONE:
        raise JobNotFound(job_id)
    if ended.signal != State.DONE:  # its error shows nothing that is redacted
        raise JobDead(job_id, None if ended.result is None else decode(ended.result, ended.codec))
    return _read(ended, f"result of job {job_id}", wanted, of=result_of(job_id))


async def _ended(
    context: "Context",
    what: str,
    signals: tuple[str, ...],
    for_job: int | None,
    timeout: Time,
    step: str | None,
) -> JobStep:
    """Return the wait once something has ended it. Raises what the handler ends with until then; NoSignal."""
    time = as_duration(timeout, f"The timeout of {what}")
    until = f"job {for_job}" if signals == () else " or ".join(signals)
    name = names.step(f"wait for {until}"[:MAX_NAME] if step is None else step)
    seconds = None if time is None else time.total_seconds()
    ended = await steps.waited(context, what, name, signals, for_job, seconds)
    if ended.signal is None:
        words = (
            f"the end of job {for_job}"
            if for_job is not None
            else f"the signal {' or '.join(map(repr, signals))}"
        )
        raise NoSignal(
            f"{words} did not come in time: step {name!r} waited for it from {ended.at:%Y-%m-%d %H:%M:%S} UTC on"
        )
    return ended


def _read(step: JobStep, what: str, wanted: Any = None, *, of: str) -> Any:
    return received(step.result, step.codec, what, wanted, of=of)
