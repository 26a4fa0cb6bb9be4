"""Payloads of any allowed size reach their handlers, however many jobs wait."""

import asyncio
from typing import Any

import pytest

from forge_jobs import Context, Forge, Retry, State, Worker
from forge_jobs.errors import StorageBusy, StorageRefused, StorageUnavailable
from forge_jobs.model.job import LARGE_PAYLOAD
from forge_jobs.worker.served_queue import LARGEST_ROOM
from tests.working.eventually import eventually
from tests.working.processes import Fleet, most_memory
from tests.working.running import working

LARGE = "x" * (2 * LARGE_PAYLOAD)


async def test_jobs_with_large_and_small_payloads_all_run_until_the_queue_is_empty(forge: Forge) -> None:
    seen: list[tuple[int, int]] = []

    @forge.handler
    async def measure(number: int, text: str) -> None:
        seen.append((number, len(text)))

    @forge.handler
    def in_thread(number: int, text: str) -> None:
        seen.append((number, len(text)))

    sizes = [0 if number % 3 else len(LARGE) for number in range(40)]
    payloads = [{"number": number, "text": "x" * size} for number, size in enumerate(sizes)]
    await measure.enqueue_many(payloads[:30])
    await in_thread.enqueue_many(payloads[30:])
    await Worker(forge, queues=["default"], concurrency=4).run(until_empty=True)

    assert sorted(seen) == list(enumerate(sizes))


async def test_a_large_state_reaches_the_next_attempt(forge: Forge) -> None:
    seen: list[Any] = []

    @forge.handler
    async def go_on(ctx: Context, text: str) -> None:
        seen.append((len(text), ctx.state))
        await ctx.save(LARGE + str(ctx.attempt))
        if ctx.attempt < 3:
            raise Retry(after=0)

    await go_on.enqueue(text="short")
    await Worker(forge, queues=["default"]).run(until_empty=True)

    assert seen == [(5, None), (5, LARGE + "1"), (5, LARGE + "2")]


async def test_a_claim_is_bounded_in_bytes_and_halved_when_it_takes_too_long(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, carried = forge.storage.claims.claim, LARGEST_ROOM // 3
    limits: list[int] = []
    seen: list[int] = []

    async def claims(*given: Any, limit: int, **named: Any) -> Any:
        limits.append(limit)
        if limit * LARGE_PAYLOAD > carried:
            raise StorageBusy("The database was too slow: the statement took longer than it may.")
        return await claim(*given, limit=limit, **named)

    @forge.handler
    async def measure(number: int, text: str) -> None:
        seen.append(number)

    monkeypatch.setattr(forge.storage.claims, "claim", claims)
    text = "x" * (LARGE_PAYLOAD - 50)
    await measure.enqueue_many([{"number": number, "text": text} for number in range(200)])
    await Worker(forge, queues=["default"], concurrency=200).run(until_empty=True)

    assert sorted(seen) == list(range(200))
    most = LARGEST_ROOM // LARGE_PAYLOAD
    assert limits[:3] == [most, most // 2, most // 4]
    assert max(limits) == most


async def test_a_payload_that_cannot_be_read_now_costs_no_attempt(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = forge.storage.claims.payload
    away: list[int] = []

    async def broken(claim: Any) -> Any:
        if not away:
            away.append(claim.job_id)
            raise StorageUnavailable("The connection broke.")
        return await read(claim)

    @forge.handler(max_attempts=1)
    async def work(text: str) -> None:
        pass

    monkeypatch.setattr(forge.storage.claims, "payload", broken)
    async with working(forge):
        job = await work.enqueue(text=LARGE)
        await forge.wait(job.id, timeout=30)
    assert (await forge.jobs.get(job.id)).attempt == 1


async def test_a_payload_that_the_database_refuses_to_read_is_a_failed_attempt(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(claim: Any) -> Any:
        raise StorageRefused("The database refuses it: missing chunk number 0.")

    @forge.handler(max_attempts=1)
    async def work(text: str) -> None:
        pass

    monkeypatch.setattr(forge.storage.claims, "payload", broken)
    async with working(forge):
        job_id = (await work.enqueue(text=LARGE)).id
        await eventually(lambda: _is_dead(forge, job_id))
    assert (await forge.jobs.get(job_id)).error == (
        "its payload could not be read: The database refuses it: missing chunk number 0."
    )


async def test_a_stop_hands_back_a_job_whose_payload_is_being_read(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = asyncio.Event()

    async def slow(claim: Any) -> Any:
        reading.set()
        await asyncio.Event().wait()

    @forge.handler(max_attempts=1)
    async def work(text: str) -> None:
        pass

    monkeypatch.setattr(forge.storage.claims, "payload", slow)
    async with working(forge):
        job_id = (await work.enqueue(text=LARGE)).id
        await reading.wait()
    job = await forge.jobs.get(job_id)
    assert (job.state, job.attempt) == (State.PENDING, 0)


async def test_a_worker_that_is_given_large_payloads_stays_small(forge: Forge, workers: Fleet) -> None:
    worker = await workers.start("--concurrency", "10", FORGE_LOG_LEVEL="error")
    small = await forge.enqueue_many("nap", [{}] * 2000)  # so that the worker claims many jobs ahead
    await forge.wait(small[-1], timeout=60)
    await forge.queues.pause("default")
    for _ in range(5):
        large = await forge.enqueue_many("take", [{"text": "x" * (1024 * 1024 - 20)}] * 30)
    await forge.queues.resume("default")
    await forge.wait(large[-1], timeout=60)

    assert most_memory(worker.pid) < 120 * 1024 * 1024


async def _is_dead(forge: Forge, job_id: int) -> bool:
    return (await forge.jobs.get(job_id)).state is State.DEAD
