"""Time limits of a job: until when it has to be begun, and until when it has to end."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

Limit = datetime | timedelta
"""A moment, or how long after the job is due."""


class TimeLimits(msgspec.Struct, frozen=True, gc=False):
    """The time limits of a claimed job, in seconds since the epoch, by the database's clock."""

    start_by: float | None = None  # None: none, or it was begun
    deadline: float | None = None  # None: none
    ahead: float = 0.0  # seconds that the database's clock was ahead of our `uptime` when they were read

    def is_over(self, now: float) -> bool:
        """Whether no attempt may begin any more."""
        return any(limit is not None and limit <= now for limit in (self.start_by, self.deadline))


@dataclass(frozen=True, slots=True)
class OutOfTime:
    """A waiting job that ended since its time was over."""

    job_id: int
    queue: str
    kind: str
    expired: bool  # it was not begun in time; False: it was to have ended by now
    error: str


OVERDUE = "overdue: "
"""What the error of a job begins with that had not ended by its deadline."""


def expired(start_by: float) -> str:
    """Return the error of a job that was not begun by this moment."""
    return f"expired: it was not begun by {_shown(start_by)}"


def overdue(deadline: float) -> str:
    """Return the error of a job that had not ended by this moment."""
    return f"{OVERDUE}it had not ended by {_shown(deadline)}"


def _shown(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC"
