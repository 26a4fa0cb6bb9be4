"""What handlers save of their jobs, for the next attempt."""

from typing import Any, Protocol

from forge_jobs.model.job import Claim


class SavedStates(Protocol):
    """One state and one result for each job, until the job is deleted or replaced. A claim says what was saved before."""

    async def save(self, claim: Claim, state: bytes, *, connection: Any = None) -> bool:
        """The next attempts of the job have this state; with `connection`, once that transaction of the caller's commits.

        False: the claim was lost, and nothing was written. Until the transaction ends, nobody else can end the job or take it
        back, but it can be cancelled.
        """

    async def set_result(self, claim: Claim, result: bytes | None, *, connection: Any = None) -> bool:
        """This is the result of the job, also if it dies, unless its handler returns one; as `save`."""

    async def save_for_key(self, claim: Claim, state: bytes | None, *, connection: Any = None) -> bool:
        """All later jobs of the kind with the key of this one may read this state; None: there is none any more. As `save`.

        False also when the key went to another job, or was removed.
        """

    async def of_key(self, claim: Claim) -> tuple[bytes, str] | None:
        """Return what was saved for the key of the job last, and its codec; None: nothing."""
