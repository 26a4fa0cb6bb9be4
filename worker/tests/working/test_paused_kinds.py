"""A kind is paused and resumed while workers run."""

import asyncio

import pytest

from forge_jobs import Forge, State, Worker
from forge_jobs.model.job import Claim
from forge_jobs.telemetry.events import KindsResumed, UnknownKind
from forge_jobs.worker import claimer
from forge_jobs.worker.served_queue import ServedQueue
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working


async def follows(worker: Worker, *paused: str) -> None:
    """The worker has heard that these kinds, and no others, are paused."""
    assert worker.session is not None
    queues = worker.session._claimer.queues.values()
    await eventually(lambda: all(set(queue.paused_kinds) == {*paused} for queue in queues))


async def test_no_job_of_a_paused_kind_begins_while_others_of_its_queue_do(
    forge: Forge, events: Events
) -> None:
    begun: list[str] = []

    @forge.handler
    async def send() -> None:
        begun.append("send")

    @forge.handler
    async def work() -> None:
        begun.append("work")

    async with working(forge) as worker:
        await forge.kinds.pause("send", why="the bank is closed")
        await follows(worker, "send")
        waiting = await send.enqueue()
        await forge.wait((await work.enqueue()).id, timeout=30)
        assert begun == ["work"]
        assert (await forge.jobs.get(waiting.id)).state is State.PENDING
        [why, *_] = (await forge.jobs.why(waiting.id)).reasons
        assert why == "Kind 'send' is paused: the bank is closed."

        await forge.kinds.resume("send")
        await forge.wait(waiting.id, timeout=30)
    assert begun == ["work", "send"]
    assert not events.of(UnknownKind)


async def test_a_worker_that_starts_knows_which_kinds_are_paused(forge: Forge) -> None:
    begun: list[str] = []

    @forge.handler
    async def send() -> None:
        begun.append("send")

    @forge.handler
    async def work() -> None: ...

    await forge.storage.kinds.pause("send", until=None, reason=None)
    await send.enqueue()
    async with working(forge):
        await forge.wait((await work.enqueue()).id, timeout=30)
    assert begun == []


async def test_jobs_that_a_worker_has_claimed_and_not_begun_go_back_when_their_kind_is_paused(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claimer, "LONGEST_IN_HAND", 3600.0)  # for no other reason does one go back
    go = asyncio.Event()

    @forge.handler
    async def send() -> None:
        await go.wait()

    @forge.handler
    async def work() -> None: ...

    await forge.enqueue_many("send", [{}] * 3)
    other = await work.enqueue()
    await forge.enqueue_many("send", [{}] * 2)
    async with working(forge, concurrency=1) as worker:
        assert worker.session is not None
        hand = worker.session.hand
        await eventually(lambda: hand.running)
        # as after many short jobs
        hand.waiting.extend((claim, of) for claim, of in await _claimed(forge, worker, 3))
        await forge.kinds.pause("send")
        await follows(worker, "send")
        await eventually(lambda: [claim.job_id for claim, _ in hand.waiting] == [other.id])

        go.set()
        await eventually(lambda: _counted(forge, done=2, pending=4))
        assert all(job.attempt == 0 for job in await forge.jobs.list(state=State.PENDING))


async def _counted(forge: Forge, *, done: int, pending: int) -> bool:
    [counts] = await forge.jobs.counts()
    return (counts.done, counts.pending, counts.in_progress) == (done, pending, 0)


async def _claimed(forge: Forge, worker: Worker, limit: int) -> list[tuple[Claim, ServedQueue]]:
    assert worker.session is not None
    mine = worker.session._claimer
    [queue] = mine.queues.values()
    claims = await forge.storage.claims.claim(
        queue.id, worker.session.info.id, limit=limit, standing=mine._eras.standing
    )
    mine._held.claimed(queue, claims)
    return [(claim, queue) for claim in claims]


async def test_the_pause_of_a_kind_ends_by_itself(forge: Forge, events: Events) -> None:
    @forge.handler
    async def send() -> None: ...

    async with working(forge) as worker:
        await forge.kinds.pause("send", until=1)
        await follows(worker, "send")
        job = await send.enqueue()
        await forge.wait(job.id, timeout=30)
    assert events.of(KindsResumed) == [KindsResumed(["send"])]
