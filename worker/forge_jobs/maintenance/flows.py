"""The look after flows: what was left open is handed on, and flows of which no job is kept are forgotten."""

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.storage.interface.flows import Flows
from forge_jobs.telemetry.events import NodesMended
from forge_jobs.telemetry.telemetry import Telemetry

AT_ONCE = 1000
"""How many flows are forgotten in one transaction."""


async def audit(flows: Flows, telemetry: Telemetry, epoch: LeaderEpoch) -> None:
    """Make one pass as the leader of this epoch."""
    mended = await flows.audit(epoch=epoch)
    if mended:
        telemetry.emit(NodesMended(mended))
    while await flows.forget(epoch=epoch, limit=AT_ONCE) == AT_ONCE:
        pass
