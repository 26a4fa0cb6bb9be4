"""Wake-ups: passes notifications of the database on to the parts of the worker."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass

from forge_jobs.storage.interface.wakeups import Wakeups
from forge_jobs.storage.outage import Outage
from forge_jobs.telemetry.telemetry import Telemetry

_LINK = re.compile(r"(\d+),(\d+),(\d+)")
_PLACE = re.compile(r"(\d+),(-?\d+),(\d+),(\d+)")


@dataclass(frozen=True, slots=True)
class Listeners:
    """What to call for each kind of notification; all are quick and never raise."""

    work: Callable[[int | None], None]  # in this queue; None: perhaps in any
    behind: Callable[
        [int, int, int, int], None
    ]  # a job of this queue and priority, at this pos, by this worker
    slots: Callable[[int], None]  # of this queue were given back
    configuration: Callable[[], None]
    cancelled: Callable[[int], None]
    due: Callable[[], None]
    emptied: Callable[[str], None]
    awaited: Callable[[str], None]  # the ends of these jobs
    linked: Callable[[int, int, int], None]  # others wait for the end of this job of a worker and an attempt
    gate: Callable[[str], None]  # of a pool's workers; "": of those without a pool
    reconnected: Callable[[], None]


class Wakeup:
    """Listens for one worker, until cancelled."""

    def __init__(self, wakeups: Wakeups, telemetry: Telemetry, listeners: Listeners) -> None:
        self._wakeups = wakeups
        self._listeners = listeners
        self._outage = Outage("listening", telemetry)

    async def run(self) -> None:
        """Listen, and listen again after an outage."""
        while True:
            try:
                await self._wakeups.listen(self.heard)
            except Exception as error:  # polling goes on meanwhile
                await self._outage.wait(error)
            else:
                await asyncio.sleep(1)

    def heard(self, kind: str, subject: str) -> None:
        """Pass on one notification; one that is not understood is left to polling."""
        listeners = self._listeners
        if kind == "queue" and subject.isdigit():
            listeners.work(int(subject))
        elif kind == "behind" and (place := _PLACE.fullmatch(subject)):
            listeners.behind(*map(int, place.groups()))
        elif kind == "slots" and subject.isdigit():
            listeners.slots(int(subject))
        elif kind == "config":
            listeners.configuration()
        elif kind == "cancel" and subject.isdigit():
            listeners.cancelled(int(subject))
        elif kind == "due":
            listeners.due()
        elif kind == "empty":
            listeners.emptied(subject)
        elif kind == "wait":
            listeners.awaited(subject)
        elif kind == "link" and (link := _LINK.fullmatch(subject)):
            listeners.linked(*map(int, link.groups()))
        elif kind == "gate":
            listeners.gate(subject)
        elif kind == "reconnect":
            listeners.reconnected()
