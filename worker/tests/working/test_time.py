"""Jobs that wait for their time, and crons."""

import asyncio
from datetime import timedelta

import pytest

from forge_jobs import Forge, State
from forge_jobs.model.cron import CronConfig
from forge_jobs.telemetry.events import CronUnreadable, Event, JobsTakenBack, LeadOffered, WorkersLost
from tests.storage.clock import Clock
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working


async def test_a_delayed_job_starts_when_its_time_has_come(forge: Forge) -> None:
    @forge.handler
    async def work() -> str:
        return "done"

    async with working(forge):
        job = await work.options(delay=timedelta(seconds=0.3)).enqueue()
        assert (await forge.jobs.get(job.id)).state is State.SCHEDULED
        assert await forge.wait(job.id, timeout=30) == "done"


async def test_a_cron_enqueues_its_job_again_and_again(forge: Forge) -> None:
    ran = []

    @forge.handler
    async def tick(number: int) -> None:
        ran.append(number)

    async with working(forge):
        await forge.crons.set("every-second", "* * * * * *", "tick", payload={"number": 1})
        await eventually(lambda: len(ran) >= 2)
    cron = await forge.crons.get("every-second")
    assert cron.last_fire_at is not None


async def test_a_cron_that_cannot_be_read_says_so_stays_enabled_and_the_others_go_on(
    forge: Forge, events: Events
) -> None:
    ran = []

    @forge.handler
    async def tick() -> None:
        ran.append(1)

    await forge.storage.crons.set(CronConfig("broken", "61 * * * *", "tick"))
    await forge.crons.set("fine", "* * * * * *", "tick")
    async with working(forge):
        await eventually(lambda: len(ran) >= 2)
    broken, fine = await forge.crons.list()
    assert (broken.enabled, fine.enabled, fine.last_error) == (True, True, None)
    assert broken.last_error is not None and "61" in broken.last_error
    assert {event.name for event in events.of(CronUnreadable)} == {"broken"}
    assert events.of(LeadOffered) == []  # there is nobody else


async def test_a_cron_that_is_set_fires_from_that_moment_also_when_no_worker_ran_then(
    forge: Forge, clock: Clock
) -> None:
    @forge.handler
    async def tick() -> None:
        pass

    await forge.crons.set("daily", "@daily", "tick")
    await clock.advance(days=3)

    async with working(forge):
        await eventually(lambda: _fired(forge, "daily"))

    assert len(await forge.jobs.list()) == 1  # the latest of those that were missed


async def _fired(forge: Forge, name: str) -> bool:
    return (await forge.crons.get(name)).last_fire_at is not None


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_clock_that_is_set_costs_nobody_a_running_job(forge: Forge, clock: Clock, hours: int) -> None:
    began, may_end = [], asyncio.Event()
    wrong: list[Event] = []
    forge.telemetry.subscribe(
        lambda event: wrong.append(event) if isinstance(event, JobsTakenBack | WorkersLost) else None
    )

    @forge.handler(max_attempts=1)
    async def work() -> str:
        began.append(1)
        await may_end.wait()
        return "done"

    options = {"heartbeat": timedelta(seconds=0.4), "stale": timedelta(seconds=3)}
    async with working(forge, **options), working(forge, **options):
        job = await work.enqueue()
        await eventually(lambda: began)
        for _ in range(3):
            await eventually(lambda: forge.storage.leadership.get())
            await clock.advance(hours=hours)
            for _ in range(6):
                await _every_worker_beats(forge)
        may_end.set()
        assert await forge.wait(job.id, timeout=30) == "done"
    assert (began, wrong) == ([1], [])


async def _every_worker_beats(forge: Forge) -> None:
    before = (await forge.storage.workers.beats()).at

    async def beaten() -> bool:
        beats = (await forge.storage.workers.beats()).at
        return all(beats[worker_id] != beat_at for worker_id, beat_at in before.items())

    await eventually(beaten)
