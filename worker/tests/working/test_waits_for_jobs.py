"""Handlers wait for the ends of other jobs: they are woken by these, and do not wait for themselves."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs import CircularWait, Context, Enqueued, Forge, JobDead, JobNotFound, State, Worker
from forge_jobs.maintenance.job_waits import JobWaits
from forge_jobs.model.job import Claim, End
from forge_jobs.worker import awaited
from tests.storage.databases import Database
from tests.working.test_context import run


@asynccontextmanager
async def working(forge: Forge, concurrency: int = 4, queue: str = "default") -> AsyncIterator[None]:
    """A worker runs meanwhile."""
    worker = Worker(forge, queues=[queue], concurrency=concurrency)
    task = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        worker.stop("the test is over")
        await task


async def test_a_handler_waits_for_the_end_of_another_job(forge: Forge) -> None:
    @forge.handler
    async def part(ctx: Context, number: int) -> int:
        if number < 0:
            raise JobDead(1, "no")
        return 10 * number

    @forge.handler(max_attempts=1)
    async def whole(ctx: Context) -> list[Any]:
        parts: list[int] = await ctx.step("parts", enqueue_parts)
        results: list[Any] = [
            await ctx.wait_for_job(Enqueued(parts[0])),
            await ctx.wait_for_job(parts[1], returns=int),
        ]
        for lost in (parts[2], 4711):
            try:
                await ctx.wait_for_job(lost)
            except (JobDead, JobNotFound) as error:
                results.append(str(error))
        return results

    async def enqueue_parts() -> list[int]:
        jobs = [part.options(max_attempts=1).enqueue(number=number) for number in (1, 2, -1)]
        return [job.id for job in await asyncio.gather(*jobs)]

    job = await whole.enqueue()
    async with working(forge, concurrency=1):
        result = await forge.wait(job, timeout=60)
    assert result[:2] == [10, 20]
    assert "job" in result[2].lower() and result[3] == "There is no job 4711."


@pytest.fixture
def nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The leader does not look after waits."""
    monkeypatch.setattr(JobWaits, "end", lambda self: asyncio.sleep(0))


@pytest.mark.usefixtures("nobody_looks")
@pytest.mark.parametrize("executor", ["async", "thread"])
async def test_a_job_that_ran_when_another_one_began_to_wait_wakes_that_by_its_end(
    forge: Forge, executor: str
) -> None:
    may_end = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def held() -> str:
        await may_end.wait()
        return "ended"

    if executor == "async":
        part = forge.handler(kind="part")(held)
    else:

        @forge.handler
        def part() -> str:
            return asyncio.run_coroutine_threadsafe(held(), loop).result(60)

    @forge.handler
    async def whole(ctx: Context, job: int) -> str:
        return str(await ctx.wait_for_job(job))

    async with working(forge):
        running = await part.enqueue()
        async with asyncio.timeout(30):
            while (await forge.jobs.get(running)).state is not State.IN_PROGRESS:
                await asyncio.sleep(0.01)
            waiting = await whole.enqueue(job=running.id)
            while (await forge.jobs.get(waiting)).state is not State.WAITING:
                await asyncio.sleep(0.01)
        may_end.set()
        assert await forge.wait(waiting, timeout=30) == "ended"


@pytest.mark.usefixtures("nobody_looks")
@pytest.mark.parametrize("heard", ["before the end is known", "after it"])
async def test_a_job_wakes_those_that_began_to_wait_while_its_end_was_written(
    forge: Forge, database: Database, monkeypatch: pytest.MonkeyPatch, heard: str
) -> None:
    may_end, may_be_heard = asyncio.Event(), asyncio.Event()
    if heard == "before the end is known":
        may_be_heard.set()
    other = Forge(storage=database.storage())
    finish, tell_here = forge.storage.claims.finish, forge.storage.wakeups.tell_here  # type: ignore[attr-defined]
    late: list[tuple[str, str]] = []

    @forge.handler(queue="parts")
    async def part() -> str:
        return "ended"

    @other.handler
    async def whole(ctx: Context, job: int) -> str:
        return str(await ctx.wait_for_job(job))

    async def finish_late(ends: Sequence[End]) -> list[int]:
        writing.set()
        await may_end.wait()
        lost: list[int] = await finish(ends)
        return lost

    def tell_late(kind: str, subject: str = "") -> None:
        if kind == "link" and not may_be_heard.is_set():
            late.append((kind, subject))
        else:
            tell_here(kind, subject)

    writing = asyncio.Event()
    await forge.storage.queues.ensure(["parts"])
    monkeypatch.setattr(forge.storage.claims, "finish", finish_late)
    monkeypatch.setattr(forge.storage.wakeups, "tell_here", tell_late)
    async with other, working(forge, queue="parts"), working(other), asyncio.timeout(60):
        job = await part.enqueue()
        await writing.wait()
        waiting = await whole.enqueue(job=job.id)
        while (await forge.jobs.get(waiting)).state is not State.WAITING:
            await asyncio.sleep(0.01)
        may_end.set()
        assert await forge.wait(job) == "ended"
        may_be_heard.set()
        for notice in late:
            tell_here(*notice)
        assert await other.wait(waiting) == "ended"


