"""The look after groups: places that were left taken are given away, and groups that nobody uses are forgotten."""

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.storage.interface.groups import Groups
from forge_jobs.telemetry.events import GroupsMended
from forge_jobs.telemetry.telemetry import Telemetry


async def audit(groups: Groups, telemetry: Telemetry, epoch: LeaderEpoch) -> None:
    """Make one pass as the leader of this epoch."""
    mended = await groups.audit(epoch=epoch)
    if mended:
        telemetry.emit(GroupsMended(mended))
    await groups.forget(epoch=epoch)
