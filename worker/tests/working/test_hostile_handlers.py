"""Whatever a handler does, it is its own job's business: the worker and the other jobs go on."""

import asyncio
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from forge_jobs import Dead, Forge, Retry, State, Worker
from forge_jobs.model.job import Reason
from forge_jobs.worker import runners
from tests.storage.databases import Database
from tests.working.in_a_process import declared, plain, plain_with_context
from tests.working.running import working

ON_ONE_DATABASE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
"""What a process does and says is the same on the other."""


async def run(forge: Forge) -> None:
    """Run everything that is due; a worker that is stuck fails the test."""
    async with asyncio.timeout(30):
        await Worker(forge, queues=["default"], concurrency=2).run(until_empty=True)


@pytest.mark.parametrize(
    "reason", ["nothing\x00here", "half a \ud800 pair", ValueError("not a text"), 7, "x" * 10**6]
)
@pytest.mark.parametrize("decision", [Dead, lambda reason: Retry(None, reason)])
async def test_a_reason_that_no_database_can_hold_is_kept_as_text(
    forge: Forge, decision: Any, reason: Any
) -> None:
    @forge.handler(max_attempts=1)
    async def gives_up() -> None:
        raise decision(reason)

    @forge.handler
    async def works() -> None:
        pass

    broken, other = await gives_up.enqueue(), await works.enqueue()
    await run(forge)

    found = await forge.jobs.get(broken.id)
    assert found.state is State.DEAD
    assert found.error is not None and 0 < len(found.error) < 10_000
    assert (await forge.jobs.get(other.id)).state is State.DONE


@pytest.fixture
async def children(forge: Forge) -> Forge:
    """A forge whose handlers run in processes of their own."""
    await forge.queues.set(
        "default", backoff_base=timedelta(minutes=10)
    )  # no retry comes before all have run
    for handler in declared.handlers.values():
        forge.handlers.add(handler)
    return forge


async def test_what_a_handler_in_a_process_of_its_own_decides_is_done(children: Forge) -> None:
    forge = children
    retry = await forge.enqueue("in_child_retry")
    rescheduled = await forge.enqueue("in_child_rescheduled")
    dead = await forge.enqueue("in_child_dead")
    await run(forge)

    found = await forge.jobs.get(retry.id)
    assert (found.reason, found.error, found.attempt) == (Reason.RETRY, "later", 1)
    assert found.run_at is not None and found.run_at > found.created_at + timedelta(hours=1)
    found = await forge.jobs.get(rescheduled.id)
    assert (found.reason, found.run_at) == (Reason.RESCHEDULED, datetime(2100, 1, 1, tzinfo=UTC))
    assert (await forge.jobs.get(dead.id)).error == "never"

    throttled = await forge.enqueue("in_child_throttled")
    await run(forge)
    found = await forge.jobs.get(throttled.id)
    assert (found.reason, found.attempt) == (Reason.THROTTLED, 0)


HOW_IT_ENDED = {
    "in_child_crash": "its process ended with exit code 3",
    "in_child_killed": "its process was killed by signal 9 (SIGKILL)",
    "in_child_exit": "SystemExit: 4",
    "in_child_interrupt": "KeyboardInterrupt",
    "in_child_fork": "its process ended with exit code 5",
    "in_child_writes_everywhere": "its process wrote something other than its answer to the socket",
}


@ON_ONE_DATABASE
async def test_how_a_process_ended_is_said(children: Forge) -> None:
    jobs = {kind: await children.enqueue(kind) for kind in HOW_IT_ENDED}
    await run(children)

    ended = {kind: await children.jobs.get(job) for kind, job in jobs.items()}
    assert {kind: job.reason for kind, job in ended.items()} == dict.fromkeys(jobs, Reason.RETRY)
    assert {kind: (job.error or "").partition("\n")[0] for kind, job in ended.items()} == HOW_IT_ENDED


