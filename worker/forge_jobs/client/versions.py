"""Versions of worker pools as an operator handles them: which build of the workers may claim."""

from collections.abc import Sequence
from dataclasses import replace

from forge_jobs.errors import InvalidInput
from forge_jobs.model.epoch import Epoch, OperatorEpoch
from forge_jobs.model.pin import PinnedJobs
from forge_jobs.model.version import Version, VersionState
from forge_jobs.rules import names
from forge_jobs.rules.checks import MAX_ID, choice, epoch_number, whole, yes_or_no
from forge_jobs.storage.interface.storage import Storage

MAX_TEXT = 512


class Versions:
    """All versions of all pools. Reached as `forge.versions`.

    Every write names the epoch of the operator that makes it, `Epoch.number`, and raises
    PastEpoch, with nothing written, when another operator has taken over since.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def take_over(self, holder: str) -> Epoch:
        """The operator `holder` writes from now on; operators of earlier epochs can write no more."""
        return await self._storage.versions.take_over(_text(holder, "The operator's name"))

    async def pinned(self) -> Sequence[PinnedJobs]:
        """Return how many jobs of each queue have begun, go on with one version only, and have not ended."""
        return await self._storage.pins.counts()

    async def put(self, version: Version, *, epoch: OperatorEpoch) -> bool:
        """The version is recorded: a new one in its state, an existing one keeps the state that it has.

        Either way it has the version text, the Deployment, the hash and, unless they are None, the
        queues. False when a second version of the pool would be current. Raises InvalidInput.
        """
        checked = replace(
            version,
            pool=_pool(version.pool),
            id=_id(version.id),
            version=_text(version.version, "The version"),
            deployment=_text(version.deployment, "The Deployment"),
            state=choice(version.state, "state", VersionState),
            weight_percent=_weight(version.weight_percent),
            queues=_queues(version.queues),
        )
        return await self._storage.versions.put(checked, epoch=epoch_number(epoch))

    async def promote(self, pool: str, version_id: str, *, epoch: OperatorEpoch) -> bool:
        """At one instant the version is current and all other open ones of the pool drain; workers are told.

        False, with nothing changed, when there is no such version.
        """
        return await self._storage.versions.promote(_pool(pool), _id(version_id), epoch=epoch_number(epoch))

    async def move(
        self,
        pool: str,
        version_id: str,
        state: VersionState | str,
        *,
        weight_percent: int | None = None,
        failure_message: str | None = None,
        epoch: OperatorEpoch,
    ) -> bool:
        """The version is in `state`, and workers are told when that is a change; `failure_message` says why in a sentence.

        `state_changed_at` is the moment of the last change of either state or weight.
        False, with nothing changed, when there is no such version, the pool's last open gate
        would close, or a second version would be current.
        """
        return await self._storage.versions.move(
            _pool(pool),
            _id(version_id),
            choice(state, "state", VersionState),
            weight_percent=None if weight_percent is None else _weight(weight_percent),
            failure_message=None
            if failure_message is None
            else _text(failure_message, "The failure message"),
            epoch=epoch_number(epoch),
        )

    async def all(self, pool: str | None = None) -> Sequence[Version]:
        """Return the versions (of one pool), oldest first, with what their workers hold at this instant."""
        return await self._storage.versions.all(None if pool is None else _pool(pool))

    async def delete(self, pool: str, version_id: str, *, epoch: OperatorEpoch) -> bool:
        """The row is deleted; False when the version is open, or a worker of it is registered."""
        return await self._storage.versions.delete(_pool(pool), _id(version_id), epoch=epoch_number(epoch))

    async def forget(self, pool: str, *, epoch: OperatorEpoch) -> bool:
        """All versions of the pool are deleted, open ones too: for a pool that does not exist any more.

        False, with nothing changed, when a worker of the pool is registered, or a job that one
        claimed is in progress.
        """
        return await self._storage.versions.forget(_pool(pool), epoch=epoch_number(epoch))

    async def cordon(self, worker_ids: Sequence[int], cordoned: bool, *, epoch: OperatorEpoch) -> None:
        """These workers may claim nothing more (or, not `cordoned`, may again), and are told.

        Ids of workers that are gone are passed over.
        """
        ids = names.listed(worker_ids, "worker_ids")
        checked = [whole(worker_id, "A worker's id", least=1, most=MAX_ID) for worker_id in ids]
        await self._storage.versions.cordon(
            checked, yes_or_no(cordoned, "cordoned"), epoch=epoch_number(epoch)
        )


def _pool(value: object) -> str:
    if isinstance(value, str) and names.POOL.fullmatch(value):
        return value
    raise InvalidInput(f"The pool is {value!r}, allowed are {names.POOL_ALLOWED}.")


def _id(value: object) -> str:
    if isinstance(value, str) and names.VERSION_ID.fullmatch(value):
        return value
    raise InvalidInput(f"The version's id is {value!r}, allowed are {names.VERSION_ID_ALLOWED}.")


def _text(value: object, what: str) -> str:
    if isinstance(value, str) and 0 < len(value) <= MAX_TEXT and value.isprintable():
        return value
    raise InvalidInput(f"{what} is {value!r}, allowed are 1 to {MAX_TEXT} printable characters.")


def _queues(value: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(names.queue(name) for name in names.listed(value, "queues"))


def _weight(value: object) -> int:
    return whole(value, "weight_percent", most=100)
