"""Pending jobs rise by how long they have waited, in queues that say so."""

import asyncio
import random
from datetime import timedelta
from itertools import count

import pytest

from forge_jobs.maintenance import lifter
from forge_jobs.model.job import KeyMode, State
from forge_jobs.telemetry.telemetry import Telemetry
from tests.storage.factories import (
    claim,
    claim_ids,
    done,
    enqueue,
    enqueue_many,
    failed,
    job,
    leader,
    queue,
    worker,
)

AGE = timedelta(minutes=10)


@pytest.fixture
async def ageing(storage, clock):
    """The queue "default", in which a job rises by one every ten minutes; return its id. The clock stands still."""
    await clock.freeze()
    return (await storage.queues.set("default", {"age_after": AGE})).id


async def rise(storage, queue_id, epoch=None, **options):
    """Look as the leader, or as the one of this epoch."""
    if epoch is None:
        leads = await storage.leadership.get()
        epoch = await leader(storage) if leads is None else leads.epoch
    return await storage.ageing.rise(queue_id, epoch=epoch, **options)


async def order(storage):
    return await claim_ids(storage, await worker(storage), limit=1000)


async def test_a_job_rises_by_one_each_time_it_has_waited_so_long(storage, clock, ageing):
    epoch = await leader(storage)
    waits = await enqueue(storage, priority=5)
    seen = []
    for _ in range(6):
        await clock.advance(minutes=5)
        await enqueue(storage, priority=0)
        await rise(storage, ageing, epoch)
        seen.append((await storage.jobs.get(waits)).risen)

    assert seen == [0, 1, 1, 2, 2, 3]


async def test_the_priority_that_is_shown_is_the_one_that_was_asked_for(storage, clock, ageing):
    waits = await enqueue(storage, priority=5)
    await clock.advance(minutes=25)
    await enqueue(storage, priority=-5)
    await rise(storage, ageing)

    shown = await storage.jobs.get(waits)
    assert (shown.priority, shown.risen, shown.state) == (5, 2, State.PENDING)
    [listed] = [each for each in await storage.jobs.find(state=State.PENDING) if each.id == waits]
    assert (listed.priority, listed.risen) == (5, 2)


async def test_a_job_that_has_risen_is_before_those_of_its_new_priority_that_wait_less(
    storage, clock, ageing
):
    old = await enqueue(storage, priority=2)
    await clock.advance(minutes=20)
    urgent = await enqueue(storage, priority=-1)
    young = await enqueue(storage, priority=0)
    await rise(storage, ageing)

    assert await order(storage) == [urgent, old, young]


async def test_a_job_rises_above_no_other_that_waits(storage, clock, ageing):
    waits = await enqueue(storage, priority=5)
    await clock.advance(days=1)
    await enqueue(storage, priority=3)
    await rise(storage, ageing)
    assert (await storage.jobs.get(waits)).risen == 2

    await enqueue(storage, priority=-4)  # now there is somebody to overtake
    await clock.advance(minutes=10)
    await rise(storage, ageing)
    assert (await storage.jobs.get(waits)).risen == 9


async def test_jobs_of_one_priority_do_not_rise(storage, clock, ageing):
    ids = await enqueue_many(storage, 5, priority=7)
    await clock.advance(days=1)

    assert (await rise(storage, ageing)).jobs == 0
    assert [(await storage.jobs.get(job_id)).risen for job_id in ids] == [0] * 5


async def test_jobs_of_a_queue_that_does_not_say_so_do_not_rise(storage, clock, ageing):
    other = (await storage.queues.set("other", {})).id
    waits = await enqueue(storage, queue="other", priority=5)
    await enqueue(storage, queue="other", priority=0)
    await clock.advance(days=1)

    assert await rise(storage, other) == await rise(storage, ageing + other + 1000)
    await rise(storage, ageing)
    assert (await storage.jobs.get(waits)).risen == 0


async def test_what_is_done_again_changes_nothing(storage, clock, ageing):
    waits = await enqueue(storage, priority=5)
    await clock.advance(minutes=31)
    await enqueue(storage, priority=0)

    assert [(await rise(storage, ageing)).jobs for _ in range(3)] == [1, 0, 0]
    assert (await storage.jobs.get(waits)).risen == 3


async def test_a_leader_that_was_replaced_raises_nothing(storage, clock, ageing):
    waits = await enqueue(storage, priority=5)
    epoch = await leader(storage)
    await clock.advance(minutes=10)
    await enqueue(storage, priority=0)

    assert (await rise(storage, ageing, epoch + 1)).up_to is None
    assert (await storage.jobs.get(waits)).risen == 0


