"""The pace: how much time passes between two jobs that the runners take out of a hand.

The length of the jobs does not tell: handlers that hold up the event loop run one after the other, however many
runners there are, and jobs may be longer than those before them.
"""

from forge_jobs.system.uptime import uptime

SHORTEST_LOOK = 0.25  # seconds; a shorter look would take a hitch for the pace
LONGEST_LOOK = 1.0  # seconds without a job taken, after which none is expected soon


class Pace:
    """Of the runners of one hand. `taken` is how many jobs they ever took out of it."""

    def __init__(self) -> None:
        self.seconds = 0.0  # from one job to the next; 0: unknown, since none had to wait
        self._since = uptime()
        self._taken = 0

    def begin(self, taken: int) -> None:
        """Jobs wait from now on, where none did: the pace is taken for twice as fast as it last was."""
        self.seconds /= 2
        self._since, self._taken = uptime(), taken

    def look(self, taken: int) -> None:
        """The pace is what it was since the last look, in which jobs have waited all the time."""
        now = uptime()
        passed, more = now - self._since, taken - self._taken
        if passed < (SHORTEST_LOOK if more > 0 else LONGEST_LOOK):
            return
        self.seconds = passed / more if more > 0 else 2 * passed
        self._since, self._taken = now, taken

    def within(self, seconds: float) -> float:
        """Return how many jobs the runners will take in that time; infinity when the pace is unknown."""
        return seconds / self.seconds if self.seconds else float("inf")
