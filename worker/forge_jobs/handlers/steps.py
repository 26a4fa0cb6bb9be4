"""Durable steps: what a job has done is not done again in its later attempts, and its sleeps hold nothing."""

import asyncio
import functools
import inspect
import time
import typing
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import NoneType
from typing import TYPE_CHECKING, Any

import msgspec

from forge_jobs.codecs.bound import step_of
from forge_jobs.codecs.plain import encode
from forge_jobs.errors import ClaimLost, InvalidInput, InvalidPayload, StepsChanged
from forge_jobs.handlers.arguments import from_plain
from forge_jobs.handlers.awaited_call import AwaitedCall
from forge_jobs.handlers.journal import Journal, in_step, ran_already
from forge_jobs.handlers.received import received
from forge_jobs.handlers.reporting import LARGEST_STATE, require_held
from forge_jobs.handlers.sync_connection import at_once
from forge_jobs.model.decision import Dead, Decision
from forge_jobs.model.moments import as_duration
from forge_jobs.model.step import JobStep, StepSort
from forge_jobs.rules import names

if TYPE_CHECKING:
    from forge_jobs.handlers.context import Context

MOST_TRIES = 100
LONGEST_WAIT = 60.0  # seconds between two tries
FINAL = (Decision, ClaimLost, StepsChanged)
"""Errors after which a step is not tried again."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a job, when more is said of it than its name.

    Its function is tried up to `attempts` times, with `wait` before the second try, doubled with each further one up to a
    minute; a try of an async function takes `timeout` at most (seconds or timedeltas). Its result is a `returns`; what its
    function is annotated to return, when that is None. With `connection` it is kept in that transaction of the caller's,
    together with the work. Raises InvalidInput.
    """

    name: str
    attempts: int = 1
    wait: timedelta | float = 1.0
    timeout: timedelta | float | None = None
    returns: Any = None
    connection: Any = None

    def __post_init__(self) -> None:
        names.step(self.name)
        if (
            isinstance(self.attempts, bool)
            or not isinstance(self.attempts, int)
            or not 1 <= self.attempts <= MOST_TRIES
        ):
            raise InvalidInput(
                f"attempts of step {self.name!r} is {names.shown(self.attempts)}, allowed is a whole number from 1 to {MOST_TRIES}."
            )
        as_duration(self.wait, f"wait of step {self.name!r}")
        as_duration(self.timeout, f"timeout of step {self.name!r}")

    def pause(self, tries: int) -> float:
        """Return the seconds to wait after so many tries."""
        return min(_seconds(self.wait) * 2.0 ** (tries - 1), LONGEST_WAIT)

    @property
    def longest(self) -> float | None:
        """The seconds that a try takes at most; None: no end."""
        return None if self.timeout is None else _seconds(self.timeout)


def called(work: Coroutine[Any, Any, Any], what: str) -> Any:
    """Return `work`, the method `what`, to be awaited in a loop; in a plain handler, which waits in all that it does, its result."""
    if asyncio._get_running_loop() is None:
        return at_once(work)
    return AwaitedCall(work, what)


