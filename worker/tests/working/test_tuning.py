"""Queues are tuned while workers run: nothing is restarted."""

import asyncio
import time
from datetime import timedelta
from typing import Any

from forge_jobs import Forge, State, Worker
from forge_jobs.model.job import Claim
from forge_jobs.telemetry.events import QueuesResumed
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working


async def test_a_paused_queue_starts_nothing_and_goes_on_when_resumed(forge: Forge) -> None:
    @forge.handler
    async def quick() -> None:
        pass

    async with working(forge):
        await forge.queues.pause("default")
        job = await quick.enqueue()
        other = await forge.enqueue("quick", queue=await _queue(forge, "other"))
        async with working(forge, "other"):
            await forge.wait(other.id, timeout=30)  # a worker had time to look
        assert (await forge.jobs.get(job.id)).state is State.PENDING

        await forge.queues.resume("default")
        await forge.wait(job.id, timeout=30)


async def test_a_pause_ends_by_itself_and_waiting_jobs_run(forge: Forge, events: Events) -> None:
    @forge.handler
    async def quick() -> None:
        pass

    async with working(forge):
        await forge.queues.pause("default", until=0.3, why="a short rest")
        job = await quick.enqueue()
        await forge.wait(job.id, timeout=30)
    assert events.of(QueuesResumed) == [QueuesResumed(["default"])]


async def _queue(forge: Forge, name: str) -> str:
    await forge.queues.ensure(name)
    return name


async def test_a_changed_concurrency_holds_at_once(forge: Forge) -> None:
    running = most = 0
    go = asyncio.Event()

    @forge.handler
    async def hold() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go.wait()
        running -= 1

    await forge.queues.set("default", concurrency=2)
    await forge.enqueue_many("hold", [{}] * 20)
    async with working(forge, concurrency=10):
        await eventually(lambda: running == 2)
        await forge.queues.set("default", concurrency=5)
        await eventually(lambda: running == 5)
        await forge.queues.set("default", concurrency=None)
        await eventually(lambda: running == 10)
        assert most == 10
        go.set()


async def test_a_changed_backoff_counts_from_the_next_failure(forge: Forge) -> None:
    attempts = []

    @forge.handler
    async def breaks() -> None:
        attempts.append(1)
        raise ValueError("broken")

    await forge.queues.set("default", backoff_base=timedelta(hours=1), backoff_max=timedelta(hours=1))
    async with working(forge) as worker:
        slow = await breaks.enqueue()
        await eventually(lambda: _failed(forge, slow.id, 1))
        assert (await forge.jobs.get(slow.id)).state is State.RETRYING

        await forge.queues.set("default", backoff_enabled=False)
        await eventually(lambda: _knows_that_backoff_is_off(worker))
        quick = await breaks.enqueue()
        await eventually(lambda: _failed(forge, quick.id, 5))


async def _failed(forge: Forge, job_id: int, times: int) -> bool:
    return len((await forge.jobs.get(job_id)).failures) == times


def _knows_that_backoff_is_off(worker: Worker) -> bool:
    assert worker.session is not None
    [queue] = worker.session._claimer.queues.values()
    return not queue.config.backoff_enabled


async def test_idle_workers_of_a_queue_with_a_concurrency_leave_each_other_asleep(forge: Forge) -> None:
    looks = 0
    claim = forge.storage.claims.claim

    async def counted(*args: Any, **options: Any) -> list[Claim]:
        nonlocal looks
        looks += 1
        return await claim(*args, **options)

    forge.storage.claims.claim = counted  # type: ignore[method-assign]
    await forge.queues.set("default", concurrency=5)
    async with working(forge), working(forge), working(forge):
        began = time.monotonic()
        await eventually(lambda: time.monotonic() - began > 2)
    assert looks < 60  # polls after 0.1, 0.2, 0.4, 0.8 s by each of three, and their wake-ups
