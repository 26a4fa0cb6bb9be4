"""The processes of `executor="process"` handlers: their number, their names, and how long each is kept."""

import itertools
from collections.abc import AsyncIterator

import pytest

from forge_jobs import Forge, State
from forge_jobs.telemetry.events import JobProcessReplaced
from tests.storage.databases import Database
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.in_a_process import enqueue_in_loop, enqueue_next, grow, nap, tell_names, tell_pid
from tests.working.running import working
from tests.working.test_context import run

MEBIBYTE = 1024 * 1024


@pytest.fixture
def limits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment says of processes of handlers."""
    for name, value in getattr(request, "param", {}).items():
        monkeypatch.setenv(name, str(value))


@pytest.fixture
async def forge(database: Database, limits: None) -> AsyncIterator[Forge]:
    async with Forge(storage=database.storage()) as forge:
        yield forge


def limited(**limits: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("limits", [limits], indirect=True)


async def aside() -> None:
    pass


@limited(FORGE_JOB_PROCESS_JOBS=2)
async def test_a_process_is_replaced_when_it_has_run_its_jobs(forge: Forge, events: Events) -> None:
    handler = forge.handler(executor="process", max_attempts=1)(tell_pid)
    pids = []
    async with working(forge, concurrency=1):
        for _ in range(5):
            pids.append(await forge.wait(await handler.enqueue(), timeout=30))

    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [2, 2, 1]
    assert [(event.process_name, event.why) for event in events.of(JobProcessReplaced)] == [
        ("forge-process-1", "it has run 2 jobs of 2"),
        ("forge-process-2", "it has run 2 jobs of 2"),
    ]


@limited(FORGE_JOB_PROCESS_BYTES=150 * MEBIBYTE)
async def test_a_process_that_leaks_is_replaced(forge: Forge, events: Events) -> None:
    handler = forge.handler(executor="process", max_attempts=1)(grow)
    async with working(forge, concurrency=1):
        pids = [await forge.wait(await handler.enqueue(), timeout=30) for _ in range(4)]

    assert len(set(pids)) >= 2
    replaced = events.of(JobProcessReplaced)
    assert replaced and all(event.why.endswith(" MiB of 150 MiB") for event in replaced)


@limited(FORGE_JOB_PROCESSES=1)
async def test_only_so_many_processes_run_beside_other_handlers(forge: Forge) -> None:
    handler = forge.handler(executor="process", max_attempts=1)(nap)
    other = forge.handler(aside)
    async with working(forge, concurrency=4):
        jobs = await handler.enqueue_many([{"seconds": 0.3}] * 3)
        await eventually(lambda: _in_progress(forge, 3))
        await forge.wait(await other.enqueue(), timeout=30)
        times = sorted(await forge.wait_all(jobs, timeout=30))

    assert all(ended <= begun for (_, ended), (begun, _) in itertools.pairwise(times))


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@limited(FORGE_JOB_PROCESSES=1)
async def test_the_time_without_a_process_is_not_the_timeouts(forge: Forge) -> None:
    handler = forge.handler(executor="process", max_attempts=1, timeout=4)(nap)
    begun = forge.handler(executor="process", max_attempts=1)(tell_pid)
    async with working(forge, concurrency=4):
        await forge.wait(await begun.enqueue(), timeout=30)  # the process is there
        jobs = await handler.enqueue_many([{"seconds": 2.5}] * 3)
        assert len(await forge.wait_all(jobs, timeout=30)) == 3  # the third begins after its timeout
        late = await handler.enqueue_many([{"seconds": 2.5}, {"seconds": 60}])
        await eventually(lambda: _dead(forge, late[1].id))

    assert (await forge.jobs.get(late[0].id)).state is State.DONE
    assert "timed out" in str((await forge.jobs.get(late[1].id)).error)


@limited(FORGE_JOB_PROCESSES=1)
async def test_a_job_that_waits_for_a_process_is_cancelled_at_once(forge: Forge) -> None:
    handler = forge.handler(executor="process", max_attempts=1)(nap)
    async with working(forge, concurrency=4):
        first, second = await handler.enqueue_many([{"seconds": 2}, {"seconds": 60}])
        await eventually(lambda: _in_progress(forge, 2))
        await forge.jobs.cancel(second)
        await eventually(lambda: _dead(forge, second.id))
        assert (await forge.jobs.get(first.id)).state is State.IN_PROGRESS
        await forge.wait(first, timeout=30)


async def test_a_process_has_a_name(forge: Forge) -> None:
    job = await forge.handler(executor="process", max_attempts=1)(tell_names).enqueue()
    await run(forge)

    assert await forge.wait(job, timeout=30) == ["forge-process-1", "forge-process-1"]


async def test_a_process_enqueues_by_its_worker(forge: Forge) -> None:
    job = await forge.handler(executor="process", max_attempts=1)(enqueue_next).enqueue()
    await run(forge)

    first, second, is_duplicate, is_second_duplicate, said = await forge.wait(job, timeout=30)
    assert (first, is_duplicate, is_second_duplicate) == (second, False, True)
    [made] = await forge.jobs.list(kind="next")
    assert (made.id, made.payload) == (first, b'{"number":1}')
    assert [sentence.partition(", allowed")[0].partition(" is ")[0] for sentence in said] == [
        "The connection of ctx.enqueue",
        "enqueue",
        "The priority",
    ]
    assert all(sentence.endswith(".") for sentence in said)


async def test_a_loop_in_a_process_enqueues_by_its_worker(forge: Forge) -> None:
    job = await forge.handler(executor="process", max_attempts=1)(enqueue_in_loop).enqueue()
    await run(forge)

    made = await forge.wait(job, timeout=30)
    assert [found.id for found in await forge.jobs.list(kind="next")] == [made]


async def _in_progress(forge: Forge, count: int) -> bool:
    return await forge.jobs.count(state="in_progress") == count


async def _dead(forge: Forge, job_id: int) -> bool:
    return (await forge.jobs.get(job_id)).state is State.DEAD