async def run(
    context: "Context",
    given: "str | Step",
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Any:
    """Return the result of the step, which is run unless it is done. See `Context.step`."""
    step = given if isinstance(given, Step) else Step(given)
    wanted = _wanted(step, function)
    journal = journal_of(context, "ctx.step")
    name = step.name
    journal.begin(name, "ctx.step", beside=_is_beside(context))
    is_done = False
    try:
        is_again = journal.may_be_undone(name)
        seen_by = step.connection if is_again else None
        kept = await _of(context, journal.kept(name, StepSort.STEP, seen_by), "ctx.step", seen_by)
        if kept is not None and is_again:
            raise ran_already(name)
        if kept is None:
            result = await _tried(context, step, functools.partial(function, *args, **kwargs))
            encoded = _encoded(context, step, result)
            made = journal.keep(name, result=encoded, connection=step.connection)
            kept = await _of(context, made, "ctx.step", step.connection)
        is_done = True
    finally:
        journal.over(name, failed=not is_done)
    return _read(context.job_id, kept, wanted)


async def sleep(context: "Context", duration: timedelta | float, name: str | None) -> None:
    """The job has slept for so long since it first came here. See `Context.sleep`."""
    length = as_duration(duration, "The duration of ctx.sleep")
    if length is None:
        raise InvalidInput("The duration of ctx.sleep is None, allowed is a timedelta or seconds.")
    if context.is_gathered:
        raise InvalidInput("ctx.sleep is called in a batch, allowed is a handler of single jobs.")
    journal = journal_of(context, "ctx.sleep")
    own = journal.sleep_name() if name is None else names.step(name)
    journal.begin(own, "ctx.sleep", alone=True, beside=_is_beside(context))
    is_done = False
    try:
        kept = await _of(context, journal.kept(own, StepSort.SLEEP), "ctx.sleep")
        if kept is None:
            made = journal.keep(own, StepSort.SLEEP, sleep=length.total_seconds())
            kept = await _of(context, made, "ctx.sleep")
        is_done = True
    finally:
        journal.over(own, failed=not is_done)
    if not kept.is_over:
        raise journal.asleep(kept)


async def waited(
    context: "Context",
    what: str,
    name: str,
    signals: tuple[str, ...],
    for_job: int | None,
    timeout: float | None,
) -> JobStep:
    """Return the wait of this name once something has ended it; `timeout` in seconds, None: no end. Raises what the handler is to end with until then."""
    if context.is_gathered:
        raise InvalidInput(f"{what} is called in a batch, allowed is a handler of single jobs.")
    journal = journal_of(context, what)
    journal.begin(name, what, alone=True, beside=_is_beside(context))
    is_done = False
    try:
        kept = await _of(context, journal.kept(name, StepSort.WAIT), what)
        if kept is None or not kept.is_over:
            kept = await _of(context, journal.wait(name, signals, for_job, timeout), what)
        is_done = True
    finally:
        journal.over(name, failed=not is_done)
    if not kept.is_over:
        raise journal.asleep(kept)
    step: JobStep = kept
    return step


async def patched(context: "Context", name: str) -> bool:
    """Return whether the job takes the new path of its code. See `Context.patched`."""
    journal = journal_of(context, "ctx.patched")
    is_patched: bool = await _of(context, journal.patched(names.step(name)), "ctx.patched")
    return is_patched


def journal_of(context: "Context", what: str) -> Journal:
    """Return what the attempt knows of the steps of its job. Raises InvalidInput."""
    require_held(context, what)
    if context.journal is None:
        context.journal = Journal(context.claim, context.forge)
        context.has_reported = True
    return context.journal


def _is_beside(context: "Context") -> bool:
    """Whether this is called in another task than that of the handler, or for items of which others are done."""
    if context.may_leave_out:
        return True
    loop = asyncio._get_running_loop()
    return (
        loop is not None and context.task_id is not None and id(asyncio.current_task(loop)) != context.task_id
    )


async def _of(context: "Context", work: Coroutine[Any, Any, Any], what: str, connection: Any = None) -> Any:
    """Return what work in the worker's loop comes to: in a thread it is there when the call returns."""
    answer = context.answer(work, what, connection)
    return await answer if inspect.isawaitable(answer) else answer


async def _tried(context: "Context", step: Step, function: Callable[[], Any]) -> Any:
    """Return what the function returns in one of its tries. Raises what it raised in the last one."""
    tries = 1
    while True:
        try:
            return await _result(step, function)
        except FINAL:
            raise
        except Exception:
            if tries >= step.attempts:
                raise
        await _of(context, _paused(step.pause(tries)), "ctx.step")
        tries += 1


async def _paused(seconds: float) -> None:
    """So many seconds are over. Without a loop, as in a process, nobody else is kept waiting."""
    if asyncio._get_running_loop() is None:
        time.sleep(seconds)
    else:
        await asyncio.sleep(seconds)


async def _result(step: Step, function: Callable[[], Any]) -> Any:
    token = in_step.set(step.name)
    try:
        if asyncio._get_running_loop() is None:
            return _result_in_thread(step, function)
        limit = asyncio.timeout(step.longest)
        try:
            async with limit:
                result = function()
                return await result if inspect.isawaitable(result) else result
        except TimeoutError:
            if not limit.expired():
                raise
            raise TimeoutError(f"step {step.name!r} timed out after {step.longest:g} s") from None
    finally:
        in_step.reset(token)


def _result_in_thread(step: Step, function: Callable[[], Any]) -> Any:
    if step.timeout is not None:
        raise InvalidInput(
            f"Step {step.name!r} has a timeout in a plain handler, which cannot be stopped, allowed is one in an async handler."
        )
    result = function()
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise InvalidInput(
            f"Step {step.name!r} has an async function in a plain handler, allowed is a plain function."
        )
    return result


def _encoded(context: "Context", step: Step, result: Any) -> bytes | None:
    """Return the result as it is kept. Raises Dead when it cannot be, since each attempt would run the step again; InvalidPayload
    where the caller's transaction undoes it.
    """
    if result is None:
        return None
    try:
        what, of = f"result of step {step.name!r}", step_of(context.job_id, step.name)
        return encode(result, context.claim.codec, limit=LARGEST_STATE, what=what, of=of)
    except InvalidPayload as error:
        if step.connection is not None:
            raise
        raise Dead(f"{error} The step was run, and would be run again by each attempt.") from error


def _read(job_id: int, step: JobStep, wanted: Any) -> Any:
    """Return the result of a step that is done. It is the same in each attempt: what was written, read again."""
    of = step_of(job_id if step.done_by is None else step.done_by, step.name)
    return received(step.result, step.codec, f"result of step {step.name!r}", wanted, of=of)


def readable_as(returns: Any, what: str) -> Any:
    """Return the type that a value is to be read as; None: as it was written. Raises InvalidInput."""
    if returns is None:
        return None
    try:
        msgspec.json.Decoder(returns, dec_hook=from_plain)
    except Exception:
        raise InvalidInput(
            f"{what} is {names.shown(returns)}, allowed is a type as a handler may take it."
        ) from None
    return returns


def _wanted(step: Step, function: Callable[..., Any]) -> Any:
    """Return the type of the step's result; None: it is as it was written. Raises InvalidInput."""
    if step.returns is not None:
        return readable_as(step.returns, f"returns of step {step.name!r}")
    try:
        return readable_as(_annotated(function), "what it returns")
    except InvalidInput:
        return None


def _annotated(function: Callable[..., Any]) -> Any:
    """Return what the function says that it returns, or what that is awaited for; None where it says nothing."""
    while isinstance(function, functools.partial):
        function = function.func
    try:
        returns = typing.get_type_hints(function, include_extras=True).get("return")
    except Exception:  # names that its module knows to type checkers only
        return None
    if typing.get_origin(returns) in (Awaitable, Coroutine):
        returns = typing.get_args(returns)[-1]
    return None if returns in (Any, NoneType) or isinstance(returns, typing.TypeVar) else returns


def _seconds(duration: timedelta | float) -> float:
    return duration.total_seconds() if isinstance(duration, timedelta) else duration
