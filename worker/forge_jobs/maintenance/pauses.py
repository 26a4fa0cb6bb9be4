"""Pauses that were to last until a moment end when it has come."""

from forge_jobs.storage.interface.queues import Queues
from forge_jobs.telemetry.events import PausesEnded
from forge_jobs.telemetry.telemetry import Telemetry


async def end_pauses(queues: Queues, telemetry: Telemetry) -> float | None:
    """Make one pass; return how many seconds later the next pause ends, None when none does."""
    ended, next_in = await queues.end_pauses()
    if ended:
        telemetry.emit(PausesEnded(ended))
    return None if next_in is None else next_in.total_seconds()
