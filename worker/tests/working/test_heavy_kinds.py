"""A job of a heavy kind takes several of its worker's slots."""

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs import Batch, BatchJob, Context, Forge, InvalidInput, KeyLimit, State, Worker
from forge_jobs.telemetry.events import HandlerStuck, HeavyKind
from forge_jobs.worker import hand, pace, runners
from forge_jobs.worker.run_counts import RunCounts
from tests.test_metrics import run
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working


class Desk:
    """Where handlers say which slots they have, and wait until they may go."""

    def __init__(self) -> None:
        self.slots: dict[int, int] = {}  # by running job
        self.most = 0
        self.beside: dict[int, int] = {}  # by job: the slots that others had when it began
        self.gates: dict[int, asyncio.Event] = {}

    def begin(self, job_id: int, slots: int) -> None:
        self.beside[job_id] = sum(self.slots.values())
        self.slots[job_id] = slots
        self.most = max(self.most, sum(self.slots.values()))

    async def stay(self, job_id: int, slots: int) -> None:
        self.begin(job_id, slots)
        gate = self.gates[job_id] = asyncio.Event()
        try:
            await gate.wait()
        finally:
            del self.slots[job_id]


@pytest.fixture
def desk(forge: Forge) -> Desk:
    """Jobs of kind light take one slot, and of kind heavy three; each stays until its gate is opened."""
    desk = Desk()

    @forge.handler
    async def light(ctx: Context) -> None:
        await desk.stay(ctx.job_id, 1)

    @forge.handler(slots=3)
    async def heavy(ctx: Context) -> None:
        await desk.stay(ctx.job_id, 3)

    return desk


def holds(worker: Worker, job_id: int) -> bool:
    assert worker.session is not None
    return any(claim.job_id == job_id for claim in worker.session.hand.claims())


def kept(worker: Worker, slots: int) -> Callable[[], bool]:
    assert worker.session is not None
    return lambda: worker.session is not None and worker.session.hand.extra.kept == slots


@pytest.mark.parametrize("seed", range(3))
async def test_jobs_never_have_more_slots_than_their_worker(forge: Forge, seed: int) -> None:
    desk, chance = Desk(), random.Random(seed)

    async def work(job_id: int, slots: int) -> None:
        desk.begin(job_id, slots)
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)
        del desk.slots[job_id]
        if chance.random() < 0.1:
            raise RuntimeError("it fails")

    kinds = []
    for slots in (1, 2, 3, 5):

        async def handler(ctx: Context, slots: int = slots) -> None:
            await work(ctx.job_id, slots)

        forge.handler(kind=f"takes-{slots}", slots=slots, max_attempts=1)(handler)
        kinds.append(f"takes-{slots}")

    for _ in range(300):
        await forge.enqueue(chance.choice(kinds))
    async with asyncio.timeout(90):
        await Worker(forge, queues=["default"], concurrency=5).run(until_empty=True)

    [counts] = await forge.jobs.counts()
    assert counts.done + counts.dead == 300
    assert desk.most == 5


async def test_a_heavy_job_leaves_the_slots_that_it_does_not_take_to_others(forge: Forge, desk: Desk) -> None:
    async with working(forge, concurrency=4) as worker:
        heavy = await forge.enqueue("heavy")
        await eventually(lambda: heavy.id in desk.slots)
        light = [await forge.enqueue("light") for _ in range(2)]
        await eventually(lambda: len(desk.slots) == 2)
        assert worker.session is not None
        assert worker.session.hand.slots_in_use == 4
        desk.gates[heavy.id].set()
        await eventually(lambda: {job.id for job in light} == desk.slots.keys())
        for gate in desk.gates.values():
            gate.set()
    assert desk.most == 4


async def test_why_says_for_which_slots_a_heavy_job_waits_and_who_has_them(forge: Forge, desk: Desk) -> None:
    async with working(forge, concurrency=4) as worker:
        light = [await forge.enqueue("light") for _ in range(2)]
        await eventually(lambda: len(desk.gates) == 2)
        heavy = await forge.enqueue("heavy")
        await eventually(kept(worker, 2))
        other = await forge.enqueue("heavy")

        [label] = [one.label for one in await forge.workers.list()]
        claimed = (await forge.jobs.why(heavy.id)).reasons
        waiting = (await forge.jobs.why(other.id)).reasons

        for gate in desk.gates.values():
            gate.set()
        await asyncio.gather(*(forge.wait(one, timeout=30) for one in light))
        await eventually(lambda: heavy.id in desk.gates)
        begun = (await forge.jobs.why(heavy.id)).reasons
        desk.gates[heavy.id].set()
        await eventually(lambda: other.id in desk.gates)
        desk.gates[other.id].set()
    assert claimed[-1] == (
        f"It needs 3 slots at once, and begins when it has them. 2 of the 4 slots of worker {label} are free: "
        f"job {light[0].id} of kind 'light' takes 1, job {light[1].id} of kind 'light' takes 1."
    )
    assert waiting == (
        "It needs 3 slots of one worker at once, and none has as many free.",
        f"None of the 4 slots of worker {label} are free: job {heavy.id} of kind 'heavy' takes 3, "
        f"job {light[0].id} of kind 'light' takes 1, job {light[1].id} of kind 'light' takes 1.",
    )
    assert not [reason for reason in begun if "slots" in reason]


