"""Kinds that a program enqueues by name: nobody has a handler for them, by a slip of the hand, or that says more of their jobs."""

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from forge_jobs.errors import ForgeError
from forge_jobs.handlers.options import Options
from forge_jobs.rules import names
from forge_jobs.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    from forge_jobs.storage.interface.storage import Storage
    from forge_jobs.telemetry.events import Event

MOST = 1000
"""The kinds that are remembered as looked at; of a program that makes up more, no more is said."""


class StrangeKinds:
    """Says of each kind once that nobody has a handler for it, while handlers of others are known, or what that says of jobs."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._seen: set[str] = set()

    async def look(self, storage: "Storage", kind: str, asked: Options | None) -> None:
        """An event has said so, if nobody has a handler for the kind, or what a handler says was not `asked` for, if that is known.

        A database that does not tell is left alone.
        """
        if kind in self._seen or len(self._seen) >= MOST:
            return
        self._seen.add(kind)
        with suppress(ForgeError):
            declared = {declared.kind: declared for declared in await storage.kinds.all()}
            if kind in declared:
                self._look_for_options(kind, declared[kind].unpublished, asked)
                return
            known = {
                *declared,
                *(handled for worker in await storage.workers.all() for handled in worker.kinds),
            }
            if known and kind not in known:
                self._say_strange(kind, names.nearest(kind, known))

    def _look_for_options(self, kind: str, unpublished: Sequence[str], asked: Options | None) -> None:
        if not unpublished or asked is None:
            return
        tenant, unique = asked.tenant or asked.group, asked.unique or asked.key
        said = {"group": asked.group, "tenant": tenant, "unique": unique, "key": asked.key}
        left_out = [
            option
            for option in unpublished
            if option in said and said[option] is None and option not in asked.none
        ]
        if left_out:
            from forge_jobs.telemetry.events import OptionsLeftOut

            self._say(OptionsLeftOut(kind, left_out))

    def _say_strange(self, kind: str, nearest: str | None) -> None:
        from forge_jobs.telemetry.events import KindResembles, KindUnheardOf

        self._say(KindUnheardOf(kind) if nearest is None else KindResembles(kind, nearest))

    def _say(self, event: "Event") -> None:
        from forge_jobs.telemetry import logs

        end = logs.say(self._telemetry)  # few programs that enqueue listen to events
        self._telemetry.emit(event)
        end()
