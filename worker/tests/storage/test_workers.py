"""Who is alive, and what each of them does."""

from datetime import timedelta

import pytest

from forge_jobs.errors import JobNotFound, WorkerLost
from forge_jobs.model.facts import HeldSlots, SlotFacts, SlotHolder
from forge_jobs.model.kind import Kind
from forge_jobs.model.worker import WorkerInfo
from tests.storage.factories import NOBODY, claim, enqueue, enqueue_many, queue, running, worker


async def test_a_registered_worker_is_known_with_every_fact(storage, clock):
    now = await clock.freeze()
    await storage.workers.register(
        WorkerInfo(
            id=2**62 + 7,
            label="shop-worker-7-abc",
            host="pod-1",
            pid=4711,
            version="7",
            queues=("mail", "default"),
            kinds=("send", "drop"),
            concurrency=50,
        )
    )

    [info] = await storage.workers.all()

    assert (info.id, info.label, info.host, info.pid) == (2**62 + 7, "shop-worker-7-abc", "pod-1", 4711)
    assert (info.version, info.queues, info.kinds) == ("7", ("mail", "default"), ("send", "drop"))
    assert (info.concurrency, info.draining, info.in_progress) == (50, False, 0)
    assert abs(info.started_at - now) < timedelta(milliseconds=1)
    assert abs(info.beat_at - now) < timedelta(milliseconds=1)


async def test_workers_are_listed_by_label(storage):
    for label in ("b", "c", "a"):
        await worker(storage, label=label)

    assert [info.label for info in await storage.workers.all()] == ["a", "b", "c"]


async def test_a_worker_without_kinds_is_a_worker(storage):
    await worker(storage, kinds=())

    assert [info.kinds for info in await storage.workers.all()] == [()]


async def test_registering_twice_registers_once(storage):
    info = WorkerInfo(5, "a", "here", 1, "1", ("default",), ("work",), 1)
    await storage.workers.register(info)
    await storage.workers.register(info)

    assert [found.id for found in await storage.workers.all()] == [5]


async def test_a_heartbeat_is_noted(storage, clock):
    start = await clock.freeze()
    me = await worker(storage)
    await clock.advance(seconds=5)

    beat = await storage.workers.beat(me)

    [info] = await storage.workers.all()
    assert abs(info.beat_at - start - timedelta(seconds=5)) < timedelta(milliseconds=1)
    assert abs(info.started_at - start) < timedelta(milliseconds=1)
    assert beat.cancels == ()


async def test_a_worker_that_was_never_registered_is_lost(storage):
    with pytest.raises(WorkerLost):
        await storage.workers.beat(NOBODY)


async def test_a_heartbeat_and_a_look_at_all_of_them_name_the_same_life_of_the_server(storage):
    me = await worker(storage)
    assert (await storage.workers.beat(me)).life == (await storage.workers.beats()).life


async def test_a_heartbeat_without_changes_says_the_same_revision(storage):
    me = await worker(storage)

    assert (await storage.workers.beat(me)).revision == (await storage.workers.beat(me)).revision


async def test_what_each_worker_has_in_progress_is_counted(storage):
    one, two = await worker(storage), await worker(storage)
    await enqueue_many(storage, 3)
    await claim(storage, one)
    await running(storage, two)

    assert {info.id: info.in_progress for info in await storage.workers.all()} == {one: 3, two: 1}


async def test_it_is_known_since_when_each_worker_runs_its_oldest_job(storage, clock):
    start = await clock.freeze()
    busy, idle = await worker(storage), await worker(storage)
    await running(storage, busy)
    await clock.advance(seconds=60)
    await running(storage, busy)

    since = {info.id: info.busy_since for info in await storage.workers.all()}

    assert since[idle] is None
    assert abs(since[busy] - start) < timedelta(milliseconds=1)


