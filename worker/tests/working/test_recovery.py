"""What becomes of the jobs of lost workers, and of workers that somebody gives up."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from forge_jobs import Forge, InvalidInput, State
from forge_jobs.maintenance.reaper import Reaper
from forge_jobs.model.chore import Chore
from forge_jobs.model.kind import OnLost
from forge_jobs.model.version import Version, VersionState
from forge_jobs.model.worker import Beats
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.telemetry.events import JobsTakenBack
from tests.storage.clock import Clock
from tests.storage.factories import claim, leader, running, worker
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working


@pytest.fixture
async def storage(forge: Forge) -> Storage:
    return forge.storage


async def lose(forge: Forge, kind: str, *, fails: bool = False, **facts: object) -> int:
    """A worker is lost with a job of the kind, or `fails` with its version; what becomes of that is written. Return the job's id."""
    me = await worker(forge.storage, pool="pool", version_id="new")
    claimed = await running(forge.storage, me, kind, **facts)
    if fails:
        epoch = (await forge.storage.versions.take_over("operator-1")).number
        given = Version("pool", "new", "1.0", "mail-worker-1-0-new", VersionState.PENDING)
        assert await forge.storage.versions.put(given, epoch=epoch)
        assert await forge.storage.versions.move("pool", "new", VersionState.FAILED, epoch=epoch)
    await forge.storage.workers.deregister(me)
    await take_back(forge)
    return claimed.job_id


async def take_back(forge: Forge) -> None:
    async with reaping(forge) as (reaper, epoch):
        await reaper.reap(epoch)


@asynccontextmanager
async def reaping(forge: Forge) -> AsyncIterator[tuple[Reaper, int]]:
    """A leader's reaper meanwhile, and the epoch."""
    epoch = await leader(forge.storage)
    found = await forge.storage.leadership.get()
    assert found is not None
    yield (
        Reaper(
            forge.storage,
            forge.telemetry,
            found.worker_id,
            heartbeat=timedelta(seconds=5),
            stale=timedelta(seconds=30),
        ),
        epoch,
    )
    await forge.storage.leadership.resign(found.worker_id)


async def declare(forge: Forge, on_lost: OnLost | str | None) -> None:
    """A program has a handler, and publishes what it declares."""

    @forge.handler(on_lost=on_lost)
    async def work() -> None: ...

    await forge.publish()


@pytest.mark.parametrize("on_lost", [None, "retry"])
async def test_a_lost_run_counts(forge: Forge, on_lost: str | None) -> None:
    await declare(forge, on_lost)

    job = await forge.jobs.get(await lose(forge, "work"))

    assert (job.state, job.attempt, job.error) == (State.RETRYING, 1, "worker lost")


async def test_a_job_that_must_not_be_done_twice_is_dead(forge: Forge) -> None:
    await declare(forge, OnLost.DEAD)

    job = await forge.jobs.get(await lose(forge, "work"))

    assert (job.state, job.attempt, job.error) == (State.DEAD, 1, "worker lost")


@pytest.mark.parametrize(
    ("on_lost", "state", "attempt"),
    [(None, State.PENDING, 0), ("refund", State.PENDING, 0), ("dead", State.DEAD, 1)],
)
async def test_a_job_of_a_version_that_failed_loses_no_attempt_unless_it_must_not_be_done_twice(
    forge: Forge, on_lost: str | None, state: State, attempt: int
) -> None:
    await declare(forge, on_lost)

    job = await forge.jobs.get(await lose(forge, "work", fails=True))

    assert (job.state, job.attempt) == (state, attempt)


async def test_a_lost_run_is_refunded_where_the_handler_says_so(forge: Forge, events: Events) -> None:
    await declare(forge, "refund")

    job = await forge.jobs.get(await lose(forge, "work", max_attempts=1))

    assert (job.state, job.attempt, job.error) == (State.RETRYING, 0, "worker lost")
    [run] = events.of(JobsTakenBack)[-1].runs
    assert (run.outcome, run.error) == ("lost", "worker lost")


