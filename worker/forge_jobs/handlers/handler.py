"""Handlers: the function that does a kind of job, and how it is declared.

`Forge.handler` makes a Handler of a function and registers it. `runners` looks handlers
up by kind and calls them; producers enqueue through them.
"""

import inspect
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Generic, Unpack, cast

from forge_jobs.codecs.encoded import Payload
from forge_jobs.codecs.plain import hides
from forge_jobs.errors import InvalidInput, UnknownHandler
from forge_jobs.handlers.arguments import Arguments
from forge_jobs.handlers.batch import Batch, Batches
from forge_jobs.handlers.context import Context, is_context
from forge_jobs.handlers.cron import Crons, declared_crons
from forge_jobs.handlers.fairness import Fairness
from forge_jobs.handlers.grouping import Grouping, Groups
from forge_jobs.handlers.items import Lists
from forge_jobs.handlers.key_limit import KeyLimit, checked_limits
from forge_jobs.handlers.options import UNSET, Options, OptionValues, Unset
from forge_jobs.handlers.placement import Placement, kind_of, placement_of, slots_of
from forge_jobs.handlers.provided import require_none
from forge_jobs.handlers.routes import Routes
from forge_jobs.handlers.type_variables import P, Q, R, V
from forge_jobs.handlers.unique import Unique, require_arguments
from forge_jobs.model.job import Enqueued, NewJob
from forge_jobs.model.kind import Kind, OnLost
from forge_jobs.model.moments import as_duration
from forge_jobs.model.redaction import Redacted, covers
from forge_jobs.rules import names, redaction, time_limits
from forge_jobs.rules.checks import yes_or_no
from forge_jobs.rules.redaction import require_sealed
from forge_jobs.rules.retries import OnFailure, Retries, said_by

if TYPE_CHECKING:
    from forge_jobs.forge import Forge
    from forge_jobs.model.cron import CronConfig

SINGLETON = "singleton"
"""The key of the only job of a kind."""

MOST_WRAPPED = 20  # decorators around a handler


