"""Versions of worker pools."""

from collections.abc import Sequence
from typing import Protocol

from forge_jobs.model.epoch import Epoch, OperatorEpoch
from forge_jobs.model.version import Version, VersionState


class Versions(Protocol):
    """Versions of worker pools, and the gates that let them claim.

    Every write names the epoch of the operator that makes it; PastEpoch is raised, and nothing
    written, when another operator has taken over since.
    """

    async def take_over(self, holder: str) -> Epoch:
        """The operator `holder` writes from now on; the epochs before it write no more."""

    async def put(self, version: Version, *, epoch: OperatorEpoch) -> bool:
        """The version is known; one that was known keeps its state, and gets the version text, Deployment, hash and queues."""

    async def promote(self, pool: str, version_id: str, *, epoch: OperatorEpoch) -> bool:
        """In one transaction the version is current and all other open ones of the pool drain; workers are told.

        False, with nothing changed, when there is no such version: the last open gate stays open.
        """

    async def move(
        self,
        pool: str,
        version_id: str,
        state: VersionState,
        *,
        weight_percent: int | None = None,
        failure_message: str | None = None,
        epoch: OperatorEpoch,
    ) -> bool:
        """The version is in `state`, its control revision grown when that is a change; workers are told.

        A new weight alone is no change to them, but its moment is kept as one of the state. With a new
        share goes a new `baseline`; `failure_message` says why the version is in this state.
        False, with nothing changed, when it would close the pool's last open gate, or open a
        second current one (`promote` does that), or when there is no such version.
        """

    async def all(self, pool: str | None = None) -> list[Version]:
        """Return the versions (of one pool), oldest first, with what their workers hold now, and came to."""

    async def of_failed(self, worker_ids: Sequence[int]) -> set[int]:
        """Return those of these workers, registered or gone, whose version failed."""

    async def delete(self, pool: str, version_id: str, *, epoch: OperatorEpoch) -> bool:
        """The row is gone; False when the version is open, or a worker of it is registered."""

    async def forget(self, pool: str, *, epoch: OperatorEpoch) -> bool:
        """All rows of the pool are gone, open ones too.

        False, with nothing changed, while a worker of the pool is registered or a job that one
        claimed is in progress.
        """

    async def cordon(self, worker_ids: Sequence[int], cordoned: bool, *, epoch: OperatorEpoch) -> None:
        """The workers may claim nothing more, or may again when not `cordoned`; they are told."""
