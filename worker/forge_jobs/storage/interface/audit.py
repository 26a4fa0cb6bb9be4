"""Whether the rows agree with each other."""

from collections.abc import AsyncIterator
from typing import Protocol

from forge_jobs.model.finding import Finding, Look


class Audit(Protocol):
    """Finds rows that contradict each other while workers run. A look waits for nobody, and nobody waits for it.

    With `repair`, contradictions that can be mended are mended, and their findings say how; without it, nothing is
    written. Repeating it does no harm. `forge_jobs.model.finding` says what is looked for.
    """

    def jobs(
        self, *, repair: bool = False, forget: bool = False, limit: int = 200_000
    ) -> AsyncIterator[Look]:
        """Look at all jobs and at all rows about them; yield a Look for each `limit` jobs.

        A repair leaves a job that is in several states in the one that proves most. A job that is in no state
        becomes pending, and may run again; with `forget` it is deleted. A missing queue is made, and paused.
        """

    async def slots(self, *, repair: bool = False) -> list[Finding]:
        """Return the slots that a queue with a concurrency lacks or has too many, and those that no registered worker holds."""

    async def groups(self, *, repair: bool = False) -> list[Finding]:
        """Return the places in groups that nobody who is pending or in progress has, and what else is wrong about groups."""

    async def counts(self, *, repair: bool = False) -> list[Finding]:
        """Return the queues whose counts differ from what is in the tables."""
