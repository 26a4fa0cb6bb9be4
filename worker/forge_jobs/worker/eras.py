"""Eras: what a worker does when the database's history turns out to be another.

A crash of the server may lose claims that were not flushed, a fail-over whatever the standby had not
got, a restore all since the backup. Then others may claim the jobs whose handlers run here, and new
jobs may get the ids of those that are gone. Every beat brings the present era, and each claim names
the one that the worker knows, so that nothing is claimed in another. Before it claims again the
worker takes stock: what it runs without a claim that the database knows is stopped.
"""

from collections.abc import Callable

from forge_jobs.model.worker import Beat, Standing
from forge_jobs.storage.interface.workers import Workers
from forge_jobs.storage.liveness import beside_heartbeat
from forge_jobs.system.uptime import uptime


class Eras:
    """Follows the beats of one worker. `hurry()` asks for the next one at once."""

    def __init__(self, workers: Workers, stale: float, hurry: Callable[[], None]) -> None:
        self.beats = 0  # beats that were answered
        self.hurry = hurry
        self.doubts = 0  # how often it turned out that the history was cut
        self._workers = workers
        self._stale = stale  # seconds
        self._standing: Standing | None = None
        self.acknowledged: int | None = None  # the era in which every job that runs here has a claim
        self._cleared = 0  # how many of the doubts
        self._is_cut = False  # though no new era has begun
        self._is_settled = True
        self._unsettled_since: float | None = None

    @property
    def is_in_doubt(self) -> bool:
        """Whether stock has to be taken before anything is claimed."""
        return self.doubts > self._cleared

    @property
    def standing(self) -> Standing | None:
        """The era that a claim has to name; None while no claim may be made."""
        return self._standing if self._is_settled and not self.is_in_doubt else None

    def heard(self, beat: Beat) -> None:
        """The worker's heartbeat was answered with `beat`."""
        self.beats += 1
        before, self._standing = self._standing, beat.standing
        if before is not None and (
            beat.standing.era != before.era or beat.beaten_at < before.beat_at  # its own beat is gone
        ):
            self.doubts += 1
            self._is_cut = beat.standing.era == before.era
        if not self.is_in_doubt:
            self.acknowledged = beat.standing.era
        self._settle(beat.is_settled)

    def doubt(self) -> None:
        """A claim of this worker is gone, and its heartbeats do not say why."""
        self.doubts += 1
        self._is_cut = True

    async def stock_was_taken(self, doubts: int) -> None:
        """Jobs that ran here without a claim have been stopped after this many doubts, and no outcome of theirs is on its way."""
        if self._is_cut:  # others may not have noticed: tell them
            async with beside_heartbeat(self._stale):
                await self._workers.end_era()
            self._is_cut = False
            self.hurry()
            return  # the next beat brings a new era, in which stock is taken once more
        self._cleared = doubts
        if not self.is_in_doubt and self._standing is not None:
            self.acknowledged = self._standing.era
            self.hurry()  # others wait to hear it

    def _settle(self, is_settled: bool) -> None:
        """Nothing is claimed before all other workers have taken stock, or have had the time to cut themselves off."""
        if is_settled:
            self._is_settled, self._unsettled_since = True, None
            return
        now = uptime()
        if self._unsettled_since is None:
            self._unsettled_since = now
        self._is_settled = now - self._unsettled_since > self._stale
