"""Tenants as people handle them: who takes turns in a queue, and how many each has."""

from collections.abc import Mapping, Sequence

from forge_jobs.client.acting import who_is_named
from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.model.tenant import TenantStatus
from forge_jobs.rules import names, tenants
from forge_jobs.rules.checks import epoch_or_none, whole
from forge_jobs.storage.interface.storage import Storage

MOST_LISTED = 10_000


class Tenants:
    """The tenants that have turns before them, or weights of their own. Reached as `forge.tenants`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def list(self, *, queue: str | None = None, limit: int = 100) -> Sequence[TenantStatus]:
        """Return tenants by queue, those of which most jobs wait first, `limit` at most. Raises UnknownQueue, InvalidInput."""
        return await self._storage.tenants.all(
            queue=None if queue is None else names.queue(queue),
            limit=whole(limit, "limit", least=1, most=MOST_LISTED),
        )

    async def weights(self) -> Mapping[str, Mapping[str, float]]:
        """Return the weights that were set, by queue and tenant."""
        return await self._storage.tenants.weights()

    async def set_weights(
        self, weights: Mapping[str, float], *, queue: str, epoch: OperatorEpoch | None = None
    ) -> None:
        """The tenants have these weights in the queue, and all others 1; as `set_weight`. An operator names its `epoch`.

        Raises UnknownQueue, PastEpoch, InvalidInput.
        """
        checked = {tenants.tenant(name): tenants.weight(name, weight) for name, weight in weights.items()}
        await self._storage.tenants.set_weights(names.queue(queue), checked, epoch=epoch_or_none(epoch))

    async def set_weight(self, tenant: str | int, weight: float | None, *, queue: str) -> bool:
        """The tenant has so many turns in the queue for each one of a tenant of weight 1; None: one.

        It holds for jobs that get their turns from now on. Return whether that is a change. Raises UnknownQueue,
        InvalidInput.
        """
        name = tenants.tenant(tenant)
        return await self._storage.tenants.set_weight(
            names.queue(queue),
            name,
            None if weight is None else tenants.weight(name, weight),
            by=who_is_named(),
        )
