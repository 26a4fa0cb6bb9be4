"""Batches: a function that does many jobs of one kind in one call.

Each job of a batch stays an attempt of its own: it is claimed, times out, is cancelled, has its outcome and is
retried by itself. Its attempt joins the batch that gathers at that moment, and waits there for the job's outcome.
"""

import asyncio
import dataclasses
import inspect
import typing
from collections.abc import Callable, Coroutine, Hashable, Sequence
from contextvars import Context as Variables
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from types import TracebackType
from typing import Any, Generic, TypeVar

import msgspec

from forge_jobs.errors import InvalidInput
from forge_jobs.handlers.arguments import Arguments
from forge_jobs.handlers.context import Context
from forge_jobs.model.mask import Mask, present
from forge_jobs.model.moments import as_duration
from forge_jobs.rules.outcomes import of_each

A = TypeVar("A")

LARGEST = 1000
"""The most jobs that a batch may have."""


@dataclass(frozen=True, slots=True)
class BatchJob(Generic[A]):
    """One job of a batch, as the function of the batch sees it."""

    ctx: Context
    arguments: A


BatchFunction = Callable[[list[BatchJob[Any]]], Coroutine[Any, Any, Sequence[Any] | None]]


@dataclass(frozen=True, slots=True)
class Batch:
    """How the jobs of a kind are gathered: up to `size` of them, or those that came `within` this time of the first.

    `within` is a timedelta or seconds; 0: those that the worker begins at the same moment. `by`
    says of a job's arguments to which batch the job belongs; None: all belong together. Raises InvalidInput.
    """

    size: int = 25
    within: timedelta | float = 0
    by: Callable[[Any], Hashable] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or not 1 <= self.size <= LARGEST:
            raise InvalidInput(
                f"size of a batch is {self.size!r}, allowed is a whole number from 1 to {LARGEST:,}."
            )
        if self.by is not None and not callable(self.by):
            raise InvalidInput(f"by of a batch is {self.by!r}, allowed is a function of a job's arguments.")
        as_duration(self.within, "within of a batch")

    @property
    def seconds(self) -> float:
        """`within` as a number of seconds."""
        return self.within.total_seconds() if isinstance(self.within, timedelta) else self.within


class Batches:
    """Gathers the jobs of one kind for a function that takes a list of BatchJob. Raises InvalidInput for another function."""

    def __init__(self, function: BatchFunction, batch: Batch, kind: str) -> None:
        self._function = function
        self._batch = batch
        self.size = batch.size
        self._make = _arguments_class(function, kind)
        self.arguments = Arguments(_like(self._make))
        self._gathering: dict[Hashable, _Gathering] = {}

    @classmethod
    def given(cls, function: Callable[..., Any], batch: object, kind: str) -> "Batches":
        """Return what gathers jobs as `batch` says. Raises InvalidInput."""
        if not isinstance(batch, Batch):
            raise InvalidInput(f"batch of handler {kind!r} is {batch!r}, allowed is a Batch.")
        return cls(function, batch, kind)

    def called(self, *, is_plain: bool) -> Callable[..., Any]:
        """Return what an attempt calls; the function itself is never plain."""
        return self.join

    async def join(self, ctx: Context, **arguments: Any) -> Any:
        """Return, or raise, the outcome of the job of `ctx` in the batch that it joins.

        A job whose attempt before has failed is in a batch of its own: it may be the one that made the batch fail.
        """
        ctx.is_gathered = True
        job = BatchJob(ctx, self._make(**arguments))
        key = None if self._batch.by is None else self._batch.by(job.arguments)
        if ctx.attempt > 1:
            alone = _Gathering(self._function, 1, 0.0, _nothing)
            return await alone.outcome_of(job)
        place = (asyncio.get_running_loop(), key)
        gathering = self._gathering.get(place)
        if gathering is None:
            gathering = self._gathering[place] = _Gathering(
                self._function,
                self._batch.size,
                self._batch.seconds,
                lambda: self._gathering.pop(place, None),
            )
        return await gathering.outcome_of(job)


class _Member:
    """A job of a batch, and what became of it."""

    def __init__(self, job: BatchJob[Any], loop: asyncio.AbstractEventLoop) -> None:
        self.job = job
        self.has_outcome = loop.create_future()
        self.value: Any = None
        self.error: BaseException | None = None
        self.traceback: TracebackType | None = None
        self.mask = present.get()

    def succeed(self, value: Any) -> None:
        self.value = value
        self._wake()

    def fail(self, error: BaseException) -> None:
        self.error, self.traceback = error, error.__traceback__
        self._wake()

    def outcome(self) -> Any:
        if self.error is not None:
            raise self.error.with_traceback(self.traceback)  # jobs that share an error share no traceback
        return self.value

    def _wake(self) -> None:
        if not self.has_outcome.done():
            self.has_outcome.set_result(None)


