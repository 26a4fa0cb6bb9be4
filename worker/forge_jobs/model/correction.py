"""What people change of a single job that waits."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from forge_jobs.model.unset import UNSET, Unset


@dataclass(frozen=True, slots=True)
class Correction:
    """What a waiting job has from now on; what is None or UNSET stays. `delay` and `run_at` exclude each other."""

    queue: str | None = None
    priority: int | None = None
    attempts: int | None = None  # that have counted so far
    max_attempts: int | None = None  # FOREVER: no end
    timeout: timedelta | Unset | None = UNSET  # None: no limit
    delay: timedelta | None = None  # from the database's now
    run_at: datetime | None = None

    @property
    def has_time(self) -> bool:
        """Whether it says when the job is to run."""
        return self.delay is not None or self.run_at is not None
