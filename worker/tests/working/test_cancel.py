"""Cancelling jobs that run."""

import asyncio
import time
from datetime import timedelta

from forge_jobs import Context, Forge, State, Worker
from forge_jobs.job import Cancelled
from tests.working.eventually import eventually
from tests.working.running import working


async def test_a_running_job_that_is_cancelled_is_dead_and_not_retried(forge: Forge) -> None:
    told = []

    @forge.handler
    async def endless(ctx: Context) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            told.append(ctx.is_cancelled)

    async with working(forge):
        job = await endless.enqueue()
        await eventually(lambda: _state(forge, job.id, State.IN_PROGRESS))
        assert await forge.jobs.cancel(job.id) is Cancelled.REQUESTED
        await eventually(lambda: _state(forge, job.id, State.DEAD))

    dead = await forge.jobs.get(job.id)
    assert (dead.error, dead.attempt, told) == ("cancelled by user", 1, [True])


async def _state(forge: Forge, job_id: int, state: State) -> bool:
    return (await forge.jobs.get(job_id)).state is state


async def test_a_handler_that_finishes_in_spite_of_being_cancelled_is_done(forge: Forge) -> None:
    @forge.handler
    async def tidy() -> str:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return "finished anyway"
        return "slept"

    async with working(forge):
        job = await tidy.enqueue()
        await eventually(lambda: _state(forge, job.id, State.IN_PROGRESS))
        await forge.jobs.cancel(job.id)
        assert await forge.wait(job.id, timeout=10) == "finished anyway"


async def test_a_worker_goes_on_after_a_cancelled_job(forge: Forge) -> None:
    @forge.handler
    async def endless() -> None:
        await asyncio.sleep(3600)

    @forge.handler
    async def nap() -> str:
        await asyncio.sleep(0.01)
        return "fine"

    async with working(forge, concurrency=1):
        for _ in range(3):
            job = await endless.enqueue()
            await eventually(lambda job=job: _state(forge, job.id, State.IN_PROGRESS))
            await forge.jobs.cancel(job.id)
            assert await forge.wait((await nap.enqueue()).id, timeout=10) == "fine"


async def test_a_handler_in_a_thread_sees_that_it_is_cancelled(forge: Forge) -> None:
    seen = []

    @forge.handler
    def patient(ctx: Context) -> None:
        until = time.monotonic() + 30
        while time.monotonic() < until and not ctx.is_cancelled:
            time.sleep(0.005)
        seen.append(ctx.is_cancelled)

    async with working(forge):
        job = await patient.enqueue()
        await eventually(lambda: _state(forge, job.id, State.IN_PROGRESS))
        await forge.jobs.cancel(job.id)
        await eventually(lambda: _state(forge, job.id, State.DEAD))
        await eventually(lambda: seen == [True])


async def test_a_process_of_its_own_is_killed_when_its_job_is_cancelled(forge: Forge) -> None:
    forge.handler(kind="count", executor="process")(_count_for_ever)

    async with working(forge):
        job = await forge.enqueue("count")
        await eventually(lambda: _state(forge, job.id, State.IN_PROGRESS))
        await forge.jobs.cancel(job.id)
        await eventually(lambda: _state(forge, job.id, State.DEAD))
    assert (await forge.jobs.get(job.id)).error == "cancelled by user"


def _count_for_ever() -> None:
    number = 0
    while True:
        number += 1


async def test_a_handler_that_ignores_being_stopped_does_not_keep_its_worker(forge: Forge) -> None:
    release = asyncio.Event()
    started = asyncio.Event()

    @forge.handler
    async def stays() -> None:
        started.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    job = await stays.enqueue()
    worker = Worker(forge, queues=["default"], concurrency=1, grace=timedelta(0))
    running = asyncio.create_task(worker.run())
    await started.wait()
    worker.stop()
    try:
        async with asyncio.timeout(15):
            await asyncio.shield(running)
        assert (await forge.jobs.get(job.id)).state is State.PENDING
    finally:
        release.set()
        await asyncio.wait([running])


async def test_a_handler_that_obeys_the_second_time_does_not_keep_its_worker(forge: Forge) -> None:
    started = asyncio.Event()

    @forge.handler
    async def stays() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    job = await stays.enqueue()
    worker = Worker(forge, queues=["default"], concurrency=1, grace=timedelta(0))
    running = asyncio.create_task(worker.run())
    await started.wait()
    worker.stop()
    async with asyncio.timeout(15):
        await running
    assert (await forge.jobs.get(job.id)).state is State.PENDING
