"""Queues with jobs that nobody takes are told of."""

from datetime import timedelta

from forge_jobs import Forge
from forge_jobs.maintenance.unserved import warn_of_unserved
from forge_jobs.telemetry.events import Event, PinnedUnserved, QueueUnserved
from tests.storage import factories
from tests.storage.test_pins import pinned


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


async def test_jobs_that_only_a_version_without_workers_may_go_on_with_are_told_of(forge: Forge) -> None:
    events: list[Event] = []
    storage = forge.storage
    old, new = (
        await factories.worker(storage, version="1.0"),
        await factories.worker(storage, version="2.0"),
    )
    for _ in range(2):
        await pinned(storage, old)
    await pinned(storage, new)
    forge.telemetry.subscribe(events.append)
    await warn_of_unserved(storage, forge.telemetry)
    assert events == []

    await storage.workers.deregister(old)
    await warn_of_unserved(storage, forge.telemetry)

    assert events == [PinnedUnserved("default", "1.0", 2)]


async def test_jobs_that_sleep_are_not_told_of_before_they_wake(forge: Forge) -> None:
    events: list[Event] = []
    storage = forge.storage
    old = await factories.worker(storage, version="1.0")
    await pinned(storage, old, delay=timedelta(hours=1))
    await storage.workers.deregister(old)
    forge.telemetry.subscribe(events.append)

    await warn_of_unserved(storage, forge.telemetry)

    assert events == []
