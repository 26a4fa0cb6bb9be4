"""Results of any allowed size are kept, however slow the way to the database is."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from forge_jobs import Forge, JobDead, Retries
from forge_jobs.errors import StorageBusy
from forge_jobs.model.job import End, Postponement
from forge_jobs.storage.batches import LARGEST_BYTES
from forge_jobs.telemetry.events import OutcomeRefused
from forge_jobs.worker.recorder import MOST_UNWRITTEN_BYTES
from tests.storage.databases import Database
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.processes import Fleet, most_memory
from tests.working.running import working

SIZE = 1_000_000  # bytes of a result
CARRIED = 1_500_000  # bytes that the slow way carries within a statement's time
JOBS = 12


@pytest.fixture
def sent(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes of results each statement that ends jobs has held so far; too many do not arrive in time."""
    finish, sent = forge.storage.claims.finish, list[int]()

    async def finishes(ends: Sequence[End]) -> Any:
        sent.append(sum(len(end.result or b"") for end in ends))
        if sent[-1] > CARRIED:
            raise StorageBusy("The database was too slow: the statement took longer than it may.")
        return await finish(ends)

    monkeypatch.setattr(forge.storage.claims, "finish", finishes)
    return sent


async def test_a_batch_of_results_is_bounded_in_bytes_and_halved_when_it_takes_too_long(
    forge: Forge, events: Events, sent: list[int]
) -> None:
    begun, all_begun = 0, asyncio.Event()

    @forge.handler
    async def draw() -> str:
        nonlocal begun
        begun += 1
        if begun == JOBS:
            all_begun.set()
        await all_begun.wait()  # so that all results come at once
        return "x" * (SIZE - 2)

    async with working(forge, concurrency=JOBS):
        for job in await draw.enqueue_many([{}] * JOBS):
            assert len(await forge.wait(job.id, timeout=30)) == SIZE - 2

    whole = LARGEST_BYTES // SIZE * SIZE
    assert max(sent) <= whole
    assert sent.count(whole) == 1  # the first; after it less is tried
    assert events.of(OutcomeRefused) == []


async def test_results_of_items_that_the_way_does_not_carry_are_left_out_and_the_items_are_kept(
    forge: Forge, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    postpone, asked, seen = forge.storage.claims.postpone, list[int](), list[list[int]]()

    async def postpones(writes: Sequence[Postponement]) -> Any:
        asked.append(sum(len(write.payload or b"") for write in writes))
        if asked[-1] > CARRIED:
            raise StorageBusy("The database was too slow: the statement took longer than it may.")
        return await postpone(writes)

    monkeypatch.setattr(forge.storage.claims, "postpone", postpones)

    @forge.batch_handler(retry=Retries(base=0))
    async def draw(items: list[int]) -> list[Any]:
        seen.append(items)
        return ["x" * 2 * SIZE, ValueError("cannot draw"), "x" * SIZE] if len(items) == 3 else [None]

    async with working(forge):
        job = await forge.enqueue("draw", [1, 2, 3])
        assert await forge.wait(job.id, timeout=60) is None

    assert seen == [[1, 2, 3], [2]]
    [failure] = (await forge.jobs.get(job.id)).failures
    assert failure.error.startswith("1 of 3 items failed: item 1: ValueError: cannot draw")
    assert "The results of its items were not kept: The database was too slow" in failure.error
    assert [event.job_id for event in events.of(OutcomeRefused)] == [job.id]


async def test_items_that_are_left_are_kept_though_nothing_else_of_the_outcome_can_be(
    forge: Forge, database: Database
) -> None:
    @forge.batch_handler
    async def draw(items: list[int]) -> list[Any]:
        return [None, ValueError("cannot draw")]

    await database.refuse("scheduled", "new.reason = 'retry'")
    async with working(forge):
        job = await forge.enqueue("draw", [1, 2])
        with pytest.raises(JobDead, match="its outcome could not be stored"):
            await forge.wait(job.id, timeout=60)

    assert (await forge.jobs.get(job.id)).payload.endswith(b"},2]")


async def test_no_job_is_begun_while_too_many_results_wait_to_be_written(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, answers = forge.storage.claims.finish, asyncio.Event()
    drawn = 0

    async def finishes(ends: Sequence[End]) -> Any:
        await answers.wait()
        return await finish(ends)

    @forge.handler
    async def short() -> None:
        pass

    @forge.handler
    async def draw() -> str:
        nonlocal drawn
        drawn += 1
        return "x" * (SIZE - 2)

    async with working(forge, concurrency=2) as worker:
        assert worker.session is not None
        hand = worker.session.hand
        shorts = await short.enqueue_many([{}] * 200)  # so that the worker claims many jobs ahead
        await forge.wait(shorts[-1], timeout=30)
        monkeypatch.setattr(forge.storage.claims, "finish", finishes)
        jobs = await draw.enqueue_many([{}] * 100)
        most = MOST_UNWRITTEN_BYTES // SIZE + 1
        await eventually(lambda: drawn >= most)
        await eventually(lambda: not hand.claims())  # what was not begun is for others
        assert drawn <= most + 2 * worker.concurrency

        answers.set()
        for job in jobs:
            assert len(await forge.wait(job.id, timeout=60)) == SIZE - 2
    assert {(await forge.jobs.get(job.id)).attempt for job in jobs} == {1}


async def test_a_worker_that_makes_large_results_stays_small(forge: Forge, workers: Fleet) -> None:
    worker = await workers.start("--concurrency", "10", FORGE_LOG_LEVEL="error")
    small = await forge.enqueue_many("nap", [{}] * 2000)  # so that the worker claims many jobs ahead
    await forge.wait(small[-1], timeout=60)
    jobs = await forge.enqueue_many("make", [{"length": SIZE}] * 200)
    for job in jobs:
        await forge.wait(job, timeout=60)

    assert most_memory(worker.pid) < 150 * 1024 * 1024
