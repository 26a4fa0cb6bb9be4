"""`run(until_empty=True)`: it ends when nothing is left to do, and not before."""

import asyncio
from typing import Any

import pytest

from forge_jobs import Context, Forge, State, Worker
from forge_jobs.maintenance import pending
from forge_jobs.model.job import NewJob
from tests.storage.databases import Database
from tests.working.eventually import eventually


async def run(forge: Forge, *queues: str) -> None:
    """Run everything that is due; a worker that does not end fails the test."""
    async with asyncio.timeout(30):
        await Worker(forge, queues=queues or ["default"], concurrency=2).run(until_empty=True)


@pytest.mark.parametrize("poll_only", [True, False])
async def test_what_the_last_job_enqueued_elsewhere_is_run_too(
    forge: Forge, database: Database, monkeypatch: pytest.MonkeyPatch, poll_only: bool
) -> None:
    monkeypatch.setattr(forge.storage.wakeups, "poll_only", poll_only)
    await forge.queues.set("other")
    begin = asyncio.Event()

    @forge.handler
    async def first(ctx: Context) -> None:
        # a moment in which the other queue is found empty
        await begin.wait()
        async with database.transaction() as connection:
            await ctx.forge.enqueue("second", queue="other", connection=connection)

    @forge.handler
    async def second() -> None:
        pass

    listed: list[Any] = []
    claim = forge.storage.claims.claim

    async def watched(*given: Any, **named: Any) -> Any:
        listed.append(given[0])
        if len(set(listed)) == 2 and len(listed) > 8:
            begin.set()
        return await claim(*given, **named)

    monkeypatch.setattr(forge.storage.claims, "claim", watched)
    await first.enqueue()
    await run(forge, "default", "other")

    assert {job.state for job in await forge.jobs.list(kind="second")} == {State.DONE}


async def test_a_job_whose_time_has_come_is_run_though_nobody_made_it_pending_yet(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(*_: Any) -> None:
        """The chore has not had its turn."""

    monkeypatch.setattr(pending, "make_pending", late)

    @forge.handler
    async def work() -> None: ...

    job = await work.options(delay=0.001).enqueue()
    await eventually(lambda: _is_due(forge, job.id))
    await run(forge)

    assert (await forge.jobs.get(job.id)).state is State.DONE


async def _is_due(forge: Forge, job_id: int) -> bool:
    run_at = (await forge.jobs.get(job_id)).run_at
    return run_at is None or run_at <= await forge.storage.now()


async def test_an_empty_queue_without_slots_is_empty(forge: Forge) -> None:
    await forge.queues.set("default", concurrency=0)
    await run(forge)


async def test_a_queue_that_is_stopped_is_not_waited_for(forge: Forge) -> None:
    await forge.queues.set("default", concurrency=0)
    await forge.queues.set("other", paused=True)
    await forge.storage.jobs.enqueue_many([NewJob("work"), NewJob("work", queue="other")])
    await run(forge, "default", "other")
    assert {job.state for job in await forge.jobs.list()} == {State.PENDING}
