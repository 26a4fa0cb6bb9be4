"""A queue's concurrency holds over all workers, at every instant."""

import asyncio

import pytest

from tests.storage.factories import claim, claim_ids, done, enqueue_many, lost_claims, queue, worker


@pytest.fixture
async def narrow(storage):
    """The id of a queue that may have three jobs in progress."""
    return (await storage.queues.set("narrow", {"concurrency": 3})).id


async def narrow_worker(storage):
    return await worker(storage, ["narrow"])


async def test_a_worker_gets_what_it_asks_for_while_there_is_enough(storage, narrow):
    me = await narrow_worker(storage)

    assert await storage.slots.take(narrow, me, 2) == 2
    assert await storage.slots.take(narrow, me, 2) == 1
    assert await storage.slots.take(narrow, me, 2) == 0


async def test_workers_share_the_slots(storage, narrow):
    one, two, three = [await narrow_worker(storage) for _ in range(3)]

    assert [await storage.slots.take(narrow, me, 2) for me in (one, two, three)] == [2, 1, 0]


async def test_asking_for_none_gives_none(storage, narrow):
    assert await storage.slots.take(narrow, await narrow_worker(storage), 0) == 0


async def test_a_queue_without_a_limit_has_no_slots(storage):
    me = await worker(storage)

    assert await storage.slots.take((await queue(storage)).id, me, 5) == 0


async def test_a_worker_that_is_not_registered_gets_no_slots(storage, narrow):
    me = await narrow_worker(storage)
    await storage.workers.deregister(me)

    assert await storage.slots.take(narrow, me, 1) == 0


async def test_surplus_slots_are_given_back(storage, narrow):
    one, two = await narrow_worker(storage), await narrow_worker(storage)
    await storage.slots.take(narrow, one, 3)

    await storage.slots.give_back(narrow, one, 1)

    assert await storage.slots.take(narrow, two, 3) == 2
    await storage.slots.give_back(narrow, one, 0)
    assert await storage.slots.take(narrow, two, 3) == 1


async def test_giving_back_down_to_more_than_one_holds_changes_nothing(storage, narrow):
    one, two = await narrow_worker(storage), await narrow_worker(storage)
    await storage.slots.take(narrow, one, 2)

    await storage.slots.give_back(narrow, one, 5)

    assert await storage.slots.take(narrow, two, 3) == 1


async def test_slots_of_other_workers_and_queues_are_not_given_back(storage, narrow):
    wide = (await storage.queues.set("wide", {"concurrency": 2})).id
    one, two = await worker(storage, ["narrow", "wide"]), await narrow_worker(storage)
    await storage.slots.take(narrow, one, 2)
    await storage.slots.take(wide, one, 2)
    await storage.slots.take(narrow, two, 1)

    await storage.slots.give_back(narrow, one, 0)

    assert await storage.slots.take(wide, two, 2) == 0
    assert await storage.slots.take(narrow, one, 3) == 2


async def test_a_worker_that_goes_leaves_its_slots(storage, narrow):
    one = await narrow_worker(storage)
    await storage.slots.take(narrow, one, 3)
    await storage.workers.deregister(one)

    assert await storage.slots.take(narrow, await narrow_worker(storage), 3) == 3


async def test_no_more_are_claimed_than_the_worker_holds_slots(storage, narrow):
    me = await narrow_worker(storage)
    ids = await enqueue_many(storage, 5, queue="narrow")

    assert await claim_ids(storage, me, "narrow") == []
    await storage.slots.take(narrow, me, 2)
    assert await claim_ids(storage, me, "narrow") == ids[:2]
    assert await claim_ids(storage, me, "narrow", in_hand=2) == []
    await storage.slots.take(narrow, me, 1)
    assert await claim_ids(storage, me, "narrow", in_hand=2) == ids[2:3]


async def test_a_slot_is_used_again_when_its_job_has_ended(storage, narrow):
    me = await narrow_worker(storage)
    ids = await enqueue_many(storage, 3, queue="narrow")
    await storage.slots.take(narrow, me, 1)

    for wanted in ids:
        [claimed] = await claim(storage, me, "narrow", in_hand=0)
        assert claimed.job_id == wanted
        await storage.claims.finish([done(claimed)])


