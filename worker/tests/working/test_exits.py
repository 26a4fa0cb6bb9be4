"""Exits that come out of the event loop and not of a handler's call: the worker and the other jobs go on."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextvars import copy_context
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop

from forge_jobs import Forge, State
from forge_jobs.telemetry.events import ExitContained
from tests.storage.databases import Database
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.ledger import Ledger
from tests.working.processes import Fleet, below
from tests.working.running import working

pytestmark = pytest.mark.filterwarnings('ignore:Overriding the "event_loop_policy"')

POLICIES = {"asyncio": asyncio.DefaultEventLoopPolicy, "uvloop": uvloop.EventLoopPolicy}


@pytest.fixture(params=POLICIES)
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """Each test that is here runs in both kinds of loops."""
    return POLICIES[request.param]()


def leave() -> None:
    sys.exit(3)


async def leave_later() -> None:
    await asyncio.sleep(0)
    leave()


def by_a_callback() -> None:
    asyncio.get_running_loop().call_soon(leave)


def by_a_timer() -> None:
    asyncio.get_running_loop().call_later(0.01, leave)


def by_a_timer_at_a_moment() -> None:
    loop = asyncio.get_running_loop()
    loop.call_at(loop.time() + 0.01, leave)


def by_a_callback_from_a_thread() -> None:
    loop = asyncio.get_running_loop()
    threading.Thread(target=copy_context().run, args=(loop.call_soon_threadsafe, leave)).start()


def by_a_task() -> None:
    kept.append(asyncio.create_task(leave_later()))


def by_a_bare_task() -> None:
    kept.append(asyncio.Task(leave_later(), loop=asyncio.get_running_loop()))


def by_a_callback_of_a_future() -> None:
    future = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda _: leave())
    future.set_result(None)


def by_a_callback_of_a_task() -> None:
    task = asyncio.create_task(asyncio.sleep(0))
    task.add_done_callback(lambda _: leave())
    kept.append(task)


def by_a_reader() -> None:
    ours, theirs = socket.socketpair()
    kept.extend((ours, theirs))
    loop = asyncio.get_running_loop()

    def readable() -> None:
        loop.remove_reader(ours)
        leave()

    loop.add_reader(ours, readable)
    theirs.send(b"x")


def by_a_generator_that_nobody_ends() -> None:
    async def numbers() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            leave()

    async def first() -> None:
        await anext(numbers())

    kept.append(asyncio.create_task(first()))


def by_an_interrupt() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    asyncio.get_running_loop().call_soon(interrupt)


def by_stopping_the_loop() -> None:
    loop = asyncio.get_running_loop()
    loop.call_soon(loop.stop)


kept: list[Any] = []

REASONS = {
    by_an_interrupt: "KeyboardInterrupt",
    by_stopping_the_loop: "SystemExit: stop() of the event loop was called",
    **dict.fromkeys(
        (
            by_a_callback,
            by_a_timer,
            by_a_timer_at_a_moment,
            by_a_callback_from_a_thread,
            by_a_task,
            by_a_bare_task,
            by_a_callback_of_a_future,
            by_a_callback_of_a_task,
            by_a_reader,
            by_a_generator_that_nobody_ends,
        ),
        "SystemExit: 3",
    ),
}


@pytest.fixture(autouse=True)
def nothing_kept() -> Any:
    yield
    for each in kept:
        if isinstance(each, socket.socket):
            each.close()
        elif each.done() and not each.cancelled():
            each.exception()  # it was retrieved
    kept.clear()


@pytest.mark.parametrize("way", REASONS, ids=lambda way: way.__name__)
async def test_an_exit_in_what_a_handler_gave_to_the_loop_fails_its_job_and_no_other(
    forge: Forge, events: Events, way: Callable[[], None]
) -> None:
    begun, over = asyncio.Event(), asyncio.Event()

    @forge.handler(max_attempts=1)
    async def leaves() -> None:
        await begun.wait()
        way()
        await asyncio.Event().wait()

    @forge.handler
    async def stays() -> str:
        begun.set()
        await over.wait()
        return "stayed"

    async with working(forge):
        poison, other = await leaves.enqueue(), await stays.enqueue()
        await eventually(lambda: _is(forge, poison.id, State.DEAD))
        over.set()
        assert await forge.wait(other.id, timeout=30) == "stayed"

    assert (await forge.jobs.get(other.id)).attempt == 1
    assert str((await forge.jobs.get(poison.id)).error).startswith(REASONS[way])
    [event] = events.of(ExitContained)
    assert event.claim is not None
    assert (event.claim.job_id, event.claim.kind) == (poison.id, "leaves")
    assert sorted(event.running) == sorted([poison.id, other.id])


async def _is(forge: Forge, job_id: int, state: State) -> bool:
    return (await forge.jobs.get(job_id)).state is state


async def test_an_exit_is_said_with_the_place_that_it_came_from(forge: Forge, events: Events) -> None:
    @forge.handler(max_attempts=1)
    async def leaves() -> None:
        asyncio.get_running_loop().call_soon(leave)
        await asyncio.Event().wait()

    async with working(forge):
        await leaves.enqueue()
        [event] = await eventually(lambda: events.of(ExitContained))

    assert __file__ in event.where
    assert event.where.endswith("in leave: sys.exit(3)")


async def test_an_exit_that_outlives_its_job_leaves_the_outcome_alone_and_harms_nobody(
    forge: Forge, events: Events
) -> None:
    other_runs = asyncio.get_running_loop().create_future()

    @forge.handler
    async def leaves() -> None:
        other_runs.add_done_callback(lambda _: leave())

    @forge.handler
    async def stays() -> None:
        other_runs.set_result(None)
        await eventually(lambda: events.of(ExitContained))

    async with working(forge, concurrency=1):
        first, second = await leaves.enqueue(), await stays.enqueue()
        await forge.wait(second.id, timeout=30)

    assert (await forge.jobs.get(first.id)).state is State.DONE
    [event] = events.of(ExitContained)
    assert event.claim is not None and event.claim.job_id == first.id
    assert event.running == [second.id]


@pytest.mark.parametrize("name", ["stop", "shutdown_asyncgens", "shutdown_default_executor"])
async def test_a_handler_that_ends_what_all_in_the_loop_share_fails(forge: Forge, name: str) -> None:
    @forge.handler(max_attempts=1)
    async def ends() -> None:
        if (ending := getattr(asyncio.get_running_loop(), name)()) is not None:
            await ending

    @forge.handler
    async def goes_on() -> int:
        return await asyncio.to_thread(int, "7")

    async with working(forge):
        job = await ends.enqueue()
        await eventually(lambda: _is(forge, job.id, State.DEAD))
        assert await forge.wait(await goes_on.enqueue(), timeout=30) == 7
    assert str((await forge.jobs.get(job.id)).error).startswith(f"SystemExit: {name}()")


async def test_a_handler_that_ignores_its_end_after_an_exit_fails_all_the_same(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forge_jobs.worker.runners.TELL_EVERY", 0.05)
    over = asyncio.Event()

    @forge.handler(max_attempts=1)
    async def leaves() -> None:
        asyncio.get_running_loop().call_soon(leave)
        while not over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await over.wait()

    async with working(forge):
        job = await leaves.enqueue()
        await eventually(lambda: _is(forge, job.id, State.DEAD))
        over.set()
    assert str((await forge.jobs.get(job.id)).error).startswith("SystemExit: 3")


async def test_an_exit_counts_as_a_failure_also_while_the_worker_stops(forge: Forge) -> None:
    started = asyncio.Event()

    @forge.handler(max_attempts=1)
    async def leaves() -> None:
        loop = asyncio.get_running_loop()
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            loop.call_soon(leave)
            await asyncio.sleep(0.01)

    job = await leaves.enqueue()
    async with working(forge, grace=timedelta(0)):
        await started.wait()

    assert str((await forge.jobs.get(job.id)).error).startswith("SystemExit: 3")


async def test_the_loop_is_as_it_was_once_the_worker_has_ended(forge: Forge) -> None:
    loop = asyncio.get_running_loop()
    before = {name: value for name, value in vars(loop).items() if callable(value)}
    async with working(forge), working(forge):
        assert "call_soon" in vars(loop)
    assert {name: value for name, value in vars(loop).items() if callable(value)} == before


EMBEDDED = """
import asyncio, sys
from forge_jobs import Forge, Worker
forge = Forge()

