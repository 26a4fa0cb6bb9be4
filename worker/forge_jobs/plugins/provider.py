"""How a thing is made that a program provides: its factory, what that needs, and how long the thing is used."""

import asyncio
import inspect
from collections.abc import Callable, Hashable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from forge_jobs.errors import InvalidInput
from forge_jobs.handlers.arguments import resolved_hints
from forge_jobs.handlers.context import Context, is_context
from forge_jobs.handlers.provided import is_left_out, named, provided

PER = ("process", "job")
LOCKS = (asyncio.Lock, asyncio.Semaphore, asyncio.Condition)
"""What can be entered, but is provided to be entered by handlers."""


@dataclass(frozen=True, eq=False, slots=True)
class Provider:
    """A factory of `what`, and what it takes."""

    what: Hashable
    factory: Callable[..., Any]
    per_job: bool
    takes_context: bool
    needs: Mapping[str, Hashable]  # by parameter

    @classmethod
    def given(cls, what: Hashable, factory: object, per: object) -> "Provider":
        """Return the provider of `what`. Raises InvalidInput."""
        if per not in PER:
            raise InvalidInput(f"per is {per!r}, allowed is one of {', '.join(PER)}.")
        title = f"The factory of {named(what)}"
        if not callable(factory):
            raise InvalidInput(f"{title} is {factory!r}, allowed is a function.")
        if inspect.isasyncgenfunction(factory) or inspect.isgeneratorfunction(factory):
            wrap = "asynccontextmanager" if inspect.isasyncgenfunction(factory) else "contextmanager"
            raise InvalidInput(f"{title} yields, allowed is one under @contextlib.{wrap}.")
        parameters = _parameters(factory)
        takes_context = bool(parameters) and is_context(parameters[0])
        if takes_context and per == "process":
            raise InvalidInput(
                f"{title} takes the context of a job, and is called once a process; allowed with it is per='job'."
            )
        asked = [one for one in parameters[1 if takes_context else 0 :] if not is_left_out(one)]
        needs = provided(resolved_hints(factory, asked), title) if asked else {}
        for parameter in asked:
            if parameter.name not in needs:
                raise InvalidInput(
                    f"{title} takes {parameter.name!r}, allowed are ctx: Context and parameters that are Provided[...]."
                )
        return cls(what, factory, per == "job", takes_context, needs)

    def called(self, ctx: Context | None, needs: Mapping[str, Any]) -> Any:
        """Return what the factory returns, called with what it takes."""
        return self.factory(ctx, **needs) if self.takes_context else self.factory(**needs)


def _parameters(factory: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # a class of an extension
        return []
    return [one for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]


async def entered(made: Any, what: Hashable, stack: AsyncExitStack) -> Any:
    """Return what a factory gave, awaited where that has to be. A context manager is entered, and `stack` closes it."""
    if inspect.isawaitable(made) and not hasattr(type(made), "__aenter__"):
        made = await made
    is_it = isinstance(what, type) and _is(made, what)
    if hasattr(type(made), "__aenter__") and not isinstance(made, LOCKS):
        given = await stack.enter_async_context(made)
        return made if is_it else given
    if hasattr(type(made), "__enter__") and not is_it:
        return stack.enter_context(made)
    return made


def _is(made: object, what: type) -> bool:
    try:
        return isinstance(made, what)
    except TypeError:  # a Protocol
        return False