@ON_ONE_DATABASE
async def test_a_decision_of_the_program_s_own_is_done_in_a_process_too(children: Forge) -> None:
    said = {"in_child_gone": "the file is gone", "in_child_unsaid": "Unsaid: the file"}
    jobs = {kind: await children.enqueue(kind) for kind in said}
    await run(children)

    for kind, job in jobs.items():
        found = await children.jobs.get(job.id)
        assert (found.state, found.attempt) == (State.DEAD, 1), kind
        assert found.error is not None and said[kind] in found.error.partition("\n")[0]


@ON_ONE_DATABASE
async def test_a_failure_in_a_process_keeps_what_caused_it(children: Forge) -> None:
    job = await children.enqueue("in_child_chained")
    await run(children)

    error = (await children.jobs.get(job.id)).error or ""
    assert "could not" in error.splitlines()[0]
    assert error.splitlines()[1] == "caused by KeyError: 'the real reason'"
    assert "in in_child_chained" in error


@ON_ONE_DATABASE
async def test_a_fork_of_a_handlers_process_answers_for_nobody(children: Forge) -> None:
    forge = children
    async with working(forge, concurrency=1):
        twice = await forge.enqueue("in_child_returns_twice")
        assert await forge.wait(twice.id, timeout=30) == "twice"
        for number in range(4):
            echo = await forge.enqueue("in_child_echo", {"number": number})
            assert await forge.wait(echo.id, timeout=30) == number
        forks = await forge.enqueue("in_child_forks")
        assert await forge.wait(forks.id, timeout=30) == 7


@ON_ONE_DATABASE
async def test_a_script_that_works_when_it_is_imported_is_no_worker_in_a_handlers_process(
    forge: Forge, database: Database, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace('if __name__ == "__main__":', "if True:"))
    ended = await asyncio.create_subprocess_exec(
        sys.executable, str(script), database.url, stderr=asyncio.subprocess.PIPE
    )
    _, said = await ended.communicate()
    assert ended.returncode == 0, said.decode()

    [adds] = [job for job in await forge.jobs.list() if job.kind == "adds"]
    assert adds.state is State.DEAD
    assert "allowed is to open it below if __name__ == '__main__'" in (adds.error or "").partition("\n")[0]


