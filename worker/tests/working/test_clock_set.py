"""The clock is set while somebody leads: crons go on from where it is, and each of their times that comes fires once."""

from datetime import datetime, timedelta

import pytest

from forge_jobs import Forge
from forge_jobs.maintenance import scheduler
from forge_jobs.maintenance.leader import LEASE, RENEW_EVERY
from forge_jobs.model.cron import Missed
from forge_jobs.telemetry.events import CronFired
from tests.storage.clock import Clock
from tests.storage.databases import Database
from tests.storage.factories import leader
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.processes import Fleet

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


@pytest.mark.parametrize("missed", Missed)
@pytest.mark.parametrize("hours", [-1, 1])
async def test_each_time_that_comes_fires_once_when_the_clock_is_set_and_set_right_again(
    forge: Forge, clock: Clock, events: Events, hours: int, missed: Missed
) -> None:
    epoch = await leader(forge.storage)
    await clock.set(datetime.fromisoformat("2030-01-01T12:00:30Z"))
    await forge.crons.set("minutely", "* * * * *", "unknown", missed=missed, missed_limit=1000)

    came = set[datetime]()

    async def make_pass() -> None:
        next_in: float | None = 0.0
        while next_in is not None and next_in <= 0:
            next_in = (await scheduler.fire_due(forge.storage, forge.telemetry, epoch)).next_in

    async def pass_for(minutes: int) -> None:
        await make_pass()
        for _ in range(minutes):
            await clock.advance(minutes=1)
            came.add(clock.now().replace(second=0))
            await make_pass()

    await pass_for(5)
    await clock.advance(hours=hours)
    await pass_for(3)
    await clock.advance(hours=-hours)
    await pass_for(70)

    times = {time for event in events.of(CronFired) for time in event.fires}
    assert came <= times
    assert len(times) == len(await forge.jobs.list(kind="unknown", limit=1000))


async def test_a_time_that_comes_while_nobody_leads_fires_also_where_the_clock_was_set_right_just_before(
    forge: Forge, clock: Clock, events: Events
) -> None:
    """Another worker leads as soon as the lease of the last one has run out."""
    epoch = await leader(forge.storage)
    await clock.set(datetime.fromisoformat("2030-01-01T12:00:30Z"))
    await forge.crons.set("minutely", "* * * * *", "unknown")
    await clock.advance(hours=1)
    await scheduler.fire_due(forge.storage, forge.telemetry, epoch)
    events.clear()
    came = datetime.fromisoformat("2030-01-01T12:01:00Z")
    await clock.set(came + LEASE + RENEW_EVERY * SECOND)

    for _ in range(2):
        await scheduler.fire_due(forge.storage, forge.telemetry, epoch)

    assert [event.fires for event in events.of(CronFired)] == [[came]]


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_worker_that_leads_fires_its_crons_on_when_the_clock_is_set(
    forge: Forge, database: Database, clock: Clock, workers: Fleet, hours: int
) -> None:
    await forge.crons.set("often", "* * * * * *", "unknown")
    await workers.start()

    async def fires_on() -> None:
        now = clock.now()
        fires = (
            f"SELECT fire_at FROM forge_jobs.fire WHERE fire_at > '{now}' AND fire_at < '{now + 30 * MINUTE}'"
        )

        async def has_fired() -> bool:
            return len(await database.rows(fires)) >= 5

        await eventually(has_fired)
        times = sorted(time for (time,) in await database.rows(fires))
        assert times == [times[0] + number * SECOND for number in range(len(times))]

    await fires_on()
    await clock.advance(hours=hours)
    await fires_on()
    await clock.advance(hours=-hours)
    await fires_on()
    [(jobs, times)] = await database.rows("SELECT count(*), count(DISTINCT fire_at) FROM forge_jobs.fire")
    assert jobs == times == len(await forge.jobs.list(kind="unknown", limit=1000))
