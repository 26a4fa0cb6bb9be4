"""Jobs that stand where a worker has already looked are found all the same."""

import pytest

from forge_jobs import Forge
from forge_jobs.storage.interface import Storage
from tests.storage.databases import Database
from tests.storage.factories import claim, enqueue, worker
from tests.working.eventually import eventually
from tests.working.running import working


@pytest.fixture
def ran(forge: Forge) -> list[int]:
    """The ids of jobs that ran, in their order."""
    ran: list[int] = []

    @forge.handler
    async def work(ctx) -> None:
        ran.append(ctx.job_id)

    return ran


async def _looked(forge: Forge, ran: list[int], **facts: object) -> None:
    """The worker has claimed a job, so its hints stand behind it."""
    wanted = await enqueue(forge.storage, payload=b"{}", **facts)
    await eventually(lambda: wanted in ran)


async def test_a_job_of_any_priority_is_found_wherever_others_were_claimed(
    forge: Forge, ran: list[int]
) -> None:
    async with working(forge):
        await _looked(forge, ran)
        for priority in (-5, 5, -7, 3):
            await _looked(forge, ran, priority=priority)
        await _looked(forge, ran)


async def test_a_job_handed_back_at_its_old_place_is_found(forge: Forge, ran: list[int]) -> None:
    other = await worker(forge.storage)
    old = await enqueue(forge.storage, payload=b"{}")
    [claimed] = await claim(forge.storage, other)
    async with working(forge):
        await _looked(forge, ran)
        await forge.storage.claims.release([claimed])

        await eventually(lambda: old in ran)


async def test_a_job_whose_transaction_commits_late_is_found(
    forge: Forge, ran: list[int], database: Database
) -> None:
    async with working(forge):
        async with database.transaction() as connection:
            late = (await forge.enqueue("work", connection=connection)).id
            if forge.storage.shared:  # in SQLite nobody else writes meanwhile
                await _looked(forge, ran)
        await eventually(lambda: late in ran)


async def test_known_jobs_run_behind_and_between_kinds_that_nobody_handles(
    forge: Forge, ran: list[int]
) -> None:
    storage: Storage = forge.storage
    await forge.enqueue_many("strange", [{}] * 50)
    between = await enqueue(storage, payload=b"{}")
    await forge.enqueue_many("odd", [{}] * 50)
    async with working(forge):
        await eventually(lambda: between in ran)
        await _looked(forge, ran)
        await forge.enqueue_many("strange", [{}] * 50)
        await _looked(forge, ran)
        await _looked(forge, ran, priority=1)
        [counts] = await storage.jobs.counts()
        assert counts.pending + counts.in_progress == 150
