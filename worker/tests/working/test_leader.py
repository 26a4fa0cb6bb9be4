"""Who leads, and what becomes of the chores when it goes."""

import asyncio
from contextvars import ContextVar
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs import Forge, Kind
from forge_jobs.errors import InvalidCron, StorageUnavailable
from forge_jobs.maintenance import agenda, leader
from forge_jobs.model.worker import Beat
from forge_jobs.rules import cron_times
from forge_jobs.telemetry.events import (
    CronFired,
    CronHeldUp,
    CronUnreadable,
    DatabaseBack,
    DatabaseLost,
    Event,
    JobsRose,
    LeaderChanged,
    LeadOffered,
)
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working


async def test_one_of_several_workers_leads(forge: Forge) -> None:
    async with working(forge) as one, working(forge) as two:
        await eventually(lambda: _epochs(one, two))
        assert len(_epochs(one, two)) == 1
        leader = await forge.storage.leadership.get()
        assert leader is not None
        assert leader.worker_id in {one.session.info.id, two.session.info.id}  # type: ignore[union-attr]


async def test_a_handler_that_cancels_all_tasks_ends_no_chore_of_the_leader(forge: Forge) -> None:
    @forge.handler
    async def cancels() -> None:
        for task in asyncio.all_tasks() - spared - {asyncio.current_task()}:
            task.cancel()

    await forge.queues.set("mail")
    spared = asyncio.all_tasks()
    async with working(forge) as worker:
        spared |= {task for task in asyncio.all_tasks() if "Worker.run" in repr(task.get_coro())}
        await eventually(lambda: worker.session is not None and worker.session.leader.epoch is not None)
        await forge.wait((await cancels.enqueue()).id, timeout=30)

        await forge.queues.pause("mail", until=0.1)
        await eventually(lambda: _is_resumed(forge))


async def test_the_leader_lets_jobs_rise_that_wait(forge: Forge, events: Events) -> None:
    @forge.handler
    async def work() -> None:
        pass

    await forge.queues.set("default", age_after=1, paused=True)
    waits = await work.options(priority=5).enqueue()
    await work.options(priority=0).enqueue()
    async with working(forge):
        await eventually(lambda: _has_risen(forge, waits.id))

    assert events.of(JobsRose)[0] == JobsRose("default", 1)


async def _has_risen(forge: Forge, job_id: int) -> bool:
    return (await forge.jobs.get(job_id)).risen > 0


async def _is_resumed(forge: Forge) -> bool:
    return not (await forge.queues.get("mail")).paused


async def test_a_cron_that_cannot_fire_keeps_none_of_the_others(forge: Forge) -> None:
    events = Events()
    forge.telemetry.subscribe(events.append)
    await forge.crons.set("astray", "* * * * * *", "astray")
    await forge.crons.set("well", "* * * * * *", "well")
    await forge.storage.kinds.declare([Kind("astray", queue="gone")], by="a test")

    async with working(forge):
        await eventually(lambda: events.of(CronHeldUp) and events.of(CronFired))

    assert {event.name for event in events.of(CronHeldUp)} == {"astray"}
    assert {event.name for event in events.of(CronFired)} == {"well"}
    error = (await forge.crons.get("astray")).last_error
    assert error is not None and error.startswith("There is no queue 'gone'")


def _epochs(*workers: object) -> list[int]:
    return [worker.session.leader.epoch for worker in workers if worker.session.leader.epoch is not None]  # type: ignore[attr-defined]


