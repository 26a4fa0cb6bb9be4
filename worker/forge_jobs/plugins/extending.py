"""What a Forge does to be extended: `use` plugins, and `provide` handlers with what they need."""

from collections.abc import Callable, Hashable
from typing import Any, Literal

from forge_jobs.errors import InvalidInput
from forge_jobs.plugins.dependencies import Dependencies
from forge_jobs.plugins.plugin import Plugin
from forge_jobs.plugins.plugins import Plugins


class Extensible:
    """What can be extended, until it is opened."""

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
