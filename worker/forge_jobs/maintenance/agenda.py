"""The agenda of a leader: one look at the database says which of its chores have something to do.

A look is one statement for all of them. A chore that has something to do before the next look is woken, and keeps its own time from
then on: it knows to the moment when it is due. One that looks now and then does without where it would find nothing.
"""

import asyncio
from datetime import timedelta

from forge_jobs.model.chore import Chore
from forge_jobs.storage.interface.chores import Chores

LOOK_EVERY = 1.0  # seconds
UNCALLED_EVERY = 60.0  # seconds after which a chore begins that was not woken

ALL = frozenset(Chore)


class Agenda:
    """Of one leader."""

    def __init__(self, chores: Chores) -> None:
        self.calls = {chore: asyncio.Event() for chore in Chore}  # set: it is to begin now
        self.begun = asyncio.Event()  # set once the first look has come to its end
        self._chores = chores
        self._due = ALL

    def is_idle(self, chore: Chore) -> bool:
        """Whether the chore had nothing to do at the last look."""
        return chore not in self._due

    async def look(self) -> None:
        """Those chores are called that have something to do before the next look; all of them, when that cannot be said."""
        due = ALL
        try:
            due = await self._chores.due(timedelta(seconds=LOOK_EVERY))
        finally:
            self._due = due
            self.begun.set()
            for chore in due:
                self.calls[chore].set()