@ON_ONE_DATABASE
async def test_a_program_that_is_run_as_a_script_has_its_handlers_in_processes_too(
    forge: Forge, database: Database, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    ended = await asyncio.create_subprocess_exec(
        sys.executable, str(script), database.url, stderr=asyncio.subprocess.PIPE
    )
    _, said = await ended.communicate()
    assert ended.returncode == 0, said.decode()

    found = {job.kind: job for job in await forge.jobs.list()}
    assert found["adds"].state is State.DONE
    assert (found["gone"].state, found["gone"].error) == (State.DEAD, "the file is gone")
    assert (found["odd"].error or "").partition("\n")[0].endswith("Odd: very odd")


SCRIPT = """
import asyncio, sys
from forge_jobs import Dead, Forge, Worker

forge = Forge(sys.argv[1])

class Gone(Dead):
    def __init__(self, *, name): super().__init__(f"{name} is gone")

class Odd(Exception):
    def __init__(self, *, name): super().__init__(f"{name} odd")

@forge.handler(executor="process", max_attempts=1)
def adds(left: int, right: int) -> int: return left + right

@forge.handler(executor="process")
def gone(): raise Gone(name="the file")

@forge.handler(executor="process", max_attempts=1)
def odd(): raise Odd(name="very")

async def main():
    async with forge:
        await adds.enqueue(left=1, right=2)
        await gone.enqueue()
        await odd.enqueue()
        await Worker(forge, queues=["default"]).run(until_empty=True)

if __name__ == "__main__":
    asyncio.run(main())
"""


@ON_ONE_DATABASE
async def test_a_failure_in_a_process_keeps_its_traceback(children: Forge) -> None:
    job = await children.enqueue("in_child_odd")
    await run(children)

    error = (await children.jobs.get(job.id)).error or ""
    assert "very odd" in error.partition("\n")[0]
    assert "in in_child_odd" in error


@pytest.mark.parametrize("kind", ["in_child_crash", "in_child_odd"])
async def test_a_process_that_breaks_is_a_failure_of_its_job_only(children: Forge, kind: str) -> None:
    @children.handler
    async def works() -> None:
        pass

    broken, other = await children.enqueue(kind), await works.enqueue()
    await run(children)

    assert (await children.jobs.get(broken.id)).reason is Reason.RETRY
    assert (await children.jobs.get(other.id)).state is State.DONE


@ON_ONE_DATABASE
async def test_a_result_that_cannot_leave_its_process_does_not_run_the_job_again(children: Forge) -> None:
    job = await children.enqueue("in_child_unpicklable")
    await run(children)

    found = await children.jobs.get(job.id)
    assert (found.state, found.attempt, found.result) == (State.DONE, 1, None)
    assert found.error is not None and "its result was not kept" in found.error


IS_NOT_DONE = {
    "in_child_coroutine": "The handler returned a coroutine, which nothing awaits",
    "in_child_generator": "The handler returned a generator, whose work is not done",
    "in_child_enqueues_by_its_program": "forge.enqueue is used in a handler with executor='process'",
    "in_child_enqueues_by_a_handler": "forge.enqueue_many is used in a handler with executor='process'",
    "in_child_waits_for_a_job": "forge.wait is used in a handler with executor='process'",
    "in_child_acquires": "ctx.rate_limit is used in a handler with executor='process'",
}


@ON_ONE_DATABASE
async def test_what_a_process_cannot_do_is_said_and_never_passed_over(children: Forge) -> None:
    jobs = {kind: await children.enqueue(kind) for kind in IS_NOT_DONE}
    await run(children)

    for kind, job in jobs.items():
        found = await children.jobs.get(job.id)
        assert found.reason is Reason.RETRY, kind
        assert found.error is not None and IS_NOT_DONE[kind] in found.error.splitlines()[0]


async def test_what_is_raised_past_every_exception_fails_its_job_only(forge: Forge) -> None:
    class Uncaught(BaseException):
        """No Exception."""

    @forge.handler(max_attempts=1)
    async def breaks() -> None:
        raise Uncaught("all the way")

    @forge.handler
    async def works() -> None:
        pass

    broken = [await breaks.enqueue() for _ in range(3)]  # more than there are runners
    other = await works.enqueue()
    await run(forge)

    assert {(await forge.jobs.get(job.id)).state for job in broken} == {State.DEAD}
    assert (await forge.jobs.get(other.id)).state is State.DONE


@ON_ONE_DATABASE
async def test_a_function_that_is_no_handler_by_its_name_runs_in_a_process_too(forge: Forge) -> None:
    forge.handler(kind="add", executor="process", max_attempts=1)(plain)
    forge.handler(kind="tell", executor="process", max_attempts=1)(plain_with_context)
    add, tell = await forge.enqueue("add", {"left": 2, "right": 3}), await forge.enqueue("tell")
    await run(forge)
    assert await forge.wait(add.id, timeout=30) == 5
    assert await forge.wait(tell.id, timeout=30) == "tell in default"


async def test_threads_that_did_not_stop_in_time_leave_others_theirs(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "TELL_EVERY", 0.05)
    release = threading.Event()

    @forge.handler(max_attempts=1, timeout=0.3)
    def stays() -> None:
        release.wait(60)

    @forge.handler(max_attempts=1, timeout=5)
    def works() -> None:
        pass

    try:
        stuck = [await stays.enqueue() for _ in range(2)]  # as many as there are runners
        others = [await works.enqueue() for _ in range(2)]
        await run(forge)
    finally:
        release.set()
    assert {(await forge.jobs.get(job.id)).error for job in stuck} == {
        "timed out after 0.3 s; its handler goes on"
    }
    assert {(await forge.jobs.get(job.id)).state for job in others} == {State.DONE}


async def test_the_reason_behind_an_error_is_kept_with_its_job(forge: Forge) -> None:
    async def fails() -> None:
        raise ValueError("the real reason")

    @forge.handler(max_attempts=1)
    async def in_group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fails())

    job = await in_group.enqueue()
    await run(forge)

    found = await forge.jobs.get(job.id)
    assert found.error is not None
    assert found.error.splitlines()[:2] == [
        "ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)",
        "with ValueError: the real reason",
    ]
