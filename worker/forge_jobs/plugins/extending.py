"""What a Forge does to be extended: `use` plugins, `provide` handlers with what they need, and `route` kinds to queues."""

from collections.abc import Callable, Hashable
from typing import Any, Literal, TypeVar, overload

from forge_jobs.errors import InvalidInput
from forge_jobs.handlers.handler import Handlers
from forge_jobs.handlers.routes import Route
from forge_jobs.plugins.dependencies import Dependencies
from forge_jobs.plugins.plugin import Plugin
from forge_jobs.plugins.plugins import Plugins

F = TypeVar("F", bound=Route)


class Extensible:
    """What can be extended, until it is opened."""

    handlers: Handlers
    plugins: Plugins
    dependencies: Dependencies
    _opened: int

    def use(self, plugin: Plugin) -> None:
        """The plugin is in use from now on. Raises InvalidInput, also while the forge is open."""
        if self._opened:
            raise InvalidInput("A plugin is given to a Forge that is open, allowed is before it is opened.")
        self.plugins.use(plugin)

    def provide(
        self, what: Hashable, factory: Callable[..., Any], *, per: Literal["process", "job"] = "process"
    ) -> None:
        """Parameters of handlers that are `Provided[what]` get what `factory` gives.

        It is called when a handler first needs it, and its thing is used until the forge is closed, or with per="job"
        for each call of a handler. It is a plain function, which has to be quick, or an async one. A context manager that it gives is
        entered, and left at the end. It may take other things that are provided (`Provided[...]`), and per="job" the
        context (`ctx`) first. Raises InvalidInput.
        """
        self.dependencies.provide(what, factory, per)

    @overload
    def route(self, kinds: str, queue: str) -> None: ...

    @overload
    def route(self, kinds: F) -> F: ...

    def route(self, kinds: Any, queue: str | None = None) -> Any:
        """Jobs of kinds that begin with the text `kinds` go to `queue`, where neither the call nor the handler says one.

        Or `kinds` is a function, so that this is its decorator: it takes a kind, and returns a queue, or None where it
        does not say. Routes are asked in their order, and the first that answers counts. Raises InvalidInput, also while
        the forge is open.
        """
        if self._opened:
            raise InvalidInput("A route is given to a Forge that is open, allowed is before it is opened.")
        if callable(kinds) and queue is None:
            self.handlers.routes.add(kinds)
            return kinds
        if not isinstance(kinds, str) or queue is None:
            raise InvalidInput(
                f"The route is {kinds!r} to {queue!r}, allowed are a prefix of kinds and a queue, or a function of a kind."
            )
        self.handlers.routes.add_prefix(kinds, queue)
        return None
