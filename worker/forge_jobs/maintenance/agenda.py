"""The agenda of a leader: one look at the database says which of its chores have something to do.

A look is one statement for all of them. A chore that has something to do before the next look is woken, and keeps its own time from
then on: it knows to the moment when it is due. One that looks now and then does without where it would find nothing. As long as a
look fails, or hangs, since somebody has locked one of all these tables, each may have something to do.
"""

import asyncio
from datetime import timedelta

from forge_jobs.model.chore import Chore
from forge_jobs.storage.interface.chores import Chores

LOOK_EVERY = 1.0  # seconds
LONGEST_LOOK = 1.0  # seconds, after which all chores are called, again and again until the look is answered
UNCALLED_EVERY = 60.0  # seconds after which a chore begins that was not woken

ALL = frozenset(Chore)


class Agenda:
    """Of one leader."""

    def __init__(self, chores: Chores) -> None:
        self.calls = {chore: asyncio.Event() for chore in Chore}  # set: it is to begin now
        self.begun = asyncio.Event()  # set once the first look has said something, or taken long
        self._chores = chores
        self._due = ALL
        self._unanswered: asyncio.TimerHandle  # of the look that is on its way

    def is_idle(self, chore: Chore) -> bool:
        """Whether the chore had nothing to do at the last look."""
        return chore not in self._due

    async def look(self) -> None:
        """Those chores are called that have something to do before the next look; all of them, when that cannot be said, and as long as
        nothing is answered.
        """
        due = ALL
        self._call_all_later()
        try:
            due = await self._chores.due(timedelta(seconds=LOOK_EVERY))
        finally:
            self._unanswered.cancel()
            self._call(due)

    def _call_all_later(self) -> None:
        self._unanswered = asyncio.get_running_loop().call_later(LONGEST_LOOK, self._call_all)

    def _call_all(self) -> None:
        self._call(ALL)
        self._call_all_later()

    def _call(self, due: frozenset[Chore]) -> None:
        self._due = due
        self.begun.set()
        for chore in due:
            self.calls[chore].set()
