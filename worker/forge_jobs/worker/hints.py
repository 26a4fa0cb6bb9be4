"""Where the looks for jobs of one queue begin, so that none walks again over index entries that are known
to be dead.

What was claimed stays in the database's index for as long as anybody may still see it, and
jobs that this worker leaves alone stay for as long as nobody else takes them. A look begins
behind them, in each priority where the last one ended, and goes a moment back, since what
became ready earlier may be seen later. Whatever else stands before a hint is found by a
scout, which looks from the very beginning, in the background and at a share of its own cost,
or was told of.

Looks and scouts take their time, and neither knows what the other finds, or what was told of
meanwhile. So each is told of every lowering while it is on its way, and raises no hint above that.
"""

from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from math import inf
from typing import Any
from weakref import WeakSet

from forge_jobs.model.job import Claim
from forge_jobs.model.tenant import has_tenant
from forge_jobs.storage.interface.claims import Front
from forge_jobs.system.uptime import uptime

MARGIN = 1_000
"""Microseconds, and as many jobs of a bulk: a full batch misses jobs that commit later than their
neighbours by more than this."""

LONGEST_ENQUEUE = 0.05
"""Seconds. A job of a tenant gets its turn, after all that have come, when it is enqueued, and is seen at the commit. A full batch misses
those that take longer than this from the one to the other."""

TURNS = 20
"""So far before it a first batch, of which nothing is known yet, misses none either."""

LATE = timedelta(seconds=2)
"""How far a look goes back when the look before did not find all it asked for."""

NOW_AT_ONCE = timedelta(0)


class Outing:
    """A look, or a scout, on its way. Positions are those of the database, by priority."""

    def __init__(self, begun: dict[int, int], set_aside: dict[int, int]) -> None:
        self.begun = begun  # the hints when it set out
        self.set_aside = set_aside  # what they were before a scout had lowered them
        self.told: dict[int, int] = {}  # where, since it set out, jobs became ready that it may not see

    def tell(self, priority: int, pos: int) -> None:
        """A job became ready at this place, or was found there."""
        self.told[priority] = min(pos, self.told.get(priority, pos))

    def up_to(self, priority: int, pos: int) -> int:
        """Return how far it can say that there are no jobs, if it saw none before `pos`."""
        return min(pos, self.told.get(priority, pos))


class Hints:
    """The hints of one queue. Positions are those of the database."""

    def __init__(self, clock: Callable[[], float] = uptime) -> None:
        self._clock = clock
        self._came: dict[int, deque[tuple[float, int]]] = {}  # by priority, which turns had come, and when
        self._pos: dict[int, int] = {}  # by priority
        self._set_aside: dict[int, int] = {}  # what stood before the last lowering by a scout
        self._on_their_way = WeakSet[Outing]()  # until nobody asks any more
        self.is_full = False  # whether the last look found as much as it asked for

    def options(self) -> dict[str, Any]:
        """Return where the next claim begins. While every look finds all that it asks for, the next goes on
        where it ended: that costs least.
        """
        if not self._pos:
            return {}
        if self.is_full and len(self._pos) == 1:
            [hint] = self._pos.items()
            return {"hint": hint}
        return {"hints": list(self._pos.items()), "late": NOW_AT_ONCE if self.is_full else LATE}

    def forget(self) -> None:
        """Nothing is known of the queue any more; what is on its way counts for nothing."""
        self._pos.clear()
        self._set_aside.clear()
        self._came.clear()
        self._on_their_way.clear()
        self.is_full = False

    def set_out(self) -> Outing:
        """A look, or a scout, begins now; give it to `took` or `scouted` when it returns."""
        outing = Outing(dict(self._pos), dict(self._set_aside))
        self._on_their_way.add(outing)
        return outing

    def took(self, look: Outing, claims: Sequence[Claim], *, is_full: bool) -> None:
        """The look found these jobs, in the order of the index; before the last of them there are no others but
        those that it was told of.
        """
        if look not in self._on_their_way:
            return
        self.is_full = is_full and not look.told  # the next one may not go on where this one ended
        lasts = {claim.priority: claim for claim in claims}
        for priority, last in lasts.items():
            begins = last.pos - MARGIN
            if has_tenant(last.links):
                first = next(claim.pos for claim in claims if claim.priority == priority)
                begins = min(first, self._had_come(priority, first, last.pos))
            self._raise(priority, look.up_to(priority, begins))

    def lower(self, priority: int, pos: int) -> None:
        """A job became ready at this place, perhaps one that looks have passed."""
        for outing in self._on_their_way:
            outing.tell(priority, pos)
        for hints in (self._pos, self._set_aside):
            if pos < hints.get(priority, pos):
                hints[priority] = pos
        if priority not in self._pos:
            self.is_full = False  # a look that goes on where the last one ended passes more urgent jobs

    def scouted(self, front: Front, scout: Outing) -> bool:
        """Take over what the scout found; return whether jobs stand before the hints with which it set out."""
        if scout not in self._on_their_way:
            return False
        lowered = {
            priority: pos
            for priority, pos in front.begins.items()
            if pos is not None and pos < scout.begun.get(priority, pos)
        }
        if lowered:
            before = dict(self._pos)
            for priority, pos in lowered.items():
                self.lower(priority, pos)
            self._set_aside = before
            self.is_full = False  # a look that goes on where the last one ended may pass them again
        for priority in scout.begun.keys() | front.begins.keys():
            found = front.begins.get(priority)
            if found is None:
                self.is_full = False
                self._raise(priority, scout.up_to(priority, front.now - MARGIN))
            elif priority not in self._pos:
                self._pos[priority] = scout.up_to(priority, found)
        return bool(lowered)

    def leave_alone(self, look: Outing) -> None:
        """Jobs that the look found are not for this worker: begin again where it would have begun without a scout."""
        if look in self._on_their_way:
            for priority, pos in look.set_aside.items():
                self._raise(priority, look.up_to(priority, pos))

    def _had_come(self, priority: int, first: int, last: int) -> int:
        """Return which turn had come LONGEST_ENQUEUE ago; those from `first` to `last` have come just now."""
        now, came = self._clock(), self._came.setdefault(priority, deque([(-inf, first - TURNS)]))
        came.append((now, last))
        while came[1][0] < now - LONGEST_ENQUEUE:
            came.popleft()
        return came[0][1]

    def _raise(self, priority: int, pos: int) -> None:
        self._pos[priority] = max(pos, self._pos.get(priority, pos))
