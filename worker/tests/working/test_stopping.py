"""A worker that is stopped ends in time, whatever the database does."""

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs import Context, Forge, State, Worker, WorkerInfo
from forge_jobs.errors import InvalidInput, StorageUnavailable
from forge_jobs.telemetry.counters import Counters
from forge_jobs.telemetry.events import JobsEnded, OutcomesDropped, WorkerStarted, WorkerStopped
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working


@pytest.fixture
def silence(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> Any:
    """From the call on, the database answers nothing."""

    async def unanswered(*given: Any, **named: Any) -> None:
        await asyncio.Event().wait()

    def silence() -> None:
        storage = forge.storage
        for noun, names in {
            storage.claims: ("claim", "finish", "postpone", "hand_back", "held", "lost"),
            storage.workers: ("register", "beat", "drain", "deregister"),
            storage.tokens: ("lease", "give_back"),
            storage.queues: ("all",),
            storage.slots: ("take", "give_back"),
            storage.schedule: ("make_pending",),
            storage.wakeups: ("mark_idle", "unmark_idle"),
            storage.leadership: ("lead", "resign"),
            storage: ("now",),
        }.items():
            for name in names:
                monkeypatch.setattr(noun, name, unanswered)

    return silence


async def test_a_worker_whose_database_is_silent_ends_soon_after_its_grace(
    forge: Forge, silence: Any
) -> None:
    started = asyncio.Event()

    @forge.handler
    async def work(ctx: Context) -> None:
        await ctx.rate_limit.acquire("slack")
        started.set()
        await asyncio.Event().wait()

    await forge.limits.set("slack", capacity=100, refill=1)
    await work.enqueue()
    worker = Worker(forge, queues=["default"], concurrency=2, grace=timedelta(seconds=1))
    running = asyncio.create_task(worker.run())
    await started.wait()
    silence()
    worker.stop()
    async with asyncio.timeout(30):
        await running


async def test_a_worker_that_cannot_register_ends_when_it_is_told_to(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def register(info: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(forge.storage.workers, "register", register)
    worker = Worker(forge, queues=["default"], concurrency=2, grace=timedelta(seconds=1))
    running = asyncio.create_task(worker.run())
    await asked.wait()
    worker.stop()
    async with asyncio.timeout(30):
        await running


async def test_a_worker_that_could_not_register_at_first_is_said_to_serve_once(
    forge: Forge, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    register, tries = forge.storage.workers.register, 0
    counters = Counters()
    forge.telemetry.subscribe(counters)

    async def registers(info: WorkerInfo) -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise StorageUnavailable("The database is away.")
        await register(info)

    monkeypatch.setattr(forge.storage.workers, "register", registers)
    async with working(forge) as worker:
        assert worker.session is not None
        assert [event.label for event in events.of(WorkerStarted)] == [worker.session.info.label]
        assert sum(counters.capacities.values()) == worker.concurrency


@pytest.fixture
async def slow(forge: Forge) -> tuple[int, asyncio.Event]:
    """A job that does not end by itself, and when its handler has begun."""
    started = asyncio.Event()

    @forge.handler
    async def slow() -> None:
        started.set()
        await asyncio.Event().wait()

    return (await slow.enqueue()).id, started


async def is_handed_back(forge: Forge, job_id: int, events: Events) -> None:
    found = await forge.jobs.get(job_id)
    assert (found.state, found.attempt, found.failures) == (State.PENDING, 0, ())
    assert await forge.workers.list() == []
    assert [event.handed_back for event in events.of(WorkerStopped)] == [1]
    assert events.of(OutcomesDropped) == []


async def test_a_worker_whose_task_is_cancelled_hands_back_and_is_gone(
    forge: Forge, events: Events, slow: tuple[int, asyncio.Event]
) -> None:
    job_id, started = slow
    running = asyncio.create_task(Worker(forge, queues=["default"]).run())
    await started.wait()

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(30):
            await running

    await is_handed_back(forge, job_id, events)


async def test_a_worker_runs_once_at_a_time_and_again_when_it_has_ended(forge: Forge) -> None:
    @forge.handler
    async def works() -> None:
        pass

    worker = Worker(forge, queues=["default"])
    for _ in range(2):
        running = asyncio.create_task(worker.run())
        await forge.wait((await works.enqueue()).id, timeout=30)
        with pytest.raises(InvalidInput, match="is running already"):
            await worker.run()
        worker.stop()
        await running


async def test_a_worker_in_a_program_that_cancels_all_its_tasks_hands_back(
    forge: Forge, events: Events, slow: tuple[int, asyncio.Event]
) -> None:
    job_id, started = slow
    before = asyncio.all_tasks()
    running = asyncio.create_task(Worker(forge, queues=["default"]).run())
    await started.wait()

    for task in asyncio.all_tasks() - before:  # as the end of `asyncio.run` does
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(30):
            await running

    await is_handed_back(forge, job_id, events)


async def test_a_worker_that_is_cancelled_while_it_stops_waits_no_longer(
    forge: Forge, events: Events, slow: tuple[int, asyncio.Event]
) -> None:
    job_id, started = slow
    worker = Worker(forge, queues=["default"], grace=timedelta(hours=1))
    running = asyncio.create_task(worker.run())
    await started.wait()

    worker.stop()
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(30):
            await running

    await is_handed_back(forge, job_id, events)


async def test_a_worker_that_is_cancelled_while_it_registers_leaves_nothing_behind(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered, register = asyncio.Event(), forge.storage.workers.register

    async def registers(*given: Any) -> None:
        await register(*given)
        registered.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(forge.storage.workers, "register", registers)
    running = asyncio.create_task(Worker(forge, queues=["default"]).run())
    await registered.wait()

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(30):
            await running

    assert await forge.workers.list() == []


async def test_what_is_handed_back_at_a_stop_is_counted_and_none_of_it_called_lost(
    forge: Forge, events: Events
) -> None:
    started = asyncio.Semaphore(0)

    @forge.handler
    async def slow() -> None:
        started.release()
        await asyncio.Event().wait()

    jobs = await slow.enqueue_many([{}] * 5)
    worker = Worker(forge, queues=["default"], concurrency=3, grace=timedelta(0))
    running = asyncio.create_task(worker.run())
    for _ in range(3):
        await started.acquire()
    worker.stop()
    async with asyncio.timeout(30):
        await running

    assert {(await forge.jobs.get(job.id)).attempt for job in jobs} == {0}
    assert [event.handed_back for event in events.of(WorkerStopped)] == [3]
    assert events.of(OutcomesDropped) == []


async def test_an_outcome_that_is_on_its_way_at_a_stop_is_not_called_lost(
    forge: Forge, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, finish = asyncio.Event(), forge.storage.claims.finish

    async def answers_late(ends: Any) -> Any:
        answer = await finish(ends)
        if not written.is_set():
            written.set()
            await asyncio.Event().wait()
        return answer

    @forge.handler
    async def works() -> None:
        pass

    monkeypatch.setattr(forge.storage.claims, "finish", answers_late)
    job = await works.enqueue()
    worker = Worker(forge, queues=["default"])
    running = asyncio.create_task(worker.run())
    await written.wait()
    worker.stop()
    async with asyncio.timeout(30):
        await running

    assert (await forge.jobs.get(job.id)).state is State.DONE
    assert events.of(OutcomesDropped) == []
    assert sum(len(event.runs) for event in events.of(JobsEnded)) == 1


async def test_work_that_a_thread_ends_after_it_was_told_to_stop_counts(forge: Forge) -> None:
    started, told = threading.Event(), threading.Event()

    @forge.handler
    def works(ctx: Context) -> str:
        started.set()
        told.wait(30)
        return "done all the same"

    job = await works.enqueue()
    worker = Worker(forge, queues=["default"], grace=timedelta(0))
    running = asyncio.create_task(worker.run())
    await eventually(started.is_set)
    worker.stop()
    await eventually(lambda: [each for each in worker.session.hand.running.values() if each.stopped])  # type: ignore[union-attr]
    told.set()
    async with asyncio.timeout(30):
        await running

    assert await forge.wait(job.id, timeout=30) == "done all the same"
    assert worker.left_behind == 0


async def test_an_error_that_came_of_being_stopped_costs_no_attempt(forge: Forge) -> None:
    started = asyncio.Event()

    @forge.handler(max_attempts=1)
    async def works() -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            raise ConnectionError("cut off") from error

    job = await works.enqueue()
    worker = Worker(forge, queues=["default"], grace=timedelta(0))
    running = asyncio.create_task(worker.run())
    await started.wait()
    worker.stop()
    async with asyncio.timeout(30):
        await running

    found = await forge.jobs.get(job.id)
    assert (found.state, found.attempt) == (State.PENDING, 0)
