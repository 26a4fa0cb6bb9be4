"""A kind is paused and resumed while workers run."""

import asyncio

from forge_jobs import Forge, State, Worker
from forge_jobs.model.job import Claim
from forge_jobs.telemetry.events import KindsResumed, UnknownKind
from forge_jobs.worker.served_queue import ServedQueue
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working


async def follows(worker: Worker, *paused: str) -> None:
    """The worker has heard that these kinds, and no others, are paused."""
    assert worker.session is not None
    claimer = worker.session._claimer
    await eventually(lambda: all(set(queue.paused_kinds) == {*paused} for queue in claimer.queues.values()))


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
    forge: Forge,
) -> None:
    go = asyncio.Event()

    @forge.handler
    async def send() -> None:
        await go.wait()

    await forge.enqueue_many("send", [{}] * 5)
    async with working(forge, concurrency=1) as worker:
        assert worker.session is not None
        hand = worker.session.hand
        await eventually(lambda: hand.running)
        # as after many short jobs
        hand.waiting.extend((claim, of) for claim, of in await _claimed(forge, worker, 3))
        await forge.kinds.pause("send")
        await follows(worker, "send")
        await eventually(lambda: not hand.waiting)

        go.set()
        await eventually(lambda: _counted(forge, done=1, pending=4))
        assert all(job.attempt == 0 for job in await forge.jobs.list(state=State.PENDING))


async def _counted(forge: Forge, *, done: int, pending: int) -> bool:
    [counts] = await forge.jobs.counts()
    return (counts.done, counts.pending, counts.in_progress) == (done, pending, 0)


async def _claimed(forge: Forge, worker: Worker, limit: int) -> list[tuple[Claim, ServedQueue]]:
    assert worker.session is not None
    claimer = worker.session._claimer
    [queue] = claimer.queues.values()
    claims = await forge.storage.claims.claim(
        queue.id, worker.session.info.id, limit=limit, standing=claimer._eras.standing
    )
    claimer._held.claimed(queue, claims)
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
