"""The clock by which a reaper counts silence: it goes while the database answers this process.

Who could not beat because nobody could is not dead, so the time of an outage counts for nothing,
and neither does that in which this process did not ask. After an outage that was one for everybody silence is
counted anew, since handlers went on in it: each worker has its whole stale time from then on.
"""

from collections.abc import Callable

from forge_jobs.errors import StorageDown
from forge_jobs.system.uptime import uptime

LONGEST = 15.0
"""Seconds between two answers for which the database is taken to have answered all the time: leaders ask every five."""


class SilenceClock:
    """Told of each answer, and of each that did not come. What it shows are seconds of this clock."""

    def __init__(self, clock: Callable[[], float] = uptime) -> None:
        self.seconds = 0.0  # it grows with each answer
        self.unbroken_since = 0.0  # what `seconds` was when the database began to answer
        self.up_since = 0.0  # what it was when the last outage was over that was one for everybody
        self._clock = clock
        self._last: float | None = None
        self._is_broken = False  # something came between the last answer and now
        self._life: str | None = None  # of the server, as far as it was heard

    def answered(self, life: str | None = None) -> None:
        """The database answered just now; `life` is that of its server, where the answer says it."""
        now = self._clock()
        elapsed = 0.0 if self._last is None else now - self._last
        if life is not None:
            if life != self._life is not None:
                self._down()
            self._life = life
        if elapsed > LONGEST:
            self._down()
        if self._last is None or self._is_broken:
            self.unbroken_since = self.seconds
        else:
            self.seconds += elapsed
        self._last, self._is_broken = now, False

    def unanswered(self, error: BaseException | None = None) -> None:
        """It did not: from its last answer to its next one nothing counts."""
        self._is_broken = True
        if isinstance(error, StorageDown):
            self._down()

    def _down(self) -> None:
        """Nobody could use it for a while, or for all that is known here: silence counts anew."""
        self._is_broken = True
        self.up_since = self.seconds