async def test_having_more_in_hand_than_slots_claims_nothing(storage, narrow):
    me = await narrow_worker(storage)
    await enqueue_many(storage, 5, queue="narrow")
    await storage.slots.take(narrow, me, 1)

    assert await claim_ids(storage, me, "narrow", in_hand=4) == []


async def test_a_concurrency_of_none_stops_the_queue(storage, narrow):
    me = await narrow_worker(storage)
    await enqueue_many(storage, 2, queue="narrow")
    await storage.queues.set("narrow", {"concurrency": 0})

    assert await storage.slots.take(narrow, me, 3) == 0
    assert await claim_ids(storage, me, "narrow") == []


async def test_a_limit_that_is_taken_away_frees_the_queue(storage, narrow):
    me = await narrow_worker(storage)
    ids = await enqueue_many(storage, 5, queue="narrow")
    await storage.queues.set("narrow", {"concurrency": None})

    assert await claim_ids(storage, me, "narrow") == ids


async def test_a_raised_concurrency_gives_more_slots(storage, narrow):
    me = await narrow_worker(storage)
    await storage.slots.take(narrow, me, 3)
    await storage.queues.set("narrow", {"concurrency": 5})

    assert await storage.slots.take(narrow, me, 9) == 2


async def test_a_lowered_concurrency_gives_no_slots_until_enough_came_back(storage, narrow):
    one, two = await narrow_worker(storage), await narrow_worker(storage)
    await storage.slots.take(narrow, one, 3)
    await storage.queues.set("narrow", {"concurrency": 1})

    assert await storage.slots.take(narrow, two, 1) == 0
    await storage.slots.give_back(narrow, one, 1)
    assert await storage.slots.take(narrow, two, 1) == 0
    await storage.slots.give_back(narrow, one, 0)
    assert await storage.slots.take(narrow, two, 5) == 1


async def test_a_lowered_and_raised_concurrency_is_exact_again(storage, narrow):
    one, two = await narrow_worker(storage), await narrow_worker(storage)
    await storage.slots.take(narrow, one, 3)
    await storage.queues.set("narrow", {"concurrency": 1})
    await storage.queues.set("narrow", {"concurrency": 4})

    assert await storage.slots.take(narrow, two, 9) == 1


async def test_a_limit_that_was_taken_away_and_set_again_is_exact(storage, narrow):
    one, two = await narrow_worker(storage), await narrow_worker(storage)
    await storage.slots.take(narrow, one, 3)
    await storage.queues.set("narrow", {"concurrency": None})
    await storage.queues.set("narrow", {"concurrency": 2})

    taken = [await storage.slots.take(narrow, me, 9) for me in (one, two)]

    assert sum(taken) <= 2


async def test_ten_workers_at_once_never_hold_more_than_there_are(storage, another, narrow, database):
    storages = [storage, *[await another() for _ in range(9)]]
    workers = [await narrow_worker(storage) for _ in storages]

    async def come_and_go(mine, me):
        for _ in range(10):
            await mine.slots.take(narrow, me, 2)
            [[held]] = await database.rows("SELECT count(*) FROM slot WHERE worker_id IS NOT NULL")
            assert held <= 3
            await mine.slots.give_back(narrow, me, 0)

    await asyncio.gather(*map(come_and_go, storages, workers))
    taken = await asyncio.gather(
        *(mine.slots.take(narrow, me, 2) for mine, me in zip(storages, workers, strict=True))
    )

    assert sum(taken) == 3


async def test_ten_workers_at_once_never_run_more_than_the_concurrency(storage, another, narrow, database):
    await enqueue_many(storage, 60, queue="narrow")
    storages = [storage, *[await another() for _ in range(9)]]
    workers = [await narrow_worker(storage) for _ in storages]
    in_progress, most, left = 0, 0, 60

    async def work(mine, me):
        nonlocal in_progress, most, left
        while left:
            await mine.slots.take(narrow, me, 2)
            claims = await mine.claims.claim(narrow, me, limit=2)
            in_progress += len(claims)
            most = max(most, in_progress)
            [[claimed]] = await database.rows("SELECT count(*) FROM claimed")
            most = max(most, claimed)
            in_progress -= len(claims)
            left -= len(claims)
            await mine.claims.finish([done(one) for one in claims])
            await mine.slots.give_back(narrow, me, 0)

    await asyncio.gather(*map(work, storages, workers))

    assert 1 <= most <= 3


