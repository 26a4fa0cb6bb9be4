"""The look-out for queues, and for versions of the program, that have jobs and no worker that takes them."""

from forge_jobs.storage.interface.storage import Storage
from forge_jobs.telemetry.events import PinnedUnserved, QueueUnserved
from forge_jobs.telemetry.telemetry import Telemetry


async def warn_of_unserved(storage: Storage, telemetry: Telemetry) -> None:
    """Say which queues have pending jobs and no worker that takes them, and which pending jobs only a version without one may go on with."""
    workers = await storage.workers.all()
    served = {name for worker in workers if worker.serves for name in worker.queues}
    for counts in await storage.jobs.counts():
        if counts.pending and counts.queue not in served:
            telemetry.emit(QueueUnserved(counts.queue, counts.pending))
    # A version that drains goes on with what is pinned to it, though its gate is closed.
    going_on = {
        (name, worker.version, worker.pool, worker.version_id)
        for worker in workers
        if not worker.draining
        for name in worker.queues
    }
    for pinned in await storage.pins.counts():
        if pinned.ready and (pinned.queue, pinned.version, pinned.pool, pinned.version_id) not in going_on:
            telemetry.emit(PinnedUnserved(pinned.queue, pinned.version, pinned.ready))
