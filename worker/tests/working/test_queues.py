"""One worker, several queues."""

import asyncio
from typing import Any

import pytest

from forge_jobs import Context, Forge, InvalidInput, State, Worker
from forge_jobs.errors import StorageBusy
from forge_jobs.storage.outage import Outage
from forge_jobs.telemetry.events import DatabaseBack, DatabaseLost
from forge_jobs.worker import scouts
from tests.storage.databases import Database
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working


async def test_a_worker_runs_only_the_queues_that_it_declares(forge: Forge) -> None:
    @forge.handler
    async def work() -> None:
        pass

    await forge.queues.ensure("mine", "theirs")
    mine = await forge.enqueue("work", queue="mine")
    theirs = await forge.enqueue("work", queue="theirs")

    await Worker(forge, queues=["mine"], concurrency=2).run(until_empty=True)

    assert (await forge.jobs.get(mine.id)).state is State.DONE
    assert (await forge.jobs.get(theirs.id)).state is State.PENDING


@pytest.mark.parametrize("queues", [[], [""], ["a,b"], ["white space"], ["x" * 200]])
def test_a_worker_without_proper_queues_is_refused(queues: list[str]) -> None:
    with pytest.raises(InvalidInput, match=r"allowed"):
        Worker(Forge("sqlite://:memory:"), queues=queues)


async def test_a_big_backlog_of_one_queue_does_not_starve_another(forge: Forge) -> None:
    order: list[str] = []

    @forge.handler
    async def work(queue: str) -> None:
        order.append(queue)
        await asyncio.sleep(0)

    await forge.queues.ensure("big", "small")
    await forge.enqueue_many("work", [{"queue": "big"}] * 2000, queue="big")
    await forge.enqueue_many("work", [{"queue": "small"}] * 20, queue="small")

    await Worker(forge, queues=["big", "small"], concurrency=10).run(until_empty=True)

    assert len(order) == 2020
    last = max(place for place, queue in enumerate(order) if queue == "small")
    assert last < 1500


async def test_urgent_jobs_are_run_before_others(forge: Forge) -> None:
    order: list[int] = []

    @forge.handler
    async def work(number: int) -> None:
        order.append(number)

    for number, priority in enumerate([5, 0, -5, 0]):
        await forge.enqueue("work", {"number": number}, priority=priority)
    await Worker(forge, queues=["default"], concurrency=1).run(until_empty=True)

    assert order == [2, 1, 3, 0]


async def test_a_full_queue_is_drained_whole_and_each_job_runs_once(forge: Forge) -> None:
    ran: list[int] = []

    @forge.handler
    async def work(number: int) -> None:
        ran.append(number)

    await forge.enqueue_many("work", [{"number": number} for number in range(5000)])
    await Worker(forge, queues=["default"], concurrency=20).run(until_empty=True)

    assert sorted(ran) == list(range(5000))
    [counts] = await forge.jobs.counts()
    assert (counts.pending, counts.in_progress, counts.done) == (0, 0, 5000)


@pytest.mark.parametrize("before", [None, 3])
async def test_a_limit_that_is_set_again_counts_the_jobs_that_were_started_without_one(
    forge: Forge, before: int | None
) -> None:
    running: dict[int, asyncio.Event] = {}
    started: list[int] = []  # how many ran then

    @forge.handler
    async def work(ctx: Context) -> None:
        may_end = running[ctx.job_id] = asyncio.Event()
        started.append(len(running))
        await may_end.wait()
        del running[ctx.job_id]

    await forge.queues.set("default", concurrency=before)
    async with working(forge, concurrency=4), working(forge, concurrency=4):
        ids = [each.id for each in await forge.enqueue_many("work", [{}] * 14)]
        await eventually(lambda: len(running) == (8 if before is None else before))
        await forge.queues.set("default", concurrency=None)
        await eventually(lambda: len(running) == 8)
        await forge.queues.set("default", concurrency=3)
        started.clear()
        for _ in ids:
            job_id = await eventually(lambda: next(iter(running), None))
            running[job_id].set()
            await eventually(lambda job_id=job_id: job_id not in running)
        assert len(started) == 6
    assert max(started) <= 3
    for job_id in ids:
        assert (await forge.jobs.get(job_id)).state is State.DONE


