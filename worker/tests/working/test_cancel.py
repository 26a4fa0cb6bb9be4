"""Cancelling jobs that run."""

import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from forge_jobs import Context, Dead, Forge, Reschedule, Retry, State, Throttled, Worker
from forge_jobs.model.job import Cancelled
from forge_jobs.system.guard import guard
from forge_jobs.telemetry.events import HandlerStuck, StuckHandlerEnded
from forge_jobs.worker import runners
from forge_jobs.worker.children import Child
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working


async def test_a_running_job_that_is_cancelled_is_dead_and_not_retried(forge: Forge) -> None:
    told, has_begun = [], asyncio.Event()

    @forge.handler
    async def endless(ctx: Context) -> None:
        has_begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            told.append(ctx.is_cancelled)

    async with working(forge):
        job = await endless.enqueue()
        await has_begun.wait()
        assert await forge.jobs.cancel(job.id) is Cancelled.REQUESTED
        await eventually(lambda: _state(forge, job.id, State.DEAD))

    dead = await forge.jobs.get(job.id)
    assert (dead.error, dead.attempt, told) == ("cancelled by user", 1, [True])


async def _state(forge: Forge, job_id: int, state: State) -> bool:
    return (await forge.jobs.get(job_id)).state is state


async def test_a_handler_that_finishes_in_spite_of_being_cancelled_is_done(forge: Forge) -> None:
    has_begun = asyncio.Event()

    @forge.handler
    async def tidy() -> str:
        has_begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return "finished anyway"
        return "slept"

    async with working(forge):
        job = await tidy.enqueue()
        await has_begun.wait()
        await forge.jobs.cancel(job.id)
        assert await forge.wait(job.id, timeout=30) == "finished anyway"


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
            assert await forge.wait((await nap.enqueue()).id, timeout=30) == "fine"


async def test_a_handler_in_a_thread_sees_that_it_is_cancelled(forge: Forge) -> None:
    begun, seen = [], []

    @forge.handler
    def patient(ctx: Context) -> None:
        begun.append(ctx.job_id)
        until = time.monotonic() + 30
        while time.monotonic() < until and not ctx.is_cancelled:
            time.sleep(0.005)
        seen.append(ctx.is_cancelled)

    async with working(forge):
        job = await patient.enqueue()
        await eventually(lambda: begun)
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


@pytest.mark.parametrize("steps", range(6))
async def test_a_process_is_not_left_behind_when_its_start_is_cancelled(steps: int) -> None:
    starting = asyncio.create_task(Child.started(1))
    for _ in range(steps):
        await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait([starting])
    if not starting.cancelled():
        await starting.result().end()

    del starting
    gc.collect()  # a process that is forgotten while it may live says so here, which fails the test
    assert guard._groups == set()


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
        async with asyncio.timeout(30):
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
    async with asyncio.timeout(30):
        await running
    assert (await forge.jobs.get(job.id)).state is State.PENDING


LAST_WORDS: list[Callable[[], BaseException]] = [
    lambda: ValueError("its clean-up failed"),
    lambda: Retry(after=0),
    lambda: Throttled(retry_after=60),
    lambda: Reschedule(at=datetime.now(UTC) + timedelta(hours=1)),
    lambda: Dead("given up"),
]


@pytest.mark.parametrize("last_word", LAST_WORDS)
async def test_a_cancelled_job_is_dead_whatever_its_handler_raises(
    forge: Forge, last_word: Callable[[], BaseException]
) -> None:
    @forge.handler
    async def endless() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise last_word() from None

    async with working(forge):
        job = await endless.enqueue()
        await eventually(lambda: _state(forge, job.id, State.IN_PROGRESS))
        await forge.jobs.cancel(job.id)
        await eventually(lambda: _state(forge, job.id, State.DEAD))
    assert (await forge.jobs.get(job.id)).error == "cancelled by user"


async def test_a_job_that_is_cancelled_while_it_fails_is_dead(forge: Forge) -> None:
    @forge.handler
    async def fails(ctx: Context) -> None:
        assert await forge.jobs.cancel(ctx.job_id) is Cancelled.REQUESTED
        raise ValueError("before anybody heard of it")

    job = await fails.enqueue()
    await Worker(forge, queues=["default"], concurrency=1).run(until_empty=True)
    found = await forge.jobs.get(job.id)
    assert (found.state, found.error) == (State.DEAD, "cancelled by user")
    assert [failure.attempt for failure in found.failures] == [1]


async def test_a_user_outranks_a_timeout_that_is_obeyed_slowly(forge: Forge) -> None:
    told, clean = asyncio.Event(), asyncio.Event()

    @forge.handler(timeout=0.05)
    async def slow() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            told.set()
            await clean.wait()

    async with working(forge):
        job = await slow.enqueue()
        await told.wait()
        assert await forge.jobs.cancel(job.id) is Cancelled.REQUESTED
        clean.set()
        await eventually(lambda: _state(forge, job.id, State.DEAD))
    assert (await forge.jobs.get(job.id)).error == "cancelled by user"


