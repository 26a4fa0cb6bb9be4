"""Statistics: what attempts came to, summed by queue and kind over a stretch of time.

How long jobs waited and ran is kept in buckets with fixed bounds, so that what many workers have counted adds up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0),
)
"""Upper bounds in seconds of the buckets; one more has all that is above."""

MINUTE = timedelta(minutes=1)
"""The finest stretch of time that is told apart."""

KEPT = timedelta(days=30)
"""How long statistics are kept."""

WAIT, RUN = "wait", "run"
"""What the names begin with by which times are written down: `wait:3` is the fourth bucket, `wait_us` the sum in microseconds."""


@dataclass(frozen=True, slots=True)
class Times:
    """How long something took, many times."""

    buckets: tuple[int, ...] = (0,) * (len(BUCKETS) + 1)  # how often, by bucket
    seconds: float = 0.0  # altogether

    @property
    def count(self) -> int:
        """How often it happened."""
        return sum(self.buckets)

    @property
    def mean(self) -> float | None:
        """How many seconds it took on average; None when it never happened."""
        count = self.count
        return self.seconds / count if count else None

    def quantile(self, share: float) -> float | None:
        """Return about how many seconds this share of them took at most; None when it never happened.

        It is known to within the bucket that it is in. Of what took more than an hour only that is said.
        """
        left = share * self.count
        if not left:
            return None
        lower = 0.0
        for count, upper in zip(self.buckets, BUCKETS, strict=False):
            if count >= left:
                return lower + (upper - lower) * left / count
            left, lower = left - count, upper
        return lower


@dataclass(frozen=True, slots=True)
class KindStatistics:
    """What the attempts at jobs of one kind in one queue came to, from `at` on."""

    queue: str
    kind: str
    at: datetime
    outcomes: Mapping[str, int]  # how many, by the name of an Outcome; those that there are
    waits: Times  # from when a job was pending to its handler's start
    runs: Times  # of handlers

    def ended(self, *outcomes: str) -> int:
        """Return how many attempts had one of these outcomes."""
        return sum(self.outcomes.get(outcome, 0) for outcome in outcomes)


def written(
    outcomes: Mapping[str, int], waits: tuple[Sequence[int], float], runs: tuple[Sequence[int], float]
) -> dict[str, int]:
    """Return counts by their names, as databases keep them; of times the buckets and the sum in seconds are given."""
    counts = {outcome: count for outcome, count in outcomes.items() if count}
    for name, (buckets, seconds) in ((WAIT, waits), (RUN, runs)):
        counts |= {f"{name}:{number}": count for number, count in enumerate(buckets) if count}
        if microseconds := round(seconds * 1_000_000):
            counts[f"{name}_us"] = microseconds
    return counts


def read(queue: str, kind: str, at: datetime, counts: Mapping[str, int]) -> KindStatistics:
    """Return the statistics that `written` made of these counts."""
    times = (f"{WAIT}:", f"{RUN}:", f"{WAIT}_us", f"{RUN}_us")
    outcomes = {name: count for name, count in counts.items() if not name.startswith(times)}
    return KindStatistics(queue, kind, at, outcomes, _times(WAIT, counts), _times(RUN, counts))


def _times(name: str, counts: Mapping[str, int]) -> Times:
    buckets = tuple(counts.get(f"{name}:{number}", 0) for number in range(len(BUCKETS) + 1))
    return Times(buckets, counts.get(f"{name}_us", 0) / 1_000_000)


@dataclass(frozen=True, slots=True)
class Minute:
    """What one process counted in about a minute, by queue and kind. `(process, number)` tells it from all others."""

    process: int  # random
    number: int
    ago: timedelta  # since when it is over; the database knows what time that was
    counts: Mapping[tuple[str, str], Mapping[str, int]]
