"""A group may be paused: its running jobs end, and all others wait, whatever their queues and kinds."""

import asyncio
from datetime import timedelta

import pytest

from forge_jobs.model.group import Group, GroupStatus, encoded
from forge_jobs.model.job import State
from tests.storage.factories import claim, claim_ids, done, enqueue, failed, job, leader, state, worker

MINUTE = timedelta(minutes=1)


def of(*groups, **facts):
    """A job's facts with these groups."""
    return {"groups": encoded(Group(one) if isinstance(one, str) else one for one in groups), **facts}


async def pause(storage, name="a", until=None, reason=None):
    await storage.groups.pause(name, until=until, reason=reason)


async def states(storage, ids):
    return [await state(storage, one) for one in ids]


async def test_a_pending_job_of_a_group_that_is_paused_is_blocked(storage):
    me = await worker(storage)
    ids = [await enqueue(storage, **of(Group("a", limit=2))) for _ in range(3)]
    other = await enqueue(storage, **of("b"))

    await pause(storage)

    assert await states(storage, ids) == [State.BLOCKED] * 3
    assert await claim_ids(storage, me) == [other]
    [counts] = await storage.jobs.counts()
    assert (counts.pending, counts.blocked, counts.in_progress) == (0, 3, 1)


async def test_a_job_that_is_enqueued_while_its_group_is_paused_is_blocked(storage):
    await pause(storage)

    assert await state(storage, await enqueue(storage, **of("a"))) is State.BLOCKED
    assert await state(storage, await enqueue(storage, **of("b"))) is State.PENDING


async def test_a_running_job_of_a_paused_group_ends_and_nobody_gets_its_place(storage):
    me = await worker(storage)
    await enqueue(storage, **of("a"))
    waiting = await enqueue(storage, **of("a"))
    [running] = await claim(storage, me)

    await pause(storage)
    assert await storage.claims.finish([done(running)]) == []

    assert await state(storage, waiting) is State.BLOCKED
    assert await storage.groups.all() == [GroupStatus("a", 1, blocked=1, paused=True)]


async def test_jobs_of_a_resumed_group_are_pending_in_their_order(storage):
    me = await worker(storage)
    ids = [await enqueue(storage, **of(Group("a", limit=2))) for _ in range(4)]
    await pause(storage)
    ids += [await enqueue(storage, **of("a"))]

    assert await storage.groups.resume("a")

    begun = []
    while claims := await claim(storage, me):
        begun += [one.job_id for one in claims]
        await storage.claims.finish([done(one) for one in claims])
    assert begun == ids


async def test_a_group_is_resumed_once(storage):
    await pause(storage)

    assert await storage.groups.resume("a")
    assert not await storage.groups.resume("a")
    assert await storage.groups.all() == []


async def test_a_job_that_is_handed_back_to_a_paused_group_is_blocked_before_the_others(storage):
    me = await worker(storage)
    ids = [await enqueue(storage, **of("a")) for _ in range(2)]
    plain = await enqueue(storage)
    claims = await claim(storage, me)
    await pause(storage)

    assert await storage.claims.hand_back(claims) == []

    assert await states(storage, [*ids, plain]) == [State.BLOCKED, State.BLOCKED, State.PENDING]
    await storage.groups.resume("a")
    assert await states(storage, ids) == [State.PENDING, State.BLOCKED]


async def test_a_job_of_a_paused_group_that_fails_waits_for_its_end_when_it_is_due(storage, clock):
    me = await worker(storage)
    wanted = await enqueue(storage, **of("a"))
    [running] = await claim(storage, me)
    await pause(storage)

    await storage.claims.postpone([failed(running)])
    await clock.advance(seconds=20)
    await storage.schedule.make_pending()

    assert await state(storage, wanted) is State.BLOCKED


async def test_a_job_of_two_groups_keeps_nobody_from_the_other_one(storage):
    both = await enqueue(storage, **of("a", "b"))
    waiting = await enqueue(storage, **of("b"))

    await pause(storage)

    assert await states(storage, [both, waiting]) == [State.BLOCKED, State.PENDING]
    await storage.groups.resume("a")
    assert await state(storage, both) is State.BLOCKED


async def test_a_pause_says_until_when_and_why(storage, clock):
    now = await clock.freeze()
    wanted = await enqueue(storage, **of("a"))

    await pause(storage, "a", now + MINUTE, "the bank is closed")
    await pause(storage, "z")

    assert await storage.groups.all() == [
        GroupStatus(
            "a", 1, blocked=1, paused=True, paused_until=now + MINUTE, pause_reason="the bank is closed"
        ),
        GroupStatus("z", 1, paused=True),
    ]
    assert await storage.groups.paused() == {"a": now, "z": now}
    waiting = await storage.jobs.waiting(wanted)
    [full] = waiting.full_groups
    assert (full.paused, full.paused_until, full.pause_reason) == (True, now + MINUTE, "the bank is closed")


async def test_a_pause_ends_when_its_time_has_come(storage, clock):
    now = await clock.freeze()
    wanted = await enqueue(storage, **of("a"))
    await pause(storage, "a", now + MINUTE)
    await pause(storage, "b", now + 3 * MINUTE)
    await pause(storage, "c")
    assert await storage.groups.end_pauses() == ((), MINUTE)

    await clock.advance(minutes=2)

    ended, next_in = await storage.groups.end_pauses()
    assert (list(ended), next_in) == (["a"], MINUTE)
    assert await state(storage, wanted) is State.PENDING
    assert list(await storage.groups.paused()) == ["b", "c"]


