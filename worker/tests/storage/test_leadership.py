"""At any moment one worker leads, and every change of leader is numbered."""

import asyncio
from datetime import timedelta

from tests.storage.factories import worker

LEASE = timedelta(seconds=15)


async def lead(storage, me):
    return await storage.leadership.lead(me, LEASE)


async def test_nobody_leads_at_first(storage):
    assert await storage.leadership.get() is None


async def test_the_first_who_asks_leads(storage, clock):
    now = await clock.freeze()
    me = await worker(storage, label="shop-worker-7-abc")

    epoch = await lead(storage, me)

    found = await storage.leadership.get()
    assert (found.worker_id, found.worker, found.epoch) == (me, "shop-worker-7-abc", epoch)
    assert abs(found.until - now - LEASE) < timedelta(milliseconds=1)


async def test_others_are_refused_while_the_lease_runs(storage, clock):
    one, two = await worker(storage), await worker(storage)
    await lead(storage, one)
    await clock.advance(seconds=14)

    assert await lead(storage, two) is None


async def test_a_leader_that_renews_keeps_its_epoch(storage, clock):
    one, two = await worker(storage), await worker(storage)
    epoch = await lead(storage, one)
    for _ in range(4):
        await clock.advance(seconds=10)
        assert await lead(storage, one) == epoch

    assert await lead(storage, two) is None


async def test_another_leads_with_a_greater_epoch_when_the_lease_ran_out(storage, clock):
    one, two = await worker(storage), await worker(storage)
    epoch = await lead(storage, one)
    await clock.advance(seconds=16)

    assert await storage.leadership.get() is None
    assert await lead(storage, two) > epoch
    assert await lead(storage, one) is None


async def test_the_epoch_grows_with_every_change(storage):
    one, two = await worker(storage), await worker(storage)
    epochs = []
    for _ in range(3):
        for me in (one, two):
            epochs.append(await lead(storage, me))
            await storage.leadership.resign(me)

    assert epochs == sorted(set(epochs))


async def test_who_resigns_does_not_lead(storage):
    one, two = await worker(storage), await worker(storage)
    epoch = await lead(storage, one)

    await storage.leadership.resign(one)

    assert await storage.leadership.get() is None
    assert await lead(storage, two) > epoch


async def test_who_does_not_lead_resigns_from_nothing(storage):
    one, two = await worker(storage), await worker(storage)
    await lead(storage, one)

    await storage.leadership.resign(two)

    assert (await storage.leadership.get()).worker_id == one


async def test_a_worker_that_goes_does_not_lead(storage):
    one, two = await worker(storage), await worker(storage)
    epoch = await lead(storage, one)

    await storage.workers.deregister(one)

    assert await storage.leadership.get() is None
    assert await lead(storage, two) > epoch


async def test_of_ten_who_ask_at_once_one_leads(storage, another):
    storages = [storage, *[await another() for _ in range(9)]]
    workers = [await worker(storage) for _ in storages]

    answers = await asyncio.gather(*map(lead, storages, workers))

    assert sum(answer is not None for answer in answers) == 1


async def test_of_ten_who_take_over_at_once_one_leads(storage, another, clock):
    storages = [storage, *[await another() for _ in range(9)]]
    workers = [await worker(storage) for _ in range(11)]
    before = await lead(storage, workers[10])
    await clock.advance(seconds=16)

    answers = await asyncio.gather(*map(lead, storages, workers))

    [epoch] = [answer for answer in answers if answer is not None]
    assert epoch > before


async def test_a_leader_that_was_away_comes_back_with_a_greater_epoch(storage, clock):
    me = await worker(storage)
    epoch = await lead(storage, me)
    await clock.advance(seconds=16)

    assert await lead(storage, me) > epoch


async def test_a_lease_from_before_the_clock_was_set_back_is_none(storage, clock):
    one, two = await worker(storage), await worker(storage)
    epoch = await lead(storage, one)
    await clock.advance(hours=-1)

    assert await lead(storage, two) > epoch
    assert await lead(storage, one) is None


async def test_a_leader_that_renews_after_the_clock_was_set_back_leads_on(storage, clock):
    one, two = await worker(storage), await worker(storage)
    epoch = await lead(storage, one)
    await clock.advance(hours=-1)

    assert await lead(storage, one) == epoch
    assert await lead(storage, two) is None
