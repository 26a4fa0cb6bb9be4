"""What a worker has claimed and cannot use goes back at once, for those who can."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs import Context, Forge, Throttled, Worker
from forge_jobs.system.uptime import uptime
from forge_jobs.telemetry.events import ClaimsAdrift, HistoryCut
from forge_jobs.worker import audit, pace, runners
from forge_jobs.worker.hand import Hand
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working

DAY = timedelta(days=1)


async def counted(forge: Forge, *, pending: int, in_progress: int) -> bool:
    [counts] = [counts for counts in await forge.jobs.counts() if counts.queue == "default"]
    return (counts.pending, counts.in_progress) == (pending, in_progress)


@pytest.fixture
def forgetful(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The next jobs that are claimed get lost where it is said, without a word."""

    def forgetful(where: str) -> None:
        claim, add = forge.storage.claims.claim, Hand.add

        async def unanswered(*given: Any, **named: Any) -> Any:
            claims = await claim(*given, **named)
            if claims:
                monkeypatch.setattr(forge.storage.claims, "claim", claim)
            return []

        def dropped(hand: Hand, queue: Any, claims: Any) -> None:
            if claims:
                monkeypatch.setattr(Hand, "add", add)

        if where == "on the way":
            monkeypatch.setattr(forge.storage.claims, "claim", unanswered)
        else:
            monkeypatch.setattr(Hand, "add", dropped)

    return forgetful


@pytest.mark.parametrize("where", ["on the way", "in the worker"])
async def test_a_job_that_is_in_no_hand_of_its_worker_is_handed_back_and_said(
    forge: Forge, events: Events, monkeypatch: pytest.MonkeyPatch, forgetful: Any, where: str
) -> None:
    monkeypatch.setattr(audit, "AUDIT_EVERY", 0.1)
    attempts: list[int] = []

    @forge.handler
    async def works(ctx: Context) -> None:
        attempts.append(ctx.attempt)

    forgetful(where)
    async with working(forge, concurrency=2, heartbeat=timedelta(seconds=0.1)):
        job = await works.enqueue()
        await forge.wait(job.id, timeout=30)
        assert (await forge.wait((await works.enqueue()).id, timeout=30)) is None

    assert [list(event.job_ids) for event in events.of(ClaimsAdrift)] == [[job.id]]
    assert attempts == [1, 1]


async def test_why_says_that_its_worker_does_not_run_a_job(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, forgetful: Any
) -> None:
    monkeypatch.setattr(audit, "AUDIT_EVERY", 0.1)
    monkeypatch.setattr(audit, "AUDIT_AGAIN", 3600.0)

    @forge.handler
    async def works() -> None:
        pass

    forgetful("in the worker")
    async with working(forge, heartbeat=timedelta(seconds=0.1)):
        job = await works.enqueue()

        async def is_said() -> bool:
            why = await forge.jobs.why(job.id)
            return (
                "That worker is alive but does not run the job; it hands the job back in a moment."
                in why.reasons
            )

        await eventually(is_said)
    assert await counted(forge, pending=1, in_progress=0)  # who stops hands back what it does not run, too


async def test_nothing_is_taken_for_lost_while_jobs_come_and_go(
    forge: Forge, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "AUDIT_EVERY", 0.0)
    monkeypatch.setattr(audit, "AUDIT_AGAIN", 0.0)
    monkeypatch.setattr(audit, "AUDIT_SHARE", 0)

    @forge.handler
    async def works(number: int) -> None:
        await asyncio.sleep(0)

    await works.enqueue_many([{"number": number} for number in range(2000)])
    async with asyncio.timeout(60):
        await Worker(forge, queues=["default"], concurrency=8).run(until_empty=True)

    assert events.of(ClaimsAdrift) == []
    assert events.of(HistoryCut) == []


@pytest.fixture
def gate() -> Iterator[asyncio.Event]:
    """Set when handlers that wait may end."""
    gate = asyncio.Event()
    yield gate
    gate.set()


