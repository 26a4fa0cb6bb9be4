"""Kinds that a program enqueues by name and nobody has a handler for: a slip of the hand, or a worker that is not released yet."""

from contextlib import suppress
from typing import TYPE_CHECKING

from forge_jobs.errors import ForgeError
from forge_jobs.rules import names
from forge_jobs.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    from forge_jobs.storage.interface.storage import Storage

MOST = 1000
"""The kinds that are remembered as looked at; of a program that makes up more, no more is said."""


class StrangeKinds:
    """Says of each kind once that nobody has a handler for it, while handlers of others are known."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._seen: set[str] = set()

    async def look(self, storage: "Storage", kind: str) -> None:
        """An event has said so, if nobody has a handler for the kind. A database that does not tell is left alone."""
        if kind in self._seen or len(self._seen) >= MOST:
            return
        self._seen.add(kind)
        with suppress(ForgeError):
            known = {declared.kind for declared in await storage.kinds.all()}
            if kind not in known:
                known |= {handled for worker in await storage.workers.all() for handled in worker.kinds}
            if known and kind not in known:
                self._say(kind, names.nearest(kind, known))

    def _say(self, kind: str, nearest: str | None) -> None:
        from forge_jobs.telemetry import logs
        from forge_jobs.telemetry.events import KindResembles, KindUnheardOf

        end = logs.say(self._telemetry)  # few programs that enqueue listen to events
        self._telemetry.emit(KindUnheardOf(kind) if nearest is None else KindResembles(kind, nearest))
        end()
