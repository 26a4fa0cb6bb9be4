"""Who leads, and what becomes of the chores when it goes."""

import asyncio

from forge_jobs import Forge
from forge_jobs.telemetry import Event, LeaderChanged
from tests.working.eventually import eventually
from tests.working.running import working


async def test_one_of_several_workers_leads(forge: Forge) -> None:
    async with working(forge) as one, working(forge) as two:
        await eventually(lambda: _epochs(one, two))
        assert len(_epochs(one, two)) == 1
        leader = await forge.storage.leadership.get()
        assert leader is not None
        assert leader.worker_id in {one.session.info.id, two.session.info.id}  # type: ignore[union-attr]


def _epochs(*workers: object) -> list[int]:
    return [worker.session.leader.epoch for worker in workers if worker.session.leader.epoch is not None]  # type: ignore[attr-defined]


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
