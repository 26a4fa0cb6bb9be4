"""Queues come and go while workers serve them."""

import asyncio

import pytest

from forge_jobs import Forge, QueueInUse, UnknownQueue, Worker
from forge_jobs.telemetry.events import (
    ChoreFailed,
    DatabaseLost,
    Event,
    QueueMade,
    QueueResembles,
    WorkerCutOff,
)
from tests.working.running import working


async def test_a_worker_goes_on_when_its_queue_is_deleted_and_serves_a_new_one_of_that_name(
    forge: Forge,
) -> None:
    @forge.handler
    async def quick() -> None:
        pass

    await forge.queues.ensure("mail")
    events: list[Event] = []
    forge.telemetry.subscribe(events.append)
    async with working(forge, "mail", "default"):
        await forge.wait(await forge.enqueue("quick", queue="mail"), timeout=30)
        await forge.queues.delete("mail")
        with pytest.raises(UnknownQueue):
            await forge.enqueue("quick", queue="mail")
        await forge.wait(await forge.enqueue("quick"), timeout=30)

        await forge.queues.ensure("mail")
        await forge.wait(await forge.enqueue("quick", queue="mail"), timeout=30)
    assert not [each for each in events if isinstance(each, ChoreFailed | DatabaseLost | WorkerCutOff)]


async def test_a_worker_of_a_deleted_queue_alone_waits_for_a_new_one(forge: Forge) -> None:
    @forge.handler
    async def quick() -> None:
        pass

    async with working(forge, "mail"):
        await forge.queues.delete("mail")
        await forge.queues.ensure("mail")
        await forge.wait(await forge.enqueue("quick", queue="mail"), timeout=30)


async def test_moved_jobs_are_run_by_those_who_serve_the_other_queue(forge: Forge) -> None:
    @forge.handler
    async def quick() -> None:
        pass

    await forge.queues.ensure("mail")
    jobs = await forge.enqueue_many("quick", [{}] * 50, queue="mail")
    async with working(forge):
        await forge.queues.delete("mail", move_to="default")
        for job in jobs:
            await forge.wait(job, timeout=30)


async def test_a_job_in_progress_keeps_its_queue_and_ends_as_if_nothing_had_been_asked(forge: Forge) -> None:
    go, begun = asyncio.Event(), asyncio.Event()

    @forge.handler
    async def hold() -> str:
        begun.set()
        await go.wait()
        return "fine"

    await forge.queues.ensure("mail")
    async with working(forge, "mail"):
        job = await forge.enqueue("hold", queue="mail")
        await begun.wait()
        with pytest.raises(QueueInUse, match="one of its jobs is in progress"):
            await forge.queues.delete("mail", drop=True)
        go.set()
        assert await forge.wait(job, timeout=30) == "fine"


async def served(forge: Forge, *queues: str) -> list[Event]:
    """Return what was told of queues when a worker of these had started."""
    events: list[Event] = []
    end = forge.telemetry.subscribe(events.append)
    await Worker(forge, queues=queues).run(until_empty=True)
    end()
    return [each for each in events if isinstance(each, QueueMade | QueueResembles)]


async def test_a_queue_whose_name_may_be_misspelt_is_made_and_warned_of(forge: Forge) -> None:
    await forge.queues.ensure("mail")

    assert await served(forge, "mial", "default") == [QueueResembles("mial", "mail")]
    assert "mial" in [queue.name for queue in await forge.queues.list()]
    assert await served(forge, "mial", "default") == []


async def test_a_new_queue_that_resembles_none_is_made_and_told(forge: Forge) -> None:
    assert await served(forge, "reports") == [QueueMade("reports")]


async def test_a_queue_that_a_handler_names_is_no_stranger(forge: Forge) -> None:
    @forge.handler(queue="defaults")
    async def work() -> None:
        pass

    assert await served(forge, "defaults") == []
