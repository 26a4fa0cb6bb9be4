"""The look after tenants: what says nothing more of their turns is forgotten, and how they wait is told."""

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.storage.interface.tenants import Tenants
from forge_jobs.telemetry.events import TenantsWaiting
from forge_jobs.telemetry.telemetry import Telemetry


class TenantCounts:
    """Tells how the tenants of queues wait, as long as any do."""

    def __init__(self, tenants: Tenants, telemetry: Telemetry) -> None:
        self._tenants = tenants
        self._telemetry = telemetry
        self._told: set[str] = set()

    async def tell(self) -> None:
        """Make one look."""
        waiting = {one.queue: one for one in await self._tenants.waiting()}
        for queue in self._told - waiting.keys():
            self._telemetry.emit(TenantsWaiting(queue, 0, 0, 0.0))
        for queue, one in waiting.items():
            wait = one.others_wait.total_seconds()
            self._telemetry.emit(TenantsWaiting(queue, one.tenants, one.largest, wait))
        self._told = set(waiting)


async def forget(tenants: Tenants, epoch: LeaderEpoch) -> None:
    """Make one pass as the leader of this epoch."""
    await tenants.forget(epoch=epoch)
