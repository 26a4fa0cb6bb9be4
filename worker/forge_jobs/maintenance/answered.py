"""For how long the database has answered this process: the clock by which a reaper counts silence.

Who could not beat because nobody could is not dead, so the time of an outage counts for nothing,
and neither does that in which this process did not ask.
"""

from collections.abc import Callable

from forge_jobs.system.uptime import uptime

LONGEST = 15.0
"""Seconds between two answers for which the database is taken to have answered all the time: leaders ask every five."""


class Answered:
    """Told of each answer, and of each that did not come."""

    def __init__(self, clock: Callable[[], float] = uptime) -> None:
        self.seconds = 0.0  # it grows with each answer
        self.unbroken_since = 0.0  # what `seconds` was when the database began to answer
        self._clock = clock
        self._last: float | None = None

    def yes(self) -> None:
        """The database answered just now."""
        now = self._clock()
        if self._last is not None and now - self._last <= LONGEST:
            self.seconds += now - self._last
        else:
            self.unbroken_since = self.seconds
        self._last = now

    def no(self) -> None:
        """It did not: from its last answer to its next one nothing counts."""
        self._last = None