class _Gathering:
    """A batch, from its first job until its function has ended. `closed()` is called once no job can join any more."""

    def __init__(
        self, function: BatchFunction, size: int, within: float, closed: Callable[[], object]
    ) -> None:
        self._function = function
        self._size = size
        self._closed = closed
        self._loop = asyncio.get_running_loop()
        self._members: list[_Member] = []
        self._left: list[_Member] = []  # told to stop; each waits until the call has ended
        self._call: asyncio.Task[None] | None = None
        self._timer: asyncio.Handle
        if within:
            self._timer = self._loop.call_later(within, self._begin)
        else:
            self._timer = self._loop.call_soon(self._begin_unless_more_came, 1)

    async def outcome_of(self, job: BatchJob[Any]) -> Any:
        """The job joins; return or raise what becomes of it."""
        member = _Member(job, self._loop)
        self._members.append(member)
        if len(self._members) == self._size:
            self._begin()
        try:
            await member.has_outcome
        except asyncio.CancelledError:
            await self._leave(member)
            raise
        return member.outcome()

    def _begin_unless_more_came(self, members: int) -> None:
        """The jobs of one moment come in as many passes of the loop as the worker needs to begin them."""
        if len(self._members) == members:
            self._begin()
        else:
            self._timer = self._loop.call_soon(self._begin_unless_more_came, len(self._members))

    def _begin(self) -> None:
        self._timer.cancel()
        self._closed()
        if self._members:
            # in no job's context: it works for all of them
            self._call = self._loop.create_task(self._run(list(self._members)), context=Variables())

    async def _run(self, members: Sequence[_Member]) -> None:
        """Call the function; whatever it does, each member has an outcome."""
        jobs = [member.job for member in members]
        for job in jobs:
            job.ctx.task_id = id(asyncio.current_task())
        masks = [member.mask for member in members if member.mask is not None]
        if masks:
            masks.append(Mask((), masks[0].redacted))  # over what any of them reads from now on
            present.set(masks[-1])
        _share_masks(masks)
        try:
            try:
                returned = await self._function(jobs)
            finally:
                _share_masks(masks)
            outcomes = of_each(returned, len(members), "job")
        except BaseException as error:  # one that ends processes is the failure of these jobs
            for member in members:
                member.fail(error)
            return
        for member, outcome in zip(members, outcomes, strict=True):
            try:
                if issubclass(
                    type(outcome), BaseException
                ):  # isinstance would ask the object, which may raise
                    member.fail(outcome)
                else:
                    member.succeed(outcome)
            except BaseException:
                name = type(outcome).__name__
                member.fail(RuntimeError(f"the outcome is a {name}, which raises when it is looked at"))

    async def _leave(self, member: _Member) -> None:
        """The member's job was told to stop. The others go on; with the last one the function is told to stop.

        Either way the job waits until the call has ended, since it may run again then, unless it never does:
        a user has cancelled it, its deadline has come, or it was its last attempt. So a function that does not obey is seen to go on, too.
        """
        self._members.remove(member)
        is_last = not self._members
        if self._call is None:
            if is_last:
                self._timer.cancel()
                self._closed()
            return
        self._left.append(member)
        if is_last:
            for other in self._left:
                other.job.ctx.is_shared = False
        else:
            member.job.ctx.is_shared = True
        while not self._call.done() and (is_last or not member.job.ctx.is_final):
            if is_last:
                self._call.cancel()
            try:
                await asyncio.wait([self._call])
            except asyncio.CancelledError:  # told to stop again
                continue


def _arguments_class(function: BatchFunction, kind: str) -> type[Any]:
    """Return A of the one parameter, which is a `list[BatchJob[A]]`; dict where it is not said. Raises InvalidInput."""
    allowed = "allowed is an async function with one parameter, a list[BatchJob] or list[BatchJob[A]]"
    if not inspect.iscoroutinefunction(function):
        raise InvalidInput(f"Handler {kind!r} has a batch and is not async, {allowed}.")
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) != 1 or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        names = ", ".join(parameter.name for parameter in parameters) or "nothing"
        raise InvalidInput(f"Handler {kind!r} has a batch and takes {names}, {allowed}.")
    try:
        hint = typing.get_type_hints(function).get(parameters[0].name, list[BatchJob[Any]])
    except (NameError, TypeError) as error:
        raise InvalidInput(f"The annotations of handler {kind!r} cannot be resolved: {error}.") from error
    [job] = typing.get_args(hint) or [None]
    if not isinstance(typing.get_origin(hint), type) or (typing.get_origin(job) or job) is not BatchJob:
        raise InvalidInput(f"Handler {kind!r} has a batch and takes {hint}, {allowed}.")
    [wanted] = typing.get_args(job) or [dict]
    wanted = typing.get_origin(wanted) or wanted
    if wanted is dict or dataclasses.is_dataclass(wanted) or _is_struct(wanted):
        return typing.cast(type[Any], wanted)
    raise InvalidInput(
        f"The jobs of handler {kind!r} have arguments of type {wanted!r}, "
        "allowed is a dataclass, a msgspec struct, or dict for any arguments."
    )


def _is_struct(wanted: object) -> bool:
    return isinstance(wanted, type) and issubclass(wanted, msgspec.Struct)


def _like(arguments: type[Any]) -> Callable[..., Any]:
    """Return a function that takes by name what makes an object of the class."""

    def take(**arguments: Any) -> None: ...

    if arguments is not dict:
        hints = typing.get_type_hints(arguments)
        take.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=hints[parameter.name])
                for parameter in inspect.signature(arguments).parameters.values()
            ]
        )
    take.__qualname__ = arguments.__qualname__
    return take


def _share_masks(masks: Sequence[Mask]) -> None:
    """Each of them hides what all do: one error may become that of all jobs."""
    secrets = [mask.secrets for mask in masks]
    for mask in masks:
        mask.add(chain.from_iterable(secrets))


def _nothing() -> None: ...