async def test_who_goes_on_where_the_last_look_ended_finds_every_job(storage, clock, ageing):
    epoch = await leader(storage)
    chance = random.Random(7)
    last, ids = None, []
    for _ in range(40):
        ids += await enqueue_many(storage, chance.randrange(4), priority=chance.randrange(1, 5))
        await enqueue(storage, priority=0)
        await clock.advance(minutes=chance.randrange(1, 9))
        is_full = True
        while is_full:
            last = await rise(storage, ageing, epoch, after=last, limit=2)
            is_full = last.is_full

    now = clock.now()
    for job_id in ids:
        shown = await storage.jobs.get(job_id)
        assert shown.risen == min(shown.priority, (now - shown.created_at) // AGE)


async def test_a_job_that_has_risen_rises_on_when_the_next_look_goes_on_where_this_one_ended(
    storage, clock, ageing
):
    old = await enqueue(storage, priority=5)
    await clock.advance(minutes=5)
    await enqueue(storage, priority=4)  # here the priority begins
    await enqueue(storage, priority=0)
    last, seen = None, []
    for _ in range(4):
        last = await rise(storage, ageing, after=last)
        seen.append((await storage.jobs.get(old)).risen)
        await clock.advance(minutes=9)

    assert seen == [0, 1, 2, 3]


async def test_a_job_that_came_to_an_old_place_is_found_in_each_queue_after_some_looks(
    storage, clock, monkeypatch
):
    await clock.freeze()
    monkeypatch.setattr(lifter, "uptime", count(step=1000.0).__next__)  # so that each queue is due each time
    monkeypatch.setattr(lifter, "SHARE", 0)
    me = await worker(storage, ["default", "mail", "post"])
    waiting, claimed = [], []
    for name in ("default", "mail", "post"):
        await storage.queues.set(name, {"age_after": AGE})
        waiting.append(await enqueue(storage, queue=name, priority=5))
        claimed += await claim(storage, me, name)
        await clock.advance(seconds=1)
        waiting.append(await enqueue(storage, queue=name, priority=5))
        await enqueue(storage, queue=name, priority=0)
    lifts = lifter.Lifter(storage, Telemetry(), await leader(storage))
    await lifts.lift()
    await clock.advance(minutes=11)
    await lifts.lift()

    await storage.claims.hand_back(claimed)
    for _ in range(lifter.WHOLE_EVERY):
        await lifts.lift()

    assert [(await storage.jobs.get(job_id)).risen for job_id in waiting] == [1] * 6


async def test_a_clock_that_is_set_back_stops_nothing(storage, clock, ageing):
    waits = await enqueue(storage, priority=5)
    await clock.advance(days=2)
    last = await rise(storage, ageing)
    await clock.advance(days=-1)
    await enqueue(storage, priority=0)
    last = await rise(storage, ageing, after=last)
    await clock.advance(minutes=10)
    await rise(storage, ageing, after=last)

    assert (await storage.jobs.get(waits)).risen == 5


async def test_many_jobs_of_one_moment_rise_a_few_at_a_time(storage, clock, ageing):
    epoch = await leader(storage)
    await enqueue_many(storage, 25, priority=1)
    await clock.advance(minutes=11)
    await enqueue(storage, priority=0)
    rises = [await rise(storage, ageing, epoch, limit=10)]
    while rises[-1].is_full:
        rises.append(await rise(storage, ageing, epoch, after=rises[-1], limit=10))

    assert [each.jobs for each in rises] == [10, 10, 5]


async def test_a_job_that_has_risen_is_still_found_by_all_who_look_for_it(storage, clock, ageing):
    ids = await enqueue_many(storage, 4, priority=3)
    await clock.advance(minutes=11)
    await enqueue(storage, priority=0)
    await rise(storage, ageing)

    await storage.jobs.cancel(ids[0])
    await storage.jobs.delete(ids[0])
    assert (await storage.jobs.get(ids[1])).risen == 1
    assert (await storage.jobs.waiting(ids[1])).ahead == 1
    found = [each.id for each in await storage.jobs.find(state=State.PENDING)]
    assert set(ids[1:]) < set(found)
    assert len(await order(storage)) == 4


async def test_a_job_that_is_handed_back_or_fails_keeps_what_it_has_risen(storage, clock, ageing):
    waits = await enqueue(storage, priority=3)
    await clock.advance(minutes=10)
    await enqueue(storage, priority=2)
    await rise(storage, ageing)

    me = await worker(storage)
    [claimed, other] = await claim(storage, me, limit=2)
    assert claimed.job_id == waits
    await storage.claims.hand_back([claimed])
    await storage.claims.finish([done(other)])
    [claimed] = await claim(storage, me)
    await storage.claims.postpone([failed(claimed, delay=timedelta(0))])
    assert (await storage.jobs.get(waits)).risen == 1
    assert await order(storage) == [waits]


async def test_a_priority_that_is_said_anew_counts_from_there(storage, clock, ageing):
    waits = await enqueue(storage, priority=5, key="one")
    await clock.advance(minutes=10)
    await enqueue(storage, priority=0)
    await rise(storage, ageing)
    await storage.jobs.enqueue(job(priority=9, key="one", key_mode=KeyMode.REPLACE))

    shown = await storage.jobs.get(waits)
    assert (shown.priority, shown.risen) == (9, 0)


async def test_jobs_that_rise_while_others_claim_them_run_once_each(storage, clock, ageing):
    epoch = await leader(storage)
    ids = await enqueue_many(storage, 200, priority=3)
    await clock.advance(minutes=30)
    ids += await enqueue_many(storage, 50, priority=0)
    me, you = await worker(storage), await worker(storage)
    taken = []

    async def take(who):
        while found := await claim_ids(storage, who, limit=7):
            taken.extend(found)

    async def lift():
        while (await storage.ageing.rise(ageing, epoch=epoch, limit=11)).is_full:
            pass

    await asyncio.gather(take(me), lift(), take(you), lift())
    while found := await claim_ids(storage, me, limit=100):
        taken.extend(found)
    assert sorted(taken) == sorted(ids)


async def test_the_setting_is_read_back(storage):
    await storage.queues.set("default", {"age_after": AGE})
    assert (await queue(storage)).age_after == AGE
    await storage.queues.set("default", {"age_after": None})
    assert (await queue(storage)).age_after is None