async def test_a_user_outranks_a_worker_that_stops(forge: Forge) -> None:
    told, clean, started = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @forge.handler
    async def slow() -> None:
        try:
            started.set()
            await asyncio.sleep(3600)
        finally:
            told.set()
            await clean.wait()

    async with working(forge, grace=timedelta(0)) as worker:
        job = await slow.enqueue()
        await started.wait()
        worker.stop()
        await told.wait()
        assert await forge.jobs.cancel(job.id) is Cancelled.REQUESTED
        clean.set()
    found = await forge.jobs.get(job.id)
    assert (found.state, found.error) == (State.DEAD, "cancelled by user")


async def test_a_handler_that_swallows_being_stopped_is_told_again(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "TELL_EVERY", 0.2)

    @forge.handler
    async def swallows() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        await asyncio.sleep(3600)

    async with working(forge):
        job = await swallows.enqueue()
        await eventually(lambda: _state(forge, job.id, State.IN_PROGRESS))
        await forge.jobs.cancel(job.id)
        await eventually(lambda: _state(forge, job.id, State.DEAD))
    assert (await forge.jobs.get(job.id)).error == "cancelled by user"


@pytest.fixture
def free() -> Iterator[threading.Event]:
    """Set when handlers that ignore everything may end."""
    free = threading.Event()
    yield free
    free.set()


def ignoring(place: str, free: threading.Event) -> Callable[[], Any]:
    """Return a handler's function that goes on, whoever tells it to stop, until it is free."""

    def in_a_thread() -> None:
        free.wait(120)

    async def in_the_loop() -> None:
        while not free.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    return in_a_thread if place == "thread" else in_the_loop


@pytest.mark.parametrize("why", ["it is cancelled", "it times out"])
@pytest.mark.parametrize("place", ["thread", "loop"])
async def test_a_handler_that_ignores_being_stopped_gives_its_place_up(
    forge: Forge,
    events: Events,
    free: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    why: str,
) -> None:
    monkeypatch.setattr(runners, "TELL_EVERY", 0.1)
    forge.handler(kind="ignores", max_attempts=2)(ignoring(place, free))

    @forge.handler
    async def nap() -> str:
        return "fine"

    async with working(forge, concurrency=1, heartbeat=timedelta(seconds=0.1)) as worker:
        assert worker.session is not None
        job = await forge.enqueue("ignores", timeout=0.1 if why == "it times out" else None)
        running = worker.session.hand.running
        await eventually(lambda: job.id in running)  # a claimed one that waits for its runner would just end
        if why == "it is cancelled":
            await forge.jobs.cancel(job.id)
        assert await forge.wait((await nap.enqueue()).id, timeout=30) == "fine"

        found = await forge.jobs.get(job.id)
        if why == "it is cancelled":
            assert (found.state, found.error) == (State.DEAD, "cancelled by user")
        else:
            assert (found.state, found.attempt) == (State.RETRYING, 1)
            assert found.error == "timed out after 0.1 s; its handler goes on"
        [stuck] = events.of(HandlerStuck)
        assert (stuck.claim.job_id, stuck.stuck, worker.session.runners.alive) == (job.id, 1, 1)
        sentence = (
            f"The handler of attempt 1 goes on in {worker.session.info.label}, though it was told to stop."
        )
        await eventually(lambda: _why(forge, job.id, sentence))

        free.set()
        await eventually(lambda: events.of(StuckHandlerEnded))
        await eventually(lambda: _why_no_longer(forge, job.id, sentence))
    assert events.of(StuckHandlerEnded)[0].stuck == 0
    assert await forge.jobs.get(job.id) == found
    assert worker.left_behind == 0


async def _why(forge: Forge, job_id: int, sentence: str) -> bool:
    return sentence in (await forge.jobs.why(job_id)).reasons


async def _why_no_longer(forge: Forge, job_id: int, sentence: str) -> bool:
    return not await _why(forge, job_id, sentence)


async def test_a_thread_keeps_its_place_until_it_ends(forge: Forge) -> None:
    running: list[int] = []
    most: list[int] = []

    @forge.handler(queue="narrow", timeout=0.05, max_attempts=3)
    def slow(ctx: Context) -> None:
        running.append(ctx.attempt)
        most.append(len(running))
        time.sleep(0.3)
        running.pop()

    await forge.queues.set("narrow", concurrency=1, backoff_enabled=False)
    job = await slow.enqueue()
    async with asyncio.timeout(30):
        await Worker(forge, queues=["narrow"], concurrency=4).run(until_empty=True)

    assert most == [1, 1, 1]
    assert (await forge.jobs.get(job.id)).error == "timed out after 0.05 s"