@pytest.mark.usefixtures("nobody_looks")
async def test_a_job_that_is_enqueued_and_waited_for_wakes_by_its_end(forge: Forge) -> None:
    @forge.handler
    async def part(number: int) -> int:
        return 2 * number

    @forge.handler
    async def whole(ctx: Context, number: int) -> int:
        other = await ctx.step("part", enqueued, number)
        return int(await ctx.wait_for_job(other))

    async def enqueued(number: int) -> int:
        return (await part.options(delay=0.2).enqueue(number=number)).id

    async with working(forge):
        jobs = [await whole.enqueue(number=number) for number in range(10)]
        assert await forge.wait_all(jobs, timeout=30) == [2 * number for number in range(10)]


async def test_of_jobs_that_wait_for_each_other_one_is_dead_and_says_so(forge: Forge) -> None:
    @forge.handler(max_attempts=1)
    async def member(ctx: Context, number: int) -> Any:
        other = await ctx.wait_for("other")
        return await ctx.wait_for_job(other)

    jobs = [await member.enqueue(number=number) for number in range(3)]
    for job, other in zip(jobs, [*jobs[1:], jobs[0]], strict=True):
        await forge.signal("other", other.id, job=job)

    await run(forge)
    async with working(forge):
        for job in jobs:
            with pytest.raises(JobDead):
                await forge.wait(job, timeout=30)

    errors = [str((await forge.jobs.get(job)).error) for job in jobs]
    refused = [error for error in errors if "neither would ever end" in error]
    assert len(refused) >= 1
    assert all("waits for the end of this job" in error for error in refused)


async def test_a_handler_may_go_on_without_a_job_that_waits_for_it(forge: Forge) -> None:
    @forge.handler(max_attempts=1)
    async def member(ctx: Context) -> Any:
        other = await ctx.wait_for("other")
        try:
            return await ctx.wait_for_job(other)
        except CircularWait:
            return "first"

    one, two = [await member.enqueue() for _ in range(2)]
    await forge.signal("other", two.id, job=one)
    await run(forge)
    await forge.signal("other", one.id, job=two)
    async with working(forge):
        assert await forge.wait_all([one, two], timeout=30) == ["first", "first"]


@pytest.mark.usefixtures("nobody_looks")
@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_a_job_that_its_handler_has_completed_wakes_those_that_began_to_wait_before_the_commit(
    forge: Forge, database: Database
) -> None:
    is_completed, may_commit = asyncio.Event(), asyncio.Event()

    @forge.handler
    async def part(ctx: Context) -> None:
        async with database.transaction() as connection:
            await ctx.complete(connection, result="ended")
            is_completed.set()
            await may_commit.wait()

    @forge.handler
    async def whole(ctx: Context, job: int) -> str:
        return str(await ctx.wait_for_job(job))

    async with working(forge), asyncio.timeout(60):
        job = await part.enqueue()
        await is_completed.wait()
        waiting = await whole.enqueue(job=job.id)
        while (await forge.jobs.get(waiting)).state is not State.WAITING:
            await asyncio.sleep(0.01)
        may_commit.set()
        assert await forge.wait(waiting, timeout=30) == "ended"


async def test_a_worker_remembers_of_jobs_that_nobody_had_those_that_it_gets_soon(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = awaited.AwaitedJobs(forge.storage.ends, forge.storage.signals, forge.telemetry)
    jobs.serve(7, lambda job_id: job_id == 1)
    for job_id in (1, 2, 3):
        jobs.linked(job_id, 0, 0)
    jobs.claimed([Claim(2, 7, 1, 1, "work", b"{}", "json", 0, 0, 5, None, None, 0.0)])
    assert (sorted(jobs._linked), list(jobs._afoot)) == ([1, 2], [3])
    jobs._afoot[3] = 0.0
    monkeypatch.setattr(awaited, "EXPECTED", timedelta(0))
    jobs.linked(4, 0, 0)
    assert (sorted(jobs._linked), list(jobs._afoot)) == ([1, 2], [])


async def test_a_worker_that_has_a_job_in_a_later_attempt_remembers_that_others_wait_for_it(
    forge: Forge,
) -> None:
    jobs = awaited.AwaitedJobs(forge.storage.ends, forge.storage.signals, forge.telemetry)
    jobs.serve(7, lambda job_id: job_id == 1)

    jobs.linked(1, 7, 1)

    assert (list(jobs._linked), list(jobs._afoot)) == ([1], [])
