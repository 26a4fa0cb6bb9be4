"""How far jobs are, as their handlers report."""

from collections.abc import Collection, Sequence
from typing import Protocol

from forge_jobs.model.progress import ProgressReport


class ProgressReports(Protocol):
    """The last report of each job."""

    async def write(self, reports: Sequence[ProgressReport]) -> Collection[int]:
        """Whoever looks at these jobs sees how far they are, if their claims hold.

        A job that another transaction has locked is passed over, such as one that its handler has completed; return the ids
        of those. A report may be lost if the database crashes right after it.
        """
