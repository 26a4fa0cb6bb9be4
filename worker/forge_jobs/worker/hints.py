"""Where the looks for jobs of one queue begin, so that none walks again over index entries that are known
to be dead.

What was claimed stays in the database's index for as long as anybody may still see it, and
jobs that this worker leaves alone stay for as long as nobody else takes them. A look begins
behind them, in each priority where the last one ended, and goes a moment back, since what
became ready earlier may be seen later. Whatever else stands before a hint is found by a
scout, which looks from the very beginning, in the background and at a share of its own cost,
or was told of.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from forge_jobs.model.job import Claim
from forge_jobs.storage.interface.claims import Front

MARGIN = 1_000
"""Microseconds, and as many jobs of a bulk: a full batch misses jobs that commit later than their
neighbours by more than this."""

LATE = timedelta(seconds=2)
"""How far a look goes back when the look before did not find all it asked for."""

NOW_AT_ONCE = timedelta(0)


class Hints:
    """The hints of one queue. Positions are those of the database."""

    def __init__(self) -> None:
        self._pos: dict[int, int] = {}  # by priority
        self._set_aside: dict[int, int] = {}  # what stood before the last lowering
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

    def took(self, claims: Sequence[Claim], *, is_full: bool) -> None:
        """A look found these jobs, in the order of the index; before the last of them there are no others."""
        self.is_full = is_full
        for priority, pos in {claim.priority: claim.pos for claim in claims}.items():
            self._raise(priority, pos - MARGIN)

    def lower(self, priority: int, pos: int) -> None:
        """A job became ready at this place, perhaps one that looks have passed."""
        if pos < self._pos.get(priority, pos):
            self._pos[priority] = pos

    def scouted(self, front: Front, begun: Mapping[int, int]) -> bool:
        """Take over what a scout found, which set out when the hints were `begun`; return whether jobs
        stand before these."""
        lowered = {
            priority: pos
            for priority, pos in front.begins.items()
            if pos is not None and pos < begun.get(priority, pos)
        }
        if lowered:
            self.is_full = False  # a look that goes on where the last one ended may pass them again
            self._set_aside = dict(self._pos)
            self._pos.update(lowered)
        for priority in begun.keys() | front.begins.keys():
            pos = front.begins.get(priority)
            if pos is None:
                self.is_full = False
                self._raise(priority, front.now - MARGIN)
            elif priority not in self._pos:
                self._pos[priority] = pos
        return bool(lowered)

    def set_out(self) -> dict[int, int]:
        """Return the hints that a scout compares with when it returns."""
        return dict(self._pos)

    def leave_alone(self) -> None:
        """The jobs that the last scout found are not for this worker: begin behind them again."""
        set_aside, self._set_aside = self._set_aside, {}
        for priority, pos in set_aside.items():
            self._raise(priority, pos)

    def _raise(self, priority: int, pos: int) -> None:
        self._pos[priority] = max(pos, self._pos.get(priority, pos))
