"""What a worker says of its attempts, and what becomes of the jobs of a version that failed."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest

from forge_jobs import Context, Forge, Reschedule, State
from forge_jobs.model.run import Outcome
from forge_jobs.model.track_record import TrackRecord
from forge_jobs.model.version import Version, VersionState
from forge_jobs.telemetry.events import JobsTakenBack
from tests.storage.databases import Database
from tests.storage.factories import claim, worker
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working
from tests.working.test_gate import NEW, OLD, POOL, member

QUICKLY = {"heartbeat": timedelta(seconds=0.1), "stale": timedelta(seconds=1)}


@pytest.fixture
async def epoch(forge: Forge) -> int:
    """The number that the operator writes with; an old version serves beside a new one."""
    epoch = (await forge.versions.take_over("operator")).number
    for version_id, state in ((OLD, VersionState.CURRENT), (NEW, VersionState.RAMPING)):
        version = Version(POOL, version_id, "1", "mail-worker", state, weight_percent=20)
        assert await forge.versions.put(version, epoch=epoch)
    return epoch


async def record(forge: Forge, version_id: str) -> TrackRecord:
    versions = {version.id: version for version in await forge.versions.all(POOL)}
    return versions[version_id].record


async def test_every_attempt_is_in_the_record_when_its_worker_has_gone(
    forge: Forge, database: Database, epoch: int
) -> None:
    begun = asyncio.Event()

    @forge.handler
    async def work() -> None:
        pass

    @forge.handler(max_attempts=1)
    async def fail() -> None:
        raise ValueError("no")

    @forge.handler(max_attempts=1, timeout=0.05)
    async def hang() -> None:
        await asyncio.sleep(3600)

    @forge.handler
    async def later(ctx: Context) -> None:
        raise Reschedule(datetime.now(UTC) + timedelta(hours=1))

    @forge.handler
    async def endless() -> None:
        begun.set()
        await asyncio.sleep(3600)

    async with member(database, forge, NEW, concurrency=10, grace=timedelta(0)):
        ended = [await forge.enqueue(kind) for kind in ("work", "work", "fail", "hang")]
        await forge.enqueue("later")
        stopped = await forge.enqueue("endless")
        await asyncio.gather(*(forge.wait(job.id, timeout=30) for job in ended), return_exceptions=True)
        await eventually(begun.is_set)
        await eventually(lambda: _waits_scheduled(forge))

    found = await record(forge, NEW)
    assert (found.succeeded, found.failed, found.timed_out) == (2, 2, 1)
    assert (found.postponed, found.handed_back, found.lost) == (1, 1, 0)
    assert sum(found.durations.values()) == 4
    assert (await forge.jobs.get(stopped.id)).state is State.PENDING


async def _waits_scheduled(forge: Forge) -> bool:
    return [each.scheduled for each in await forge.jobs.counts()] == [1]


@pytest.mark.parametrize(
    ("failed", "attempts", "outcome"), [(False, 2, Outcome.LOST), (True, 1, Outcome.HANDED_BACK)]
)
async def test_jobs_of_dead_workers_lose_no_attempt_only_where_their_version_failed(
    forge: Forge,
    database: Database,
    events: Events,
    epoch: int,
    failed: bool,
    attempts: int,
    outcome: Outcome,
) -> None:
    @forge.handler
    async def work() -> None:
        pass

    await forge.queues.set("default", backoff_enabled=False)
    dead = await worker(forge.storage, pool=POOL, version_id=NEW)
    job = await forge.enqueue("work")
    assert len(await claim(forge.storage, dead)) == 1
    if failed:
        assert await forge.versions.move(
            POOL, NEW, VersionState.FAILED, failure_message="It hangs.", epoch=epoch
        )

    async with working(forge, **QUICKLY):
        await forge.wait(job.id, timeout=30)

    found = await forge.jobs.get(job.id)
    assert found.attempt == attempts
    assert len(found.failures) == attempts - 1
    assert [run.outcome for event in events.of(JobsTakenBack) for run in event.runs] == [outcome]
    assert (await record(forge, NEW)).lost == 1


async def test_a_job_that_blocks_its_thread_comes_back_without_an_attempt_when_its_pod_is_stopped(
    forge: Forge, database: Database, epoch: int
) -> None:
    begun, go = threading.Event(), threading.Event()

    @forge.handler
    def hang() -> None:
        begun.set()
        go.wait(60)

    job = await forge.enqueue("hang", max_attempts=1)
    try:
        async with member(database, forge, NEW, grace=timedelta(0)):
            await eventually(begun.is_set)
            assert await forge.versions.move(POOL, NEW, VersionState.FAILED, epoch=epoch)
    finally:
        go.set()

    found = await forge.jobs.get(job.id)
    assert (found.state, found.attempt) == (State.PENDING, 0)
