"""What a leader tells of the fires of crons."""

from datetime import UTC, datetime, timedelta

from forge_jobs.maintenance.scheduler import fire_due
from forge_jobs.telemetry import Event, Telemetry
from forge_jobs.telemetry.events import CronFired
from tests.storage.factories import cron, job, leader

NIGHT = datetime(2030, 1, 1, 3, tzinfo=UTC)


async def told(storage, epoch):
    events: list[Event] = []
    telemetry = Telemetry()
    telemetry.subscribe(events.append)
    await fire_due(storage, telemetry, epoch)
    return [(event.enqueued, event.skipped) for event in events if isinstance(event, CronFired)]


async def test_a_fire_that_another_leader_has_made_is_not_told_as_skipped(storage, clock):
    epoch = await leader(storage)
    await storage.crons.set(cron(next_fire_at=NIGHT))
    await clock.set(NIGHT + timedelta(seconds=1))

    assert await told(storage, epoch - 1) == []  # it led before
    assert await told(storage, epoch) == [(1, 0)]


async def test_a_fire_that_is_skipped_is_told_so(storage, clock):
    epoch = await leader(storage)
    await storage.crons.set(cron(next_fire_at=NIGHT, key="k"))
    await storage.jobs.enqueue(job("report", key="k"))
    await clock.set(NIGHT + timedelta(seconds=1))

    assert await told(storage, epoch) == [(0, 1)]
