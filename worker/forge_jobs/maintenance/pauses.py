"""Pauses that were to last until a moment end when it has come."""

from forge_jobs.storage.interface.storage import Storage
from forge_jobs.telemetry.events import GroupsResumed, KindsResumed, QueuesResumed
from forge_jobs.telemetry.telemetry import Telemetry


async def end_pauses(storage: Storage, telemetry: Telemetry) -> float | None:
    """Make one pass; return how many seconds later the next pause ends, None when none does."""
    queues, next_queue_in = await storage.queues.end_pauses()
    if queues:
        telemetry.emit(QueuesResumed(queues))
    kinds, next_kind_in = await storage.kinds.end_pauses()
    if kinds:
        telemetry.emit(KindsResumed(kinds))
    groups, next_group_in = await storage.groups.end_pauses()
    if groups:
        telemetry.emit(GroupsResumed(groups))
    ends = (next_queue_in, next_kind_in, next_group_in)
    return min((next_in.total_seconds() for next_in in ends if next_in is not None), default=None)