@pytest.fixture
async def ahead(forge: Forge) -> AsyncIterator[Worker]:
    """A worker with one runner that claims ahead, since it has seen short jobs only."""

    @forge.handler
    async def short() -> None:
        await asyncio.sleep(0)

    async with working(forge, concurrency=1, grace=timedelta(0)) as worker:
        assert worker.session is not None
        async with asyncio.timeout(60):
            claims_ahead = False
            while not claims_ahead:  # on a busy machine the first ones took long
                jobs = await short.enqueue_many([{}] * 200)
                await forge.wait(jobs[-1].id, timeout=30)
                await eventually(lambda: counted(forge, pending=0, in_progress=0))
                claims_ahead = worker.session.hand.ahead > 10
        yield worker


async def test_jobs_that_wait_behind_a_long_one_go_back_whatever_stirs_their_worker(
    forge: Forge, ahead: Worker, gate: asyncio.Event
) -> None:
    @forge.handler
    async def work(is_long: bool) -> None:
        if is_long:
            await gate.wait()

    async def stir() -> None:
        while not gate.is_set():
            assert ahead.session is not None
            ahead.session._claimer.wake()
            await asyncio.sleep(0.01)

    stirring = asyncio.create_task(stir())
    await work.enqueue_many([{"is_long": number == 0} for number in range(9)])
    await eventually(lambda: counted(forge, pending=8, in_progress=1))
    gate.set()
    await stirring
    await eventually(lambda: counted(forge, pending=0, in_progress=0))


