"""A worker is paused and resumed while it runs."""

import asyncio
from datetime import timedelta

import pytest

from forge_jobs import Context, Forge, State, Worker
from forge_jobs.errors import InvalidInput, Managed
from forge_jobs.model.worker import WorkerInfo
from tests.working.eventually import eventually
from tests.working.running import working

RARELY = {"heartbeat": timedelta(seconds=60), "stale": timedelta(seconds=150)}  # what is soon, was told


async def test_a_paused_worker_finishes_what_it_runs_and_begins_nothing_until_it_is_resumed(
    forge: Forge,
) -> None:
    goes_on, began = asyncio.Event(), list[int]()

    @forge.handler
    async def note(ctx: Context) -> None:
        began.append(ctx.job_id)
        await goes_on.wait()

    async with working(forge, concurrency=1, **RARELY) as worker:
        first = await note.enqueue()
        await eventually(lambda: began == [first.id])

        await worker.pause()
        second = await note.enqueue()
        goes_on.set()
        await forge.wait(first, timeout=20)

        assert worker.session is not None
        session = worker.session
        await eventually(lambda: not session.hand)
        assert (await forge.jobs.get(second)).state is State.PENDING
        [row] = await forge.workers.list()
        assert (row.is_open, row.cordoned) == (False, True)

        [resumed] = await forge.workers.resume([row.label])
        assert resumed.id == row.id
        await forge.wait(second, timeout=20)


async def test_a_worker_that_does_not_run_is_not_paused(forge: Forge) -> None:
    with pytest.raises(InvalidInput, match="This Worker does not run"):
        await Worker(forge, queues=["default"]).pause()


async def test_a_worker_of_a_pool_is_paused_by_its_operator_only(forge: Forge) -> None:
    await forge.storage.workers.register(
        WorkerInfo(7, "shop-worker-1-7", "host", 1, "1", ("default",), (), 1, pool="pool", version_id="v")
    )

    with pytest.raises(Managed, match="Worker shop-worker-1-7 is managed by the operator of its pool"):
        await forge.workers.pause([7])


async def test_a_worker_that_is_not_there_is_said(forge: Forge) -> None:
    with pytest.raises(InvalidInput, match="There is no worker 'nobody'; forge-jobs workers list"):
        await forge.workers.pause(["nobody"])


async def test_a_worker_that_is_paused_and_given_up_is_paused_under_its_next_id_too(forge: Forge) -> None:
    @forge.handler
    async def note() -> None: ...

    async with working(forge, concurrency=1, heartbeat=0.1, stale=30) as worker:
        await worker.pause()
        [before] = await forge.workers.list()
        await eventually(lambda: forge.workers.give_up([before.id]))  # not while it says that it lives
        job = await note.enqueue()

        async def another() -> WorkerInfo | None:
            there = await forge.workers.list()
            return there[0] if there and there[0].id != before.id else None

        after: WorkerInfo = await eventually(another)
        assert (after.cordoned, after.is_open) == (True, False)
        assert (await forge.jobs.get(job)).state is State.PENDING

        await forge.workers.resume([after.label])
        await forge.wait(job, timeout=20)


async def test_a_worker_that_was_resumed_before_it_was_given_up_is_not_paused_under_its_next_id(
    forge: Forge,
) -> None:
    async with working(forge, concurrency=1, heartbeat=0.1, stale=30) as worker:
        await worker.pause()
        await worker.resume()
        [before] = await forge.workers.list()
        await eventually(lambda: forge.workers.give_up([before.id]))  # not while it says that it lives

        async def another() -> bool:
            there = await forge.workers.list()
            return bool(there) and there[0].id != before.id and not there[0].cordoned

        await eventually(another)
