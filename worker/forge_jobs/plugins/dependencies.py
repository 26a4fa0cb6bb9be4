"""What a program provides its handlers with: made by a factory when it is first needed, once a process or once a call."""

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from forge_jobs.errors import InvalidInput
from forge_jobs.handlers.context import Context
from forge_jobs.handlers.handler import Handler
from forge_jobs.handlers.provided import named
from forge_jobs.plugins.hook_timer import HookTimer
from forge_jobs.plugins.keeper import Keeper
from forge_jobs.plugins.provider import Provider, entered
from forge_jobs.telemetry.telemetry import Telemetry


class Dependencies:
    """The providers of a forge, and what was made once for this process."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._providers: dict[Hashable, Provider] = {}
        self._keepers: dict[Hashable, Keeper] = {}
        self._made: list[Keeper] = []  # in the order in which they were made

    def provide(self, what: Hashable, factory: Callable[..., Any], per: object) -> None:
        """See `Forge.provide`."""
        if what in self._providers:
            raise InvalidInput(f"{named(what)} is provided already, allowed is once.")
        self._providers[what] = Provider.given(what, factory, per)

    def check(self, handlers: Iterable[Handler[Any, Any]]) -> None:
        """Raise InvalidInput when a handler, or a factory, asks for what nothing provides, or what cannot be made."""
        for handler in handlers:
            for name, what in handler.arguments.provided.items():
                self._check(what, f"Handler {handler.kind!r} takes Provided[{named(what)}] as {name!r}", ())

    def _check(self, what: Hashable, asked: str, above: tuple[Provider, ...]) -> None:
        provider = self._providers.get(what)
        if provider is None:
            there = ", ".join(map(named, self._providers)) or "nothing"
            raise InvalidInput(
                f"{asked}, and forge.provide({named(what)}, ...) is not said; provided: {there}."
            )
        if provider in above:
            circle = " needs ".join(named(one.what) for one in (*above[above.index(provider) :], provider))
            raise InvalidInput(f"What is provided needs itself: {circle}.")
        if provider.per_job and above and not above[-1].per_job:
            raise InvalidInput(
                f"The factory of {named(above[-1].what)}, which is made once a process, takes {named(what)}, "
                "which is made for each job; allowed is what is made once a process."
            )
        for name, need in provider.needs.items():
            taken = f"The factory of {named(what)} takes Provided[{named(need)}] as {name!r}"
            self._check(need, taken, (*above, provider))

    async def of(self, wanted: Mapping[str, Hashable], ctx: Context, stack: AsyncExitStack) -> dict[str, Any]:
        """Return by name what a call gets; what is made for it alone is closed with `stack`. Raises what a factory raises."""
        for_call: dict[Hashable, Any] = {}
        return {name: await self._one(what, ctx, stack, for_call) for name, what in wanted.items()}

    async def _one(
        self, what: Hashable, ctx: Context | None, stack: AsyncExitStack, for_call: dict[Hashable, Any]
    ) -> Any:
        if what in for_call:
            return for_call[what]
        provider = self._providers.get(what)
        if provider is None:  # its handler was declared while the worker ran
            self._check(what, "A handler", ())
            raise AssertionError
        claim = None if ctx is None else ctx.claim
        with HookTimer(f"provide({named(what)})", self._telemetry, claim):
            if not provider.per_job:
                return await self._kept(provider)
            for_call[what] = await self._make(provider, ctx, stack, for_call)
            return for_call[what]

    async def _make(
        self, provider: Provider, ctx: Context | None, stack: AsyncExitStack, for_call: dict[Hashable, Any]
    ) -> Any:
        needs = {name: await self._one(need, ctx, stack, for_call) for name, need in provider.needs.items()}
        return await entered(provider.called(ctx, needs), provider.what, stack)

    async def _kept(self, provider: Provider) -> Any:
        """Return what is made once a process. Who waits for it may be told to stop, and it is made all the same."""
        keeper = self._keepers.get(provider.what)
        if keeper is None:
            keeper = Keeper(
                f"provide({named(provider.what)})",
                lambda stack: self._make(provider, None, stack, {}),
                self._made.append,
            )
            self._keepers[provider.what] = keeper
            keeper.start()
        try:
            return await keeper.value()
        finally:
            if keeper.has_failed and self._keepers.get(provider.what) is keeper:
                del self._keepers[provider.what]

    def closers(self) -> list[Callable[[], Awaitable[None]]]:
        """Return what has to be awaited, the last one first, so that everything that was made once is closed."""
        unmade = [keeper for keeper in self._keepers.values() if keeper not in self._made]
        closers = [_closer(keeper) for keeper in (*unmade, *self._made)]
        self.forget()
        return closers

    def forget(self) -> None:
        """Nothing is made: the forge is closed, or was open in an event loop that is gone."""
        self._keepers, self._made = {}, []


def _closer(keeper: Keeper) -> Callable[[], Awaitable[None]]:
    async def close() -> None:
        await keeper.close()

    close.__qualname__ = keeper.name  # by which people are told what is waited for
    return close
