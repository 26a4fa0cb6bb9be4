"""The decorator `forge.handler`, and what type checkers find out of the function below it.

A first parameter for the context is no argument of the jobs, and what an async function returns is awaited. Of a
function whose first parameter may be anything it cannot be told whether that is the context: its jobs take what they like.
"""

import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, Protocol, TypeVar, Unpack, cast, overload

from forge_jobs.errors import InvalidInput
from forge_jobs.handlers.batch import BatchJob
from forge_jobs.handlers.context import Context
from forge_jobs.handlers.handler import Handler, Handlers
from forge_jobs.handlers.options import NAMES, HandlerValues
from forge_jobs.handlers.type_variables import P, R
from forge_jobs.rules.option_names import unknown_option

if TYPE_CHECKING:
    from forge_jobs.forge import Forge

A = TypeVar("A")


class Anything:
    """What only a parameter takes that takes everything; there are no objects of it."""


class Declaring(Protocol):
    """Makes a function a handler, with the options that are said already."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[Anything, ...], Coroutine[Any, Any, R]], /
    ) -> Handler[..., R, ..., Coroutine[Any, Any, R]]: ...

    @overload
    def __call__(self, function: Callable[Concatenate[Anything, ...], R], /) -> Handler[..., R, ..., R]: ...

    @overload
    def __call__(
        self, function: Callable[[list[BatchJob[A]]], Coroutine[Any, Any, Any]], /
    ) -> Handler[..., Any, [list[BatchJob[A]]], Coroutine[Any, Any, Any]]: ...

    @overload
    def __call__(
        self, function: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /
    ) -> Handler[P, R, Concatenate[Context, P], Coroutine[Any, Any, R]]: ...

    @overload
    def __call__(
        self, function: Callable[Concatenate[Context, P], R], /
    ) -> Handler[P, R, Concatenate[Context, P], R]: ...

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Handler[P, R, P, Coroutine[Any, Any, R]]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> Handler[P, R, P, R]: ...


class DeclaringLists(Protocol):
    """Makes a function a handler of lists, with the options that are said already."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[Context, P], R], /
    ) -> Handler[P, Any, Concatenate[Context, P], R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> Handler[P, Any, P, R]: ...


class HandlerDecorator:
    """What a Forge does to declare handlers."""

    handlers: Handlers

    @overload
    def handler(
        self, function: Callable[Concatenate[Anything, ...], Coroutine[Any, Any, R]], /
    ) -> Handler[..., R, ..., Coroutine[Any, Any, R]]: ...

    @overload
    def handler(self, function: Callable[Concatenate[Anything, ...], R], /) -> Handler[..., R, ..., R]: ...

    @overload
    def handler(
        self, function: Callable[[list[BatchJob[A]]], Coroutine[Any, Any, Any]], /
    ) -> Handler[..., Any, [list[BatchJob[A]]], Coroutine[Any, Any, Any]]: ...

    @overload
    def handler(
        self, function: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /
    ) -> Handler[P, R, Concatenate[Context, P], Coroutine[Any, Any, R]]: ...

    @overload
    def handler(
        self, function: Callable[Concatenate[Context, P], R], /
    ) -> Handler[P, R, Concatenate[Context, P], R]: ...

    @overload
    def handler(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Handler[P, R, P, Coroutine[Any, Any, R]]: ...

    @overload
    def handler(self, function: Callable[P, R], /) -> Handler[P, R, P, R]: ...

    @overload
    def handler(self, /, **declared: Unpack[HandlerValues]) -> Declaring: ...

    def handler(self, function: Any = None, /, **declared: Any) -> Any:
        """Declare a function to be the handler of a kind of job (default: the function's name).

        An `async def` runs in the worker's event loop, a plain function in a thread, or
        with executor="process" in a process of its own. A first parameter `ctx` gets the
        Context. The other parameters are the payload; their annotations are checked.

        Options hold for every job of the kind that does not say otherwise, whoever enqueues
        it; `unique`, `group`, `fair_by` (an argument, or a function of arguments: whose jobs take turns), `tags` and
        `singleton` hold for jobs that this program enqueues, and those of crons that it sets. With `batch` the function does many jobs in one call: it takes
        a list of BatchJob and returns an outcome for each. A job takes `slots` of its worker's concurrency, and
        with pin="version", once it has done a step, goes on with workers of the version that began it only. `retry` and
        `on_failure` say how failed attempts are followed by others, `on_lost` what becomes of a job whose worker was lost.
        `cron` ("0 3 * * *", a Cron, or several) has jobs enqueued by the clock from when a worker with this handler begins.
        `title`, `owner` (who answers for it) and `docs` (a link) are for people. Raises InvalidInput, InvalidCron.
        """
        return self._declared(function, declared)

    @overload
    def batch_handler(
        self, function: Callable[Concatenate[Context, P], R], /
    ) -> Handler[P, Any, Concatenate[Context, P], R]: ...

    @overload
    def batch_handler(self, function: Callable[P, R], /) -> Handler[P, Any, P, R]: ...

    @overload
    def batch_handler(self, /, **declared: Unpack[HandlerValues]) -> DeclaringLists: ...

    def batch_handler(self, function: Any = None, /, **declared: Any) -> Any:
        """Declare a function to be the handler of a kind of job whose payload is a list: `async def notify(items: list[Item])`.

        It is called with the items of one job, and returns None when all are done, or a list with one entry for each, in
        their order: its result, or an exception. Only items that have failed are tried again, as the job's payload; an item
        that has `Dead` is given up, and the job is dead when no other is left. The job's result is the list of its
        items' results. Options are those of `handler`, but for `batch` and `limits`. Raises InvalidInput.
        """
        return self._declared(function, declared, takes_items=True)

    def _declared(
        self,
        function: Callable[..., Any] | None,
        declared: Mapping[str, Any],
        *,
        takes_items: bool = False,
    ) -> Any:
        for name in declared.keys() - DECLARED:
            raise InvalidInput(unknown_option(name, DECLARED, OF_JOBS))

        def declare(function: Callable[..., Any]) -> Handler[..., Any]:
            handler: Handler[..., Any] = Handler(
                cast("Forge", self), function, takes_items=takes_items, **declared
            )
            self.handlers.add(handler)
            return handler

        return declare if function is None else declare(function)


DECLARED = frozenset(
    name
    for name, parameter in inspect.signature(Handler).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY and name != "takes_items"
)
"""The options of a handler."""

OF_JOBS = {
    name: f"of a job: handler.options({name}=...).enqueue(...)" for name in NAMES if name not in DECLARED
}
"""The options that a handler cannot have, and where they are said."""