@forge.handler
async def waits():
    started.set()
    await asyncio.Event().wait()

async def leaves():
    await started.wait()
    sys.exit(4)

async def main():
    global started
    started = asyncio.Event()
    task = asyncio.create_task(leaves())
    await Worker(forge, queues=["default"]).run()

asyncio.run(main())
"""


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_a_program_that_ends_by_itself_hands_back_what_its_worker_has(
    forge: Forge, database: Database
) -> None:
    job = await forge.enqueue("waits", max_attempts=1)

    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", EMBEDDED, env={**os.environ, "FORGE_DATABASE_URL": database.url}
    )

    assert await program.wait() == 4
    handed_back = await forge.jobs.get(job.id)
    assert (handed_back.state, handed_back.attempt) == (State.PENDING, 0)
    assert await forge.workers.list() == []


@pytest.fixture(params=POLICIES)
def loop_of_workers(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """An environment in which the command line has one kind of loop or the other."""
    if request.param == "uvloop":
        return {}
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "uvloop.py").write_text("raise ImportError('not installed')")
    return {"PYTHONPATH": str(tmp_path / "without")}


NOBODYS = ["callback", "signal", "alarm", "stop", "exception handler"]
ASYNCIOS = ["protocol"]  # after this, uvloop goes on by itself


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
@pytest.mark.parametrize("event_loop_policy", ["asyncio"], indirect=True)
async def test_a_worker_goes_on_after_exits_that_are_of_no_job_and_names_the_jobs_that_run(
    forge: Forge, workers: Fleet, ledger: Ledger, loop_of_workers: dict[str, str]
) -> None:
    worker = await workers.start(**loop_of_workers)
    other = await forge.enqueue("stay")
    await eventually(lambda: ledger.of("start"))
    ways = NOBODYS + (ASYNCIOS if loop_of_workers else [])
    job = await forge.enqueue("leave", {"ways": ways})

    await forge.wait(job.id, timeout=30)
    await forge.enqueue("release")
    await forge.wait(other.id, timeout=30)
    worker.terminate()
    assert await worker.wait() == 0

    assert (await forge.jobs.get(other.id)).attempt == 1
    lines = [line for line in workers.log().splitlines() if "would have ended worker" in line]
    assert len(lines) == len(ways)
    assert all(f"from no job that is known; running jobs: {other.id},{job.id}" in line for line in lines)


CALLS = [
    "workers.beat",
    "claims.claim",
    "claims.finish",
    "schedule.make_pending",
    "chores.look",
]


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
@pytest.mark.parametrize("event_loop_policy", ["asyncio"], indirect=True)
async def test_a_signal_handler_that_exits_interrupts_no_part_of_the_worker(
    forge: Forge, workers: Fleet, ledger: Ledger, loop_of_workers: dict[str, str]
) -> None:
    worker = await workers.start(**loop_of_workers)
    other = await forge.enqueue("stay")
    await eventually(lambda: ledger.of("start"))

    await forge.wait(await forge.enqueue("interrupt", {"calls": CALLS}), timeout=60)
    await forge.enqueue("release")
    await forge.wait(other.id, timeout=30)
    worker.terminate()
    assert await worker.wait() == 0

    assert (await forge.jobs.get(other.id)).attempt == 1
    assert workers.log().count("it came from no job that is known") == len(CALLS)
    assert all(word not in workers.log() for word in ("is cut off", "does not answer"))


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
@pytest.mark.parametrize("event_loop_policy", ["asyncio"], indirect=True)
async def test_a_signal_handler_interrupts_the_job_that_runs(
    forge: Forge, workers: Fleet, loop_of_workers: dict[str, str]
) -> None:
    await workers.start(**loop_of_workers)

    assert await forge.wait(await forge.enqueue("limit_by_alarm"), timeout=60) == "too slow"


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
@pytest.mark.parametrize("event_loop_policy", ["asyncio"], indirect=True)
async def test_a_signal_handler_interrupts_no_callback_that_a_job_waits_for(
    forge: Forge, workers: Fleet, loop_of_workers: dict[str, str]
) -> None:
    await workers.start(**loop_of_workers)

    await forge.wait(await forge.enqueue("wake_amid_a_signal"), timeout=60)
    assert "it came from no job that is known" in workers.log()


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
@pytest.mark.parametrize("event_loop_policy", ["asyncio"], indirect=True)
@pytest.mark.parametrize("loop_of_workers", ["asyncio"], indirect=True)
async def test_a_worker_whose_loop_cannot_run_any_more_ends(
    forge: Forge, workers: Fleet, loop_of_workers: dict[str, str]
) -> None:
    worker = await workers.start(**loop_of_workers)
    await forge.enqueue("break_loop")

    assert await worker.wait() == 1

    assert "would have ended worker" in workers.log()


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
@pytest.mark.parametrize("event_loop_policy", ["asyncio"], indirect=True)
async def test_exits_that_jobs_left_behind_do_not_change_how_a_worker_ends(
    forge: Forge, workers: Fleet, loop_of_workers: dict[str, str]
) -> None:
    worker = await workers.start(**loop_of_workers)
    job = await forge.enqueue("leave_again_and_again", max_attempts=1)
    await eventually(lambda: _is(forge, job.id, State.DEAD))

    worker.terminate()

    assert await worker.wait() == 0
    assert len([line for line in workers.log().splitlines() if "would have ended worker" in line]) < 5


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
@pytest.mark.parametrize("event_loop_policy", ["asyncio"], indirect=True)
async def test_a_signal_that_a_librarys_handler_answers_by_an_exit_stops_the_worker_with_its_grace(
    forge: Forge, workers: Fleet, ledger: Ledger, loop_of_workers: dict[str, str]
) -> None:
    worker = await workers.start(**loop_of_workers)
    nap = await forge.enqueue("nap", {"seconds": 2})
    await forge.wait(await forge.enqueue("hear_sigterm"), timeout=30)
    await eventually(lambda: ledger.of("start"))

    worker.terminate()
    assert await worker.wait() == 0

    assert (await forge.jobs.get(nap.id)).state is State.DONE


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
@pytest.mark.parametrize("event_loop_policy", ["asyncio"], indirect=True)
@pytest.mark.parametrize("where", ["handler", "task", "callback"])
async def test_the_exit_of_a_fork_that_a_handler_made_ends_the_fork(
    forge: Forge, workers: Fleet, ledger: Ledger, where: str
) -> None:
    worker = await workers.start()
    job = await forge.enqueue("fork", {"where": where}, max_attempts=1)

    assert await forge.wait(job.id, timeout=30) == 7

    assert len(ledger.of("start")) == 1
    assert worker.returncode is None
    assert await forge.wait(await forge.enqueue("nap"), timeout=30) is None


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
@pytest.mark.parametrize("event_loop_policy", ["asyncio"], indirect=True)
@pytest.mark.parametrize("kind", ["fork_in_thread", "fork_in_loop", "fork_in_task"])
async def test_a_fork_that_comes_back_from_its_handler_ends_and_answers_for_no_job(
    forge: Forge, workers: Fleet, ledger: Ledger, loop_of_workers: dict[str, str], kind: str
) -> None:
    worker = await workers.start(**loop_of_workers)
    job = await forge.enqueue(kind, max_attempts=1)

    assert await forge.wait(job.id, timeout=30) == 0

    assert len(ledger.of("start")) == 1
    assert below(worker.pid) == []
    assert await forge.wait(await forge.enqueue("nap"), timeout=30) is None


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
@pytest.mark.parametrize("event_loop_policy", ["asyncio"], indirect=True)
@pytest.mark.parametrize("kind", ["terminate_fork", "terminate_fork_in_process"])
async def test_a_fork_that_a_handler_made_can_be_terminated(
    forge: Forge, workers: Fleet, loop_of_workers: dict[str, str], kind: str
) -> None:
    await workers.start(**loop_of_workers)
    job = await forge.enqueue(kind, max_attempts=1)

    assert await forge.wait(job.id, timeout=60) == -signal.SIGTERM
