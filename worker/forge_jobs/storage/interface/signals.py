"""Signals to jobs, and the waits that they end."""

from collections.abc import Sequence
from typing import Any, Protocol

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.job import Claim
from forge_jobs.model.signal import JobSignal, NewSignal, NewWait, Recipient, Signalled, TokenFacts
from forge_jobs.model.step import JobStep


class Signals(Protocol):
    """A wait is a step of a job. What ends it (a signal, the end of another job, or its timeout) is exactly one of them.

    A signal that comes before its wait is kept. Signals go with their job.
    """

    async def wait(self, claim: Claim, wait: NewWait) -> JobStep | None:
        """The attempt comes to this wait: return the step as it is kept, over if anything has ended it. None: the claim was lost.

        One that lasts ends with `claims.postpone`, where the job begins to wait; or goes on, should something have ended it meanwhile.
        """

    async def send(
        self, to: Recipient, signal: NewSignal, *, connection: Any = None, by: str | None = None
    ) -> Sequence[tuple[int | None, Signalled]]:
        """Send the signal; return what became of it by the ids of the jobs, in their order.

        The id is None where no job has the key. With `connection` it is sent once that transaction of the caller's commits.
        """

    async def codecs(self, to: Recipient, *, connection: Any = None) -> Sequence[tuple[str, str, str | None]]:
        """Return (kind, codec, codec with which jobs of the kind are sealed) of the living jobs to which a signal would be sent, each once."""

    async def token_facts(
        self, job_id: int | None = None, *, claim: Claim | None = None, connection: Any = None
    ) -> TokenFacts | None:
        """Return what a callback token is made of, or read by: for this job, where one is given. None: the `claim` is lost."""

    async def of_job(self, job_id: int) -> Sequence[JobSignal]:
        """Return the signals that a job was sent, in their order."""

    async def end_waits_for(self, job_ids: Sequence[int]) -> None:
        """Jobs that wait for the ends of these go on, as far as these have ended; 500 at most, `end_waits` finds the others."""

    async def end_waits(self, *, epoch: LeaderEpoch, limit: int = 1000) -> tuple[int, int]:
        """Up to `limit` jobs that wait for the ends of other jobs that have ended go on; return how many, and how many others still wait for that."""
