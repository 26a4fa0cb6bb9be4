"""What one reaper saw of the workers, and who of them is silent by that.

A worker is silent when its beat stayed the same for the stale time while this process
looked on and anybody could use the database (`silence_clock`), by its own clock. The database's
clock, which may be set forward or back, and is another one after a fail-over, decides nothing
by itself: it only shortens the watch over workers that had been silent before it began.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf

from forge_jobs.model.worker import Beats

FEW_BEATS = 1.5
"""So many heartbeats somebody who lives would not leave out, when nothing else is the matter."""


@dataclass(slots=True)
class _Sighting:
    beat_at: datetime
    since: float  # when it was first seen
    is_fresh: bool  # whether it was not there at the look before, which was a moment ago


class Sightings:
    """Of the workers, as `me` sees them, who is one of them and never silent. Moments are `seconds` of a SilenceClock."""

    def __init__(self, me: int, *, heartbeat: timedelta, stale: timedelta) -> None:
        self._me = me
        self._heartbeat = heartbeat.total_seconds()
        self._stale = stale
        self._seen: dict[int, _Sighting] = {}
        self._last: tuple[float, datetime] | None = None
        self._steady_since = 0.0  # looks came one after the other, and the database's clock went like ours

    def is_overdue(self, beats: Beats) -> bool:
        """Whether a beat of somebody is missing, so that it matters whether it could be made."""
        return any(
            abs(beats.now - beat_at).total_seconds() >= FEW_BEATS * self._heartbeat
            for worker_id, beat_at in beats.at.items()
            if worker_id != self._me
        )

    def silent(
        self, beats: Beats, at: float, unbroken_since: float = -inf, up_since: float = -inf
    ) -> dict[int, datetime]:
        """Return, of a look at this moment, the workers that are silent, with their last beats.

        Before `unbroken_since` the database may have answered nobody, and before `up_since` it did not.
        """
        is_steady = self._is_steady(beats, at)
        if not is_steady:
            self._steady_since = at
        self._last = at, beats.now
        before, self._seen = self._seen, {}
        for worker_id, beat_at in beats.at.items():
            seen = before.get(worker_id)
            if seen is None or seen.beat_at != beat_at:
                seen = _Sighting(beat_at, at, is_fresh=is_steady)
            self._seen[worker_id] = seen
        return {
            worker_id: seen.beat_at
            for worker_id, seen in self._seen.items()
            if worker_id != self._me and self._is_silent(seen, beats.now, at, unbroken_since, up_since)
        }

    def _is_silent(
        self, seen: _Sighting, now: datetime, at: float, unbroken_since: float, up_since: float
    ) -> bool:
        if at - max(seen.since, up_since) >= self._stale.total_seconds():
            return True
        if at - unbroken_since < self._stale.total_seconds():
            return False  # what is old by the database's clock may be so because nobody could beat
        watched = at - max(seen.since, self._steady_since)
        is_old = abs(now - seen.beat_at) > self._stale  # from the future: before the clock was set back
        return not seen.is_fresh and is_old and watched >= FEW_BEATS * self._heartbeat

    def _is_steady(self, beats: Beats, at: float) -> bool:
        if self._last is None:
            return False
        elapsed, by_database = at - self._last[0], (beats.now - self._last[1]).total_seconds()
        return elapsed <= self._heartbeat and abs(by_database - elapsed) <= self._heartbeat