async def test_jobs_that_no_runner_will_take_in_the_next_second_go_back_though_jobs_end(
    forge: Forge, ahead: Worker, gate: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = uptime()
    begun: list[int] = []
    monkeypatch.setattr(pace, "uptime", lambda: moment)

    @forge.handler
    async def work(number: int) -> None:
        nonlocal moment
        begun.append(number)
        if number >= 1:
            await gate.wait()
        moment += 0.5

    await work.enqueue_many([{"number": number} for number in range(9)])

    async def some_are_for_others() -> bool:
        [counts] = [counts for counts in await forge.jobs.counts() if counts.queue == "default"]
        return counts.pending >= 3

    await eventually(lambda: len(begun) == 2)
    await eventually(some_are_for_others)
    assert begun == [0, 1]
    gate.set()
    await eventually(lambda: counted(forge, pending=0, in_progress=0))


async def test_no_more_is_claimed_ahead_than_the_runners_really_take_in_50_ms(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment, most = 0.0, 0
    monkeypatch.setattr(pace, "uptime", lambda: moment)

    @forge.handler
    async def hold_up_the_loop() -> None:
        nonlocal moment, most
        moment += 0.01
        if moment > 1.0:
            assert worker.session is not None
            most = max(most, worker.session.hand.ahead)

    await hold_up_the_loop.enqueue_many([{}] * 1000)
    worker = Worker(forge, queues=["default"], concurrency=100)
    await worker.run(until_empty=True)

    assert 1 <= most <= 10


async def test_slots_that_a_busy_worker_does_not_use_go_back(forge: Forge, gate: asyncio.Event) -> None:
    @forge.handler
    async def long() -> None:
        await gate.wait()

    await forge.queues.set("narrow", concurrency=5)
    later = await long.options(queue="narrow", delay=DAY).enqueue()
    await long.options(queue="narrow").enqueue()
    await long.options(queue="default").enqueue_many([{}] * 10)

    async def held() -> int:
        return (await forge.storage.jobs.waiting(later.id)).slots_held

    async with working(forge, "narrow", "default", concurrency=6, grace=timedelta(0)) as worker:
        assert worker.session is not None
        hand = worker.session.hand
        await eventually(lambda: len(hand.running) == 6)

        async def only_one_is_held() -> bool:
            return await held() == 1

        await eventually(only_one_is_held)


async def test_a_throttled_job_stops_what_is_in_hand_of_its_queue(forge: Forge, ahead: Worker) -> None:
    started: list[bool] = []

    @forge.handler
    async def call(is_throttled: bool) -> None:
        started.append(is_throttled)
        await asyncio.sleep(0)
        if is_throttled:
            raise Throttled(retry_after=3600)

    await call.enqueue_many([{"is_throttled": number == 0} for number in range(9)])
    await eventually(lambda: counted(forge, pending=8, in_progress=0))
    assert started == [True]


@pytest.mark.parametrize("how", [{"paused": True}, {"concurrency": 0}])
async def test_what_is_in_hand_of_a_queue_that_is_shut_goes_back(
    forge: Forge, ahead: Worker, how: dict[str, Any]
) -> None:
    started: list[bool] = []

    @forge.handler
    async def work(shuts: bool) -> None:
        started.append(shuts)
        if shuts:
            await forge.queues.set("default", **how)
            await eventually(lambda: counted(forge, pending=8, in_progress=1))

    await work.enqueue_many([{"shuts": number == 0} for number in range(9)])
    await eventually(lambda: counted(forge, pending=8, in_progress=0))
    assert started == [True]


@pytest.mark.parametrize("how", [{"concurrency": 1}, {"rate_limit": "empty"}])
async def test_what_was_claimed_ahead_of_a_limit_is_claimed_again_under_it(
    forge: Forge, ahead: Worker, how: dict[str, Any]
) -> None:
    started: list[bool] = []
    await forge.limits.set("empty", capacity=1, refill=0)
    assert (await forge.storage.tokens.lease("empty", 1)).tokens == 1

    @forge.handler
    async def work(limits: bool) -> None:
        started.append(limits)
        if limits:
            await forge.queues.set("default", **how)
            await eventually(lambda: counted(forge, pending=8, in_progress=1))
            await forge.queues.set("default", paused=True)

    await work.enqueue_many([{"limits": number == 0} for number in range(9)])
    await eventually(lambda: counted(forge, pending=8, in_progress=0))
    assert started == [True]


async def test_a_limit_that_is_set_while_a_claim_is_on_its_way_holds_for_what_it_brings(
    forge: Forge, gate: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = forge.storage.claims.claim
    started: list[int] = []

    async def slow(queue_id: int, *given: Any, **options: Any) -> Any:
        claims = await claim(queue_id, *given, **options)
        if claims:
            monkeypatch.setattr(forge.storage.claims, "claim", claim)
            await forge.queues.set("default", concurrency=1)
            assert worker.session is not None
            queue = worker.session._claimer.queues[queue_id]
            await eventually(lambda: queue.config.concurrency == 1)
        return claims

    monkeypatch.setattr(forge.storage.claims, "claim", slow)

    @forge.handler
    async def work(number: int) -> None:
        started.append(number)
        await gate.wait()

    await work.enqueue_many([{"number": number} for number in range(9)])
    async with working(forge, concurrency=4, grace=timedelta(0)) as worker:
        await eventually(lambda: started)
        await eventually(lambda: counted(forge, pending=8, in_progress=1))
        assert len(started) == 1


async def test_the_next_claim_is_on_its_way_while_the_rest_of_the_hand_runs(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Hand.wanted
    looks: list[tuple[int, int, int]] = []

    def watched(hand: Hand) -> int:
        waiting, more = len(hand.waiting), wanted(hand)
        looks.append((waiting, hand.low, more))
        return more

    monkeypatch.setattr(Hand, "wanted", watched)
    monkeypatch.setattr(
        Hand, "ahead", 100
    )  # else how long the jobs take may move the point between two looks
    monkeypatch.setattr(runners, "YIELD_AFTER", 3600.0)  # else the claimer may have its turn by chance

    @forge.handler
    async def works() -> None:
        pass

    await works.enqueue_many([{}] * 3000)
    await Worker(forge, queues=["default"], concurrency=10).run(until_empty=True)

    asked = [more for waiting, low, more in looks if low and waiting == low + 1]
    assert any(asked), "the claimer was told that the hand runs low, and wanted nothing"