async def test_a_job_that_always_loses_its_worker_ends(forge: Forge, clock: Clock) -> None:
    await declare(forge, "refund")
    job_id = await lose(forge, "work", max_attempts=2)

    attempts = []
    while (found := await forge.jobs.get(job_id)).state is State.RETRYING:
        attempts.append(found.attempt)
        await clock.advance(hours=1)
        await forge.storage.schedule.make_pending()
        me = await worker(forge.storage)
        await claim(forge.storage, me)
        await forge.storage.workers.deregister(me)
        await take_back(forge)

    assert attempts == [0, 0, 1]
    assert (found.state, found.attempt) == (State.DEAD, 2)
    assert [failure.error for failure in found.failures] == ["worker lost"] * 4


async def test_a_leader_that_is_alone_looks_for_nobodys_beat(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats, looks = forge.storage.workers.beats, list[Beats]()

    async def look() -> Beats:
        looks.append(await beats())
        return looks[-1]

    monkeypatch.setattr(forge.storage.workers, "beats", look)
    async with reaping(forge) as (reaper, epoch):
        await reaper.reap(epoch, is_idle={Chore.REAPING}.__contains__)
        assert not looks
        await reaper.reap(epoch)
        assert len(looks) == 1


def test_what_becomes_of_lost_jobs_is_one_of_three() -> None:
    async def work() -> None: ...

    forge = Forge("sqlite://:memory:")
    with pytest.raises(InvalidInput, match=r"^on_lost is 'leave', allowed is one of retry, refund, dead\.$"):
        forge.handler(on_lost="leave")(work)  # type: ignore[call-overload]


async def test_silent_workers_are_swept_with_their_jobs(forge: Forge, clock: Clock) -> None:
    silent = await worker(forge.storage, label="shop-worker-1-silent")
    job = await running(forge.storage, silent)
    await clock.advance(seconds=20)
    await worker(forge.storage, label="shop-worker-1-fresh")

    assert await forge.workers.sweep() == []
    [would] = await forge.workers.sweep(stale=16, dry_run=True)
    assert (would.worker.label, would.job_ids) == ("shop-worker-1-silent", (job.job_id,))
    assert len(await forge.workers.list()) == 2

    assert [swept.worker.id for swept in await forge.workers.sweep(stale=16)] == [silent]
    assert [worker.label for worker in await forge.workers.list()] == ["shop-worker-1-fresh"]
    await take_back(forge)
    assert (await forge.jobs.get(job.job_id)).state is State.RETRYING


async def test_workers_are_given_up_by_id_or_label(forge: Forge) -> None:
    one = await worker(forge.storage, label="shop-worker-1-a")
    await worker(forge.storage, label="shop-worker-1-b")

    with pytest.raises(InvalidInput, match=r"^There is no worker 'shop-worker-1-c'; forge-jobs workers list"):
        await forge.workers.give_up([one, "shop-worker-1-c"])
    assert len(await forge.workers.list()) == 2

    given_up = await forge.workers.give_up([one, "shop-worker-1-b", one])
    assert [each.worker.label for each in given_up] == ["shop-worker-1-a", "shop-worker-1-b"]
    assert await forge.workers.list() == []


async def test_a_worker_that_lives_and_is_given_up_begins_anew(forge: Forge) -> None:
    @forge.handler
    async def work() -> str:
        return "done"

    async with working(forge, heartbeat=0.1) as running_worker:
        before = (await forge.workers.list())[0].id
        await eventually(lambda: forge.workers.give_up([before]))  # unless it beats in that moment

        async def is_another() -> bool:
            return [worker.id != before for worker in await forge.workers.list()] == [True]

        await eventually(is_another)
        assert running_worker.session is not None
        assert await forge.wait(await work.enqueue(), timeout=60) == "done"


@pytest.mark.parametrize("stale", [0, timedelta(seconds=14)])
async def test_a_sweep_of_workers_that_are_only_quiet_is_refused(
    forge: Forge, stale: float | timedelta
) -> None:
    with pytest.raises(InvalidInput, match=r"^stale is .*, allowed is 15 s or more"):
        await forge.workers.sweep(stale=stale)