async def test_a_draining_worker_says_so(storage):
    me = await worker(storage)

    await storage.workers.drain(me)

    [info] = await storage.workers.all()
    assert info.draining is True


async def test_a_worker_that_goes_is_not_listed(storage):
    me, other = await worker(storage), await worker(storage)

    await storage.workers.deregister(me)
    await storage.workers.deregister(me)

    assert [info.id for info in await storage.workers.all()] == [other]
    with pytest.raises(WorkerLost):
        await storage.workers.beat(me)


async def test_a_worker_that_goes_leaves_nothing_behind(storage, database):
    await storage.queues.set("narrow", {"concurrency": 2})
    me = await worker(storage, ["narrow"])
    narrow = (await queue(storage, "narrow")).id
    await storage.slots.take(narrow, me, 2)
    await storage.wakeups.mark_idle(me, [narrow])
    await storage.leadership.lead(me, timedelta(seconds=15))

    await storage.workers.deregister(me)

    assert await database.rows("SELECT worker_id FROM slot WHERE worker_id IS NOT NULL") == []
    assert await storage.leadership.get() is None


async def test_a_worker_says_which_jobs_are_astray_there(storage):
    one, two = await worker(storage), await worker(storage)

    await storage.workers.astray(one, stuck=[7, 8], adrift=[9])

    said = {found.id: (found.stuck, found.adrift) for found in await storage.workers.all()}
    assert said == {one: ((7, 8), (9,)), two: ((), ())}
    await storage.workers.astray(one, stuck=[], adrift=[])
    said = {found.id: (found.stuck, found.adrift) for found in await storage.workers.all()}
    assert said[one] == ((), ())


async def test_a_beat_says_what_keeps_the_worker_from_its_work_until_another_says_that_nothing_does(storage):
    one, two = await worker(storage), await worker(storage)

    for ailment in ("It could not look for jobs for 20 s.", None):
        await storage.workers.beat(one, ailment=ailment)
        await storage.workers.beat(two)
        said = {found.id: found.ailment for found in await storage.workers.all()}
        assert said == {one: ailment, two: None}


async def test_the_slots_of_workers_are_told_with_the_jobs_that_have_most(storage):
    await storage.kinds.declare([Kind("heavy", slots=3), Kind("huge", slots=99), Kind("work")], by="a test")
    me, other = await worker(storage, concurrency=10), await worker(storage, concurrency=4)
    waiting = await enqueue(storage, "heavy", priority=9)
    assert await storage.workers.held_slots(waiting) == SlotFacts(3)
    mine = [await running(storage, me, kind) for kind in ("work", "heavy", "work", "heavy", "unknown")]
    huge = await running(storage, other, "huge")

    facts = await storage.workers.held_slots(waiting)

    heavy = (SlotHolder(mine[1].job_id, "heavy", 3), SlotHolder(mine[3].job_id, "heavy", 3))
    assert facts == SlotFacts(
        3,
        {
            me: HeldSlots(9, 5, (*heavy, SlotHolder(mine[0].job_id, "work", 1))),
            other: HeldSlots(4, 1, (SlotHolder(huge.job_id, "huge", 4),)),
        },
    )


async def test_of_a_claimed_job_the_slots_are_told_that_its_worker_gave_away_before(storage, clock):
    await storage.kinds.declare([Kind("heavy", slots=3)], by="a test")
    me, other = await worker(storage), await worker(storage)
    first = await running(storage, me)
    await running(storage, other)
    await clock.advance(seconds=1)
    heavy = await running(storage, me, "heavy")
    await clock.advance(seconds=1)
    await running(storage, me)

    facts = await storage.workers.held_slots(heavy.job_id)

    assert facts == SlotFacts(3, {me: HeldSlots(1, 1, (SlotHolder(first.job_id, "work", 1),))})


async def test_the_slots_of_a_job_that_is_not_there_are_an_error(storage):
    with pytest.raises(JobNotFound):
        await storage.workers.held_slots(1)
