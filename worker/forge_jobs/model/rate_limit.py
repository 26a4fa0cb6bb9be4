"""What a rate limit is: a token bucket for the whole cluster."""

from dataclasses import dataclass
from datetime import datetime, timedelta

NEARLY = 1e-9
"""How much less than a whole token a sum of fractions may be, to count as one."""

LATELY = timedelta(minutes=10)
"""How long a change of a rate limit is carried on to jobs that wait: some are on their way to where they wait."""


def numbers(capacity: float, refill: float) -> str:
    """Return what a rate limit allows, for people."""
    return f"capacity {capacity:g}, {refill:g} tokens a second"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A bucket as its row says; `tokens` as of now, refilled, leased ones already taken out."""

    scope: str
    capacity: float  # tokens, the largest burst
    refill: float  # tokens per second
    tokens: float = 0.0
    generation: int = 0  # +1 each time it is emptied: tokens leased before it are void
    emptied_at: datetime | None = None
    managed_by: str | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """Tokens taken out of a bucket for one process to spend."""

    scope: str
    tokens: int  # may be fewer than wanted, also none
    generation: int
    retry_after: float  # seconds until the bucket holds one more token; infinite when it is never refilled
    capacity: float  # tokens, the most that one lease can get
    full_at: float  # how many tokens will have flowed into the bucket when all is refilled that was taken up to this
    time_stands_still: bool = False  # whoever waits gets none, until somebody moves the clock
