"""When a leader that cannot read a cron offers the lead to others, who may know its time zone.

At once, and then at growing intervals, so that two leaders that both cannot read it do not pass the lead to
and fro.
"""

from collections.abc import Sequence

FIRST_PAUSE, LONGEST_PAUSE = 60.0, 3600.0  # seconds between two offers


class Offer:
    """Of one worker. Moments are those of `uptime`."""

    def __init__(self) -> None:
        self.crons: frozenset[str] = frozenset()  # that it cannot read
        self._due_at = 0.0
        self._pause = FIRST_PAUSE

    def is_due(self, unreadable: Sequence[str], at: float) -> bool:
        """Whether the lead should be offered, when these crons cannot be read."""
        if set(unreadable) - self.crons:  # others may know this one
            self._due_at, self._pause = 0.0, FIRST_PAUSE
        self.crons = frozenset(unreadable)
        return bool(unreadable) and at >= self._due_at

    def made(self, at: float) -> None:
        """The lead was offered; the next offer comes after a pause, which is longer each time."""
        self._due_at = at + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
