"""The steps of jobs that were done, for the attempts that come later."""

from typing import Any, Protocol

from forge_jobs.model.job import Claim, Enqueued, NewJob
from forge_jobs.model.step import JobStep, NewStep


class Steps(Protocol):
    """They stay until the job is deleted or replaced. Each has a name of its own in its job."""

    async def of_job(self, job_id: int, *, connection: Any = None) -> list[JobStep]:
        """Return the steps of a job in the order in which the handler comes to them; with `connection`, as that transaction of the caller's sees them."""

    async def add(self, claim: Claim, step: NewStep, *, connection: Any = None) -> JobStep | None:
        """The step is done: return it as it is kept. With `connection` it holds once that transaction of the caller's commits.

        A step that is there already stays as it is, and is returned. None: the claim was lost, and nothing was written. Until
        the transaction ends, nobody else can end the job or take it back, but it can be cancelled.
        """

    async def rerun(self, job: NewJob, *, before: int) -> Enqueued:
        """The job waits, as by `jobs.enqueue`, and has done the steps of the job that it runs again whose numbers are below `before`.

        Raises JobNotFound when that one is gone, and its steps with it.
        """
