"""What a queue says of its jobs' starts: how many there are, and how long an attempt may take."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

from forge_jobs import Forge, State, Worker
from forge_jobs.telemetry.events import Event, UnknownLimit
from tests.storage.databases import Database
from tests.working.eventually import eventually
from tests.working.running import working


async def pending(forge: Forge, queue: str = "default") -> int:
    [count] = [counts.pending for counts in await forge.jobs.counts() if counts.queue == queue]
    return count


async def tokens(forge: Forge) -> float:
    return (await forge.limits.get("slack")).tokens


async def a_worker_looked(forge: Forge) -> None:
    """The workers of the default queue had more than enough time to look for jobs."""
    await forge.queues.ensure("other")
    async with working(forge, "other"):
        for _ in range(5):
            await forge.wait((await forge.enqueue("work", queue="other")).id, timeout=30)


async def test_no_more_jobs_start_than_there_are_tokens_however_many_workers_race(forge: Forge) -> None:
    started: list[int] = []

    @forge.handler
    async def work(number: int = -1) -> None:
        if number >= 0:
            started.append(number)

    await forge.limits.set("slack", capacity=3, refill=0)
    await forge.queues.set("default", rate_limit="slack")
    async with AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(working(forge))
        await forge.enqueue_many("work", [{"number": number} for number in range(10)])
        await eventually(lambda: len(started) == 3)
        await a_worker_looked(forge)
        assert sorted(started) == [0, 1, 2]
        assert await pending(forge) == 7  # never claimed and put back
        assert await tokens(forge) == 0

        await forge.limits.set("slack", capacity=3, refill=100)
        await eventually(lambda: len(started) == 10)
    assert sorted(started) == list(range(10))


async def test_processes_that_race_for_a_bucket_never_start_one_job_too_many(
    forge: Forge, database: Database
) -> None:
    started: list[int] = []
    async with AsyncExitStack() as stack:
        forges = [forge]
        for _ in range(3):
            forges.append(await stack.enter_async_context(Forge(storage=database.storage())))
        for each in forges:

            @each.handler(kind="work")
            async def work(number: int) -> None:
                started.append(number)

        await forge.limits.set("slack", capacity=25, refill=0)
        await forge.queues.set("default", rate_limit="slack")
        await forge.enqueue_many("work", [{"number": number} for number in range(60)])
        for each in forges:
            await stack.enter_async_context(working(each))
        await eventually(lambda: len(started) == 25)
    assert len(set(started)) == len(started) == 25
    assert await pending(forge) == 35


async def test_tokens_for_which_there_is_no_job_go_back(forge: Forge) -> None:
    @forge.handler
    async def work() -> None:
        pass

    await forge.limits.set("slack", capacity=8, refill=0)
    await forge.queues.set("default", rate_limit="slack")
    await forge.enqueue_many("work", [{}] * 3)
    await Worker(forge, queues=["default"], concurrency=8).run(until_empty=True)

    assert await tokens(forge) == 5


async def test_jobs_that_this_program_has_no_handler_for_cost_no_token(forge: Forge) -> None:
    await forge.limits.set("slack", capacity=8, refill=0)
    await forge.queues.set("default", rate_limit="slack")
    await forge.enqueue_many("of_others", [{}] * 3)
    async with working(forge):
        await eventually(lambda: _is_full(forge))
    assert await pending(forge) == 3


async def _is_full(forge: Forge) -> bool:
    return await tokens(forge) == 8


async def test_a_worker_that_runs_until_empty_ends_when_the_bucket_is_as_empty_as_the_queue(
    forge: Forge,
) -> None:
    @forge.handler
    async def work() -> None:
        pass

    await forge.limits.set("slack", capacity=3, refill=0)
    await forge.queues.set("default", rate_limit="slack")
    await forge.enqueue_many("work", [{}] * 3)
    async with asyncio.timeout(30):
        await Worker(forge, queues=["default"], concurrency=3).run(until_empty=True)

    assert await pending(forge) == 0


async def test_a_emptied_bucket_stops_the_queue_and_only_that(forge: Forge) -> None:
    started: list[int] = []

    @forge.handler
    async def work(number: int = -1) -> None:
        if number >= 0:
            started.append(number)

    await forge.limits.set("slack", capacity=1000, refill=0)
    await forge.queues.set("default", rate_limit="slack")
    async with working(forge):
        await forge.wait((await forge.enqueue("work", {"number": 0})).id, timeout=30)
        await forge.limits.empty("slack")
        await a_worker_looked(forge)  # a look that began before may still use the token that it took
        job = await forge.enqueue("work", {"number": 1})
        await a_worker_looked(forge)
        assert started == [0]
        why = await forge.jobs.why(job.id)
        assert why.reasons == ("The rate limit 'slack' of the queue has no token.",)


async def test_a_queue_whose_rate_limit_is_gone_is_not_claimed_from_and_that_is_said_once(
    forge: Forge,
) -> None:
    said: list[Event] = []
    forge.telemetry.subscribe(lambda event: said.append(event) if isinstance(event, UnknownLimit) else None)

    @forge.handler
    async def work() -> None:
        pass

    await forge.limits.set("slack", capacity=10, refill=1)
    await forge.queues.set("default", rate_limit="slack")
    await forge.limits.delete("slack")
    async with working(forge):
        job = await forge.enqueue("work")
        await eventually(lambda: said)
        await a_worker_looked(forge)
        assert await pending(forge) == 1
        [reason] = (await forge.jobs.why(job.id)).reasons
        assert reason.startswith("There is no rate limit 'slack'")

        await forge.queues.set("default", rate_limit=None)
        await forge.wait(job.id, timeout=30)
    assert said == [UnknownLimit("default", "slack")]


async def test_slots_are_free_while_there_is_no_token(forge: Forge) -> None:
    @forge.handler
    async def work() -> None:
        pass

    await forge.limits.set("slack", capacity=1, refill=0)
    await forge.queues.set("default", rate_limit="slack", concurrency=2)
    async with working(forge):
        first, second = await forge.enqueue_many("work", [{}, {}])
        await forge.wait(first.id, timeout=30)
        await eventually(lambda: _slots_are_free(forge, second.id))


async def _slots_are_free(forge: Forge, job_id: int) -> bool:
    return (await forge.storage.jobs.waiting(job_id)).slots_held == 0


async def test_the_queue_s_timeout_holds_for_jobs_that_say_none_and_follows_changes(forge: Forge) -> None:
    go = asyncio.Event()

    @forge.handler(max_attempts=1)
    async def hang() -> None:
        await go.wait()

    await forge.queues.set("default", timeout=timedelta(seconds=0.05))
    async with working(forge):
        of_queue = await hang.enqueue()
        of_its_own = await hang.options(timeout=60).enqueue()
        await eventually(lambda: _is_dead(forge, of_queue.id))
        assert (await forge.jobs.get(of_queue.id)).error == "timed out after 0.05 s"
        assert (await forge.jobs.get(of_its_own.id)).state is State.IN_PROGRESS

        await forge.queues.set("default", timeout=timedelta(seconds=0.15))
        await eventually(lambda: _timed_out_after(forge, "0.15"))
        go.set()
        await forge.wait(of_its_own.id, timeout=30)


async def test_a_job_s_own_shorter_timeout_wins_over_the_queue_s(forge: Forge) -> None:
    @forge.handler(max_attempts=1)
    async def hang() -> None:
        await asyncio.Event().wait()

    await forge.queues.set("default", timeout=60)
    async with working(forge):
        job = await hang.options(timeout=0.05).enqueue()
        await eventually(lambda: _is_dead(forge, job.id))


async def _is_dead(forge: Forge, job_id: int) -> bool:
    return (await forge.jobs.get(job_id)).state is State.DEAD


async def _timed_out_after(forge: Forge, seconds: str) -> bool:
    """Whether a job that starts now times out so: the workers follow a change within two seconds."""
    job = await forge.enqueue("hang", max_attempts=1)
    await eventually(lambda: _is_dead(forge, job.id))
    return (await forge.jobs.get(job.id)).error == f"timed out after {seconds} s"
