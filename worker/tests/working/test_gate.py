"""A worker and its version's gate: what it does while it may not claim, and how soon it may again."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs import Context, Forge, State, Worker, WorkerInfo
from forge_jobs.model.version import Version, VersionState
from forge_jobs.telemetry.events import Event, GateClosed, GateOpened
from forge_jobs.worker.hand import Hand
from tests.storage.databases import Database
from tests.working.eventually import eventually
from tests.working.running import working

POOL, OLD, NEW = "6f0c4e1a-pool", "bbbbbbb1", "bbbbbbb2"


@pytest.fixture
async def epoch(forge: Forge) -> int:
    return (await forge.versions.take_over("operator")).number


async def put(forge: Forge, epoch: int, version_id: str, state: VersionState) -> None:
    assert await forge.versions.put(Version(POOL, version_id, "1", "mail-worker", state), epoch=epoch)


@asynccontextmanager
async def member(
    database: Database, forge: Forge, version_id: str, *queues: str, **options: object
) -> AsyncIterator[Worker]:
    """A worker of this version, in a process of its own as far as its database can tell."""
    settings = replace(forge.settings, pool=POOL, version_id=version_id, pod=f"pod-of-{version_id}")
    own = Forge(storage=database.storage(), settings=settings)
    for handler in forge.handlers.values():
        own.handlers.add(handler)
    rarely = {"heartbeat": timedelta(seconds=60), "stale": timedelta(seconds=150)}  # what is soon, was told
    async with working(own, *queues, **rarely, **options) as worker:
        yield worker


async def acknowledged(forge: Forge, version_id: str) -> bool:
    versions = {version.id: version for version in await forge.versions.all(POOL)}
    return versions[version_id].workers > 0 and versions[version_id].acknowledged


async def test_a_worker_of_a_pending_version_begins_when_it_is_promoted_not_when_it_would_look(
    forge: Forge, database: Database, epoch: int
) -> None:
    began: list[int] = []

    @forge.handler
    async def note(ctx: Context) -> None:
        began.append(ctx.job_id)

    await put(forge, epoch, NEW, VersionState.PENDING)
    jobs = await forge.enqueue_many("note", [{}] * 20)
    async with member(database, forge, NEW) as worker:
        await eventually(lambda: acknowledged(forge, NEW))
        more = await forge.enqueue("note")  # an enqueue that it hears
        await looked(forge)
        assert began == []
        assert {(await forge.jobs.get(job.id)).state for job in [*jobs, more]} == {State.PENDING}
        looks_rarely(worker)

        await forge.versions.promote(POOL, NEW, epoch=epoch)
        await eventually(lambda: len(began) == 21)


def looks_rarely(worker: Worker) -> None:
    """It is as if the worker had found nothing for long."""
    assert worker.session is not None
    for queue in worker.session._claimer.queues.values():
        queue.look_at = time.monotonic() + 3600


async def looked(forge: Forge) -> None:
    """Return when a worker beside the gate would have had time to take everything."""
    if "beside" not in forge.handlers:
        forge.handler(kind="beside", queue="beside")(_beside)
    await forge.ensure_queues("beside")
    for _ in range(3):
        job = await forge.enqueue("beside", queue="beside")
        await Worker(forge, queues=["beside"], concurrency=1).run(until_empty=True)
        await forge.wait(job.id, timeout=30)


async def _beside() -> None:
    pass


async def test_a_worker_whose_version_drains_finishes_what_runs_and_hands_back_the_rest(
    forge: Forge, database: Database, epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, running = asyncio.Event(), 0
    # It claims ahead and keeps what it has, as if the jobs were short, however busy this machine is.
    monkeypatch.setattr(Hand, "ahead", 46)
    monkeypatch.setattr(Hand, "hand_back_surplus", lambda *_: None)

    @forge.handler
    async def hold() -> None:
        nonlocal running
        running += 1
        await go.wait()

    await put(forge, epoch, OLD, VersionState.CURRENT)
    await put(forge, epoch, NEW, VersionState.PENDING)
    held = await forge.enqueue_many("hold", [{}] * 50)
    async with member(database, forge, OLD) as worker:
        await eventually(lambda: running == 4 and _ahead(worker) == 46)

        await forge.versions.promote(POOL, NEW, epoch=epoch)

        await eventually(lambda: _in_progress(forge, 4))
        assert _ahead(worker) == 0
        states = [(await forge.jobs.get(job.id)) for job in held]
        assert sorted(job.attempt for job in states) == [0] * 46 + [1] * 4
        assert not (await drained(forge, OLD))

        go.set()
        await eventually(lambda: drained(forge, OLD))
        assert running == 4
        done = [job.id for job in held if (await forge.jobs.get(job.id)).state is State.DONE]
        assert len(done) == 4


def _ahead(worker: Worker) -> int:
    assert worker.session is not None
    return len(worker.session.hand) - len(worker.session.hand.running)


async def _in_progress(forge: Forge, count: int) -> bool:
    return [counts.in_progress for counts in await forge.jobs.counts() if counts.queue == "default"] == [
        count
    ]


async def drained(forge: Forge, version_id: str) -> bool:
    [version] = [each for each in await forge.versions.all(POOL) if each.id == version_id]
    return version.state is VersionState.DRAINING and version.acknowledged and version.in_progress == 0


async def test_a_worker_that_is_told_to_retire_stops_and_may_be_told_to_go_on(
    forge: Forge, database: Database, epoch: int
) -> None:
    done: list[int] = []

    @forge.handler
    async def note(number: int) -> None:
        done.append(number)

    await put(forge, epoch, OLD, VersionState.CURRENT)
    async with member(database, forge, OLD) as worker:
        assert worker.session is not None
        me = worker.session.info.id
        said: list[Event] = []
        worker.forge.telemetry.subscribe(said.append)
        await forge.versions.cordon([me], True, epoch=epoch)
        await eventually(lambda: acknowledged(forge, OLD))
        await forge.enqueue("note", {"number": 1})
        await looked(forge)
        assert done == []

        await forge.versions.cordon([me], False, epoch=epoch)
        await eventually(lambda: done == [1])
        label = worker.session.info.label
        assert [each for each in said if isinstance(each, GateClosed | GateOpened)] == [
            GateClosed(label, running=0),
            GateOpened(label),
        ]


async def test_a_worker_behind_a_closed_gate_holds_no_slots(
    forge: Forge, database: Database, epoch: int
) -> None:
    go, running = asyncio.Event(), 0

    @forge.handler(queue="narrow")
    async def hold() -> None:
        nonlocal running
        running += 1
        await go.wait()

    await forge.queues.set("narrow", concurrency=3)
    await put(forge, epoch, OLD, VersionState.CURRENT)
    await put(forge, epoch, NEW, VersionState.PENDING)
    async with (
        member(database, forge, OLD, "narrow", concurrency=1),
        member(database, forge, NEW, "narrow", concurrency=10),
    ):
        await forge.enqueue_many("hold", [{}] * 10)
        await eventually(lambda: running == 1)

        await forge.versions.promote(POOL, NEW, epoch=epoch)
        await eventually(lambda: running == 3)  # one still held by the old one, two by the new

        go.set()
        await eventually(lambda: running == 10)


async def test_a_worker_behind_a_closed_gate_asks_for_nothing(
    forge: Forge, database: Database, epoch: int
) -> None:
    @forge.handler(queue="narrow")
    async def note() -> None:
        pass

    await forge.queues.set("narrow", concurrency=3)
    await put(forge, epoch, OLD, VersionState.DRAINING)
    asked: list[str] = []
    async with member(database, forge, OLD, "narrow") as worker:
        await eventually(lambda: acknowledged(forge, OLD))
        slots, claims = worker.forge.storage.slots, worker.forge.storage.claims
        take, claim = slots.take, claims.claim

        def noting(what: str, call: Callable[..., Any]) -> Callable[..., Any]:
            def noted(*args: Any, **options: Any) -> Any:
                asked.append(what)
                return call(*args, **options)

            return noted

        slots.take = noting("slots", take)  # type: ignore[method-assign]
        claims.claim = noting("jobs", claim)  # type: ignore[method-assign]
        await eventually(lambda: not worker.session._claimer.is_open)  # type: ignore[union-attr]
        await looked(forge)  # what was on its way has come back
        asked.clear()
        await forge.enqueue_many("note", [{}] * 5, queue="narrow")
        await looked(forge)

        assert asked == []
        await forge.versions.move(POOL, OLD, VersionState.CURRENT, epoch=epoch)
        await eventually(lambda: {"slots", "jobs"} <= set(asked))


async def test_what_a_workers_attempts_came_to_is_known_with_its_pod(
    forge: Forge, database: Database, epoch: int
) -> None:
    @forge.handler(max_attempts=1)
    async def breaks(ends: str) -> None:
        await asyncio.sleep(0.02)
        if ends == "dead":
            raise ValueError("broken")

    await put(forge, epoch, OLD, VersionState.CURRENT)
    async with member(database, forge, OLD) as worker:
        for ends in ("done", "done", "dead"):
            await forge.enqueue("breaks", {"ends": ends})
        await eventually(lambda: worker.session and worker.session.counts.failed == 1)
        await eventually(lambda: worker.session and worker.session.counts.succeeded == 2)
        assert worker.session is not None
        await forge.versions.cordon([worker.session.info.id], True, epoch=epoch)  # so that it beats at once

        info = await eventually(lambda: _counted(forge))
        assert (info.succeeded, info.failed, info.pod) == (2, 1, f"pod-of-{OLD}")
        assert info.run_seconds >= 0.06
        assert (info.pool, info.version_id) == (POOL, OLD)


async def _counted(forge: Forge) -> WorkerInfo | None:
    [info] = await forge.workers.list()
    return info if info.failed else None