async def test_light_jobs_that_never_end_coming_do_not_keep_a_heavy_one_from_its_turn(forge: Forge) -> None:
    ran = asyncio.Event()
    chance = random.Random(1)

    @forge.handler
    async def light() -> None:
        for _ in range(chance.randrange(5)):
            await asyncio.sleep(0)
        if not ran.is_set():
            await forge.enqueue("light")

    @forge.handler(slots=4)
    async def heavy() -> None:
        ran.set()

    for _ in range(20):
        await forge.enqueue("light")
    async with working(forge, concurrency=4):
        job = await forge.enqueue("heavy")
        await forge.wait(job.id, timeout=60)


async def test_a_job_that_waits_for_slots_keeps_those_that_it_has_however_long_that_takes(
    forge: Forge, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(forge, concurrency=4) as worker:
        light = [await forge.enqueue("light") for _ in range(2)]
        await eventually(lambda: len(desk.slots) == 2)
        heavy = await forge.enqueue("heavy")
        await eventually(kept(worker, 2))
        assert worker.session is not None
        monkeypatch.setattr(pace, "SHORTEST_LOOK", 0.0)
        monkeypatch.setattr(pace, "LONGEST_LOOK", 0.0)
        worker.session.hand.hand_back_surplus(0.0)  # nobody has taken a job for long
        assert holds(worker, heavy.id)

        desk.gates[light[0].id].set()
        await eventually(lambda: heavy.id in desk.slots)
        for gate in desk.gates.values():
            gate.set()
    assert desk.beside[heavy.id] == 1


async def test_a_worker_with_fewer_slots_says_so_once_and_runs_such_a_job_alone(
    forge: Forge, desk: Desk, events: Events
) -> None:
    async with working(forge, concurrency=2):
        light = await forge.enqueue("light")
        await eventually(lambda: light.id in desk.slots)
        heavy = await forge.enqueue("heavy")
        for job in (light, heavy):
            await eventually(lambda job=job: job.id in desk.slots)
            desk.gates[job.id].set()
        await forge.wait(heavy.id, timeout=30)

    assert events.of(HeavyKind) == [HeavyKind("heavy", 3, 2)]
    assert desk.beside[heavy.id] == 0


async def test_a_worker_keeps_no_heavy_job_that_another_one_could_run(forge: Forge, desk: Desk) -> None:
    await forge.enqueue_many("heavy", [{}] * 3)
    async with working(forge, concurrency=3), working(forge, concurrency=3):
        await eventually(lambda: len(desk.slots) == 2)

        async def waits() -> bool:
            [counts] = await forge.jobs.counts()
            return (counts.pending, counts.in_progress) == (1, 2)

        await eventually(waits)
        while len(desk.gates) < 3 or desk.slots:
            for gate in desk.gates.values():
                gate.set()
            await asyncio.sleep(0)


async def test_heavy_jobs_use_all_of_their_queue_s_rate_limit(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those for which no slot is left cost no token, and soon no more are claimed than fit."""
    claimed: list[int] = []
    claim = forge.storage.claims.claim

    async def counted(*given: Any, **options: Any) -> Any:
        claims = await claim(*given, **options)
        claimed.extend(each.job_id for each in claims)
        return claims

    monkeypatch.setattr(forge.storage.claims, "claim", counted)
    monkeypatch.setattr(hand, "LONG_JOB", 0.0)  # so that nothing is claimed ahead
    ran: list[int] = []

    @forge.handler(slots=5)
    async def heavy(ctx: Context) -> None:
        ran.append(ctx.job_id)

    await forge.limits.set("slack", capacity=80, refill=0)
    await forge.queues.set("default", rate_limit="slack")
    await forge.enqueue_many("heavy", [{}] * 40)
    async with asyncio.timeout(60):
        await Worker(forge, queues=["default"], concurrency=10).run(until_empty=True)

    assert len(ran) == 40
    assert len(claimed) < 80


async def test_a_job_for_which_no_slot_is_left_takes_no_token_of_its_key(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    reserve = forge.storage.permits.reserve

    async def counted(wanted: Any) -> Any:
        asked.extend(request.job_id for request in wanted)
        return await reserve(wanted)

    monkeypatch.setattr(forge.storage.permits, "reserve", counted)
    began, gate = asyncio.Event(), asyncio.Event()

    @forge.handler(slots=3, limits=KeyLimit("api", by="user"))
    async def heavy(user: str) -> None:
        began.set()
        await gate.wait()

    await forge.limits.set("api", capacity=100, per=86_400)
    jobs = await heavy.enqueue_many([{"user": "ann"}] * 3)
    async with working(forge, concurrency=3):
        await began.wait()
        assert asked == [jobs[0].id]
        gate.set()
        for job in jobs:
            await forge.wait(job.id, timeout=30)


@pytest.mark.parametrize("how", ["cancelled", "paused"])
async def test_a_job_that_does_not_run_after_all_leaves_the_slots_that_it_waited_with(
    forge: Forge, desk: Desk, how: str
) -> None:
    await forge.queues.ensure("other")
    async with working(forge, "default", "other", concurrency=4) as worker:
        first = [await forge.enqueue("light", queue="other") for _ in range(2)]
        await eventually(lambda: len(desk.slots) == 2)
        heavy = await forge.enqueue("heavy")
        await eventually(kept(worker, 2))
        if how == "cancelled":
            await forge.jobs.cancel(heavy.id)
        else:
            await forge.queues.pause("default")
        more = [await forge.enqueue("light", queue="other") for _ in range(2)]
        await eventually(lambda: desk.slots.keys() == {job.id for job in (*first, *more)})
        assert worker.session is not None
        assert worker.session.hand.extra.of == {}
        for gate in desk.gates.values():
            gate.set()
    state = State.DEAD if how == "cancelled" else State.PENDING
    assert (await forge.jobs.get(heavy.id)).state is state


@pytest.mark.parametrize("end", ["raises", "times out", "is stuck", "is cancelled"])
async def test_however_a_heavy_job_ends_others_have_its_slots(
    forge: Forge, events: Events, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(runners, "TELL_EVERY", 0.05)
    began, gate, together = asyncio.Event(), asyncio.Event(), asyncio.Barrier(3)

    @forge.handler(slots=3, max_attempts=1, timeout=0.1 if end in ("times out", "is stuck") else None)
    async def heavy() -> None:
        began.set()
        if end == "raises":
            raise RuntimeError("it fails")
        while end == "is stuck" and not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue
        await gate.wait()

    @forge.handler
    async def light() -> None:
        await together.wait()

    async with working(forge, concurrency=3, grace=timedelta(seconds=5)):
        job = await forge.enqueue("heavy")
        await began.wait()
        if end == "is cancelled":
            await forge.jobs.cancel(job.id)
        for light_job in await forge.enqueue_many("light", [{}] * 3):
            await forge.wait(light_job.id, timeout=60)
        assert bool(events.of(HandlerStuck)) is (end == "is stuck")
        gate.set()
    assert (await forge.jobs.get(job.id)).state is State.DEAD


async def test_a_runner_that_keeps_a_slot_goes_on_keeping_it_when_somebody_cancels_it(
    forge: Forge, desk: Desk
) -> None:
    async with working(forge, concurrency=3) as worker:
        heavy = await forge.enqueue("heavy")
        await eventually(lambda: heavy.id in desk.slots)
        assert worker.session is not None
        own = worker.session.hand.running[heavy.id].task
        for runner in set(worker.session.runners._tasks) - {own}:
            runner.cancel()
        light = await forge.enqueue("light")
        await asyncio.wait_for(worker.session._claimer._storage.ping(), 30)
        assert worker.session.hand.extra.kept == 2
        desk.gates[heavy.id].set()
        await eventually(lambda: light.id in desk.slots)
        assert worker.session.runners.alive == 3
        desk.gates[light.id].set()
    assert desk.beside[light.id] == 0


async def test_a_heavy_job_with_a_large_payload_begins_with_all_of_its_slots(forge: Forge) -> None:
    desk = Desk()

    @forge.handler(slots=2)
    async def heavy(ctx: Context, text: str) -> None:
        desk.begin(ctx.job_id, 2)
        await asyncio.sleep(0)
        del desk.slots[ctx.job_id]

    await forge.enqueue_many("heavy", [{"text": "x" * 100_000}] * 5)
    async with asyncio.timeout(60):
        await Worker(forge, queues=["default"], concurrency=3).run(until_empty=True)

    assert set(desk.beside.values()) == {0}
    assert len(desk.beside) == 5


def test_the_autoscaler_hears_of_the_time_of_all_slots() -> None:
    counts = RunCounts({"heavy": 3})
    counts.count([run(kind="heavy", duration=2.0), run(kind="light", duration=1.0)])

    assert counts.run_seconds == 7.0
    assert counts.succeeded == 2


@pytest.mark.parametrize("slots", [0, -1, True, 1.5, "2", None, 10_001])
def test_slots_that_no_worker_can_have_are_refused_in_one_sentence(slots: Any) -> None:
    forge = Forge("sqlite://:memory:")
    with pytest.raises(
        InvalidInput, match=r"^slots of handler 'work' is .*, allowed is a whole number from 1"
    ):

        @forge.handler(slots=slots)
        async def work() -> None:
            pass


def test_a_batch_has_one_slot_a_job() -> None:
    forge = Forge("sqlite://:memory:")
    with pytest.raises(InvalidInput, match="batch and slots are both given"):

        @forge.handler(slots=2, batch=Batch())
        async def work(jobs: list[BatchJob[dict[str, Any]]]) -> None:
            pass