@pytest.mark.parametrize("how", ["it goes", "it falls silent"])
async def test_the_surplus_slots_of_a_worker_that_is_gone_are_gone(storage, narrow, clock, how):
    one = await narrow_worker(storage)
    await storage.slots.take(narrow, one, 3)
    await storage.queues.set("narrow", {"concurrency": 1})
    if how == "it goes":
        await storage.workers.deregister(one)
    else:
        await clock.advance(minutes=1)
        await lost_claims(storage)

    two, three = await narrow_worker(storage), await narrow_worker(storage)
    assert [await storage.slots.take(narrow, me, 5) for me in (two, three)] == [1, 0]
    await storage.queues.set("narrow", {"concurrency": 2})
    assert await storage.slots.take(narrow, three, 5) == 1


async def start_what_may(storage, me, name="narrow"):
    """Take what slots there are, claim on them, and give back what is left over; return the claims."""
    queue_id = (await queue(storage, name)).id
    in_hand = len(await storage.claims.held(me))
    await storage.slots.give_back(queue_id, me, in_hand)
    await storage.slots.take(queue_id, me, 9)
    claims = await claim(storage, me, name, in_hand=in_hand)
    await storage.slots.give_back(queue_id, me, in_hand + len(claims))
    return claims


@pytest.mark.parametrize("before", [None, 3])
async def test_jobs_that_run_when_a_limit_is_set_count(storage, before):
    await storage.queues.set("narrow", {"concurrency": before})
    one, two = await narrow_worker(storage), await narrow_worker(storage)
    await enqueue_many(storage, 9, queue="narrow")
    await storage.queues.set("narrow", {"concurrency": None})
    running = await claim(storage, one, "narrow", limit=2)
    await storage.queues.set("narrow", {"concurrency": 3})

    assert len(await start_what_may(storage, two)) == 1
    assert await start_what_may(storage, one) == []
    await storage.claims.finish([done(one) for one in running])
    assert len(await start_what_may(storage, one)) == 2


@pytest.mark.parametrize("before", [None, 5])
async def test_while_more_run_than_the_limit_says_none_is_started(storage, before):
    await storage.queues.set("narrow", {"concurrency": before})
    workers = [await narrow_worker(storage), await narrow_worker(storage)]
    await enqueue_many(storage, 20, queue="narrow")
    running = []
    for me, count in zip(workers, (3, 2), strict=True):
        if before is not None:
            await storage.slots.take((await queue(storage, "narrow")).id, me, count)
        running += await claim(storage, me, "narrow", limit=count)
    await storage.queues.set("narrow", {"concurrency": 2})

    for left in (5, 4, 3, 2):
        for me in workers:
            assert await start_what_may(storage, me) == []
        assert len(running) == left
        await storage.claims.finish([done(running.pop(0))])
    started = [await start_what_may(storage, me) for me in workers]
    assert sum(map(len, started)) == 1


async def test_the_slots_of_jobs_that_ran_when_a_limit_was_set_are_free_when_their_worker_goes(storage):
    await storage.queues.ensure(["narrow"])
    one, two = await narrow_worker(storage), await narrow_worker(storage)
    await enqueue_many(storage, 9, queue="narrow")
    await claim(storage, one, "narrow", limit=5)
    await storage.queues.set("narrow", {"concurrency": 2})
    await storage.workers.deregister(one)

    assert len(await start_what_may(storage, two)) == 2


async def test_a_limit_that_is_set_while_jobs_are_claimed_counts_every_one_of_them(storage, another):
    await storage.queues.ensure(["narrow"])
    workers = [(await another(), await narrow_worker(storage)) for _ in range(6)]
    await enqueue_many(storage, 200, queue="narrow")
    for _ in range(15):
        await asyncio.gather(
            *(claim(mine, me, "narrow", limit=1) for mine, me in workers[:3]),
            storage.queues.set("narrow", {"concurrency": 3}),
            *(claim(mine, me, "narrow", limit=1) for mine, me in workers[3:]),
        )
        running = [one for mine, me in workers for one in await mine.claims.held(me)]

        started = [one for mine, me in workers for one in await start_what_may(mine, me)]

        assert len(running) + len(started) == max(3, len(running))
        await storage.claims.finish([done(one) for one in running + started])
        await storage.queues.set("narrow", {"concurrency": None})
