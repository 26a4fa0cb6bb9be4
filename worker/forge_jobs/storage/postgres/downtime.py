"""What this process was told of a database that is down, by whichever of its connections.

Many of them are lost at once and try again side by side. Where refusals are rare, as a Service without endpoints
refuses a pod once a second and passes over what else it sends, one of them hears what the others wait for.
"""

from collections.abc import Awaitable
from math import inf
from typing import TypeVar

from forge_jobs.errors import StorageDown
from forge_jobs.system.uptime import uptime

T = TypeVar("T")


class Downtime:
    """Told of every try to connect."""

    def __init__(self) -> None:
        self.met: tuple[float, float] | None = None
        """When the first and the last try were begun that met a database which is down (`uptime`), since one got in."""
        self._got_in = -inf

    async def noted(self, connecting: Awaitable[T]) -> T:
        """Return what `connecting` returns."""
        began = uptime()
        try:
            connection = await connecting
        except StorageDown:
            if began > self._got_in:
                first, last = self.met or (began, began)
                self.met = min(first, began), max(last, began)
            raise
        self.met, self._got_in = None, uptime()
        return connection
