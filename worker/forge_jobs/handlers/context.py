"""What a handler is given besides its payload."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, overload

from forge_jobs.codecs.bound import state_of
from forge_jobs.codecs.encoded import Payload
from forge_jobs.errors import ClaimLost, InvalidInput
from forge_jobs.handlers import reporting, steps
from forge_jobs.handlers.awaited_call import AwaitedCall
from forge_jobs.handlers.context_tokens import ContextTokens, ProcessTokens
from forge_jobs.handlers.journal import Journal
from forge_jobs.handlers.received import received
from forge_jobs.handlers.steps import Step
from forge_jobs.handlers.sync_connection import at_once, is_sync
from forge_jobs.handlers.waits import WaitingContext
from forge_jobs.model.completion import Completion
from forge_jobs.model.job import Claim, End, Postponement, Reason, State
from forge_jobs.model.links import REPORTED
from forge_jobs.model.moments import as_duration, as_moment
from forge_jobs.model.run import Outcome
from forge_jobs.rules.returned import kept_result

if TYPE_CHECKING:
    from forge_jobs.forge import Forge
    from forge_jobs.handlers.flow_context import ContextFlow
    from forge_jobs.model.permit import Taken

T = TypeVar("T")
P = ParamSpec("P")

AT_ONCE = timedelta(0)

in_plain_handler: "ContextVar[Context | None]" = ContextVar("in_plain_handler", default=None)
"""The context of the plain handler whose thread or process this is; None outside of plain handlers."""


def answered(
    forge: "Forge", work: Coroutine[Any, Any, T], what: str, connection: Any = None
) -> Coroutine[Any, Any, T]:
    """Return the `work` of the method `what` of `forge`, to be awaited; in a plain handler, which cannot
    await, return the answer.

    Raises InvalidInput in a process of its own, where there is no answer.
    """
    context = in_plain_handler.get()
    if context is None or (asyncio._get_running_loop() is not None and forge is not context.forge):
        return AwaitedCall(work, what)  # in a loop of the handler's own, another Forge was opened there
    return cast(Coroutine[Any, Any, T], context.answer(work, what, connection))


def is_context(parameter: inspect.Parameter) -> bool:
    """Whether a handler's parameter, the first one, gets its context."""
    return parameter.name == "ctx" or parameter.annotation is Context or parameter.annotation == "Context"