async def test_of_many_queues_with_short_jobs_each_has_its_turn_and_gives_many_at_a_time(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues = [f"q{number}" for number in range(60)]
    claim = forge.storage.claims.claim
    claims: list[tuple[int, int]] = []  # the queue, and how many jobs it gave

    async def counted(queue_id: int, *given: Any, **options: Any) -> Any:
        jobs = await claim(queue_id, *given, **options)
        if jobs:
            claims.append((queue_id, len(jobs)))
        return jobs

    monkeypatch.setattr(forge.storage.claims, "claim", counted)

    @forge.handler
    async def work() -> None:
        pass

    await forge.queues.ensure(*queues)
    for queue in queues:
        await forge.enqueue_many("work", [{}] * 100, queue=queue)
    await Worker(forge, queues=queues, concurrency=10).run(until_empty=True)

    assert sum(jobs for _, jobs in claims) == 6000
    assert len(claims) <= 300, "each statement brought few jobs"
    turns = [queue_id for queue_id, _ in claims]
    third = next(place for place, queue_id in enumerate(turns) if turns[:place].count(queue_id) == 2)
    assert set(turns[:third]) == set(turns), "a queue had its third turn before another had its first"


async def test_a_job_of_a_queue_that_was_empty_waits_for_no_round_of_the_queues_that_are_full(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues = [f"q{number}" for number in range(30)]
    claim = forge.storage.claims.claim
    gave: list[str] = []  # the queue of each claim that found jobs
    names: dict[int, str] = {}

    async def noted(queue_id: int, *given: Any, **options: Any) -> Any:
        jobs = await claim(queue_id, *given, **options)
        if jobs:
            gave.append(names[queue_id])
        return jobs

    monkeypatch.setattr(forge.storage.claims, "claim", noted)
    began, enqueued_after = 0, 0

    @forge.handler
    async def work(is_alone: bool = False) -> None:
        nonlocal began, enqueued_after
        began += 1
        if began == 7000:
            await work.options(queue="light").enqueue(is_alone=True)
            enqueued_after = len(gave)

    await forge.queues.ensure("light", *queues)
    names |= {queue.id: queue.name for queue in await forge.queues.list()}
    for queue in queues:
        await forge.enqueue_many("work", [{}] * 400, queue=queue)
    await Worker(forge, queues=[*queues, "light"], concurrency=10).run(until_empty=True)

    assert gave.index("light") - enqueued_after < 10


async def test_however_many_queues_there_are_one_scout_is_on_its_way_at_a_time(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scouts, "SCOUT_EVERY", 0.0)
    monkeypatch.setattr(scouts, "SCOUT_SHARE", 0)
    queues = [f"q{number}" for number in range(10)]
    front = forge.storage.claims.front
    underway, most, sent = 0, 0, set()
    all_sent = asyncio.Event()

    async def watched(queue_id: int, **options: Any) -> Any:
        nonlocal underway, most
        underway += 1
        most = max(most, underway)
        try:
            return await front(queue_id, **options)
        finally:
            underway -= 1
            sent.add(queue_id)
            if len(sent) == len(queues):
                all_sent.set()

    monkeypatch.setattr(forge.storage.claims, "front", watched)

    @forge.handler
    async def work() -> None:
        pass

    await forge.queues.ensure(*queues)
    for queue in queues:
        await forge.enqueue_many("work", [{}] * 20, queue=queue)
    async with working(forge, *queues):
        await asyncio.wait_for(all_sent.wait(), 30)

    assert most == 1


async def test_a_queue_whose_scout_fails_holds_up_no_other(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = forge.storage.claims.front
    failing: list[int] = []
    other_sent = asyncio.Event()

    async def refused(queue_id: int, **options: Any) -> Any:
        if queue_id in (failing or [queue_id]):
            failing[:] = [queue_id]
            raise StorageBusy("it took too long")
        other_sent.set()
        return await front(queue_id, **options)

    async def forever(outage: Outage, error: Exception) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(forge.storage.claims, "front", refused)
    monkeypatch.setattr(scouts, "SCOUT_SHARE", 0)

    @forge.handler
    async def work() -> None:
        pass

    await forge.queues.ensure("q0", "q1")
    for queue in ("q0", "q1"):
        await forge.enqueue_many("work", [{}] * 20, queue=queue)
    with monkeypatch.context() as patch:
        patch.setattr(Outage, "wait", forever)
        async with working(forge, "q0", "q1"):
            await asyncio.wait_for(other_sent.wait(), 30)


async def test_scouts_that_fail_for_one_queue_are_told_of_until_one_succeeds_there(
    forge: Forge, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = forge.storage.claims.front
    monkeypatch.setattr(scouts, "SCOUT_EVERY", 0.0)
    monkeypatch.setattr(scouts, "SCOUT_SHARE", 0)
    failures = 0

    async def refused(queue_id: int, **options: Any) -> Any:
        nonlocal failures
        if queue_id == bad and failures < 3:
            failures += 1
            raise StorageBusy("it took too long")
        return await front(queue_id, **options)

    monkeypatch.setattr(forge.storage.claims, "front", refused)

    @forge.handler
    async def work() -> None:
        pass

    await forge.queues.ensure("bad", "good")
    [bad] = [queue.id for queue in await forge.queues.list() if queue.name == "bad"]
    async with working(forge, "bad", "good"):
        async with asyncio.timeout(60):
            while not events.of(DatabaseBack):
                for queue in ("bad", "good"):
                    await forge.wait((await work.options(queue=queue).enqueue()).id)

    doing = "looking for jobs of queue bad out of turn"
    assert [event.doing for event in events.of(DatabaseLost)] == [doing] * 3
    assert [event.doing for event in events.of(DatabaseBack)] == [doing]


async def test_a_queue_whose_claims_fail_holds_up_no_other_and_is_named(
    forge: Forge, database: Database, events: Events
) -> None:
    @forge.handler
    async def work() -> None:
        pass

    await forge.queues.ensure("bad", "good")
    [bad] = [queue.id for queue in await forge.queues.list() if queue.name == "bad"]
    await database.refuse("claimed", f"new.queue_id = {bad}")
    held_up = await work.options(queue="bad").enqueue()

    async with working(forge, "bad", "good") as worker:
        await eventually(lambda: any("queue bad" in event.doing for event in events.of(DatabaseLost)))
        for _ in range(20):
            await forge.wait((await work.options(queue="good").enqueue()).id, timeout=30)
        assert worker.session is not None
        assert "the trigger says no" in str(worker.session._claimer.error)
        await database.accept()
        await forge.wait(held_up.id, timeout=30)
        await eventually(lambda: any("queue bad" in event.doing for event in events.of(DatabaseBack)))
        assert worker.session._claimer.error is None


async def test_what_fails_for_every_queue_puts_none_aside(
    forge: Forge, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter(range(7))

    def slow(claim: Any) -> Any:
        async def slow(*given: Any, **options: Any) -> Any:
            if next(failures, None) is not None:
                raise StorageBusy("it took too long")
            return await claim(*given, **options)

        return slow

    for name in ("claim", "claim_from"):
        monkeypatch.setattr(forge.storage.claims, name, slow(getattr(forge.storage.claims, name)))

    @forge.handler
    async def work() -> None:
        pass

    await forge.queues.ensure("q0", "q1", "q2")
    async with working(forge, "q0", "q1", "q2"):
        for queue in ("q0", "q1", "q2"):
            await forge.wait((await work.options(queue=queue).enqueue()).id, timeout=60)

    assert {event.doing for event in events.of(DatabaseLost)} == {"claiming jobs"}
    assert [event.doing for event in events.of(DatabaseBack)] == ["claiming jobs"]
