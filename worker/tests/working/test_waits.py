"""Who waits for jobs gets their results, soon after their ends, and costs nobody else anything."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import pytest

from forge_jobs import Forge, InvalidInput, JobDead, JobNotFound, UnfitPayload, WaitTimeout, Worker
from forge_jobs.client import waits
from forge_jobs.errors import ForgeError, StorageRefused, StorageUnavailable
from tests.storage.databases import Database
from tests.working.eventually import eventually
from tests.working.running import working
from tests.working.test_context import one


@dataclass
class Report:
    pages: int


@pytest.fixture
def double(forge: Forge) -> Any:
    @forge.handler(max_attempts=1)
    async def double(number: int) -> int:
        if number < 0:
            raise ValueError(f"{number} is below zero")
        return 2 * number

    return double


async def test_results_come_in_the_order_of_the_jobs(forge: Forge, double: Any) -> None:
    async with working(forge):
        jobs = [await double.enqueue(number=number) for number in (3, 1, 2)]
        assert await forge.wait_all(jobs, timeout=30) == [6, 2, 4]
        assert await forge.wait_all([jobs[1].id, jobs[0], jobs[1]], timeout=30) == [2, 6, 2]
        assert await forge.wait_all([]) == []


async def test_the_first_that_is_dead_is_raised_once_all_have_ended(forge: Forge, double: Any) -> None:
    jobs = await double.enqueue_many([{"number": number} for number in (1, -2, -3)])
    async with working(forge):
        with pytest.raises(JobDead) as caught:
            await forge.wait_all(jobs, timeout=30)
    assert caught.value.job_id == jobs[1].id


async def test_errors_may_stand_in_the_places_of_results(forge: Forge, double: Any) -> None:
    jobs = await double.enqueue_many([{"number": number} for number in (1, -2)])
    async with working(forge):
        one, dead, unknown = await forge.wait_all(
            [*jobs, jobs[1].id + 1000], timeout=30, return_exceptions=True
        )
    assert one == 2 and isinstance(dead, JobDead) and isinstance(unknown, JobNotFound)
    with pytest.raises(JobNotFound):
        await forge.wait(jobs[1].id + 1000)


async def test_a_time_that_is_over_names_the_first_job_that_has_not_ended(forge: Forge, double: Any) -> None:
    first = await double.enqueue(number=1)
    await Worker(forge, queues=["default"]).run(until_empty=True)
    second, third = await double.enqueue(number=2), await double.enqueue(number=3)

    for seconds in (0, 0.01):
        with pytest.raises(WaitTimeout, match=f"^Job {second.id} did not end within {seconds} s: ") as caught:
            await forge.wait_all([first, second, third], timeout=seconds)
        assert caught.value.job_id == second.id
    assert await forge.wait(first, timeout=0) == 2


async def test_no_ids_are_refused(forge: Forge) -> None:
    with pytest.raises(InvalidInput, match="jobs is 3, allowed is a list"):
        await forge.wait_all(3)  # type: ignore[call-overload]
    with pytest.raises(InvalidInput):
        await forge.wait_all(["a"])  # type: ignore[list-item]


async def test_a_result_is_of_the_type_that_is_asked_for(forge: Forge) -> None:
    async def work() -> Report:
        return Report(3)

    job = await one(forge, work)

    assert await forge.wait(job.id) == {"pages": 3}
    report: Report = await forge.wait(job.id, returns=Report)
    assert report == Report(3)
    assert await forge.wait_all([job.id, job.id], returns=Report) == [report, report]
    with pytest.raises(UnfitPayload, match=rf"^The result of job {job.id} is no int: "):
        await forge.wait(job.id, returns=int)


async def test_a_plain_handler_waits_for_many(forge: Forge, double: Any) -> None:
    def work() -> Any:
        return forge.wait_all(double.enqueue_many([{"number": 4}, {"number": 5}]), timeout=30)

    job = await one(forge, work)

    assert await forge.wait(job.id) == [8, 10]


async def test_many_who_wait_share_their_looks(
    forge: Forge, double: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    look = forge.storage.ends.look

    async def counted(job_ids: Sequence[int]) -> Any:
        looks.append(len(job_ids))
        return await look(job_ids)

    monkeypatch.setattr(forge.storage.ends, "look", counted)
    jobs = await double.enqueue_many([{"number": number} for number in range(300)])
    waiting = [asyncio.create_task(forge.wait(job, timeout=60)) for job in jobs]
    await eventually(lambda: looks)

    assert looks[0] == 300
    async with working(forge):
        assert await asyncio.gather(*waiting) == [2 * number for number in range(300)]
    assert len(looks) < len(jobs)
    assert not forge._waits["job"]._waits


async def test_two_who_wait_for_one_job_get_its_result_and_one_may_give_up(forge: Forge, double: Any) -> None:
    job = await double.enqueue(number=1)
    first, second, third = [asyncio.create_task(forge.wait(job, timeout=60)) for _ in range(3)]
    with pytest.raises(WaitTimeout):
        await forge.wait(job, timeout=0.01)
    second.cancel()
    async with working(forge):
        assert [await first, await third] == [2, 2]
    assert second.cancelled()


async def test_an_ear_is_given_up_only_long_after_the_last_wait(
    forge: Forge, double: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[asyncio.TimerHandle] = []
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def recording(delay: float, *args: Any, **options: Any) -> asyncio.TimerHandle:
        handle = call_later(delay, *args, **options)
        if delay == 1234.5:
            rests.append(handle)
        return handle

    monkeypatch.setattr(waits, "LINGER", 1234.5)
    monkeypatch.setattr(loop, "call_later", recording)
    async with working(forge):
        for number in range(3):
            await forge.wait(await double.enqueue(number=number), timeout=30)
            await eventually(lambda number=number: len(rests) > number)

    assert [rest.cancelled() for rest in rests] == [True, True, False]


async def test_who_waits_when_the_forge_is_closed_is_told(database: Database) -> None:
    forge = Forge(storage=database.storage())
    async with forge:
        job = await forge.enqueue("work")
        waiting = asyncio.create_task(forge.wait(job))
        await eventually(lambda: "job" in forge._waits and forge._waits["job"]._waits)
    with pytest.raises(Exception, match="open"):
        await waiting
    async with forge:
        with pytest.raises(WaitTimeout):
            await forge.wait(job, timeout=0.01)


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_a_worker_tells_who_waits_long_that_the_job_has_ended(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "YOUNG", -1.0)
    monkeypatch.setattr(waits, "FIRST_PAUSE", 1000.0)  # so that looking alone would find nothing
    monkeypatch.setattr(waits, "LONGEST_PAUSE", 1000.0)
    may_end = asyncio.Event()

    @forge.handler
    async def work() -> str:
        await may_end.wait()
        return "told"

    async with working(forge) as worker:
        job = await work.enqueue()
        waiting = asyncio.create_task(forge.wait(job, timeout=60))
        session = worker.session
        assert session is not None
        await eventually(lambda: job.id in session._recorder.awaited._until)
        may_end.set()
        assert await waiting == "told"


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_a_wait_of_which_no_worker_has_heard_is_looked_after_every_half_second(
    forge: Forge, double: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "YOUNG", -1.0)
    monkeypatch.setattr(waits, "GROWTH", 1e6)
    job = await double.enqueue(number=1)
    waiting = asyncio.create_task(forge.wait(job, timeout=60))

    def pause_once_announced() -> float | None:
        of_program = forge._waits.get("job")
        wait = None if of_program is None else of_program._waits.get(job.id)
        return (
            wait.pause if wait is not None and wait.announced_at is not None and wait.next_at < inf else None
        )

    assert await eventually(pause_once_announced) == 0.5
    async with working(forge):  # it was not there when the wait was announced
        assert await waiting == 2


async def test_a_worker_tells_nobody_of_jobs_for_which_nobody_waits(
    forge: Forge, double: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Sequence[int]] = []

    async def tell(job_ids: Sequence[int]) -> None:
        told.append(job_ids)

    monkeypatch.setattr(forge.storage.ends, "tell", tell)
    await double.enqueue_many([{"number": number} for number in range(50)])
    await Worker(forge, queues=["default"]).run(until_empty=True)

    assert told == []


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
@pytest.mark.parametrize("error", [StorageUnavailable, StorageRefused])
async def test_a_wait_that_cannot_be_announced_ends_by_looking(
    forge: Forge, double: Any, monkeypatch: pytest.MonkeyPatch, error: type[ForgeError]
) -> None:
    refused: list[Sequence[int]] = []

    async def refuse(job_ids: Sequence[int]) -> Sequence[int]:
        refused.append(job_ids)
        raise error("The server takes no notices.")

    monkeypatch.setattr(waits, "YOUNG", -1.0)
    monkeypatch.setattr(forge.storage.ends, "announce", refuse)
    job = await double.enqueue(number=1)
    waiting = asyncio.create_task(forge.wait(job, timeout=10))
    await eventually(lambda: refused)
    async with working(forge):
        assert await waiting == 2