class Handler(Generic[P, R, Q, V]):
    """A function with what forge-jobs knows of it. Calling it calls the function.

    Its jobs take P, and their results are R; a call takes Q and returns V, which type checkers find out by themselves.
    """

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)  # Handler[P, R] is enough

    def __init__(
        self,
        forge: "Forge",
        function: Callable[Q, V],
        *,
        takes_items: bool = False,
        kind: str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        max_attempts: int | Unset | None = UNSET,
        timeout: timedelta | float | None = None,
        start_by: timedelta | float | None = None,
        deadline: timedelta | float | None = None,
        unique: Unique | None = None,
        group: Groups | Callable[..., Groups | None] | None = None,
        fair_by: str | Callable[..., object] | None = None,
        tags: Iterable[str] | None = None,
        singleton: bool = False,
        codec: str = "json",
        sealed_only: bool = False,
        redact: bool | Iterable[str] | None = None,
        executor: str | None = None,
        batch: Batch | None = None,
        limits: KeyLimit | Sequence[KeyLimit] = (),
        slots: int = 1,
        pin: str | None = None,
        retry: Retries | None = None,
        on_failure: OnFailure | None = None,
        on_lost: OnLost | str | None = None,
        cron: Crons = (),
        title: str | None = None,
        owner: str | None = None,
        docs: str | None = None,
    ) -> None:
        self.forge = forge
        if isinstance(function, Handler):
            function = cast(Handler[P, R, Q, V], function).__wrapped__
        self.__wrapped__: Callable[Q, V] = function
        self.kind = names.kind(kind_of(function) if kind is None else kind)
        self.takes_items = takes_items  # its payload is a list
        self.retries = said_by(retry, on_failure, self.kind)
        self.on_lost = None if on_lost is None else names.on_lost(on_lost)
        if singleton and unique is not None:
            raise InvalidInput("unique and singleton are both given, allowed is one of them.")
        self.is_singleton = singleton
        if fair_by is not None and group is not None:
            raise InvalidInput("fair_by and group are both given, allowed is one of them.")
        self.fairness = None if fair_by is None else Fairness.given(fair_by)
        self.defaults = Options(
            queue=queue,
            priority=priority,
            max_attempts=self._attempts(max_attempts),
            timeout=as_duration(timeout, "timeout"),
            start_by=time_limits.duration(start_by, "start_by"),
            deadline=time_limits.duration(deadline, "deadline"),
            key=SINGLETON if singleton else None,
            unique=unique,
            group=None if group is None else Grouping.given(group),
            tags=None if tags is None else names.tags(tags),
        ).checked()
        if not isinstance(codec, str):
            raise InvalidInput(
                f"codec of handler {self.kind!r} is {codec!r}, allowed is the name of a codec."
            )
        self.codec = codec
        self.title = None if title is None else names.line(title, "title")
        self.owner = None if owner is None else names.line(owner, "owner")
        self.docs = None if docs is None else names.line(docs, "docs")
        self.placement = placement_of(function, executor, self.kind)
        self.slots = slots_of(slots, self.kind)
        self.is_pinned = names.pin(pin, self.kind)  # once begun, its jobs are for this version of the program
        self._read(function, self._together(batch), limits)
        self._check_patience(batch)
        self._check_arguments()
        self.crons = declared_crons(cron, self)
        self._check_redaction(redact, fair_by, sealed_only)
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", self.kind)
        self.__module__ = getattr(function, "__module__", None) or ""
        self.__qualname__ = getattr(function, "__qualname__", self.kind)

    def _check_arguments(self) -> None:
        """Raise InvalidInput when an option names an argument that the function does not have, or it asks for what cannot be."""
        if self.defaults.unique is not None:
            require_arguments(self.defaults.unique, self.kind, self.arguments)
        if self.defaults.group is not None:
            self.defaults.group.require_arguments(self.kind, self.arguments)
        if self.fairness is not None:
            self.fairness.require_arguments(self.kind, self.arguments)
        if self.placement is Placement.PROCESS:
            require_none(self.arguments.provided, self.kind)

    def _check_redaction(self, redact: object, fair_by: object, sealed_only: object) -> None:
        """Raise InvalidInput when an argument is redacted that the function does not have, or that another option shows."""
        self.redact = self.arguments.redacted = redaction.checked(redact, self.kind)
        self.arguments.kind, self.arguments.codec = self.kind, self.codec
        self.arguments.sealed_only = yes_or_no(sealed_only, "sealed_only")
        for name in () if isinstance(self.redact, bool) else self.redact:
            if not (self.takes_items or self.arguments.takes(name)):
                takes = ", ".join(self.arguments.names) or "nothing"
                raise InvalidInput(
                    f"redact of handler {self.kind!r} names {name!r}, allowed is one of its arguments: it takes {takes}."
                )
        self._shown_by = {fair_by: "fair_by"} if isinstance(fair_by, str) else {}
        self._shown_by |= {limit.by: "limits" for limit in self.limits if isinstance(limit.by, str)}
        self._require_unseen()

    def _require_unseen(self) -> None:
        """Raise InvalidInput when a redacted argument is a tenant or a key, which everybody may see."""
        for name, option in self._shown_by.items():
            if covers(self.hidden, name):
                raise InvalidInput(
                    f"{option} of handler {self.kind!r} is by {name!r}, which is redacted or sealed, and would be seen; "
                    "allowed is a function of the arguments, which says what may be."
                )
        for cron in self.crons:
            require_sealed(self.kind, self.codec, cron.codec, cron.payload, is_sealed=hides(self.codec))

    @property
    def hidden(self) -> Redacted:
        """What of its jobs is shown to nobody: all, if its codec hides it."""
        return True if hides(self.codec) else self.redact

    def _attempts(self, said: int | Unset | None) -> int | Unset | None:
        """Return how many attempts a job has, said in one of two ways."""
        if said is not UNSET and self.retries.attempts is not UNSET:
            raise InvalidInput("max_attempts and Retries.attempts are both given, allowed is one of them.")
        said = self.retries.attempts if said is UNSET else said
        return None if self.is_singleton and said is UNSET else said

    def _read(
        self,
        function: Callable[..., Any],
        together: Batches | Lists | None,
        limits: KeyLimit | Sequence[KeyLimit],
    ) -> None:
        """Find out what an attempt calls, and with which arguments."""
        self.batch_size = together.size if isinstance(together, Batches) else 1
        self.function: Callable[..., Any] = (
            function if together is None else together.called(is_plain=self.placement is Placement.THREAD)
        )
        parameters = _parameters(self.function, self.kind)
        self.takes_context = self._wants_context = bool(parameters) and is_context(parameters[0])
        for parameter in parameters[1:]:
            if is_context(parameter):
                raise InvalidInput(
                    f"Handler {self.kind!r} has the context as parameter {parameter.name!r}, "
                    "allowed is the first parameter."
                )
        skip = 1 if self.takes_context else 0
        self.arguments = Arguments(function, skip=skip) if together is None else together.arguments
        self.limits = checked_limits(limits, self.kind, self.arguments)
        for name, value in {"limits": self.limits, "slots": self.slots > 1}.items():
            if value and isinstance(together, Batches):
                raise InvalidInput(f"batch and {name} are both given, allowed is one of them.")
        if self.limits and self.takes_items:
            raise InvalidInput("limits is given to a batch handler, allowed is one of them.")
        self.bare = self.function  # which is called for a job that has paid what its limits ask
        self.pays_ahead = bool(self.limits) and not self.takes_context
        if self.limits and self.placement is Placement.LOOP:
            self.function, self.takes_context = self._in_turn, True

    def _together(self, batch: Batch | None) -> Batches | Lists | None:
        """Return what calls the function for many things at once, jobs or items; None when it is called for one job."""
        if not self.takes_items:
            return None if batch is None else Batches.given(self.__wrapped__, batch, self.kind)
        if batch is not None:
            raise InvalidInput("batch is given to a batch handler, allowed is one of them.")
        if self.placement is Placement.PROCESS:
            raise InvalidInput(
                f"Handler {self.kind!r} is a batch handler and has executor='process', "
                "allowed is an async function, or a plain one in a thread."
            )
        _parameters(self.__wrapped__, self.kind)
        return Lists(self.__wrapped__, self.kind, self.retries)

    def _check_patience(self, batch: Batch | None) -> None:
        """Raise InvalidInput when a job would be timed out while others are gathered for its batch."""
        longest = self.defaults.timeout
        if batch is not None and longest is not None and batch.seconds >= longest.total_seconds():
            raise InvalidInput(
                f"within of the batch of handler {self.kind!r} is {batch.within!r}, "
                f"allowed is less than the timeout of its jobs, {longest}."
            )

    def tokens_of(self, arguments: Mapping[str, Any]) -> Sequence[tuple[str, str, float]]:
        """Return the tokens (scope, key, cost) that its limits ask of a job with these arguments. Raises InvalidInput."""
        said = self.arguments.said(arguments)
        return [limit.tokens_of(said) for limit in self.limits]

    async def _in_turn(self, ctx: Context, **arguments: Any) -> Any:
        """Call the function when the job's turn has come."""
        await ctx.take_turn(self.tokens_of(arguments))
        function: Callable[..., Any] = self.__wrapped__
        return await (function(ctx, **arguments) if self._wants_context else function(**arguments))

    @property
    def declared(self) -> Kind:
        """What is published of its kind. Raises InvalidInput when it cannot be, now that its codec is known."""
        self._require_unseen()
        self.arguments.require_seal()
        job = self.defaults.job(self.kind, b"", self.codec)
        options = (job.queue, job.priority, job.max_attempts, job.timeout, job.codec)
        people = (self.title, self.owner, self.docs)
        return Kind(
            self.kind,
            *options,
            *people,
            start_by=time_limits.duration(job.start_by, "start_by"),
            deadline=time_limits.duration(job.deadline, "deadline"),
            on_lost=self.on_lost,
            redact=self.hidden,
            most_bytes=self.forge.settings.max_payload_bytes if self.takes_items else None,
            sealed=hides(self.codec),
            slots=self.slots if self.slots > 1 else None,
            unpublished=self.defaults.unpublished_names(is_fair=self.fairness is not None),
        )

    def require_importable(self) -> None:
        """Raise InvalidInput when its module and name do not lead to its function."""
        value: Any = sys.modules.get(self.__module__)
        value = getattr(value, self.__qualname__, None)
        for _ in range(MOST_WRAPPED):
            if value is self or (value is self.function and not self.retries.asks):
                return
            value = getattr(value, "__wrapped__", None)
        what = "decorated function" if self.retries.asks else "function"
        raise InvalidInput(
            f"Handler {self.kind!r} cannot run in a process of its own: {self.__module__}.{self.__qualname__} is not "
            f"its {what}; allowed is a {what} under its own name, at the top of a module."
        )

    def __call__(self, *args: Q.args, **kwargs: Q.kwargs) -> V:
        return self.__wrapped__(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Handler {self.kind!r}>"

    def enqueue(self, *args: P.args, **payload: P.kwargs) -> Coroutine[Any, Any, Enqueued[R]]:
        """A job with these arguments waits; to be awaited, except in a plain handler. Raises InvalidPayload when they do not fit the function."""
        return self.forge.enqueue(self.kind, self.payload(args, payload))

    def enqueue_sync(self, *args: P.args, **payload: P.kwargs) -> Enqueued[R]:
        """As `enqueue`, without an event loop: it is done when this returns. Raises InvalidInput in an event loop."""
        return self.forge.enqueue_sync(self.kind, self.payload(args, payload))

    def enqueue_many_sync(self, payloads: Sequence[Payload]) -> list[Enqueued[R]]:
        """As `enqueue_many`, in the way of `enqueue_sync`."""
        return self.forge.enqueue_many_sync(self.kind, payloads)

    def ensure(self, *args: P.args, **payload: P.kwargs) -> Coroutine[Any, Any, Enqueued[R]]:
        """The one living job of a singleton is there: the one that was, or a new one with these arguments.

        Raises InvalidInput when the handler is no singleton.
        """
        if not self.is_singleton:
            raise InvalidInput(f"Handler {self.kind!r} is no singleton, allowed is one with singleton=True.")
        return self.enqueue(*args, **payload)

    def enqueue_many(self, payloads: Sequence[Payload]) -> Coroutine[Any, Any, list[Enqueued[R]]]:
        """One job for each of `payloads` waits, or none; answers are in their order."""
        return self.forge.enqueue_many(self.kind, payloads)

    def job(self, *args: P.args, **payload: P.kwargs) -> NewJob:
        """Return a job with these arguments, for `forge.enqueue_batch`. Raises InvalidPayload."""
        return self.forge.job(self.kind, self.payload(args, payload))

    def options(self, **options: Unpack[OptionValues]) -> "HandlerWithOptions[P, R]":
        """Return the handler with options for the jobs that are enqueued through the returned object."""
        return HandlerWithOptions(self, options)

    def payload(self, args: Sequence[Any], named: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the payload of a job with these arguments. Raises InvalidInput."""
        return self.arguments.by_name(args, named) if args else named


@dataclass(frozen=True, slots=True)
class HandlerWithOptions(Generic[P, R]):
    """A handler, and the options for jobs enqueued here."""

    handler: Handler[P, R]
    values: OptionValues

    def enqueue(self, *args: P.args, **payload: P.kwargs) -> Coroutine[Any, Any, Enqueued[R]]:
        """A job with these arguments and options waits."""
        handler = self.handler
        return handler.forge.enqueue(handler.kind, handler.payload(args, payload), **self.values)

    def enqueue_many(self, payloads: Sequence[Payload]) -> Coroutine[Any, Any, list[Enqueued[R]]]:
        """One job for each of `payloads` waits, or none."""
        return self.handler.forge.enqueue_many(self.handler.kind, payloads, **self.values)

    def enqueue_sync(self, *args: P.args, **payload: P.kwargs) -> Enqueued[R]:
        """As `enqueue`, without an event loop; with a `connection` among the options, in the transaction of that one."""
        handler = self.handler
        return handler.forge.enqueue_sync(handler.kind, handler.payload(args, payload), **self.values)

    def enqueue_many_sync(self, payloads: Sequence[Payload]) -> list[Enqueued[R]]:
        """As `enqueue_many`, in the way of `enqueue_sync`."""
        return self.handler.forge.enqueue_many_sync(self.handler.kind, payloads, **self.values)

    def job(self, *args: P.args, **payload: P.kwargs) -> NewJob:
        """Return a job with these arguments and options, for `forge.enqueue_batch`."""
        handler = self.handler
        return handler.forge.job(handler.kind, handler.payload(args, payload), **self.values)


class Handlers(Mapping[str, Handler[Any, Any]]):
    """The handlers of a program, by kind."""

    def __init__(self) -> None:
        self.by_kind: dict[str, Handler[Any, Any]] = {}  # the same, for whom a call of a method is too dear
        self.routes = Routes()

    def add(self, handler: Handler[Any, Any]) -> None:
        """`handler` does its kind from now on. Raises InvalidInput when the kind has a handler, or another one has its cron."""
        if handler.kind in self.by_kind:
            there = self.by_kind[handler.kind]
            raise InvalidInput(
                f"Kind {handler.kind!r} has a handler already: {there.__module__}.{there.__qualname__}."
            )
        crons = self.crons()
        for cron in handler.crons:
            if cron.name in crons:
                raise InvalidInput(
                    f"Cron {cron.name!r} is declared by the handler of {crons[cron.name].kind!r} already, "
                    "allowed are different names: Cron(..., name=...)."
                )
        self.by_kind[handler.kind] = handler

    def queue_of(self, kind: str) -> str | None:
        """Return the queue of jobs of a kind, as its handler says, or else a route; None: neither does."""
        handler = self.by_kind.get(kind)
        said = None if handler is None else handler.defaults.queue
        return self.routes.queue_of(kind) if said is None else said

    def queues(self) -> set[str]:
        """Return the queues that handlers, their crons and routes name."""
        of_crons = {cron.queue for cron in self.crons().values() if cron.queue_said}
        of_kinds = {self.queue_of(kind) for kind in self.by_kind}
        return {queue for queue in of_kinds | of_crons | self.routes.queues() if queue}

    def declared(self) -> list[Kind]:
        """Return what is published of their kinds."""
        return [
            replace(handler.declared, queue=self.queue_of(kind)) for kind, handler in self.by_kind.items()
        ]

    def crons(self) -> "dict[str, CronConfig]":
        """Return the crons that they declare, by name."""
        return {cron.name: cron for handler in self.by_kind.values() for cron in handler.crons}

    def named(self, kind: str) -> Handler[Any, Any]:
        """Return the handler of `kind`. Raises UnknownHandler."""
        handler = self.by_kind.get(kind)
        if handler is None:
            raise UnknownHandler(kind, self.by_kind)
        return handler

    def slots_within(self, concurrency: int) -> Mapping[str, int]:
        """Return, for each kind that takes more than one, how many slots of a worker with so many its jobs take."""
        heavy = {kind: min(handler.slots, concurrency) for kind, handler in self.by_kind.items()}
        return {kind: slots for kind, slots in heavy.items() if slots > 1}

    @property
    def are_pinned(self) -> bool:
        """Whether jobs of any of them are pinned to the version of the program that begins them."""
        return any(handler.is_pinned for handler in self.by_kind.values())

    def __getitem__(self, kind: str) -> Handler[Any, Any]:
        return self.by_kind[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_kind)

    def __len__(self) -> int:
        return len(self.by_kind)


def _parameters(function: Callable[..., Any], kind: str) -> Sequence[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise InvalidInput(
            f"Handler {kind!r} has no signature that can be read, allowed is a function written in Python."
        ) from None