async def test_whoever_leads_next_knows_of_a_restart_that_was_over_before(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that were silent meanwhile have their whole stale time from then on, whoever leads."""
    life = "one"
    beat = forge.storage.workers.beat

    async def beaten(*given: Any, **said: Any) -> Beat:
        return replace(await beat(*given, **said), life=life)

    monkeypatch.setattr(forge.storage.workers, "beat", beaten)
    async with (
        working(forge) as first,
        working(forge, heartbeat=timedelta(seconds=0.1)) as second,
    ):
        await eventually(lambda: _epochs(first))
        assert second.session is not None
        clock = second.session.leader._clock
        await eventually(lambda: clock.seconds > 0)
        assert clock.up_since == 0
        life = "two"
        await eventually(lambda: clock.up_since > 0)


async def test_a_leader_that_stops_leaves_the_lead_to_the_next(forge: Forge) -> None:
    changes: list[Event] = []
    forge.telemetry.subscribe(
        lambda event: changes.append(event) if isinstance(event, LeaderChanged) else None
    )
    async with working(forge):
        await eventually(lambda: len(changes) == 1)
    assert await forge.storage.leadership.get() is None

    async with working(forge):
        await eventually(lambda: len(changes) == 3)
    first, gone, second = changes[:3]
    assert (
        isinstance(first, LeaderChanged)
        and isinstance(gone, LeaderChanged)
        and isinstance(second, LeaderChanged)
    )
    assert (first.leads, gone.leads, second.leads) == (True, False, True)
    assert second.epoch > first.epoch


async def test_nothing_is_left_of_a_worker_that_stopped(forge: Forge) -> None:
    before = len(asyncio.all_tasks())
    async with working(forge):
        assert len(await forge.workers.list()) == 1
    assert await forge.workers.list() == []
    await eventually(lambda: len(asyncio.all_tasks()) <= before)


is_old_host: ContextVar[bool] = ContextVar("is_old_host", default=False)
"""Whether what runs here has time zones from before there was Europe/Kyiv."""


@pytest.fixture
def old_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some workers of this process may lack a time zone, and leaders change quickly."""
    parse = cron_times.parse

    def parse_here(expression: str, timezone: str = "UTC") -> cron_times.FireTimes:
        if timezone == "Europe/Kyiv" and is_old_host.get():
            raise InvalidCron("The time zone is 'Europe/Kyiv', allowed is one that this host knows.")
        return parse(expression, timezone)

    monkeypatch.setattr(cron_times, "parse", parse_here)
    monkeypatch.setattr(leader, "RENEW_EVERY", 0.1)
    monkeypatch.setattr(leader, "VACANT", 0.5)
    monkeypatch.setattr(leader, "FIRE_EVERY", 0.2)


async def test_the_lead_goes_to_a_host_that_can_read_every_cron(
    forge: Forge, events: Events, old_hosts: None
) -> None:
    await forge.queues.set("default", paused=True)
    await forge.crons.set("nightly", "* * * * * *", "work", timezone="Europe/Kyiv")
    is_old_host.set(True)
    async with working(forge):
        await eventually(lambda: events.of(CronUnreadable))
        assert (await forge.crons.get("nightly")).enabled
        async with working(forge):
            await eventually(lambda: len(events.of(LeadOffered)) == 2)
            is_old_host.set(False)
            async with working(forge) as able:
                await eventually(lambda: events.of(CronFired))
                found = await forge.storage.leadership.get()
                assert found is not None
                assert found.worker_id == able.session.info.id  # type: ignore[union-attr]
                assert (await forge.crons.get("nightly")).last_error is None
                assert len(events.of(LeadOffered)) <= 3


async def test_of_hosts_that_all_cannot_read_a_cron_one_leads_on_and_fires_the_others(
    forge: Forge, events: Events, old_hosts: None
) -> None:
    await forge.queues.set("default", paused=True)
    await forge.crons.set("nightly", "@daily", "work", timezone="Europe/Kyiv")
    await forge.crons.set("fine", "* * * * * *", "work")
    is_old_host.set(True)
    async with working(forge), working(forge):
        await eventually(lambda: len(events.of(LeadOffered)) == 2)
        fired = len(events.of(CronFired))
        await eventually(lambda: len(events.of(CronFired)) >= fired + 3)
    assert len(events.of(LeadOffered)) == 2
    unreadable = await forge.crons.get("nightly")
    assert unreadable.enabled
    assert unreadable.last_error is not None and "Europe/Kyiv" in unreadable.last_error


async def test_a_leader_whose_lease_runs_out_in_an_outage_does_not_say_that_the_database_is_back(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = Events()
    forge.telemetry.subscribe(events.append)
    monkeypatch.setattr(leader, "LEASE", timedelta(seconds=1))
    monkeypatch.setattr(leader, "RENEW_EVERY", 0.1)
    monkeypatch.setattr(agenda, "LOOK_EVERY", 0.1)

    async def away(*given: object, **named: object) -> None:
        raise StorageUnavailable("The database cannot be reached.")

    async def silent(*given: object, **named: object) -> None:
        await asyncio.Event().wait()

    async with working(forge, heartbeat=0.2, stale=9):
        await eventually(lambda: events.of(LeaderChanged))
        monkeypatch.setattr(forge.storage.chores, "look", away)
        monkeypatch.setattr(forge.storage.leadership, "lead", silent)
        await eventually(lambda: len(events.of(LeaderChanged)) == 2)

        assert "looking what there is to do" in {event.doing for event in events.of(DatabaseLost)}
        assert events.of(DatabaseBack) == []