class Context(WaitingContext):
    """One attempt at one job, as its handler sees it.

    What takes time (`enqueue`, `save`, and what `rate_limit` has) is awaited in an async handler. In
    a plain one, which runs in a thread, the call itself waits and returns the answer; when the
    attempt is told to stop meanwhile, or was before, it raises asyncio.CancelledError.
    """

    __slots__ = (
        "_cancelled",
        "_loop",
        "_reports",
        "_taken",
        "_tokens",
        "_waits",
        "claim",
        "completion",
        "forge",
        "has_heard",
        "has_reported",
        "is_final",
        "is_gathered",
        "is_shared",
        "journal",
        "may_leave_out",
        "queue",
        "task_id",
        "told_flow",
    )

    def __init__(
        self,
        claim: Claim,
        queue: str,
        forge: "Forge",
        tokens: ProcessTokens,
        reports: reporting.ProcessReports,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.claim = claim
        self._cancelled = False
        self.is_final = False  # its job was told to stop, and does not run again
        self.is_shared = False  # it was told to stop, and what it runs goes on for other jobs
        self.queue = queue
        self.forge = forge
        self._tokens = tokens
        self._reports = reports
        # how far it is, or what its steps are; also when an attempt before has, which may have done steps
        self.has_reported = claim.links is not None and bool(claim.links & REPORTED)
        self.journal: Journal | None = None  # None: it has come to no step
        self.is_gathered = False  # its function does a batch of jobs
        self.may_leave_out = False  # steps that are done: its items get fewer, or its process looks itself
        self.task_id: int | None = None  # the id of the task in which its handler runs; None: it runs in none
        self.told_flow: ContextFlow | None = None  # of which its job is a node
        self._loop = loop
        self._waits: list[Future[Any]] | None = None  # what threads wait for
        self._taken: Taken | None = None  # tokens of keys
        self.completion: Completion | None = (
            None  # what the handler wrote of the job in a transaction of its own
        )

    @property
    def flow(self) -> "ContextFlow":
        """The flow of which the job is a node. Raises InvalidInput when it is in none."""
        if self.told_flow is None:
            raise InvalidInput(f"Job {self.job_id} is no node of a flow, allowed is ctx.flow in nodes only.")
        return self.told_flow

    @property
    def job_id(self) -> int:
        """The id of the job, the same in all of its attempts."""
        return self.claim.job_id

    @property
    def kind(self) -> str:
        """The kind of the job."""
        return self.claim.kind

    @property
    def key(self) -> str | None:
        """The key that the job was enqueued with; None: it has none."""
        return self.claim.key

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self.claim.attempt

    @property
    def max_attempts(self) -> int:
        """How many attempts the job has; 0 means no end."""
        return self.claim.max_attempts

    @property
    def is_last_attempt(self) -> bool:
        """Whether a failure of this attempt makes the job dead."""
        return self.claim.is_last_attempt

    @property
    def created_at(self) -> datetime:
        """When the job was enqueued, by the database's clock."""
        return self.claim.created_at

    @property
    def is_cancelled(self) -> bool:
        """Whether the handler should end: its job was cancelled or timed out, or the worker stops.

        An async handler is told by asyncio.CancelledError. One that runs in a thread
        cannot be interrupted, so it has to look here now and then.
        """
        if self._cancelled:
            self.has_heard = True
        return self._cancelled

    async def take_turn(self, tokens: Sequence[tuple[str, str, float]]) -> None:
        """The tokens that the handler's limits ask of this job are spent. The worker calls this before the handler.

        Raises AwaitsTurn, by which the job waits, when there are too few.
        """
        await self.take_of_keys(tokens, wait=AT_ONCE)

    async def take_of_keys(
        self, tokens: Sequence[tuple[str, str, float]], *, wait: timedelta | float | None
    ) -> None:
        """These tokens are spent, and may be used now. Raises AwaitsTurn when some come later than `wait`."""
        if self._taken is None:
            self._taken = self._tokens.taken()
        await self._tokens.take_of_keys(tokens, wait=wait, claim=self.claim, taken=self._taken)

    @property
    def rate_limit(self) -> "ContextTokens":
        """The rate limits."""
        return ContextTokens(self, self._tokens)

    def cancel(self, *, is_final: bool) -> None:
        """`is_cancelled` is true from now on. The worker calls this; it does not cancel the job.

        `has_heard` says whether the handler has looked since then. With `is_final` the job does not run again.
        """
        self.is_final = is_final
        if not self._cancelled:
            self.has_heard = False
            self._cancelled = True
        for wait in tuple(self._waits or ()):
            wait.cancel()

    def enqueue(self, kind: str, payload: Payload | None = None, **options: Any) -> Any:
        """Enqueue another job and return its Enqueued, as `forge.enqueue` does; to be awaited in an async handler."""
        return self.answer(
            self.forge._enqueue(kind, payload, **options), "ctx.enqueue", options.get("connection")
        )

    def complete(self, connection: Any, *, result: Any = None) -> Any:
        """In the transaction of `connection` the job is done, with this result; to be awaited in an async handler.

        The work that is written there and the job's completion are one commit. Call it last: the transaction
        holds the job from then on. When the handler ends, the job is done if the transaction was
        committed, and the attempt has failed if it was rolled back. Raises ClaimLost when the job was taken
        back: let it roll the transaction back. Raises InvalidInput for a connection that is in no transaction, or is of
        another database.
        """
        _require_given(connection)
        return self.answer(self._complete(connection, result), "ctx.complete", connection)

    def reschedule(
        self, connection: Any, *, at: datetime | None = None, after: timedelta | float | None = None
    ) -> Any:
        """In the transaction of `connection` the job waits until `at` (an aware datetime), or for `after` (seconds or timedelta).

        The next run is a first attempt: those so far count no more. All else is as with `complete`.
        """
        _require_given(connection)
        if (at is None) is (after is None):
            raise InvalidInput("ctx.reschedule takes at= or after=, allowed is exactly one of them.")
        moment, delay = None if at is None else as_moment(at, "at"), as_duration(after, "after")
        return self.answer(self._reschedule(connection, moment, delay), "ctx.reschedule", connection)

    @property
    def state(self) -> Any:
        """What was saved last of the job, by this attempt or one before; None: nothing. Each time it is decoded anew.

        What this attempt saved with a `connection` is not in it: only the next attempt finds that, if it was committed.
        """
        claim = self.claim
        return received(claim.state, claim.codec, "state", of=state_of(claim.job_id))

    def save(self, state: Any, *, connection: Any = None) -> Any:
        """The state of the job is written: the next attempt has it as `state`; to be awaited in an async handler.

        It is what the codec of the job can encode, in 256 KiB, and stays as long as the job does. With `connection` it
        is written in that transaction, and holds if it is committed: call it there alone until then. Raises ClaimLost when
        the job was taken back, and nothing is written; InvalidPayload.
        """
        return self.answer(reporting.save(self, state, connection), "ctx.save", connection)

    def save_for_key(self, state: Any, *, connection: Any = None) -> Any:
        """All later jobs of this kind with the key of this one may go on from this state; None: there is none any more.

        As `save`. Raises ClaimLost also when the key went to another job, and InvalidInput when the job has none.
        """
        return self.answer(reporting.save_for_key(self, state, connection), "ctx.save_for_key", connection)

    def state_of_key(self) -> Any:
        """Return what was saved for the key of the job last; None: nothing. To be awaited in an async handler."""
        return self.answer(reporting.state_of_key(self), "ctx.state_of_key")

    def set_result(self, result: Any, *, connection: Any = None) -> Any:
        """The result of the job is written, the last one counts: also when it dies, unless its handler returns one. As `save`."""
        return self.answer(reporting.set_result(self, result, connection), "ctx.set_result", connection)

    def progress(self, share: float, note: str | None = None) -> Awaitable[None]:
        """People see within a second that this share of the work is done, from 0 to 1, and the note, in 500 characters.

        It costs nothing to speak of and never fails, however often it is called: of many reports the last one
        is written. It may be awaited. Raises InvalidInput.
        """
        self._reports.add(reporting.progress_report(self, share, note))
        self.has_reported = True
        return reporting.TOLD

    @overload
    def step(
        self,
        step: str | Step,
        function: Callable[P, Coroutine[Any, Any, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def step(
        self, step: str | Step, function: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> Any: ...
    def step(self, step: str | Step, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Return what `function` returns for these arguments; to be awaited in an async handler, where it may be async.

        The result is written before this returns, and a later attempt of the job reads it and does not call the function
        again. It is what the codec of the job can encode, in 256 KiB, and each attempt has it as it is read: of the type that
        the function is annotated with, or plain. A `Step` says more than its name, which is one of its own in the job.
        Raises what the function raises; Dead when its result cannot be kept, InvalidPayload in a transaction; StepsChanged
        when earlier attempts did other steps; ClaimLost when the job was taken back, and nothing is written; InvalidInput.
        """
        return steps.called(steps.run(self, step, function, args, kwargs), "ctx.step")

    def sleep(self, duration: timedelta | float, name: str | None = None) -> Any:
        """The handler ends here, and is called again when this time (seconds or timedelta) is over; to be awaited in an async handler.

        Meanwhile the job is scheduled: it holds neither a slot nor a worker, and its attempt is not counted. The sleep is a step:
        when the handler comes to it again, it goes on. Raises what is no Exception, for the worker; let it through.
        Raises StepsChanged, ClaimLost, InvalidInput.
        """
        return steps.called(steps.sleep(self, duration, name), "ctx.sleep")

    def patched(self, name: str) -> Any:
        """Return whether this job comes to a place of changed code for the first time with the change; False: it was past it
        before, and has to take the old path. To be awaited in an async handler. Each attempt has the same answer.

        Raises StepsChanged, ClaimLost, InvalidInput.
        """
        return steps.called(steps.patched(self, name), "ctx.patched")

    async def _complete(self, connection: Any, result: Any) -> None:
        if self.told_flow is not None:
            self.told_flow.require_plain()
        kept = kept_result(result, self.claim.codec, self.job_id)
        end = End(self.claim, State.DONE, result=kept.encoded, error=kept.note)
        write = self.forge.storage.completions.complete(end, connection=connection)
        await self._completed(write, Outcome.DONE, connection)

    async def _reschedule(self, connection: Any, at: datetime | None, after: timedelta | None) -> None:
        postponement = Postponement(
            self.claim, Reason.RESCHEDULED, after or timedelta(0), run_at=at, afresh=True
        )
        write = self.forge.storage.completions.reschedule(postponement, connection=connection)
        await self._completed(write, Outcome.RESCHEDULED, connection)

    async def _completed(
        self, write: Coroutine[Any, Any, int | None], outcome: Outcome, connection: Any
    ) -> None:
        claim = self.claim
        proof = claim.job_id, claim.worker_id, claim.attempt
        try:
            claimed_at = await write
        except (
            asyncio.CancelledError
        ):  # it may have been carried out, and the handler may commit all the same
            self.completion = self.completion or Completion(*proof, None, outcome)
            raise
        if claimed_at is not None:
            self.completion = Completion(*proof, claimed_at, outcome)
        elif self.completion is not None and await self.forge.storage.completions.stands(
            self.completion, connection=connection
        ):
            raise InvalidInput(
                f"Job {claim.job_id} was completed or rescheduled by this attempt before, allowed is once."
            )
        else:
            raise ClaimLost(claim.job_id, claim.attempt)

    def answer(self, work: Coroutine[Any, Any, Any], what: str, connection: Any = None) -> Any:
        """Return the result of `work`, the method `what`: something to await in a loop, the answer in a
        thread. Work on a `connection` of the handler's is done where that belongs."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            if connection is None or not is_sync(connection):
                return self._waited(work)
            self._check_not_stopped(work)
            return at_once(work)
        if running is self._loop or connection is not None:
            return AwaitedCall(work, what)
        return AwaitedCall(_run_in(self._loop, work), what)

    def _check_not_stopped(self, work: Coroutine[Any, Any, Any]) -> None:
        if self._cancelled or self._loop.is_closed():
            work.close()
            self.has_heard = True
            raise asyncio.CancelledError("the attempt was told to stop")

    def _waited(self, work: Coroutine[Any, Any, Any]) -> Any:
        self._check_not_stopped(work)
        wait = asyncio.run_coroutine_threadsafe(work, self._loop)
        if self._waits is None:
            self._waits = []
        self._waits.append(wait)
        if self._cancelled:  # just now, and its caller may not have seen this wait
            wait.cancel()
        try:
            return wait.result()
        except CancelledError:
            self.has_heard = True
            raise asyncio.CancelledError("the attempt was told to stop") from None
        finally:
            self._waits.remove(wait)


def _require_given(connection: Any) -> None:
    if connection is None:
        raise InvalidInput("connection is None, allowed is the connection of a transaction.")


async def _run_in(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` comes to in the worker's loop; a handler may run one of its own in its thread."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))
