"""Queues with jobs that nobody takes are told of."""

from forge_jobs import Forge
from forge_jobs.maintenance.unserved import warn_of_unserved
from forge_jobs.telemetry.events import Event, QueueUnserved
from tests.storage import factories


async def test_queues_with_jobs_and_no_worker_that_takes_them_are_told_of(forge: Forge) -> None:
    events: list[Event] = []
    storage = forge.storage
    await forge.queues.ensure("served", "closed", "draining", "nobody")
    for queue in ("served", "closed", "draining", "nobody"):
        await factories.enqueue(storage, queue=queue)
    await factories.worker(storage, ["served", "idle"])
    cordoned, draining = (
        await factories.worker(storage, ["closed"]),
        await factories.worker(storage, ["draining"]),
    )
    epoch = (await storage.versions.take_over("operator-1")).number
    await storage.versions.cordon([cordoned], True, epoch=epoch)
    await storage.workers.drain(draining)

    forge.telemetry.subscribe(events.append)
    await warn_of_unserved(storage, forge.telemetry)

    told = {(each.queue, each.pending) for each in events if isinstance(each, QueueUnserved)}
    assert told == {("closed", 1), ("draining", 1), ("nobody", 1)}
