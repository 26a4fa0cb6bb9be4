"""A throttled queue rests as a whole."""

import asyncio
from datetime import timedelta

from tests.storage.factories import claim_ids, enqueue, queue, worker

MINUTE = timedelta(minutes=1)


async def cool_down(storage, delay, throttles=1):
    await storage.queues.cool_down((await queue(storage)).id, delay, throttles)


async def test_nothing_is_claimed_from_a_queue_that_cools_down(storage, clock):
    me = await worker(storage)
    wanted = await enqueue(storage)
    await cool_down(storage, MINUTE)

    assert await claim_ids(storage, me) == []
    await clock.advance(seconds=59)
    assert await claim_ids(storage, me) == []
    await clock.advance(seconds=2)
    assert await claim_ids(storage, me) == [wanted]


async def test_other_queues_go_on(storage):
    me = await worker(storage, ["default", "mail"])
    wanted = await enqueue(storage, queue="mail")
    await cool_down(storage, MINUTE)

    assert await claim_ids(storage, me, "mail") == [wanted]


async def test_the_configuration_says_until_when_and_how_often(storage, clock):
    now = await clock.freeze()
    await cool_down(storage, MINUTE, throttles=3)

    config = await queue(storage)

    assert abs(config.cooldown_until - now - MINUTE) < timedelta(milliseconds=1)
    assert config.throttles == 3


async def test_a_longer_cool_down_wins(storage, clock):
    now = await clock.freeze()
    await cool_down(storage, MINUTE)
    await cool_down(storage, 2 * MINUTE, throttles=2)

    config = await queue(storage)

    assert abs(config.cooldown_until - now - 2 * MINUTE) < timedelta(milliseconds=1)
    assert config.throttles == 2


async def test_a_shorter_cool_down_changes_nothing(storage, clock):
    await clock.freeze()
    await cool_down(storage, 2 * MINUTE, throttles=2)
    before = await queue(storage)
    await clock.advance(seconds=10)

    await cool_down(storage, MINUTE, throttles=3)

    assert await queue(storage) == before


async def test_after_a_cool_down_a_shorter_one_counts(storage, clock):
    await clock.freeze()
    await cool_down(storage, 5 * MINUTE, throttles=2)
    await clock.advance(minutes=6)

    await cool_down(storage, MINUTE, throttles=3)

    config = await queue(storage)
    assert config.throttles == 3
    assert abs(config.cooldown_until - clock.now() - MINUTE) < timedelta(milliseconds=1)


async def test_of_many_at_once_the_longest_wins(storage, another, clock):
    now = await clock.freeze()
    storages = [storage, *[await another() for _ in range(4)]]

    await asyncio.gather(*(cool_down(mine, n * MINUTE, throttles=n) for n, mine in enumerate(storages, 1)))

    config = await queue(storage)
    assert abs(config.cooldown_until - now - 5 * MINUTE) < timedelta(milliseconds=1)
    assert config.throttles == 5