async def test_a_pause_that_many_end_at_once_ends_once(storage, another, clock):
    await pause(storage, until=clock.now() + MINUTE)
    await clock.advance(minutes=2)
    storages = [storage, *[await another() for _ in range(4)]]

    said = await asyncio.gather(*(each.groups.end_pauses() for each in storages))

    assert sorted(list(ended) for ended, _ in said) == [[], [], [], [], ["a"]]


async def test_a_group_that_was_resumed_meanwhile_is_paused_since_later(storage, clock):
    await clock.freeze()
    await pause(storage)
    before = await storage.groups.paused()

    await clock.advance(seconds=1)
    await storage.groups.resume("a")
    await pause(storage)

    assert await storage.groups.paused() == {"a": before["a"] + timedelta(seconds=1)}


async def test_workers_are_told_of_each_change(storage):
    me = await worker(storage)
    revisions = []
    for change in (pause(storage), storage.groups.resume("a")):
        revisions.append((await storage.workers.beat(me)).revision)
        await change
    revisions.append((await storage.workers.beat(me)).revision)

    assert revisions == sorted(set(revisions))


async def test_a_group_that_nobody_uses_any_more_stays_paused(storage):
    epoch = await leader(storage)
    wanted = await enqueue(storage, **of("a"))
    await pause(storage)
    await storage.jobs.delete(wanted)

    await storage.groups.audit(epoch=epoch)

    assert await state(storage, await enqueue(storage, **of("a"))) is State.BLOCKED


async def test_a_paused_group_drops_what_is_more_than_it_has_places_for(storage):
    newest = of(Group("a", limit=2, overflow="drop_newest"))
    await pause(storage)
    ids = [await enqueue(storage, **newest) for _ in range(2)]

    answer = await storage.jobs.enqueue(job(**newest))

    assert answer.dropped and answer.id == ids[0]
    assert await states(storage, ids) == [State.BLOCKED, State.BLOCKED]


async def test_the_newest_job_of_a_paused_group_takes_the_place_of_those_before_it(storage):
    newest = of(Group("a", overflow="cancel_running"))
    await pause(storage)

    ids = [await enqueue(storage, **newest) for _ in range(3)]

    assert await states(storage, ids) == [State.DEAD, State.DEAD, State.BLOCKED]


async def test_an_audit_finds_nothing_wrong_with_a_paused_group(storage):
    epoch = await leader(storage)
    await enqueue(storage, **of("a"))
    await pause(storage)

    assert await storage.groups.audit(epoch=epoch) == 0
    assert await storage.audit.groups() == []


async def test_no_claim_that_begins_after_a_pause_finds_a_job_of_the_group(storage, another):
    me = await worker(storage)
    wanted = 40
    looks: list[int] = []  # of each pause, how many there were from begin to end while it lasted
    is_paused = False
    await enqueue(storage, **of(Group("a", limit=3)))

    async def produce():
        mine = await another()
        for _ in range(wanted - 1):
            await enqueue(mine, **of(Group("a", limit=3)))

    async def switch():
        nonlocal is_paused
        mine = await another()
        for _ in range(10):
            await mine.groups.pause("a", until=None, reason=None)
            looks.append(0)
            is_paused = True
            while looks[-1] < 2:
                await asyncio.sleep(0)
            is_paused = False
            await mine.groups.resume("a")

    async def work():
        ended = 0
        while ended < wanted or not switched.done():
            pause_before = len(looks) if is_paused else None
            claims = await claim(storage, me, limit=2)
            if is_paused and pause_before == len(looks):
                assert claims == []
                looks[-1] += 1
            await storage.claims.finish([done(one) for one in claims])
            ended += len(claims)
            await asyncio.sleep(0)

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        switched = tasks.create_task(switch())
        tasks.create_task(produce())
        tasks.create_task(work())


@pytest.mark.parametrize("seed", range(3))
async def test_all_jobs_of_a_group_end_that_is_paused_and_resumed_while_many_come_and_go(
    storage, another, seed
):
    me = await worker(storage)
    wanted = 40

    async def produce():
        mine = await another()
        for _ in range(wanted):
            await enqueue(mine, **of(Group("a", limit=3)))

    async def switch():
        mine = await another()
        for _ in range(10):
            await mine.groups.pause("a", until=None, reason=None)
            await asyncio.sleep(0)
            await mine.groups.resume("a")

    ended: list[int] = []

    async def work():
        while len(ended) < wanted:
            claims = await claim(storage, me, limit=2)
            if claims and seed and len(ended) % 5 == seed:
                await storage.claims.hand_back(claims[:1])
                claims = claims[1:]
            await storage.claims.finish([done(one) for one in claims])
            ended.extend(one.job_id for one in claims)
            await asyncio.sleep(0)

    async with asyncio.timeout(60):
        await asyncio.gather(produce(), switch(), work())
    [counts] = await storage.jobs.counts()
    assert (counts.done, counts.pending, counts.blocked) == (wanted, 0, 0)
