"""The agenda of a leader: one look at the database says which of its chores have something to do.

A look is one statement for all of them, and renews the lead. A chore that has something to do before the next look is woken, and keeps
its own time from then on: it knows to the moment when it is due. One that looks now and then does without where it would find nothing.
As long as a look fails, or hangs, since somebody has locked one of all these tables, each may have something to do.

A look at everything walks over what was deleted, as long as a long transaction may still see it. After one that took long the next
ones look only for what is due since, until a hundred times as much time has passed.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta

from forge_jobs.model.chore import Chore, Outlook
from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.storage.interface.chores import Chores
from forge_jobs.storage.outset import FROM_THE_BEGINNING, Outset
from forge_jobs.system.uptime import uptime

LOOK_EVERY = 1.0  # seconds
SHARE = 100  # looks at everything come after so many times as long as the last one took
LONGEST_LOOK = 1.0  # seconds, after which all chores are called, again and again until the look is answered
UNCALLED_EVERY = 60.0  # seconds after which a chore begins that was not woken

ALL = frozenset(Chore)
DATED = Chore.PENDING, Chore.TIME_LIMITS  # of which a look may see only what is due since a moment


class Agenda:
    """Of one leader, in one epoch. `renewed(moment)`: the lead lasts for `lease` from that `uptime` on."""

    def __init__(
        self,
        chores: Chores,
        epoch: LeaderEpoch,
        lease: timedelta,
        renewed: Callable[[float], None],
        calls: Mapping[Chore, asyncio.Event],
    ) -> None:
        self.calls = {chore: asyncio.Event() for chore in Chore} | dict(calls)  # set: it is to begin now
        self.begun = asyncio.Event()  # set once the first look has said something, or taken long
        self._chores = chores
        self._epoch = epoch
        self._lease = lease
        self._renewed = renewed
        self._due = ALL
        self._outset = Outset(SHARE)
        self._is_partial = False  # the last look was
        self._unanswered: asyncio.TimerHandle  # of the look that is on its way

    def is_idle(self, chore: Chore) -> bool:
        """Whether the chore had nothing to do at the last look, as far as that can say so: what was due before may have been locked, or
        was not committed yet.
        """
        return chore not in self._due and not (self._is_partial and chore in DATED)

    async def look(self) -> None:
        """Those chores are called that have something to do before the next look; all of them, when that cannot be said, and as long as
        nothing is answered.
        """
        due = ALL
        self._call_all_later()
        try:
            due = (await self._looked()).due
        finally:
            self._unanswered.cancel()
            self._call(due)

    async def _looked(self) -> Outlook:
        began, since = uptime(), self._outset.since()
        look = await self._chores.look(
            timedelta(seconds=LOOK_EVERY), since=since, epoch=self._epoch, duration=self._lease
        )
        if look.renewed:
            self._renewed(began)
        self._is_partial = since != FROM_THE_BEGINNING
        # It says of nothing when it is due: what is due now may still be so at the next look.
        first = since if self._is_partial else look.at
        self._outset.looked(since, took=look.took, at=look.at, first=first)
        return look

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
