"""A queue may be paused until a moment, for a reason."""

import asyncio
from datetime import timedelta

import pytest

from forge_jobs.errors import InvalidInput
from tests.storage.ear import Ear
from tests.storage.factories import claim_ids, enqueue, queue, worker

MINUTE = timedelta(minutes=1)


async def pause(storage, clock, name="default", *, minutes=1):
    until = clock.now() + minutes * MINUTE
    return await storage.queues.set(
        name, {"paused": True, "paused_until": until, "pause_reason": "the bank is closed"}
    )


async def test_a_pause_says_until_when_and_why(storage, clock):
    now = await clock.freeze()

    paused = await pause(storage, clock)

    assert (paused.paused, paused.paused_until, paused.pause_reason) == (
        True,
        now + MINUTE,
        "the bank is closed",
    )
    assert await queue(storage) == paused


async def test_a_pause_ends_when_its_time_has_come(storage, clock):
    await clock.freeze()
    me = await worker(storage)
    wanted = await enqueue(storage)
    await pause(storage, clock)

    assert await storage.queues.end_pauses() == ((), MINUTE)
    assert await claim_ids(storage, me) == []

    await clock.advance(seconds=60)
    ended, next_in = await storage.queues.end_pauses()

    assert (list(ended), next_in) == (["default"], None)
    config = await queue(storage)
    assert (config.paused, config.paused_until, config.pause_reason) == (False, None, None)
    assert await claim_ids(storage, me) == [wanted]


async def test_workers_are_told_that_a_pause_has_ended(storage, clock):
    me = await worker(storage)
    await pause(storage, clock)
    before = (await storage.workers.beat(me)).revision
    await clock.advance(minutes=2)

    await storage.queues.end_pauses()

    assert (await storage.workers.beat(me)).revision > before


async def test_an_idle_worker_hears_that_a_pause_has_ended(storage, clock):
    queue_id = (await pause(storage, clock)).id
    await storage.wakeups.mark_idle(await worker(storage), [queue_id])
    await clock.advance(minutes=2)

    async with Ear(storage) as ear:
        await storage.queues.end_pauses()

        await ear.hears("queue", queue_id)


async def test_a_pause_without_an_end_stays(storage, clock):
    await storage.queues.set("default", {"paused": True})
    await clock.advance(days=400)

    assert await storage.queues.end_pauses() == ((), None)
    assert (await queue(storage)).paused


async def test_the_next_end_is_that_of_the_nearest_pause(storage, clock):
    await clock.freeze()
    for number in (3, 1, 2):
        await pause(storage, clock, f"queue-{number}", minutes=number)

    assert await storage.queues.end_pauses() == ((), MINUTE)
    await clock.advance(minutes=2)
    ended, next_in = await storage.queues.end_pauses()
    assert (list(ended), next_in) == (["queue-1", "queue-2"], MINUTE)


async def test_a_pause_that_many_end_at_once_ends_once(storage, another, clock):
    await pause(storage, clock)
    await clock.advance(minutes=2)
    storages = [storage, *[await another() for _ in range(4)]]

    said = await asyncio.gather(*(each.queues.end_pauses() for each in storages))

    assert sorted(list(ended) for ended, _ in said) == [[], [], [], [], ["default"]]


async def test_a_queue_that_is_being_deleted_is_not_resumed(storage, clock):
    config = await pause(storage, clock, "mail")
    await storage.removals.close("mail")
    await clock.advance(minutes=2)

    assert await storage.queues.end_pauses() == ((), None)

    await storage.removals.open(config)
    ended, _ = await storage.queues.end_pauses()
    assert list(ended) == ["mail"]


async def test_a_reason_that_no_line_can_hold_is_refused(storage):
    for reason in ("", "two\nlines", "x" * 501):
        with pytest.raises(InvalidInput, match="pause_reason"):
            await storage.queues.set("default", {"paused": True, "pause_reason": reason})
    assert not (await queue(storage)).paused
