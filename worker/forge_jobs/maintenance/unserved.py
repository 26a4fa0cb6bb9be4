"""The look-out for queues that have jobs and nobody who serves them."""

from forge_jobs.storage.interface.storage import Storage
from forge_jobs.telemetry.events import QueueUnserved
from forge_jobs.telemetry.telemetry import Telemetry


async def warn_of_unserved(storage: Storage, telemetry: Telemetry) -> None:
    """Say which queues have pending jobs and no worker that takes them."""
    served = {name for worker in await storage.workers.all() if worker.serves for name in worker.queues}
    for counts in await storage.jobs.counts():
        if counts.pending and counts.queue not in served:
            telemetry.emit(QueueUnserved(counts.queue, counts.pending))
