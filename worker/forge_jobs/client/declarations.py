"""What the handlers of a program declare, as the database has to have it: their queues, and facts of their kinds."""

import os
import socket
from typing import TYPE_CHECKING

from forge_jobs.errors import StorageUnavailable
from forge_jobs.handlers.handler import Handlers
from forge_jobs.model.kind import Kind
from forge_jobs.rules import names
from forge_jobs.telemetry import events
from forge_jobs.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    from forge_jobs.storage.interface.storage import Storage


class Declarations:
    """The declarations of `handlers`, to which more may be added; each call writes what is declared by then."""

    def __init__(self, handlers: Handlers, telemetry: Telemetry) -> None:
        self._handlers = handlers
        self._telemetry = telemetry
        self._published: list[Kind] = []

    def forget(self) -> None:
        """Forget what was written: the next database, or the same one opened again, may not have it."""
        self._published = []

    async def ensure_queues(self, storage: "Storage", *more: str) -> None:
        """See `Forge.ensure_queues`."""
        strangers = await self.new_queues(storage, *more)
        if wanted := self._handlers.queues().union(strangers):
            await storage.queues.ensure(sorted(wanted))
        for name, nearest in strangers.items():
            self._telemetry.emit(
                events.QueueMade(name) if nearest is None else events.QueueResembles(name, nearest)
            )

    async def new_queues(self, storage: "Storage", *wanted: str) -> dict[str, str | None]:
        """See `Forge.new_queues`."""
        declared = self._handlers.queues()
        asked = [name for name in wanted if names.queue(name) not in declared]
        if not asked:
            return {}
        known = {queue.name for queue in await storage.queues.all()}
        return {name: names.nearest(name, known | declared) for name in asked if name not in known}

    async def publish(self, storage: "Storage") -> None:
        """See `Forge.publish`."""
        kinds = self._handlers.declared()
        if not kinds or kinds == self._published:
            return
        try:
            await storage.kinds.declare(kinds, by=f"{socket.gethostname()}, process {os.getpid()}")
        except StorageUnavailable as error:
            self._telemetry.emit(events.KindsUnpublished([kind.kind for kind in kinds], str(error)))
        else:
            self._published = kinds
