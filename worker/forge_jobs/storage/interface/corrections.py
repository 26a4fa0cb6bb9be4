"""Single jobs that people end or change by hand."""

from typing import Protocol

from forge_jobs.model.correction import Correction
from forge_jobs.model.job import State


class Corrections(Protocol):
    """What people do to a job that no worker has: a job in progress is never touched. What is done `by` somebody is noted."""

    async def end(
        self,
        job_id: int,
        state: State,
        *,
        result: bytes | None = None,
        error: str | None = None,
        by: str | None = None,
    ) -> None:
        """The job, which waited, is done with this result, encoded with its codec, or dead with this error.

        A dead or expired job may become done. Its key and its places in groups are free. Raises JobNotFound, and
        WrongState in other states.
        """

    async def change(self, job_id: int, correction: Correction, *, by: str | None = None) -> None:
        """The waiting job is as the correction says, and keeps its place where that says nothing of its time.

        With a time it is scheduled; one that waits for a signal is not. A blocked job whose priority changes asks for its places anew. Raises JobNotFound,
        UnknownQueue, and WrongState in other states.
        """
