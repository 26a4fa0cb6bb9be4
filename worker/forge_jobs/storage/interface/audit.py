"""Whether the rows agree with each other."""

from collections.abc import AsyncIterator
from typing import Protocol

from forge_jobs.model.finding import Finding, Look


class Audit(Protocol):
    """Whether the rows agree with each other, looked at while workers run. A look waits for nobody and nobody for it.

    With `repair` each contradiction is mended that can be, and says how; without, nothing is written.
    Repeating it does no harm. `forge_jobs.model.finding` says what is looked for.
    """

    def jobs(
        self, *, repair: bool = False, forget: bool = False, limit: int = 200_000
    ) -> AsyncIterator[Look]:
        """Look at all jobs, and at all rows about them, `limit` jobs at a time.

        A job in several states stays in the one that proves most. One in no state is pending,
        and runs perhaps again; with `forget` it is deleted. A queue that is not there is made, paused.
        """

    async def slots(self, *, repair: bool = False) -> list[Finding]:
        """Every queue with a concurrency has that many slots, and registered workers hold them."""

    async def counts(self, *, repair: bool = False) -> list[Finding]:
        """Counts are what is in the tables."""
