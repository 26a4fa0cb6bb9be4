"""`forge.sync.tenants`: what `forge.tenants` does, without an event loop. Written by worker/tests/test_sync_nouns.py."""

from collections.abc import Mapping, Sequence

from forge_jobs.client.tenants import Tenants
from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.model.tenant import TenantStatus
from forge_jobs.sync.noun import SyncNoun


class SyncTenants(SyncNoun[Tenants]):
    """The tenants that have turns before them, or weights of their own. Reached as `forge.sync.tenants`."""

    def list(self, *, queue: str | None = None, limit: int = 100) -> Sequence[TenantStatus]:
        """Return tenants by queue, those of which most jobs wait first, `limit` at most. Raises UnknownQueue, InvalidInput."""
        return self._do(self._noun.list(queue=queue, limit=limit))

    def weights(self) -> Mapping[str, Mapping[str, float]]:
        """Return the weights that were set, by queue and tenant."""
        return self._do(self._noun.weights())

    def set_weights(
        self, weights: Mapping[str, float], *, queue: str, epoch: OperatorEpoch | None = None
    ) -> None:
        """The tenants have these weights in the queue, and all others 1; as `set_weight`. An operator names its `epoch`.

        Raises UnknownQueue, PastEpoch, InvalidInput.
        """
        self._do(self._noun.set_weights(weights, queue=queue, epoch=epoch))

    def set_weight(self, tenant: str | int, weight: float | None, *, queue: str) -> bool:
        """The tenant has so many turns in the queue for each one of a tenant of weight 1; None: one.

        It holds for jobs that get their turns from now on. Return whether that is a change. Raises UnknownQueue,
        InvalidInput.
        """
        return self._do(self._noun.set_weight(tenant, weight, queue=queue))
