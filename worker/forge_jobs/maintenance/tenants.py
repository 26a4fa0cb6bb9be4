"""The look after tenants: what says nothing more of their turns is forgotten."""

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.storage.interface.tenants import Tenants


async def forget(tenants: Tenants, epoch: LeaderEpoch) -> None:
    """Make one pass as the leader of this epoch."""
    await tenants.forget(epoch=epoch)
